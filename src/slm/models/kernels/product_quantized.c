// y = x W^T + b with weights in 8 or 4 bits, in blocks of 32 of a row; x is brought to 8 bits in the same blocks.
//
// With q the codes of x in a block and s its step, sum w x is
//   in 8 bits, w = code * scale:          scale * s * sum code q
//   in 4 bits, w = code * scale + least:  scale * s * sum code q + least * s * sum q.
#include "kernels.h"
#include "blocks.h"

enum { COLUMNS = 4, ROWS = 4 };

typedef struct {
    const void *codes;
    const bf16 *scales;
    const void *bias;
    void *y;
    Rows x;
    long n, blocks;
    int half, threads;
} Product;

INLINE void tile(const int four, const int columns, const int rows, const Product *p, long i, long j) {
    eights sums[COLUMNS][ROWS];
    float shifts[COLUMNS][ROWS];
    for (int a = 0; a < columns; a++)
        for (int b = 0; b < rows; b++) sums[a][b] = (eights){0}, shifts[a][b] = 0;
    for (long g = 0; g < p->blocks; g++)
#pragma GCC unroll 4
        for (int a = 0; a < columns; a++) {
            const long at = (i + a) * p->blocks + g;
            const codes_of_32 w = four ? load_half_codes((const uint8_t *)p->codes + at * BLOCK / 2)
                                       : load_codes((const int8_t *)p->codes + at * BLOCK);
            const float scale = from_bf16(p->scales[four ? 2 * at : at]);
            const float least = four ? from_bf16(p->scales[2 * at + 1]) : 0;
#pragma GCC unroll 4
            for (int b = 0; b < rows; b++) {
                const long block = (j + b) * p->blocks + g;
                const codes_of_32 x = load_codes(p->x.codes + block * BLOCK);
                const whole_eights dots = four ? dot_unsigned(w, x) : dot_signed(w, x);
                sums[a][b] += __builtin_convertvector(dots, eights) * (scale * p->x.steps[block]);
                if (four) shifts[a][b] = __builtin_fmaf(least, p->x.sums[block], shifts[a][b]);
            }
        }
    for (int a = 0; a < columns; a++)
        for (int b = 0; b < rows; b++) {
            const float bias = p->bias ? get(p->bias, p->half, i + a) : 0;
            put(p->y, p->half, (j + b) * p->n + i + a, sum_of_eight(sums[a][b]) + shifts[a][b] + bias);
        }
}

INLINE void column(const int four, const Product *p, long i, long m) {
    long j = 0;
    for (; j + ROWS <= m; j += ROWS) tile(four, 1, ROWS, p, i, j);
    for (; j < m; j++) tile(four, 1, 1, p, i, j);
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
        for (long some = 0; some < (p.n + COLUMNS - 1) / COLUMNS; some++) {
            const long i = some * COLUMNS, end = i + COLUMNS < p.n ? i + COLUMNS : p.n;
            if (m == 1 && i + COLUMNS <= p.n)
                tile(four, COLUMNS, 1, &p, i, 0);
            else
                for (long one = i; one < end; one++) column(four, &p, one, m);
        }
    }
    return 1;
}

EXPORT int product_int8(const int8_t *codes, const bf16 *scales, const void *bias, const void *x, void *y, int half,
                        long m, long n, long k, int threads) {
    const Product p = {.codes = codes, .scales = scales, .bias = bias, .y = y, .n = n, .half = half, .threads = threads};
    return product(0, p, x, m, k);
}

EXPORT int product_int4(const uint8_t *codes, const bf16 *scales, const void *bias, const void *x, void *y, int half,
                        long m, long n, long k, int threads) {
    const Product p = {.codes = codes, .scales = scales, .bias = bias, .y = y, .n = n, .half = half, .threads = threads};
    return product(1, p, x, m, k);
}

// The weights themselves, (n, k) fp32 or (`half`) bf16, for products of many rows.
EXPORT int widen_int8(const int8_t *codes, const bf16 *scales, void *w, int half, long n, long k, int threads) {
    const long blocks = blocks_of(k);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < n; i++)
        for (long g = 0; g < blocks; g++) {
            const float scale = from_bf16(scales[i * blocks + g]);
            const int8_t *block = codes + (i * blocks + g) * BLOCK;
            const long left = k - g * BLOCK < BLOCK ? k - g * BLOCK : BLOCK;
            for (long t = 0; t < left; t++) put(w, half, i * k + g * BLOCK + t, scale * block[t]);
        }
    return 1;
}

EXPORT int widen_int4(const uint8_t *codes, const bf16 *scales, void *w, int half, long n, long k, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < n; i++)
        for (long at = i * (k / BLOCK); at < (i + 1) * (k / BLOCK); at++) {
            const float scale = from_bf16(scales[2 * at]), least = from_bf16(scales[2 * at + 1]);
            for (int t = 0; t < BLOCK; t++) {
                const uint8_t pair = codes[at * BLOCK / 2 + t % (BLOCK / 2)];
                const float code = t < BLOCK / 2 ? pair & 15 : pair >> 4;
                put(w, half, at * BLOCK + t, __builtin_fmaf(code, scale, least));
            }
        }
    return 1;
}
