// Causal attention of a whole prompt: a few queries at a time against all keys that they see.
//
// Keys are packed with their numbers side by side, 64 keys a panel (16 without AVX-512), so that both products are sums
// of whole vectors; all is computed in fp32. What a query sees of a row is summed in one fixed order, whatever stands beside it.
#include "kernels.h"
#include "softmax.h"
#include <omp.h>

// Queries that are answered together, vectors of a panel or of values: their sums fit into the registers.
#ifdef __AVX512F__
enum { QUERIES = 6, VECTORS = 4 };
#else
enum { QUERIES = 6, VECTORS = 2 };
#endif
enum { PANEL = VECTORS * LANES, NEAR = 1 << 23 };  // keys; bytes of keys and values that are packed at a time

// One panel of keys, (dim, PANEL), and the values beside it, (PANEL, dim), of one row and head, as fp32; zeros after the last.
INLINE void pack(const Prompt *p, const int half, long row, long head, long panel, float *keys, float *values) {
    const long at = row * p->kv_row + head * p->kv_head + panel * PANEL * p->kv_position;
    const long n = p->keys_length - panel * PANEL < PANEL ? p->keys_length - panel * PANEL : PANEL;
    for (long d = 0; d < p->dim; d++) {
        for (long s = 0; s < n; s++) keys[d * PANEL + s] = get(p->k, half, at + s * p->kv_position + d);
        for (long s = n; s < PANEL; s++) keys[d * PANEL + s] = 0;
    }
    for (long s = 0; s < PANEL; s++)
        for (long d = 0; d < p->dim; d += LANES)
            store(values, 0, s * p->dim + d, s < n ? load(p->v, half, at + s * p->kv_position + d) : (floats){0});
}

// Scores of the queries (QUERIES, dim) for one panel of keys, to rows of `scores` that are `room` apart.
INLINE void score(const float *q, const float *keys, long dim, float *scores, long room) {
    floats sums[QUERIES][VECTORS];
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < VECTORS; j++) sums[i][j] = (floats){0};
    for (long d = 0; d < dim; d++) {
        floats these[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) these[j] = load(keys, 0, d * PANEL + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < QUERIES; i++)
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) sums[i][j] += q[i * dim + d] * these[j];
    }
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < VECTORS; j++) store(scores, 0, i * room + j * LANES, sums[i][j]);
}

// `vectors` vectors of what the queries take from the values `begin` .. `end`, times each one's `norm`.
INLINE void mix(const int vectors, const float *weights, long room, const float *values, long dim, long begin, long end,
                const float *norm, float *out) {
    floats sums[QUERIES][VECTORS];
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < vectors; j++) sums[i][j] = (floats){0};
    for (long s = begin; s < end; s++) {
        floats these[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) these[j] = load(values, 0, s * dim + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < QUERIES; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sums[i][j] += weights[i * room + s] * these[j];
    }
    for (int i = 0; i < QUERIES; i++)
        for (int j = 0; j < vectors; j++) store(out, 0, i * dim + j * LANES, sums[i][j] * norm[i]);
}

// The queries `first` and those after it of one row and head. `memory` holds them, their results and scores.
static void answer(const Prompt *p, long row, long head, long first, const float *keys, const float *values, float *memory,
                   long room) {
    const long n = p->length - first < QUERIES ? p->length - first : QUERIES, past = p->keys_length - p->length;
    const long seen = past + first + 1;  // by the first query; each next one sees one more
    const long begin = p->window && seen > p->window ? (seen - p->window) / PANEL * PANEL : 0, end = seen + n - 1;
    const float scale = 1 / sqrtf((float)p->dim);
    float *q = memory, *out = q + QUERIES * p->dim, *scores = out + QUERIES * p->dim, norm[QUERIES];
    const long at = row * p->q_row + head * p->q_head + first * p->q_position;
    for (long i = 0; i < QUERIES; i++)
        for (long d = 0; d < p->dim; d += LANES)
            store(q, 0, i * p->dim + d, i < n ? load(p->q, p->half, at + i * p->q_position + d) * scale : (floats){0});
    for (long s = begin; s < end; s += PANEL) score(q, keys + s * p->dim, p->dim, scores + s, room);
    for (long i = 0; i < QUERIES; i++) {
        float *mine = scores + i * room;
        const long last = i < n ? seen + i : end, start = p->window && last > p->window ? last - p->window : 0;
        for (long s = begin; s < start; s++) mine[s] = -INFINITY;
        for (long s = last; s < end; s++) mine[s] = -INFINITY;
        norm[i] = 1 / weigh(mine + begin, end - begin, largest(mine + begin, end - begin));
    }
    long d = 0;
    for (; d + PANEL <= p->dim; d += PANEL) mix(VECTORS, scores, room, values + d, p->dim, begin, end, norm, out + d);
    for (; d < p->dim; d += LANES) mix(1, scores, room, values + d, p->dim, begin, end, norm, out + d);
    for (long i = 0; i < n; i++)
        for (long e = 0; e < p->dim; e += LANES)
            store(p->out, p->half, ((row * p->length + first + i) * p->heads + head) * p->dim + e,
                  load(out, 0, i * p->dim + e));
}

// 0 if memory is lacking.
EXPORT int attend_prompt(const Prompt *p) {
    const long panels = (p->keys_length + PANEL - 1) / PANEL, room = panels * PANEL, pairs = p->rows * p->kv_heads;
    const long packed = 2 * room * p->dim, most = NEAR / (packed * (long)sizeof(float));
    const long together = most < 1 ? 1 : most < pairs ? most : pairs;
    const long each = QUERIES * (2 * p->dim + room) + LANES, group = p->heads / p->kv_heads;
    const long blocks = (p->length + QUERIES - 1) / QUERIES;
    float *memory = scratch((size_t)(together * packed + p->threads * each) * sizeof(float));
    if (!memory) return 0;
#pragma omp parallel num_threads(p->threads)
    for (long pair = 0; pair < pairs; pair += together) {
        const long now = pairs - pair < together ? pairs - pair : together;
#pragma omp for schedule(static)
        for (long i = 0; i < now * panels; i++) {
            const long which = pair + i / panels;
            const long row = which / p->kv_heads, head = which % p->kv_heads, panel = i % panels;
            float *keys = memory + i / panels * packed + panel * PANEL * p->dim, *values = keys + packed / 2;
            if (p->half)
                pack(p, 1, row, head, panel, keys, values);
            else
                pack(p, 0, row, head, panel, keys, values);
        }
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < now * group * blocks; i++) {
            const long place = i / blocks / group, which = pair + place, head = which % p->kv_heads * group + i / blocks % group;
            const long first = (blocks - 1 - i % blocks) * QUERIES;  // the longest first: none is waited for at the end
            const float *keys = memory + place * packed;
            answer(p, which / p->kv_heads, head, first, keys, keys + packed / 2,
                   memory + together * packed + omp_get_thread_num() * each, room);
        }
    }
    return 1;
}
