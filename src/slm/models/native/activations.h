// The MLP's non-linearities.
#pragma once
#include "vectors.h"

enum { GELU, GELU_TANH, RELU, RELU2, SILU };

// Of a kind known when this is compiled, its cases.
#define EACH_ACTIVATION(CASE) CASE(GELU) CASE(GELU_TANH) CASE(RELU) CASE(RELU2) CASE(SILU)

// 1 - 2 / (e^2x + 1).
INLINE floats tanh_of(floats x) { return 1 - 2 / (exp_of(2 * x) + 1); }

// Abramowitz and Stegun 1964, 7.1.26: to 1.5e-7.
INLINE floats erf_of(floats x) {
    const floats size = (floats)((words)x & 0x7fffffff), t = 1 / (1 + 0.3275911f * size);
    const floats y = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const floats found = 1 - y * exp_of(-size * size);
    return (floats)((words)found | ((words)x & 0x80000000));
}

// The derivative goes to `slope`, if there is one. Where s is a sigmoid, 1 - s is e s, which cancels nothing.
INLINE floats activated(const int activation, floats x, floats *slope) {
    const floats positive = choose(x <= 0, (floats){0}, x);  // nan stays
    switch (activation) {
        case GELU: {
            const floats phi = 0.5f * (1 + erf_of(x * 0.70710678f));
            if (slope) *slope = phi + x * exp_of(-0.5f * x * x) * 0.39894228f;
            return x * phi;
        }
        case GELU_TANH: {  // (1 + tanh u) / 2 is the sigmoid of 2u
            const floats square = 0.044715f * x * x, e = exp_of(-1.59576912f * x * (1 + square)), s = 1 / (1 + e);
            if (slope) *slope = s + x * s * (e * s) * (1.59576912f * (1 + 3 * square));
            return x * s;
        }
        case RELU:
            if (slope) *slope = choose(x <= 0, (floats){0}, (floats){0} + 1);
            return positive;
        case RELU2:
            if (slope) *slope = 2 * positive;
            return positive * positive;
        default: {
            const floats e = exp_of(-x), s = 1 / (1 + e);
            if (slope) *slope = s * (1 + x * (e * s));
            return x * s;
        }
    }
}
