// y = x W^T + b with 4-bit weights, each group of 64 of a row with a scale and an offset; x is brought to 8 bits.
//
// A weight is (code - 8) * scale + offset, so over a group g, with q the codes of x and its step s:
//   sum w x = s * (scale_g * sum code q + (offset_g - 8 scale_g) * sum q).
#include "kernels.h"
#include "quantized_rows.h"

enum { GROUP = 64 };

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

enum { COLUMNS = 4, ROWS = 4 };

EXPORT int has_int4(void) { return 1; }

typedef struct {
    const uint8_t *codes;
    const uint32_t *scales;
    const void *bias;
    void *y;
    const int8_t *x;
    const float *steps, *sums;  // of each row of x; of each of its groups
    long n, k;
    int half;
} Product;

// Two codes a byte: the first 32 of these 64 are the group's weights 0, 2, 4, …, the others 1, 3, 5, …
INLINE __m512i unpacked(const uint8_t *codes) {
    const __m256i low = _mm256_set1_epi8(15), pairs = _mm256_loadu_si256((const __m256i *)codes);
    const __m256i even = _mm256_and_si256(pairs, low), odd = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), low);
    return _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1);
}

INLINE void tile(const int rows, const Product *p, long i, long j, int pass, int passes) {
    const long groups = p->k / GROUP, bytes = p->k / 2;
    __m512 products[COLUMNS][ROWS];
    __m128 shifts[ROWS];
    for (int b = 0; b < rows; b++) {
        shifts[b] = _mm_setzero_ps();
        for (int a = 0; a < COLUMNS; a++) products[a][b] = _mm512_setzero_ps();
    }
    for (long g = 0; g < groups; g++) {
        const uint8_t *w = p->codes + i * bytes + g * (GROUP / 2);
        const __m128i pairs = _mm_loadu_si128((const __m128i *)(p->scales + g * p->n + i));
        const __m128 scale = _mm_castsi128_ps(_mm_slli_epi32(pairs, 16));
        const __m128 offset = _mm_castsi128_ps(_mm_and_si128(pairs, _mm_set1_epi32((int)0xffff0000)));
        const __m128 shift = _mm_fnmadd_ps(_mm_set1_ps(8), scale, offset);
        __m512i xs[ROWS];
#pragma GCC unroll 4
        for (int b = 0; b < rows; b++) {
            xs[b] = _mm512_loadu_si512(p->x + (j + b) * p->k + g * GROUP);
            shifts[b] = _mm_fmadd_ps(shift, _mm_set1_ps(p->sums[(j + b) * groups + g]), shifts[b]);
        }
        if (g % 2 == 0)  // two groups share a line
            for (int a = pass; a < COLUMNS; a += passes) __builtin_prefetch(w + (COLUMNS + a) * bytes, 0, 2);
        if (i % LANES == 0) __builtin_prefetch(p->scales + g * p->n + i + LANES, 0, 2);
#pragma GCC unroll 4
        for (int a = 0; a < COLUMNS; a++) {
            const __m512i weights = unpacked(w + a * bytes);
            const __m512 by = _mm512_permutexvar_ps(_mm512_set1_epi32(a), _mm512_castps128_ps512(scale));
#pragma GCC unroll 4
            for (int b = 0; b < rows; b++) {
                const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, xs[b]);
                products[a][b] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), by, products[a][b]);
            }
        }
    }
    for (int b = 0; b < rows; b++)
        for (int a = 0; a < COLUMNS; a++) {
            const float bias = p->bias ? get(p->bias, p->half, i + a) : 0;
            const float product = sum((floats)products[a][b]) + shifts[b][a];
            put(p->y, p->half, (j + b) * p->n + i + a, __builtin_fmaf(product, p->steps[j + b], bias));
        }
}

static void columns_of(const Product *p, long i, long m) {
    const int passes = (int)((m + ROWS - 1) / ROWS);
    long j = 0;
    int pass = 0;
    for (; j + ROWS <= m; j += ROWS, pass++) tile(ROWS, p, i, j, pass, passes);
    if (m - j == 3) tile(3, p, i, j, pass, passes);
    if (m - j == 2) tile(2, p, i, j, pass, passes);
    if (m - j == 1) tile(1, p, i, j, pass, passes);
}

// A row of x as codes, evens ahead of odds in each group, as `unpacked` gives the weights.
static void quantize(const float *row, float step, int8_t *codes, float *sums, long k) {
    const float steps_per_unit = 1 / step;
    for (long g = 0; g < k / GROUP; g++, row += GROUP, codes += GROUP) {
        int total = 0;
        for (int t = 0; t < GROUP / 2; t++) {
            codes[t] = code_of(row[2 * t], steps_per_unit);
            codes[GROUP / 2 + t] = code_of(row[2 * t + 1], steps_per_unit);
            total += codes[t] + codes[GROUP / 2 + t];
        }
        sums[g] = (float)total;
    }
}

// k a multiple of 64, n of 4.
EXPORT int product_int4(const uint8_t *codes, const uint32_t *scales, const void *bias, const void *x, void *y,
                        int half, long m, long n, long k, int threads) {
    const long groups = k / GROUP;
    float *steps = scratch((size_t)m * (sizeof(float) * (1 + groups + k) + k) + 64);
    if (!steps) return 0;
    float *sums = steps + m, *rows = sums + m * groups;
    int8_t *bytes = (int8_t *)(rows + m * k);
    const Product p = {codes, scales, bias, y, bytes, steps, sums, n, k, half};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long j = 0; j < m; j++) {
            steps[j] = widened((const char *)x + j * k * (half ? 2 : 4), half, k, rows + j * k);
            quantize(rows + j * k, steps[j], bytes + j * k, sums + j * groups, k);
        }
#pragma omp for schedule(static)
        for (long i = 0; i < n; i += COLUMNS) columns_of(&p, i, m);
    }
    return 1;
}
#else

EXPORT int has_int4(void) { return 0; }
EXPORT int product_int4(const uint8_t *codes, const uint32_t *scales, const void *bias, const void *x, void *y,
                        int half, long m, long n, long k, int threads) {
    (void)codes, (void)scales, (void)bias, (void)x, (void)y, (void)half, (void)m, (void)n, (void)k, (void)threads;
    return 0;
}

#endif

// The weights themselves, (n, k) bf16, for products of many rows.
EXPORT int widen_int4(const uint8_t *codes, const uint32_t *scales, bf16 *w, long n, long k, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < n; i++)
        for (long g = 0; g < k / GROUP; g++) {
            const float scale = from_bf16((bf16)scales[g * n + i]), offset = from_bf16((bf16)(scales[g * n + i] >> 16));
            const uint8_t *pairs = codes + (i * k + g * GROUP) / 2;
            bf16 *out = w + i * k + g * GROUP;
            for (int t = 0; t < GROUP / 2; t++) {
                out[2 * t] = to_bf16((float)((pairs[t] & 15) - 8) * scale + offset);
                out[2 * t + 1] = to_bf16((float)((pairs[t] >> 4) - 8) * scale + offset);
            }
        }
    return 1;
}
