// y = x W^T + b for few rows x: bound by reading W once, so rows of W stream through while x stays in the cache.
//
// Each sum runs over k from first to last whatever else is computed beside it, so a row's result does not depend on
// the rows beside it.
#include "kernels.h"
#include "vectors.h"
#include <omp.h>

// Of y, so many are summed at a time: the sums and what they need fit into the registers.
#ifdef __AVX512F__
enum { COLUMNS = 6, ROWS = 4 };
#else
enum { COLUMNS = 4, ROWS = 2 };
#endif
enum { ALONE = 8, FEW = 4 };  // places in W from which to read at once: a core reads memory faster from several

// One tile of y: rows of W that are `apart` from each other with adjacent rows of x. Of the rows of W that come next,
// fetch every `passes`-th from the `pass`-th on (none if `passes` is 0).
INLINE void tile(const int columns, const int rows, const int half, const void *w, const float *x, void *y, long apart,
                 long n, long k, const void *bias, int pass, const int passes) {
    const int size = half ? 2 : 4;
    const char *ahead = (const char *)w + columns * k * size;
    floats sums[ALONE][ROWS];
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) sums[i][j] = (floats){0};
    long t = 0;
    for (; t + LANES <= k; t += LANES) {
        floats xs[ROWS];
#pragma GCC unroll 4
        for (int j = 0; j < rows; j++) {
            xs[j] = load(x, 0, j * k + t);
            HELD(xs[j]);
        }
        if (passes && t * size % 64 == 0)  // once a line of the cache
            for (int i = pass; i < columns; i += passes) __builtin_prefetch(ahead + (i * k + t) * size, 0, 2);
#pragma GCC unroll 8
        for (int i = 0; i < columns; i++) {
            floats weights = load(w, half, i * apart * k + t);
            HELD(weights);
#pragma GCC unroll 4
            for (int j = 0; j < rows; j++) sums[i][j] += weights * xs[j];
        }
    }
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) {
            float rest = 0;
            for (long u = t; u < k; u++) rest = __builtin_fmaf(get(w, half, i * apart * k + u), x[j * k + u], rest);
            put(y, half, j * n + i * apart, sum(sums[i][j]) + rest + (bias ? get(bias, half, i * apart) : 0));
        }
}

#ifdef __AVX512BF16__
// The same where x is bf16 too: pairs are multiplied as they are and summed in fp32.
INLINE void tile_of_pairs(const int columns, const int rows, const bf16 *w, const bf16 *x, void *y, long apart, long n,
                          long k, const void *bias, int pass, const int passes) {
    const bf16 *ahead = w + columns * k;
    __m512 sums[ALONE][ROWS];
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) sums[i][j] = _mm512_setzero_ps();
    long t = 0;
    for (; t + 2 * LANES <= k; t += 2 * LANES) {
        __m512bh xs[ROWS];
#pragma GCC unroll 4
        for (int j = 0; j < rows; j++) xs[j] = (__m512bh)_mm512_loadu_si512(x + j * k + t);
        if (passes)
            for (int i = pass; i < columns; i += passes) __builtin_prefetch(ahead + i * k + t, 0, 2);
#pragma GCC unroll 8
        for (int i = 0; i < columns; i++) {
            const __m512bh weights = (__m512bh)_mm512_loadu_si512(w + i * apart * k + t);
#pragma GCC unroll 4
            for (int j = 0; j < rows; j++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], weights, xs[j]);
        }
    }
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) {
            float rest = 0;
            for (long u = t; u < k; u++)
                rest = __builtin_fmaf(from_bf16(w[i * apart * k + u]), from_bf16(x[j * k + u]), rest);
            put(y, 1, j * n + i * apart, sum((floats)sums[i][j]) + rest + (bias ? get(bias, 1, i * apart) : 0));
        }
}
enum { PAIRS = 1 };
#else
enum { PAIRS = 0 };
#endif

typedef struct {
    const char *w, *bias, *x;
    char *y;
    long m, n, k;
} Product;

INLINE void tile_of(const int columns, const int rows, const int half, const char *w, const char *x, char *y, long apart,
                    const Product *p, const char *bias, int pass, const int passes) {
#ifdef __AVX512BF16__
    if (half) {
        tile_of_pairs(columns, rows, (const bf16 *)w, (const bf16 *)x, y, apart, p->n, p->k, bias, pass, passes);
        return;
    }
#endif
    tile(columns, rows, half, w, (const float *)x, y, apart, p->n, p->k, bias, pass, passes);
}

// All rows of x against the i-th row of W and those that follow, `apart` from each other.
INLINE void columns_of(const int columns, const int half, const Product *p, long i, long apart) {
    const int size = half ? 2 : 4, passes = apart == 1 ? (int)((p->m + ROWS - 1) / ROWS) : 0;
    const long row_of_x = p->k * (half && PAIRS ? 2 : 4);
    const char *w = p->w + i * p->k * size, *bias = p->bias ? p->bias + i * size : NULL, *x = p->x;
    char *y = p->y + i * size;
    long m = p->m;
    for (int pass = 0; m >= ROWS; m -= ROWS, x += ROWS * row_of_x, y += ROWS * p->n * size, pass++)
        tile_of(columns, ROWS, half, w, x, y, apart, p, bias, pass, passes);
    if (ROWS == 1) return;
    if (m == 3) tile_of(columns, 3, half, w, x, y, apart, p, bias, passes - 1, passes);
    if (m == 2) tile_of(columns, 2, half, w, x, y, apart, p, bias, passes - 1, passes);
    if (m == 1) tile_of(columns, 1, half, w, x, y, apart, p, bias, passes - 1, passes);
}

INLINE void product(const int half, const Product *p, int threads) {
#pragma omp parallel num_threads(threads)
    {
        const long begin = p->n * omp_get_thread_num() / omp_get_num_threads();
        const long end = p->n * (omp_get_thread_num() + 1) / omp_get_num_threads();
        long i = begin;
        if (p->m == 1) {  // bound by reading W: from the beginnings of equal parts at once
            const long part = (end - begin) / ALONE;
            for (; i < begin + part; i++) columns_of(ALONE, half, p, i, part);
            i = begin + ALONE * part;
        } else if (p->m <= ROWS) {
            const long part = (end - begin) / FEW;
            for (; i < begin + part; i++) columns_of(FEW, half, p, i, part);
            i = begin + FEW * part;
        }
        for (; i + COLUMNS <= end; i += COLUMNS) columns_of(COLUMNS, half, p, i, 1);
        for (; i < end; i++) columns_of(1, half, p, i, 1);
    }
}

EXPORT int product_few(const void *w, const void *bias, const void *x, void *y, int half, long m, long n, long k,
                       int threads) {
    Product p = {w, bias, x, y, m, n, k};
    if (!half || PAIRS) {
        if (half)
            product(1, &p, threads);
        else
            product(0, &p, threads);
        return 1;
    }
    float *wide = scratch(m * k * sizeof(float));
    if (!wide) return 0;
    for (long t = 0; t < m * k; t++) wide[t] = get(x, 1, t);
    p.x = (const char *)wide;
    product(1, &p, threads);
    return 1;
}
