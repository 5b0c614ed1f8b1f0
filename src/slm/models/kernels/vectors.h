// Vectors in the compiler's own notation, as wide as one register: 16 numbers with AVX-512, else 8. Of wider ones than a
// register the compiler keeps arrays in memory, at a fifth of the speed.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));

typedef uint16_t bf16;  // the upper half of a float

// Keeps a vector in a register: short of registers, GCC loads it from memory again at each use.
#ifdef __AVX512F__
#define HELD(vector) __asm__("" : "+v"(vector))
#else
#define HELD(vector)
#endif

INLINE floats choose(ints where, floats yes, floats no) {
    return (floats)((where & (ints)yes) | (~where & (ints)no));
}

INLINE float from_bf16(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

INLINE bf16 to_bf16(float x) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;  // nan, which rounding could turn into infinity
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Where numbers are fp32 or, with `half`, bf16: one, or a vector of them.
INLINE float get(const void *p, int half, long i) { return half ? from_bf16(((const bf16 *)p)[i]) : ((const float *)p)[i]; }

INLINE void put(void *p, int half, long i, float x) {
    if (half)
        ((bf16 *)p)[i] = to_bf16(x);
    else
        ((float *)p)[i] = x;
}

INLINE floats load(const void *p, int half, long i) {
    if (!half) return *(const floats *)((const float *)p + i);
    return (floats)(__builtin_convertvector(*(const halves *)((const bf16 *)p + i), words) << 16);
}

INLINE void store(void *p, int half, long i, floats x) {
    if (half) {
#ifdef __AVX512BF16__
        const __m256bh found = _mm512_cvtneps_pbh((__m512)x);
        memcpy((bf16 *)p + i, &found, sizeof found);
#else
        const words bits = (words)x, rounded = bits + 0x7fff + ((bits >> 16) & 1);
        const words found = (words)choose((ints)(x == x), (floats)rounded, (floats)((words){0} + 0x7fc00000));
        *(halves *)((bf16 *)p + i) = __builtin_convertvector(found >> 16, halves);
#endif
    } else {
        *(floats *)((float *)p + i) = x;
    }
}

// The order of this sum is fixed, so a result does not depend on how rows and columns were grouped.
INLINE float sum(floats v) {
    typedef float four __attribute__((vector_size(16)));
    four f[LANES / 4];
    memcpy(f, &v, sizeof v);
    if (LANES == 16) f[0] += f[LANES / 8], f[1] += f[LANES / 4 - 1];
    f[0] += f[1];
    return (f[0][0] + f[0][2]) + (f[0][1] + f[0][3]);
}

INLINE floats clamped(floats x, float low, float high) {
#ifdef __AVX512F__
    // in this order nan stays nan
    return (floats)_mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), (__m512)x));
#else
    x = choose(x < low, (floats){0} + low, x);
    return choose(x > high, (floats){0} + high, x);
#endif
}

// e^x for |x| < 87, beyond which it stays what it is there, to a relative 2e-7: 2^n times a polynomial (Cephes' expf).
INLINE floats exp_of(floats x) {
    x = clamped(x, -87.0f, 87.0f);
    const floats turns = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: its last bits are the nearest whole number
    const floats whole = turns - 12582912.0f;
    const floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    floats y = (floats){0} + 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * (floats)(((ints)turns - 0x4b400000 + 127) << 23);
}

// Memory of the calling thread, kept for its next call; NULL where there is none. One block a source file.
INLINE void *scratch(size_t bytes) {
    static __thread void *memory = NULL;
    static __thread size_t size = 0;
    if (bytes > size) {
        free(memory);
        size = (bytes + 63) & ~(size_t)63;
        memory = aligned_alloc(64, size);
        if (!memory) size = 0;
    }
    return memory;
}
