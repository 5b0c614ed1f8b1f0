// Rows of activations as 8 bits with one step a row: code = round(x / step), step = max |x| / 127.
#pragma once
#include "vectors.h"
#include <math.h>

// One row of k numbers, fp32 or (`half`) bf16, as fp32 in `row`; its step, never 0, and nan if there is one in the row.
INLINE float widened(const void *x, int half, long k, float *row) {
    floats top = {0};
    ints odd = {0};
    long t = 0;
    for (; t + LANES <= k; t += LANES) {
        floats v = load(x, half, t);
        store(row, 0, t, v);
        floats size = (floats)((words)v & 0x7fffffff);
        odd |= v != v;
        top = choose(size > top, size, top);
    }
    float peak = 1e-12f;
    int nan = 0;
    for (int i = 0; i < LANES; i++) peak = top[i] > peak ? top[i] : peak, nan |= odd[i];
    for (; t < k; t++) {
        row[t] = get(x, half, t);
        float size = row[t] < 0 ? -row[t] : row[t];
        nan |= row[t] != row[t];
        peak = size > peak ? size : peak;
    }
    return nan ? NAN : peak / 127;
}

// -127 .. 127; half a step goes up, as it does where the same is done in Python.
INLINE int8_t code_of(float x, float steps_per_unit) {
    const float at = __builtin_fmaf(x, steps_per_unit, 128.5f);
    return (int8_t)((at >= 1 && at < 256 ? (int)at : 128) - 128);  // of nan, any: the step makes the row nan again
}
