// Scores of keys to weights.
#pragma once
#include "vectors.h"
#include <math.h>

// Of `n` scores, whose memory reaches to the next multiple of 16: those beyond become -inf.
INLINE float largest(float *scores, long n) {
    for (long s = n; s % LANES; s++) scores[s] = -INFINITY;
    floats top = {0};
    top += -INFINITY;
    for (long s = 0; s < n; s += LANES) {
        const floats these = load(scores, 0, s);
        top = choose(these > top, these, top);
    }
    float found = -INFINITY;
    for (int i = 0; i < LANES; i++) found = top[i] > found ? top[i] : found;
    return found;
}

// e^(score - top) in place, after `largest`; the sum.
INLINE float weigh(float *scores, long n, float top) {
    floats total = {0};
    for (long s = 0; s < n; s += LANES) {
        const floats these = load(scores, 0, s);
        const floats w = choose(these == -INFINITY, (floats){0}, exp_of(these - top));
        store(scores, 0, s, w);
        total += w;
    }
    return sum(total);
}
