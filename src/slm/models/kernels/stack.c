// One new token a row through all blocks, as `Transformer` does it, in one call: between products nothing waits.
#include "kernels.h"
#include "vectors.h"
#include <math.h>

typedef struct {
    const void *weight, *scales, *bias;
    long n, k;
    int kind;  // of the weights: 0 fp32 or bf16, 1 int8, 2 int4
} Linear;

typedef struct {
    const void *weight, *bias;
    float eps;
    int kind;  // 0 no norm, 1 LayerNorm, 2 RMSNorm
} Norm;

typedef struct {
    Norm attention_norm, q_norm, k_norm, mlp_norm;
    Linear qkv, out, gate, up, down;  // gate.n is 0 where the MLP has none
    void *keys, *values;              // of this layer's cache
} Block;

typedef struct {
    const Block *blocks;
    void *x;                      // (rows, dim), in and out
    const void *cos, *sin;        // (rows, turned / 2), or one row for all
    const int64_t *lengths;
    long n_blocks, rows, dim, heads, kv_heads, head_dim, window, cache_row, cache_head;
    long turned, cos_row;         // numbers of a head that turn; from one row of cos to the next
    int activation, prenorm, parallel, half, threads;
} Step;

static int multiply(const Step *s, const Linear *w, const void *x, void *y) {
    if (w->kind == 1)
        return product_int8(w->weight, w->scales, w->bias, x, y, s->half, s->rows, w->n, w->k, s->threads);
    if (w->kind == 2)
        return product_int4(w->weight, w->scales, w->bias, x, y, s->half, s->rows, w->n, w->k, s->threads);
    if (s->half && w->n >= 32 && w->k % 32 == 0 && has_tiles())
        return product_tiles(w->weight, w->bias, x, y, s->rows, w->n, w->k, s->threads);
    return product_few(w->weight, w->bias, x, y, s->half, s->rows, w->n, w->k, s->threads);
}

// One row of `n` numbers, a multiple of 16.
INLINE void normalize(const Norm *norm, const int half, const void *x, void *y, long n) {
    floats total = {0}, squares = {0};
    if (norm->kind == 1)
        for (long t = 0; t < n; t += LANES) total += load(x, half, t);
    const float mean = sum(total) / (float)n;
    for (long t = 0; t < n; t += LANES) {
        const floats v = load(x, half, t) - mean;
        squares += v * v;
    }
    const float by = 1 / sqrtf(sum(squares) / (float)n + norm->eps);
    for (long t = 0; t < n; t += LANES) {
        floats v = (load(x, half, t) - mean) * by;
        if (norm->weight) v *= load(norm->weight, half, t);
        if (norm->bias) v += load(norm->bias, half, t);
        store(y, half, t, v);
    }
}

// y = norm(x) for every row.
INLINE void normalize_rows(const Step *s, const Norm *norm, const int half, const void *x, void *y) {
    const long size = half ? 2 : 4;
#pragma omp parallel for num_threads(s->threads) schedule(static) if (s->rows > 1)
    for (long row = 0; row < s->rows; row++)
        normalize(norm, half, (const char *)x + row * s->dim * size, (char *)y + row * s->dim * size, s->dim);
}

// Turn the first `turned` numbers of a head, i with i + turned / 2 (Su et al. 2021, eq. 34 in GPT-NeoX's order).
INLINE void turn(const int half, void *head, const void *cos, const void *sin, long turned) {
    for (long i = 0, j = turned / 2; i < turned / 2; i++, j++) {
        const float a = get(head, half, i), b = get(head, half, j), c = get(cos, half, i), d = get(sin, half, i);
        put(head, half, i, a * c - b * d);
        put(head, half, j, b * c + a * d);
    }
}

// Norm and rotation of the queries and keys of all rows, in place.
INLINE void place_heads(const Step *s, const Block *b, const int half, void *qkv) {
    const long size = half ? 2 : 4, width = s->heads + 2 * s->kv_heads;
    if (!b->q_norm.kind && !s->turned) return;
#pragma omp parallel for num_threads(s->threads) schedule(static) collapse(2)
    for (long row = 0; row < s->rows; row++)
        for (long h = 0; h < s->heads + s->kv_heads; h++) {
            void *head = (char *)qkv + (row * width + h) * s->head_dim * size;
            const Norm *norm = h < s->heads ? &b->q_norm : &b->k_norm;
            const long at = row * s->cos_row * size;
            if (norm->kind) normalize(norm, half, head, head, s->head_dim);
            if (s->turned) turn(half, head, (const char *)s->cos + at, (const char *)s->sin + at, s->turned);
        }
}

INLINE void add(const Step *s, const int half, void *x, const void *y) {
    for (long t = 0; t < s->rows * s->dim; t += LANES) store(x, half, t, load(x, half, t) + load(y, half, t));
}

// Room for what a block computes between its products.
typedef struct {
    void *normed, *qkv, *mixed, *wide, *up, *out;
} Room;

INLINE int attention(const Step *s, const Block *b, const int half, const Room *r, const void *x) {
    const long width = (s->heads + 2 * s->kv_heads) * s->head_dim, size = half ? 2 : 4;
    if (!multiply(s, &b->qkv, x, r->qkv)) return 0;
    place_heads(s, b, half, r->qkv);
    const char *q = r->qkv, *k = q + s->heads * s->head_dim * size, *v = k + s->kv_heads * s->head_dim * size;
    const Attention a = {
        .q = q, .k = k, .v = v, .row = width,
        .keys = b->keys, .values = b->values, .cache_row = s->cache_row, .cache_head = s->cache_head,
        .lengths = s->lengths, .out = r->mixed,
        .rows = s->rows, .heads = s->heads, .kv_heads = s->kv_heads, .dim = s->head_dim,
        .window = s->window, .half = half, .threads = s->threads,
    };
    return attend(&a) && multiply(s, &b->out, r->mixed, r->out);
}

INLINE int mlp(const Step *s, const Block *b, const int half, const Room *r, const void *x) {
    const int gated = b->gate.n > 0;
    if (!multiply(s, gated ? &b->gate : &b->up, x, r->wide)) return 0;
    if (gated && !multiply(s, &b->up, x, r->up)) return 0;
    activate(&(Activation){.x = r->wide, .up = gated ? r->up : NULL, .y = r->wide, .n = s->rows * b->up.n,
                           .kind = s->activation, .half = half, .threads = s->threads});
    return multiply(s, &b->down, r->wide, r->out);
}

INLINE int block(const Step *s, const Block *b, const int half, const Room *r) {
    void *x = s->x;
    if (!s->prenorm) {
        if (!attention(s, b, half, r, x)) return 0;
        add(s, half, x, r->out);
        normalize_rows(s, &b->attention_norm, half, x, x);
        if (!mlp(s, b, half, r, x)) return 0;
        add(s, half, x, r->out);
        normalize_rows(s, &b->mlp_norm, half, x, x);
        return 1;
    }
    normalize_rows(s, &b->attention_norm, half, x, r->normed);
    if (!attention(s, b, half, r, r->normed)) return 0;
    if (s->parallel) normalize_rows(s, &b->mlp_norm, half, x, r->normed);  // of x alone
    add(s, half, x, r->out);
    if (!s->parallel) normalize_rows(s, &b->mlp_norm, half, x, r->normed);
    if (!mlp(s, b, half, r, r->normed)) return 0;
    add(s, half, x, r->out);
    return 1;
}

// 0 if memory is lacking.
EXPORT int decode_step(const Step *s) {
    const long width = (s->heads + 2 * s->kv_heads) * s->head_dim, wide = s->blocks->up.n, size = s->half ? 2 : 4;
    const long row = 2 * s->dim + width + s->heads * s->head_dim + 2 * wide;
    char *memory = scratch(s->rows * row * size);
    if (!memory) return 0;
    const long rows = s->rows * size;
    const Room room = {
        .normed = memory,
        .out = memory + rows * s->dim,
        .qkv = memory + rows * 2 * s->dim,
        .mixed = memory + rows * (2 * s->dim + width),
        .wide = memory + rows * (2 * s->dim + width + s->heads * s->head_dim),
        .up = memory + rows * (2 * s->dim + width + s->heads * s->head_dim + wide),
    };
    for (long i = 0; i < s->n_blocks; i++)
        if (!(s->half ? block(s, s->blocks + i, 1, &room) : block(s, s->blocks + i, 0, &room))) return 0;
    return 1;
}
