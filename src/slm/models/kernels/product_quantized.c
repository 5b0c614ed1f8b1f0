// y = x W^T + b with weights in 8 or 4 bits, in blocks of 32 of a row; x is brought to 8 bits, in halves of these blocks.
//
// With q the codes of x in half a block and s its step, sum w x is
//   in 8 bits, w = code * scale:          scale * s * sum code q
//   in 4 bits, w = code * scale + least:  scale * s * sum code q + least * s * sum q.
//
// Eight outputs lie together: of each block their first four codes, then their next four, and so on. In 4 bits two of
// these eight runs share bytes, the fifth in the upper halves of the first.
#include "kernels.h"
#include "blocks.h"

enum { OUTPUTS = 8, ROWS = 4, RUN = 4 * OUTPUTS, RUNS = BLOCK / 4 };

typedef struct {
    const uint8_t *codes;  // (n / 8, blocks, 8, 8, 4), or in 4 bits (n / 8, blocks, 4, 8, 4)
    const fp16 *scales;    // (n / 8, blocks, 8), or in 4 bits (n / 8, blocks, 2, 8): scales, least values
    const void *bias;
    void *y;
    Rows x;
    long n, blocks;
    int half, threads;
} Product;

INLINE long block_bytes(const int four) { return four ? OUTPUTS * BLOCK / 2 : OUTPUTS * BLOCK; }

// The products of one block of eight outputs with that of each row, of both halves by themselves.
INLINE void dots_of(const int four, const int rows, const uint8_t *codes, const Product *p, long j, long g,
                    codes_of_32 dots[ROWS][2]) {
    const int8_t *x[ROWS];
    for (int b = 0; b < rows; b++) {
        x[b] = p->x.codes + ((j + b) * p->blocks + g) * BLOCK;
        dots[b][0] = dots[b][1] = (codes_of_32){0};
    }
#pragma GCC unroll 4
    for (int run = 0; run < RUNS / 2; run++) {
        const codes_of_32 first = load_codes(codes + run * RUN);
        const codes_of_32 last = four ? upper_halves(first) : load_codes(codes + (run + RUNS / 2) * RUN);
#pragma GCC unroll 4
        for (int b = 0; b < rows; b++) {
            const codes_of_32 own = four_repeated(x[b] + 4 * run), other = four_repeated(x[b] + 4 * run + BLOCK / 2);
            dots[b][0] = four ? with_4_bits(dots[b][0], lower_halves(first), own) : with_8_bits(dots[b][0], first, own);
            dots[b][1] = four ? with_4_bits(dots[b][1], last, other) : with_8_bits(dots[b][1], last, other);
        }
    }
}

INLINE void tile(const int four, const int rows, const Product *p, long i, long j) {
    eights sums[ROWS];
    for (int b = 0; b < rows; b++) sums[b] = (eights){0};
    for (long g = 0; g < p->blocks; g++) {
        const long at = i * p->blocks + g;
        const fp16 *scales = p->scales + at * OUTPUTS * (four ? 2 : 1);
        const eights scale = eight_fp16(scales), least = four ? eight_fp16(scales + OUTPUTS) : (eights){0};
        codes_of_32 dots[ROWS][2];
        dots_of(four, rows, p->codes + at * block_bytes(four), p, j, g, dots);
#pragma GCC unroll 4
        for (int b = 0; b < rows; b++) {
            const long block = (j + b) * p->blocks + g;
            const float *steps = p->x.steps + 2 * block;
            eights product = as_numbers(four ? in_32_bits(dots[b][0]) : dots[b][0]) * steps[0];
            product += as_numbers(four ? in_32_bits(dots[b][1]) : dots[b][1]) * steps[1];
            sums[b] += product * scale;
            if (four) sums[b] += least * p->x.sums[block];
        }
    }
    const long first = i * OUTPUTS, left = p->n - first < OUTPUTS ? p->n - first : OUTPUTS;
    for (int b = 0; b < rows; b++)
        for (long a = 0; a < left; a++) {
            const float bias = p->bias ? get(p->bias, p->half, first + a) : 0;
            put(p->y, p->half, (j + b) * p->n + first + a, sums[b][a] + bias);
        }
}

INLINE int product(const int four, Product p, const void *x, long m, long k) {
    p.x = room_for_rows(m, k);
    p.blocks = blocks_of(k);
    if (!p.x.codes) return 0;
#pragma omp parallel num_threads(p.threads)
    {
#pragma omp for schedule(static)
        for (long j = 0; j < m; j++) row_in_blocks(x, p.half, j, k, &p.x);
#pragma omp for schedule(static)
        for (long i = 0; i < (p.n + OUTPUTS - 1) / OUTPUTS; i++) {
            long j = 0;
            for (; j + ROWS <= m; j += ROWS) tile(four, ROWS, &p, i, j);
            for (; j < m; j++) tile(four, 1, &p, i, j);
        }
    }
    return 1;
}

EXPORT int product_int8(const void *codes, const fp16 *scales, const void *bias, const void *x, void *y, int half,
                        long m, long n, long k, int threads) {
    const Product p = {.codes = codes, .scales = scales, .bias = bias, .y = y, .n = n, .half = half, .threads = threads};
    return product(0, p, x, m, k);
}

EXPORT int product_int4(const void *codes, const fp16 *scales, const void *bias, const void *x, void *y, int half,
                        long m, long n, long k, int threads) {
    const Product p = {.codes = codes, .scales = scales, .bias = bias, .y = y, .n = n, .half = half, .threads = threads};
    return product(1, p, x, m, k);
}

// The code of input t of a block of eight outputs, of which this is the a-th.
INLINE int code_at(const int four, const uint8_t *codes, long t, long a) {
    const long run = t / 4, place = 4 * a + t % 4;
    if (!four) return (int8_t)codes[run * RUN + place];
    const uint8_t pair = codes[run % (RUNS / 2) * RUN + place];
    return run < RUNS / 2 ? pair & 15 : pair >> 4;
}

INLINE int widen(const int four, const uint8_t *codes, const fp16 *scales, void *w, int half, long n, long k, int threads) {
    const long blocks = blocks_of(k);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < n; i++)
        for (long g = 0; g < blocks; g++) {
            const long at = i / OUTPUTS * blocks + g, a = i % OUTPUTS, left = k - g * BLOCK < BLOCK ? k - g * BLOCK : BLOCK;
            const fp16 *own = scales + at * OUTPUTS * (four ? 2 : 1);
            const float scale = eight_fp16(own)[a], least = four ? eight_fp16(own + OUTPUTS)[a] : 0;
            for (long t = 0; t < left; t++) {
                const float code = code_at(four, codes + at * block_bytes(four), t, a);
                put(w, half, i * k + g * BLOCK + t, __builtin_fmaf(code, scale, least));
            }
        }
    return 1;
}

// For products of many rows: x (m, k) as the products above read it, and the weights themselves (n, k), fp32 or (`half`)
// bf16.
EXPORT int rounded_rows(const void *x, void *y, int half, long m, long k, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long j = 0; j < m; j++)
        for (long start = 0; start < k; start += HALF) {
            int8_t codes[HALF];
            float step;
            half_of_row(x, half, j, k, start, codes, &step);
            for (long t = 0; t < HALF && start + t < k; t++) put(y, half, j * k + start + t, step * codes[t]);
        }
    return 1;
}

EXPORT int widen_int8(const void *codes, const fp16 *scales, void *w, int half, long n, long k, int threads) {
    return widen(0, codes, scales, w, half, n, k, threads);
}

EXPORT int widen_int4(const void *codes, const fp16 *scales, void *w, int half, long n, long k, int threads) {
    return widen(1, codes, scales, w, half, n, k, threads);
}
