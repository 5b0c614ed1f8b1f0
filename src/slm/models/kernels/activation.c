// The MLP's non-linearity; for training its result is made again on the way back, in the pass that makes the gradients.
#include "kernels.h"
#include "vectors.h"

enum { GELU, GELU_TANH, RELU, RELU2, SILU };

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

INLINE void activate_all(const Activation *a, const int kind, const int half, const int gated, const int backward) {
#pragma omp parallel for num_threads(a->threads) schedule(static)
    for (long t = 0; t < a->n; t += LANES) {
        floats slope;
        const floats value = activated(kind, load(a->x, half, t), backward ? &slope : NULL);
        const floats up = gated ? load(a->up, half, t) : (floats){0};
        if (backward) {
            const floats grad = load(a->grad, half, t);
            store(a->grad, half, t, gated ? grad * up * slope : grad * slope);
            if (gated) store(a->grad_up, half, t, grad * value);
        }
        store(a->y, half, t, gated ? value * up : value);
    }
}

INLINE void activate_gated(const Activation *a, const int kind, const int half, const int backward) {
    a->up ? activate_all(a, kind, half, 1, backward) : activate_all(a, kind, half, 0, backward);
}

INLINE void activate_half(const Activation *a, const int kind, const int backward) {
    a->half ? activate_gated(a, kind, 1, backward) : activate_gated(a, kind, 0, backward);
}

EXPORT void activate(const Activation *a) {
#define CASE(kind) \
    case kind: a->grad ? activate_half(a, kind, 1) : activate_half(a, kind, 0); break;
    switch (a->kind) { CASE(GELU) CASE(GELU_TANH) CASE(RELU) CASE(RELU2) CASE(SILU) }
#undef CASE
}
