// What the source files here call of each other. 0 where memory is lacking, else 1.
//
// Products: y = x W^T + b, x (m, k), W (n, k), b (n) or NULL, y (m, n).
#pragma once
#include <stdint.h>

// x, W, b, y fp32 or (`half`) bf16.
int product_few(const void *w, const void *bias, const void *x, void *y, int half, long m, long n, long k, int threads);
// The same for bf16, k a multiple of 32, n at least 32; only where `has_tiles`.
int has_tiles(void);
int product_tiles(const uint16_t *w, const uint16_t *bias, const uint16_t *x, uint16_t *y, long m, long n, long k,
                  int threads);
// Weights in blocks of 32 inputs, in the order that product_quantized.c says; x, b, y fp32 or (`half`) bf16.
int product_int8(const void *codes, const uint16_t *scales, const void *bias, const void *x, void *y, int half,
                 long m, long n, long k, int threads);
int product_int4(const void *codes, const uint16_t *scales, const void *bias, const void *x, void *y, int half,
                 long m, long n, long k, int threads);

typedef struct {
    const void *q, *k, *v;        // (rows, heads, dim) each, of the new token
    long row;                     // numbers from one row of q, k or v to the next; heads follow each other
    void *keys, *values;          // (rows, kv heads, room, dim)
    long cache_row, cache_head;   // numbers from one to the next
    const int64_t *lengths;       // (rows) how many positions each row has filled; its new token's place
    void *out;                    // (rows, heads * dim)
    long rows, heads, kv_heads, dim;
    long window;                  // positions that a query sees, its own among them; 0 for all
    int half, threads;            // bf16 instead of fp32
} Attention;

// dim a multiple of 16.
int attend(const Attention *a);

typedef struct {
    const void *q, *k, *v;                // (rows, heads or kv heads, length or keys_length, dim)
    long q_row, q_head, q_position;       // numbers from one to the next
    long kv_row, kv_head, kv_position;    // the same of k and of v
    void *out;                            // (rows, length, heads * dim)
    long rows, heads, kv_heads, dim;      // dim a multiple of 16
    long length, keys_length;             // queries, which are the last of the keys' positions
    long window;                          // positions that a query sees, its own among them; 0 for all before it
    int half, threads;                    // bf16 instead of fp32
} Prompt;

typedef struct {
    const void *x, *up;       // (n), n a multiple of 16; `up` NULL where the result has no second factor
    void *y;                  // (n) activation(x), or activation(x) * up; may be `x`, where there is no gradient
    void *grad, *grad_up;     // (n) of y, and then of x; of up. NULL on the way forward
    long n;
    int kind, half, threads;  // of the non-linearity; bf16 instead of fp32
} Activation;

void activate(const Activation *a);
