/* A native entry that speaks the HTTP contract: GET /health, POST /compress and /decompress with one multipart field.
 * It keeps five of seven bits of each bf16's mantissa, rounded to nearest: 14 bits instead of 16.
 * With -DBROKEN it cannot decompress. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void send_all(int to, const void *bytes, size_t len) {
    const char *at = bytes;
    while (len > 0) {
        ssize_t sent = write(to, at, len);
        if (sent <= 0) return;
        at += sent, len -= (size_t)sent;
    }
}

static void answer(int to, const char *status, const void *body, size_t len) {
    char head[160];
    int head_len = snprintf(head, sizeof head,
        "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
        status, len);
    send_all(to, head, (size_t)head_len);
    send_all(to, body, len);
}

/* 4 bytes of length, then 14 bits for each number. */
static uint8_t *compress(const uint8_t *in, size_t len, size_t *out_len) {
    uint8_t *out = calloc(1, 4 + len + 8);
    uint32_t numbers = (uint32_t)(len / 2);
    memcpy(out, &numbers, 4);
    uint64_t bits = 0;
    int held = 0;
    size_t at = 4;
    for (size_t i = 0; i < numbers; i++) {
        uint32_t value = in[2 * i] | (uint32_t)in[2 * i + 1] << 8;
        uint32_t kept = (value + 2) >> 2;
        if (((kept << 2) & 0x7f80) == 0x7f80) kept -= 1; /* not to infinity */
        bits |= (uint64_t)(kept & 0x3fff) << held;
        for (held += 14; held >= 8; held -= 8, bits >>= 8) out[at++] = (uint8_t)bits;
    }
    if (held > 0) out[at++] = (uint8_t)bits;
    *out_len = at;
    return out;
}

static uint8_t *decompress(const uint8_t *in, size_t len, size_t *out_len) {
    uint32_t numbers = 0;
    if (len >= 4) memcpy(&numbers, in, 4);
    if ((uint64_t)numbers * 14 > (uint64_t)(len - 4) * 8) numbers = 0;
    uint8_t *out = calloc(1, (size_t)numbers * 2 + 1);
    uint64_t bits = 0;
    int held = 0;
    size_t at = 4;
    for (size_t i = 0; i < numbers; i++) {
        for (; held < 14; held += 8) bits |= (uint64_t)in[at++] << held;
        uint32_t value = (uint32_t)(bits & 0x3fff) << 2;
        bits >>= 14, held -= 14;
        out[2 * i] = (uint8_t)value, out[2 * i + 1] = (uint8_t)(value >> 8);
    }
    *out_len = (size_t)numbers * 2;
    return out;
}

static void serve(int from) {
    size_t room = 1 << 16, len = 0, head = 0, want = SIZE_MAX;
    char *bytes = malloc(room + 1);
    while (len < want) {
        if (len == room) bytes = realloc(bytes, (room *= 2) + 1);
        ssize_t got = read(from, bytes + len, room - len);
        if (got <= 0) break;
        len += (size_t)got, bytes[len] = 0;
        char *end = head ? NULL : strstr(bytes, "\r\n\r\n");
        if (end) {
            head = (size_t)(end - bytes) + 4;
            char *length = strcasestr(bytes, "content-length:");
            want = head + (length && length < end ? strtoull(length + 15, NULL, 10) : 0);
        }
    }
    char *data = head && len >= want ? memmem(bytes + head, len - head, "\r\n\r\n", 4) : NULL;
    if (!strncmp(bytes, "GET /health ", 12)) {
        answer(from, "200 OK", "{\"status\":\"healthy\"}", 20);
    } else if (data) {
        data += 4;
        char *end = bytes + len - 4; /* the closing boundary begins at the last line end with two dashes */
        while (end > data && memcmp(end, "\r\n--", 4)) end--;
        size_t out_len = 0;
        int packs = !strncmp(bytes, "POST /compress ", 15);
#ifdef BROKEN
        if (!packs) return answer(from, "500 Internal Server Error", "no", 2);
#endif
        uint8_t *(*work)(const uint8_t *, size_t, size_t *) = packs ? compress : decompress;
        uint8_t *out = work((uint8_t *)data, (size_t)(end - data), &out_len);
        answer(from, "200 OK", out, out_len);
        free(out);
    } else {
        answer(from, "400 Bad Request", "", 0);
    }
    free(bytes);
}

int main(int count, char **words) {
    int port = 8080;
    const char *host = "0.0.0.0";
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(words[i], "--port")) port = atoi(words[i + 1]);
        if (!strcmp(words[i], "--host")) host = words[i + 1];
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) return 1;
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) continue;
        serve(peer);
        close(peer);
    }
}
