// Where the largest of each row of numbers stands: the first of equals; the first nan if there is one.
#include "vectors.h"
#include <math.h>

enum { CHUNK = 64 * LANES };

// The first number from `begin` on that is not below `top`, which one is.
INLINE int64_t first_place(const void *x, const int half, long begin, float top) {
    while (get(x, half, begin) < top) begin++;
    return begin;
}

INLINE int64_t largest(const void *x, const int half, long n) {
    float top = -INFINITY;
    long place = 0, t = 0;
    for (; t + CHUNK <= n; t += CHUNK) {
        floats most = load(x, half, t);
        ints odd = most != most;
        for (long u = t + LANES; u < t + CHUNK; u += LANES) {
            const floats v = load(x, half, u);
            odd |= v != v;
            most = choose(v > most, v, most);
        }
        float here = most[0];
        int nan = odd[0];
        for (int i = 1; i < LANES; i++) here = most[i] > here ? most[i] : here, nan |= odd[i];
        if (nan) {
            while (get(x, half, t) == get(x, half, t)) t++;
            return t;
        }
        if (here > top) top = here, place = t;
    }
    for (; t < n; t++) {
        const float v = get(x, half, t);
        if (v != v) return t;
        if (v > top) top = v, place = t;
    }
    return first_place(x, half, place, top);
}

// x (rows, `stride` apart, n of them looked at), fp32 or (`half`) bf16.
EXPORT void largest_places(const void *x, int64_t *places, int half, long rows, long n, long stride, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
    for (long i = 0; i < rows; i++)
        places[i] = half ? largest((const bf16 *)x + i * stride, 1, n) : largest((const float *)x + i * stride, 0, n);
}
