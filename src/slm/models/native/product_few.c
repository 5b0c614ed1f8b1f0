// y = x W^T + b for few rows x: bound by reading W once, so rows of W stream through while x stays in the cache.
//
// Each sum runs over k from first to last whatever else is computed beside it, so a row's result does not depend on
// the rows beside it.
#include "kernels.h"
#include "vectors.h"
#include <omp.h>

// bf16 rows are multiplied as they are where the processor has the instruction for it, else as fp32.
#ifdef __AVX512BF16__
enum { DOTS = 1 };
#else
enum { DOTS = 0 };
#endif

// Of y, so many are summed at a time: the sums and what they need fit into the registers.
#ifdef __AVX512F__
enum { COLUMNS = 6, ROWS = 4 };
#else
enum { COLUMNS = 3, ROWS = 1 };
#endif
enum { ALONE = 8, FEW = 4 };  // places in W from which to read at once: a core reads memory faster from several

// 16 numbers as fp32, or (`dots`) 32 of bf16 as they lie.
INLINE floats taken(const int dots, const void *p, int half, long i) {
    return dots ? *(const floats *)((const bf16 *)p + i) : load(p, half, i);
}

// 16 sums each take a product of fp32, or (`dots`) of two pairs of bf16.
INLINE floats added(const int dots, floats sums, floats w, floats x) {
#ifdef __AVX512BF16__
    if (dots) return (floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)x);
#endif
    return sums + w * x;
}

// One tile of y: rows of W that are `apart` from each other with adjacent rows of x. Of the rows of W that come next,
// fetch every `passes`-th from the `pass`-th on (none if `passes` is 0).
INLINE void tile(const int columns, const int rows, const int half, const void *w, const void *x, void *y, long apart,
                 long n, long k, const void *bias, int pass, const int passes) {
    const int size = half ? 2 : 4, dots = half && DOTS, depth = dots ? 2 * LANES : LANES;
    const char *ahead = (const char *)w + columns * k * size;
    floats sums[ALONE][ROWS];
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) sums[i][j] = (floats){0};
    long t = 0;
    for (; t + depth <= k; t += depth) {
        floats xs[ROWS];
#pragma GCC unroll 4
        for (int j = 0; j < rows; j++) xs[j] = taken(dots, x, 0, j * k + t);
        if (passes && (!half || t % (2 * LANES) == 0))
            for (int i = pass; i < columns; i += passes) __builtin_prefetch(ahead + (i * k + t) * size, 0, 2);
#pragma GCC unroll 8
        for (int i = 0; i < columns; i++) {
            const floats weights = taken(dots, w, half, i * apart * k + t);
#pragma GCC unroll 4
            for (int j = 0; j < rows; j++) sums[i][j] = added(dots, sums[i][j], weights, xs[j]);
        }
    }
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) {
            float rest = 0;
            for (long u = t; u < k; u++)
                rest = __builtin_fmaf(get(w, half, i * apart * k + u), get(x, dots, j * k + u), rest);
            put(y, half, j * n + i * apart, sum(sums[i][j]) + rest + (bias ? get(bias, half, i * apart) : 0));
        }
}

typedef struct {
    const char *w, *bias, *x;
    char *y;
    long m, n, k;
} Product;

// All rows of x against the i-th row of W and those that follow, `apart` from each other.
INLINE void columns_of(const int columns, const int half, const Product *p, long i, long apart) {
    const int size = half ? 2 : 4, size_of_x = half && DOTS ? 2 : 4, passes = apart == 1 ? (int)((p->m + ROWS - 1) / ROWS) : 0;
    const char *w = p->w + i * p->k * size, *bias = p->bias ? p->bias + i * size : NULL;
    const char *x = p->x;
    char *y = p->y + i * size;
    long m = p->m;
    for (int pass = 0; m >= ROWS; m -= ROWS, x += ROWS * p->k * size_of_x, y += ROWS * p->n * size, pass++)
        tile(columns, ROWS, half, w, x, y, apart, p->n, p->k, bias, pass, passes);
    if (ROWS == 1) return;
    if (m == 3) tile(columns, 3, half, w, x, y, apart, p->n, p->k, bias, passes - 1, passes);
    if (m == 2) tile(columns, 2, half, w, x, y, apart, p->n, p->k, bias, passes - 1, passes);
    if (m == 1) tile(columns, 1, half, w, x, y, apart, p->n, p->k, bias, passes - 1, passes);
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
    if (!half) {
        product(0, &p, threads);
        return 1;
    }
    if (DOTS) {
        product(1, &p, threads);
        return 1;
    }
    float *wide = scratch(m * k * sizeof(float));
    if (!wide) return 0;
    for (long t = 0; t < m * k; t++) wide[t] = get(x, 1, t);
    p.x = (const char *)wide;
    product(1, &p, threads);
    return 1;
}
