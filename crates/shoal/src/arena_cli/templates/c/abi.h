/* How the sandbox calls compress and decompress: the world shoal:codec of the component model, by hand.
   Nothing here has to change. There is no C library: allocate() is all there is, and nothing is ever freed, since an
   instance ends with its call. */

#ifndef ABI_H
#define ABI_H

#include <stddef.h>
#include <stdint.h>

struct meta {
    const uint32_t *shape; /* elements along each dimension, the last one varies fastest; elements are bf16 */
    size_t dimensions;
    uint32_t direction; /* 0: activations, 1: gradients */
};

struct answer {
    uint32_t is_error;
    const uint8_t *data;
    size_t length;
};

extern uint8_t __heap_base;
static uint8_t *heap = &__heap_base;

static void *allocate(size_t size) {
    uint8_t *at = (uint8_t *)(((uintptr_t)heap + 15) & ~(uintptr_t)15);
    size_t end = (size_t)at + size, pages = __builtin_wasm_memory_size(0);
    if (end > pages * 65536) __builtin_wasm_memory_grow(0, (end - pages * 65536 + 65535) / 65536);
    heap = (uint8_t *)end;
    return at;
}

static struct answer give(const uint8_t *data, size_t length) {
    return (struct answer){0, data, length};
}

static struct answer fail(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return (struct answer){1, (const uint8_t *)text, length};
}

struct answer compress(const uint8_t *data, size_t length, const struct meta *meta);
struct answer decompress(const uint8_t *data, size_t length, const struct meta *meta);

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)align;
    uint8_t *at = allocate(size);
    for (size_t i = 0; i < old_size; i++) at[i] = ((uint8_t *)old)[i];
    return at;
}

#define EXPORT(function)                                                                                             \
    __attribute__((export_name("shoal:codec/coder@0.1.0#" #function))) const struct answer *export_##function(      \
        const uint8_t *data, size_t length, uint32_t dtype, const uint32_t *shape, size_t dimensions,                \
        uint32_t direction) {                                                                                        \
        (void)dtype;                                                                                                 \
        static struct answer answer;                                                                                 \
        struct meta meta = {shape, dimensions, direction};                                                           \
        answer = function(data, length, &meta);                                                                      \
        return &answer;                                                                                              \
    }

EXPORT(compress)
EXPORT(decompress)

#endif
