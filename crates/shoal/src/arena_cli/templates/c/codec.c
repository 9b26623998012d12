/* A codec for Matrix Compression. Each call runs in a fresh instance: nothing is kept between calls. */

#include "abi.h"

/* The 15 most frequent high bytes of the bf16s get 4 bits; any other is an escape with its byte after. */
struct answer compress(const uint8_t *data, size_t length, const struct meta *meta) {
    (void)meta;
    size_t count = length / 2;
    uint32_t seen[256] = {0};
    for (size_t i = 0; i < count; i++) seen[data[2 * i + 1]]++;
    uint8_t code[256];
    for (int i = 0; i < 256; i++) code[i] = 15;
    uint8_t *out = allocate(15 + (count + 1) / 2 + 2 * count), *at = out;
    for (uint8_t next = 0; next < 15; next++) {
        int best = -1;
        for (int i = 0; i < 256; i++)
            if (code[i] == 15 && (best < 0 || seen[i] > seen[best])) best = i;
        code[best] = next;
        *at++ = (uint8_t)best;
    }
    for (size_t i = 0; i < count; i += 2) {
        uint8_t second = i + 1 < count ? code[data[2 * i + 3]] : 0;
        *at++ = (uint8_t)(code[data[2 * i + 1]] << 4 | second);
    }
    for (size_t i = 0; i < count; i++)
        if (code[data[2 * i + 1]] == 15) *at++ = data[2 * i + 1];
    for (size_t i = 0; i < count; i++) *at++ = data[2 * i];
    return give(out, (size_t)(at - out));
}

struct answer decompress(const uint8_t *data, size_t length, const struct meta *meta) {
    size_t count = 1;
    for (size_t i = 0; i < meta->dimensions; i++) count *= meta->shape[i];
    size_t codes = (count + 1) / 2;
    if (length < 15 + codes + count) return fail("too short");
    const uint8_t *escapes = data + 15 + codes, *low = data + length - count;
    uint8_t *out = allocate(2 * count);
    for (size_t i = 0; i < count; i++) {
        uint8_t code = data[15 + i / 2] >> (i % 2 ? 0 : 4) & 15;
        if (code == 15 && escapes == low) return fail("too few escapes");
        out[2 * i] = low[i];
        out[2 * i + 1] = code < 15 ? data[code] : *escapes++;
    }
    return give(out, 2 * count);
}
