// Rows of activations as 8 bits with one step a row: code = round(x / step), step = max |x| / 127.
#pragma once
#include "vectors.h"

// One row of k numbers, fp32 or (`half`) bf16, as fp32 in `row`; its step, never 0.
INLINE float widened(const void *x, int half, long k, float *row) {
    floats top = {0};
    long t = 0;
    for (; t + LANES <= k; t += LANES) {
        floats v = load(x, half, t);
        store(row, 0, t, v);
        floats size = (floats)((words)v & 0x7fffffff);
        top = choose(size > top, size, top);
    }
    float peak = 1e-12f;
    for (int i = 0; i < LANES; i++) peak = top[i] > peak ? top[i] : peak;
    for (; t < k; t++) {
        row[t] = get(x, half, t);
        float size = row[t] < 0 ? -row[t] : row[t];
        peak = size > peak ? size : peak;
    }
    return peak / 127;
}

// -127 .. 127; half a step goes up, as it does where the same is done in Python.
INLINE int8_t code_of(float x, float steps_per_unit) { return (int8_t)((int)__builtin_fmaf(x, steps_per_unit, 128.5f) - 128); }
