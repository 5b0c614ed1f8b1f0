// The MLP's non-linearity for training: its result, made again on the way back beside the gradients, in one pass.
#include "activations.h"

typedef struct {
    const void *x, *up;   // (n), n a multiple of 16; `up` NULL where the result has no second factor
    void *y;              // (n) activation(x), or activation(x) * up
    void *grad;           // (n) of y, and then of x; NULL on the way forward
    void *grad_up;        // (n)
    long n;
    int kind, half, threads;  // bf16 instead of fp32
} Activation;

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

EXPORT void train_activation(const Activation *a) {
#define CASE(kind) \
    case kind: a->grad ? activate_half(a, kind, 1) : activate_half(a, kind, 0); break;
    switch (a->kind) { EACH_ACTIVATION(CASE) }
#undef CASE
}
