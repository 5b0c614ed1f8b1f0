// y = x W^T + b in bf16, sums in fp32, with AMX: tiles of W, as it lies, times tiles of x^T.
//
// Each sum runs over k from first to last whatever else is computed beside it, so a row's result does not depend on
// the rows beside it.
#include "kernels.h"
#include "vectors.h"

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SIDE = 16,           // rows of a tile, of W or of x
    DEPTH = 32,          // bf16 of a row that a tile holds
    WIDE = 2 * SIDE,     // rows of W, and of x, that are multiplied at a time
    NEAR = 1024 * 1024,  // bytes of x to go through for all of W: what the cache of a core keeps
};

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) Shapes;

EXPORT int has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tiles */) == 0; }

// Sums are in tiles 0 and 1 (the first 16 rows of x) and 2 and 3 (the next ones), W in 4 and 5, x in 6 and 7.
static void configure(long rows_of_x) {
    const long first = rows_of_x < SIDE ? rows_of_x : SIDE, second = rows_of_x - first;
    const long columns[8] = {first, first, second, second, SIDE, SIDE, first, second};
    Shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.rows[i] = columns[i] ? SIDE : 0;
        shapes.bytes[i] = (uint16_t)(columns[i] * 4);
    }
    _tile_loadconfig(&shapes);
}

// Up to 16 rows of x as (k / 2, rows) pairs, the form of a second factor.
static void pack(const uint32_t *x, uint32_t *packed, long rows, long pairs) {
    for (long t = 0; t < pairs; t++)
        for (long j = 0; j < rows; j++) packed[t * rows + j] = x[j * pairs + t];
}

// 16 (`tall` 1) or 32 (2) rows of W times up to 16 (`tiles` 1) or 32 (2) rows of x: tiles of sums, W's first.
// Of the rows of W that come next, fetch every `passes`-th from the `pass`-th on.
INLINE void block_product(const int tall, const int tiles, const bf16 *w, const uint32_t *x, long m, long k, float *sums, int pass,
                          int passes) {
    const long first = m < SIDE ? m : SIDE, second = m - first;
    const uint32_t *next = x + k / 2 * SIDE;
    _tile_zero(0);
    _tile_zero(1);
    if (tiles == 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long t = 0; t < k; t += DEPTH) {
        for (int r = pass; r < tall * SIDE; r += passes) __builtin_prefetch(w + (tall * SIDE + r) * k + t, 0, 2);
        _tile_loadd(4, w + t, k * sizeof(bf16));
        _tile_loadd(6, x + t / 2 * first, first * 4);
        _tile_dpbf16ps(0, 4, 6);
        if (tall == 2) {
            _tile_loadd(5, w + SIDE * k + t, k * sizeof(bf16));
            _tile_dpbf16ps(1, 5, 6);
        }
        if (tiles == 2) {
            _tile_loadd(7, next + t / 2 * second, second * 4);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, SIDE * 4);
    _tile_stored(1, sums + SIDE * SIDE, SIDE * 4);
    if (tiles == 2) {
        _tile_stored(2, sums + 2 * SIDE * SIDE, SIDE * 4);
        _tile_stored(3, sums + 3 * SIDE * SIDE, SIDE * 4);
    }
}

// One row of x: 16 sums, 16 apart, to 16 results.
INLINE void round_to(bf16 *y, const float *sums, const bf16 *bias) {
    const __m512i places =
        _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
    floats found = (floats)_mm512_i32gather_ps(places, sums, 4);
    if (bias) found += load(bias, 1, 0);
    _mm256_storeu_si256((__m256i *)y, (__m256i)_mm512_cvtneps_pbh((__m512)found));
}

// 32 rows of W times all rows of x.
static void columns_of(const bf16 *w, const bf16 *bias, const uint32_t *packed, bf16 *y, long m, long n, long k) {
    float sums[4 * SIDE * SIDE] __attribute__((aligned(64)));
    const int passes = (int)((m + WIDE - 1) / WIDE);
    if (m <= SIDE) {  // a core reads memory faster from 16 places at once than from 32
        configure(m);
        for (int half = 0; half < WIDE; half += SIDE) {
            block_product(1, 1, w + half * k, packed, m, k, sums, 0, 1);
            for (long j = 0; j < m; j++) round_to(y + j * n + half, sums + j, bias ? bias + half : NULL);
        }
        return;
    }
    for (int pass = 0; pass < passes; pass++, m -= WIDE, packed += k / 2 * WIDE, y += WIDE * n) {
        const long rows = m < WIDE ? m : WIDE;
        if (pass == 0 || rows < WIDE) configure(rows);
        if (rows > SIDE)
            block_product(2, 2, w, packed, rows, k, sums, pass, passes);
        else
            block_product(2, 1, w, packed, rows, k, sums, pass, passes);
        for (long j = 0; j < rows; j++) {
            const float *found = sums + j / SIDE * 2 * SIDE * SIDE + j % SIDE;
            round_to(y + j * n, found, bias);
            round_to(y + j * n + SIDE, found + SIDE * SIDE, bias ? bias + SIDE : NULL);
        }
    }
}

static void product(const bf16 *w, const bf16 *bias, const bf16 *x, bf16 *y, long m, long n, long k, int threads,
                    uint32_t *packed) {
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long i = 0; i < m; i += SIDE)
            pack((const uint32_t *)x + i * k / 2, packed + i * k / 2, m - i < SIDE ? m - i : SIDE, k / 2);
#pragma omp for schedule(static)
        for (long block = 0; block < (n + WIDE - 1) / WIDE; block++) {
            const long i = block * WIDE + WIDE <= n ? block * WIDE : n - WIDE;  // the last block may overlap
            columns_of(w + i * k, bias ? bias + i : NULL, packed, y + i, m, n, k);
        }
        _tile_release();
    }
}

EXPORT int product_tiles(const bf16 *w, const bf16 *bias, const bf16 *x, bf16 *y, long m, long n, long k,
                        int threads) {
    const long most = NEAR / (WIDE * k * 2) * WIDE > WIDE ? NEAR / (WIDE * k * 2) * WIDE : WIDE;
    uint32_t *packed = scratch((m < most ? m : most) * k * sizeof(bf16));
    if (!packed) return 0;
    for (; m > 0; m -= most, x += most * k, y += most * n)
        product(w, bias, x, y, m < most ? m : most, n, k, threads, packed);
    return 1;
}
#else

EXPORT int has_tiles(void) { return 0; }
EXPORT int product_tiles(const bf16 *w, const bf16 *bias, const bf16 *x, bf16 *y, long m, long n, long k,
                         int threads) {
    (void)w, (void)bias, (void)x, (void)y, (void)m, (void)n, (void)k, (void)threads;
    return 0;
}

#endif
