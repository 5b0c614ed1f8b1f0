// Quantized weights meet activations in blocks of 32 inputs: both are small integers with a step for each block, so that
// one large number coarsens its 31 neighbours alone.
#pragma once
#include "vectors.h"
#include <math.h>

enum { BLOCK = 32 };

typedef float eights __attribute__((vector_size(32), aligned(4)));
typedef int32_t whole_eights __attribute__((vector_size(32), aligned(4)));
typedef int8_t codes_of_16 __attribute__((vector_size(16), aligned(1)));

#ifdef __AVX2__
#include <immintrin.h>

typedef __m256i codes_of_32;

INLINE codes_of_32 load_codes(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

// Two codes of 0 .. 15 a byte: the lower halves of 16 bytes are a block's first 16 weights.
INLINE codes_of_32 load_half_codes(const uint8_t *p) {
    const __m128i pairs = _mm_loadu_si128((const __m128i *)p), low = _mm_set1_epi8(15);
    const __m128i first = _mm_and_si128(pairs, low), last = _mm_and_si128(_mm_srli_epi16(pairs, 4), low);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
}

// Eight sums of four products each; w 0 .. 127, x -127 .. 127, so that pairs of products fit into 16 bits.
INLINE whole_eights dot_unsigned(codes_of_32 w, codes_of_32 x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (whole_eights)_mm256_dpbusd_epi32(_mm256_setzero_si256(), w, x);
#elif defined(__AVXVNNI__)
    return (whole_eights)_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w, x);
#else
    return (whole_eights)_mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
#endif
}

INLINE whole_eights dot_signed(codes_of_32 w, codes_of_32 x) {
    return dot_unsigned(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}

#else

typedef int8_t codes_of_32 __attribute__((vector_size(32), aligned(1)));

INLINE codes_of_32 load_codes(const int8_t *p) { return *(const codes_of_32 *)p; }

INLINE codes_of_32 load_half_codes(const uint8_t *p) {
    codes_of_32 codes;
    for (int t = 0; t < BLOCK / 2; t++) codes[t] = p[t] & 15, codes[t + BLOCK / 2] = p[t] >> 4;
    return codes;
}

INLINE whole_eights dot_signed(codes_of_32 w, codes_of_32 x) {
    whole_eights sums = {0};
    for (int t = 0; t < BLOCK; t++) sums[t / 4] += w[t] * x[t];
    return sums;
}

INLINE whole_eights dot_unsigned(codes_of_32 w, codes_of_32 x) { return dot_signed(w, x); }

#endif

// The order of this sum is fixed, so a result does not depend on how rows and columns were grouped.
INLINE float sum_of_eight(eights v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

INLINE long blocks_of(long k) { return (k + BLOCK - 1) / BLOCK; }

// Rows of activations in blocks; the last block of a row is filled up with zeros.
typedef struct {
    int8_t *codes;         // (rows, blocks, 32): round(x / step), -127 .. 127
    float *steps, *sums;   // (rows, blocks): max |x| / 127, nan if there is one in the block; step * sum of codes
} Rows;

// Room for `m` rows of `k`, in the calling thread's scratch; codes are NULL where there is none.
INLINE Rows room_for_rows(long m, long k) {
    const size_t blocks = (size_t)m * blocks_of(k);
    float *steps = scratch(blocks * (2 * sizeof(float) + BLOCK));
    if (!steps) return (Rows){0};
    return (Rows){(int8_t *)(steps + 2 * blocks), steps, steps + blocks};
}

INLINE void block_in_8_bits(const floats *x, int8_t *codes, float *step, float *sum) {
    const floats sizes[2] = {(floats)((words)x[0] & 0x7fffffff), (floats)((words)x[1] & 0x7fffffff)};
    const floats larger = choose(sizes[1] > sizes[0], sizes[1], sizes[0]);
    const ints odd = (x[0] != x[0]) | (x[1] != x[1]);
    float peak = 1e-12f;
    int nan = 0;
    for (int t = 0; t < LANES; t++) peak = larger[t] > peak ? larger[t] : peak, nan |= odd[t];
    const float by = nan ? 0 : 127 / peak;
    whole_eights total = {0};
    for (int part = 0; part < 2; part++) {
        // cut, it is rounded, half a step upwards; the result lies above 0, where cutting goes down
        const ints at = __builtin_convertvector(x[part] * by + 128.5f, ints) - 128;
        const codes_of_16 found = __builtin_convertvector(at, codes_of_16);
        memcpy(codes + part * LANES, &found, sizeof found);
        for (int t = 0; t < LANES; t++) total[t % 8] += found[t];
    }
    *step = nan ? NAN : peak / 127;
    *sum = *step * (float)(((total[0] + total[4]) + (total[2] + total[6])) + ((total[1] + total[5]) + (total[3] + total[7])));
}

// Row `j` of x, (m, k) fp32 or (`half`) bf16.
INLINE void row_in_blocks(const void *x, int half, long j, long k, const Rows *rows) {
    const long blocks = blocks_of(k), at = j * blocks;
    for (long g = 0; g < blocks; g++) {
        const long start = g * BLOCK, left = k - start;
        floats parts[2] = {{0}, {0}};
        if (left >= BLOCK)
            for (int part = 0; part < 2; part++) parts[part] = load(x, half, j * k + start + part * LANES);
        else
            for (long t = 0; t < left; t++) parts[t / LANES][t % LANES] = get(x, half, j * k + start + t);
        block_in_8_bits(parts, rows->codes + (at + g) * BLOCK, rows->steps + at + g, rows->sums + at + g);
    }
}
