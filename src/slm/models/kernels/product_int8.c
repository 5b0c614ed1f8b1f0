// y = x W^T + b with 8-bit weights, a scale each row of W; x is brought to 8 bits, the sums are exact integers.
#include "kernels.h"
#include "quantized_rows.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include <immintrin.h>

enum { COLUMNS = 4, ROWS = 4, DEPTH = 64 };

EXPORT int has_int8(void) { return 1; }

typedef struct {
    const int8_t *codes;
    const float *scale;
    const int32_t *totals;  // of each row of W: x is stored with 128 added, which they take away again
    const void *bias;
    void *y;
    const uint8_t *x;
    const float *steps;
    long n, k;
    int half;
} Product;

INLINE void tile(const int columns, const int rows, const Product *p, long i, long j, int pass, int passes) {
    __m512i sums[COLUMNS][ROWS];
    for (int a = 0; a < columns; a++)
        for (int b = 0; b < rows; b++) sums[a][b] = _mm512_setzero_si512();
    const int8_t *w = p->codes + i * p->k;
    const uint8_t *x = p->x + j * p->k;
    for (long t = 0; t < p->k; t += DEPTH) {
        const __mmask64 there = p->k - t >= DEPTH ? ~0ULL : (1ULL << (p->k - t)) - 1;
        __m512i xs[ROWS];
#pragma GCC unroll 4
        for (int b = 0; b < rows; b++) xs[b] = _mm512_maskz_loadu_epi8(there, x + b * p->k + t);
        for (int a = pass; a < columns; a += passes) __builtin_prefetch(w + (columns + a) * p->k + t, 0, 2);
#pragma GCC unroll 4
        for (int a = 0; a < columns; a++) {
            const __m512i weights = _mm512_maskz_loadu_epi8(there, w + a * p->k + t);
#pragma GCC unroll 4
            for (int b = 0; b < rows; b++) sums[a][b] = _mm512_dpbusd_epi32(sums[a][b], xs[b], weights);
        }
    }
    for (int a = 0; a < columns; a++)
        for (int b = 0; b < rows; b++) {
            const float product = (float)(_mm512_reduce_add_epi32(sums[a][b]) - 128 * p->totals[i + a]);
            const float bias = p->bias ? get(p->bias, p->half, i + a) : 0;
            const float scale = p->scale[i + a] * p->steps[j + b];
            put(p->y, p->half, (j + b) * p->n + i + a, __builtin_fmaf(product, scale, bias));
        }
}

INLINE void columns_of(const int columns, const Product *p, long i, long m) {
    const int passes = (int)((m + ROWS - 1) / ROWS);
    long j = 0;
    int pass = 0;
    for (; j + ROWS <= m; j += ROWS, pass++) tile(columns, ROWS, p, i, j, pass, passes);
    if (m - j == 3) tile(columns, 3, p, i, j, pass, passes);
    if (m - j == 2) tile(columns, 2, p, i, j, pass, passes);
    if (m - j == 1) tile(columns, 1, p, i, j, pass, passes);
}

EXPORT int product_int8(const int8_t *codes, const float *scale, const int32_t *totals, const void *bias,
                        const void *x, void *y, int half, long m, long n, long k, int threads) {
    float *steps = scratch((size_t)m * (sizeof(float) + k * (sizeof(float) + 1)) + 64);
    if (!steps) return 0;
    float *rows = steps + m;
    uint8_t *bytes = (uint8_t *)(rows + m * k);
    const Product p = {codes, scale, totals, bias, y, bytes, steps, n, k, half};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long j = 0; j < m; j++) {
            float *row = rows + j * k;
            steps[j] = widened((const char *)x + j * k * (half ? 2 : 4), half, k, row);
            const float steps_per_unit = 1 / steps[j];
            for (long t = 0; t < k; t++) bytes[j * k + t] = (uint8_t)code_of(row[t], steps_per_unit) ^ 0x80;
        }
#pragma omp for schedule(static)
        for (long block = 0; block < (n + COLUMNS - 1) / COLUMNS; block++) {
            long i = block * COLUMNS;
            if (i + COLUMNS <= n)
                columns_of(COLUMNS, &p, i, m);
            else
                for (; i < n; i++) columns_of(1, &p, i, m);
        }
    }
    return 1;
}
#else

EXPORT int has_int8(void) { return 0; }
EXPORT int product_int8(const int8_t *codes, const float *scale, const int32_t *totals, const void *bias,
                        const void *x, void *y, int half, long m, long n, long k, int threads) {
    (void)codes, (void)scale, (void)totals, (void)bias, (void)x, (void)y, (void)half, (void)m, (void)n, (void)k;
    (void)threads;
    return 0;
}

#endif
