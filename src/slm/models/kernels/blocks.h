// Quantized weights meet activations in blocks of 32 inputs: small integers with a step for each block, of activations
// for each half of one, so that a large number coarsens its 15 neighbours alone.
#pragma once
#include "vectors.h"
#include <math.h>

enum { BLOCK = 32, HALF = BLOCK / 2 };

typedef float eights __attribute__((vector_size(32), aligned(4)));
typedef int32_t whole_eights __attribute__((vector_size(32), aligned(4)));
typedef uint32_t word_eights __attribute__((vector_size(32), aligned(4)));
typedef uint16_t half_eights __attribute__((vector_size(16), aligned(2)));

// 32 codes of weights are four of each of eight outputs, and meet the same four of a row of x.
#ifdef __AVX2__
#include <immintrin.h>

typedef __m256i codes_of_32;

INLINE codes_of_32 load_codes(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE codes_of_32 four_repeated(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE codes_of_32 lower_halves(codes_of_32 pairs) { return _mm256_and_si256(pairs, _mm256_set1_epi8(15)); }
INLINE codes_of_32 upper_halves(codes_of_32 pairs) { return lower_halves(_mm256_srli_epi16(pairs, 4)); }

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define DOTS(sums, w, x) _mm256_dpbusd_epi32(sums, w, x)
#elif defined(__AVXVNNI__)
#define DOTS(sums, w, x) _mm256_dpbusd_avx_epi32(sums, w, x)
#endif

// sums + w x for w -127 .. 127.
INLINE codes_of_32 with_8_bits(codes_of_32 sums, codes_of_32 w, codes_of_32 x) {
    const codes_of_32 size = _mm256_abs_epi8(w), turned = _mm256_sign_epi8(x, w);
#ifdef DOTS
    return DOTS(sums, size, turned);
#else
    const __m256i pairs = _mm256_maddubs_epi16(size, turned);  // at most 2 * 127 * 127
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

// The same for w 0 .. 15; of at most eight, sums fit into 16 bits, and are brought to 32 by `in_32_bits`.
INLINE codes_of_32 with_4_bits(codes_of_32 sums, codes_of_32 w, codes_of_32 x) {
#ifdef DOTS
    return DOTS(sums, w, x);
#else
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x));
#endif
}

INLINE codes_of_32 in_32_bits(codes_of_32 sums) {
#ifdef DOTS
    return sums;
#else
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
#endif
}

#else

typedef int8_t codes_of_32 __attribute__((vector_size(32), aligned(1)));

INLINE codes_of_32 load_codes(const void *p) { return *(const codes_of_32 *)p; }

INLINE codes_of_32 four_repeated(const int8_t *p) {
    codes_of_32 codes;
    for (int t = 0; t < 32; t++) codes[t] = p[t % 4];
    return codes;
}

INLINE codes_of_32 lower_halves(codes_of_32 pairs) { return pairs & 15; }
INLINE codes_of_32 upper_halves(codes_of_32 pairs) { return (pairs >> 4) & 15; }

INLINE codes_of_32 with_8_bits(codes_of_32 sums, codes_of_32 w, codes_of_32 x) {
    whole_eights found = (whole_eights)sums;
    for (int t = 0; t < 32; t++) found[t / 4] += w[t] * x[t];
    return (codes_of_32)found;
}

INLINE codes_of_32 with_4_bits(codes_of_32 sums, codes_of_32 w, codes_of_32 x) { return with_8_bits(sums, w, x); }
INLINE codes_of_32 in_32_bits(codes_of_32 sums) { return sums; }

#endif

INLINE eights as_numbers(codes_of_32 sums) { return __builtin_convertvector((whole_eights)sums, eights); }

typedef uint16_t fp16;

// Eight fp16 numbers; none is infinite.
INLINE eights eight_fp16(const fp16 *p) {
#ifdef __F16C__
    return (eights)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    half_eights bits;
    memcpy(&bits, p, sizeof bits);
    const word_eights all = __builtin_convertvector(bits, word_eights);
    const eights size = (eights)((all & 0x7fff) << 13) * 0x1p112f;  // the exponents' biases differ by 112
    return (eights)((word_eights)size | (all & 0x8000) << 16);
#endif
}

INLINE long blocks_of(long k) { return (k + BLOCK - 1) / BLOCK; }

// Rows of activations in blocks; the last block of a row is filled up with zeros.
typedef struct {
    int8_t *codes;  // (rows, blocks, 32): round(x / step), -127 .. 127
    float *steps;   // (rows, blocks, 2), of each half: max |x| / 127, nan if there is one in it
    float *sums;    // (rows, blocks): of step * code
} Rows;

// Room for `m` rows of `k`, in the calling thread's scratch; codes are NULL where there is none.
INLINE Rows room_for_rows(long m, long k) {
    const size_t blocks = (size_t)m * blocks_of(k);
    float *steps = scratch(blocks * (3 * sizeof(float) + BLOCK));
    if (!steps) return (Rows){0};
    return (Rows){(int8_t *)(steps + 3 * blocks), steps, steps + 2 * blocks};
}

// Half a block of numbers as codes; the sum of what these stand for.
INLINE float in_8_bits(const float x[HALF], int8_t *codes, float *step) {
    float peak = 1e-12f;
    int nan = 0, total = 0;
    for (int t = 0; t < HALF; t++) {
        const float size = x[t] < 0 ? -x[t] : x[t];
        peak = size > peak ? size : peak;
        nan |= x[t] != x[t];
    }
    const float by = nan ? 0 : 127 / peak;
    for (int t = 0; t < HALF; t++) {
        // cut, it is rounded, half a step upwards; the number lies above 0, where cutting goes down
        codes[t] = (int8_t)((int)__builtin_fmaf(x[t], by, 128.5f) - 128);
        total += codes[t];
    }
    *step = nan ? NAN : peak / 127;
    return *step * (float)total;
}

// The same of row `j` of x, (m, k) fp32 or (`half`) bf16, from place `start` on; zeros after its end.
INLINE float half_of_row(const void *x, int half, long j, long k, long start, int8_t *codes, float *step) {
    float own[HALF] = {0};
    if (k - start >= HALF)
        for (long t = 0; t < HALF; t += LANES) store(own, 0, t, load(x, half, j * k + start + t));
    else
        for (long t = 0; t < k - start; t++) own[t] = get(x, half, j * k + start + t);
    return in_8_bits(own, codes, step);
}

INLINE void row_in_blocks(const void *x, int half, long j, long k, const Rows *rows) {
    const long blocks = blocks_of(k);
    for (long g = 0; g < blocks; g++) {
        const long at = j * blocks + g;
        float sum = 0;
        for (long part = 0; part < 2; part++)
            sum += half_of_row(x, half, j, k, g * BLOCK + part * HALF, rows->codes + at * BLOCK + part * HALF,
                               rows->steps + 2 * at + part);
        rows->sums[at] = sum;
    }
}
