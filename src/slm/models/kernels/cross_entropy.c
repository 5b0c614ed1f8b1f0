// Rows of logits to negative log-likelihoods and, in the place of the logits, their gradients.
#include "vectors.h"
#include <math.h>

typedef struct {
    void *logits;           // (rows, width), fp32 or (`half`) bf16
    const int64_t *labels;  // (rows), below `vocab`; negative where nothing is learnt
    float *nll;             // (rows)
    long rows, width;       // numbers from `vocab` on in a row are padding: neither read nor learnt
    long vocab;
    float cap;              // logits are bent to cap * tanh(logits / cap); 0 for not at all
    int half, gradient, threads;
} CrossEntropy;

// 16 logits from place t on, those from n on minus infinity.
INLINE floats logits_at(const void *x, const int half, long t, long n) {
    if (t + LANES <= n) return load(x, half, t);
    floats found = (floats){0} - INFINITY;
    for (int i = 0; t + i < n; i++) found[i] = get(x, half, t + i);
    return found;
}

INLINE void store_at(void *x, const int half, long t, long n, floats values) {
    if (t + LANES <= n)
        store(x, half, t, values);
    else
        for (int i = 0; t + i < n; i++) put(x, half, t + i, values[i]);
}

INLINE floats tanh_of(floats x) { return 1 - 2 / (exp_of(2 * x) + 1); }

INLINE floats bent(floats x, const int capped, float cap) { return capped ? cap * tanh_of(x / cap) : x; }

INLINE float largest_of(const void *x, const int half, long n) {
    floats most = (floats){0} - INFINITY;
    for (long t = 0; t < n; t += LANES) {
        const floats v = logits_at(x, half, t, n);
        most = choose(v > most, v, most);
    }
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = most[i] > top ? most[i] : top;
    return top;
}

// softmax - onehot, times the slope of the bend.
INLINE void gradient_of(void *x, const int half, const int capped, const CrossEntropy *c, int64_t label, float top,
                        float norm) {
    const float own = bent((floats){0} + get(x, half, label), capped, c->cap)[0];
    for (long t = 0; t < c->vocab; t += LANES) {
        const floats y = bent(logits_at(x, half, t, c->vocab), capped, c->cap);
        const floats slope = capped ? 1 - y * y / (c->cap * c->cap) : (floats){0} + 1;
        store_at(x, half, t, c->vocab, exp_of(y - top) * (norm * slope));
    }
    const float slope = capped ? 1 - own * own / (c->cap * c->cap) : 1;
    put(x, half, label, (exp_of((floats){0} + own - top)[0] * norm - 1) * slope);
}

INLINE float row_of(void *x, const int half, const int capped, const CrossEntropy *c, int64_t label) {
    const long size = half ? 2 : 4;
    if (label < 0) {
        if (c->gradient) memset(x, 0, c->width * size);
        return 0;
    }
    const float top = bent((floats){0} + largest_of(x, half, c->vocab), capped, c->cap)[0];
    floats total = {0};
    long t = 0;
    for (; t + LANES <= c->vocab; t += LANES) total += exp_of(bent(load(x, half, t), capped, c->cap) - top);
    for (; t < c->vocab; t++) total[0] += exp_of(bent((floats){0} + get(x, half, t), capped, c->cap) - top)[0];
    const float all = sum(total);
    // from the difference to the largest: that of two large numbers is exact, the logarithm of their sum is not
    const float nll = logf(all) - (bent((floats){0} + get(x, half, label), capped, c->cap)[0] - top);
    if (c->gradient) {
        gradient_of(x, half, capped, c, label, top, 1 / all);
        memset((char *)x + c->vocab * size, 0, (c->width - c->vocab) * size);
    }
    return nll;
}

static void row(const CrossEntropy *c, long i) {
    void *x = (char *)c->logits + i * c->width * (c->half ? 2 : 4);
    const int64_t label = c->labels[i];
    if (c->half)
        c->nll[i] = c->cap ? row_of(x, 1, 1, c, label) : row_of(x, 1, 0, c, label);
    else
        c->nll[i] = c->cap ? row_of(x, 0, 1, c, label) : row_of(x, 0, 0, c, label);
}

EXPORT void cross_entropy(const CrossEntropy *c) {
#pragma omp parallel for num_threads(c->threads) schedule(static)
    for (long i = 0; i < c->rows; i++) row(c, i);
}
