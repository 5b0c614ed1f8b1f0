// Attention of one new token a row over that row's own keys and values, which take the new ones first.
#include "kernels.h"
#include "softmax.h"
#include <omp.h>

// Logits of one query for the keys `begin` .. `end`.
INLINE void score(const Attention *a, const float *q, const void *keys, long begin, long end, float *scores) {
    const float scale = 1 / sqrtf((float)a->dim);
    for (long s = begin; s < end; s++) {
        floats dot = {0};
        for (long d = 0; d < a->dim; d += LANES) dot += load(q, 0, d) * load(keys, a->half, s * a->dim + d);
        scores[s - begin] = sum(dot) * scale;
    }
}

// Up to four vectors of the result at a time, over all values.
INLINE void mix(const int vectors, const Attention *a, const void *values, const float *weights, long begin, long end,
                long d, float norm, long place) {
    floats mixed[4] = {{0}};
    for (long s = begin; s < end; s++)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            mixed[i] += weights[s - begin] * load(values, a->half, s * a->dim + d + i * LANES);
    for (int i = 0; i < vectors; i++) store(a->out, a->half, place + i * LANES, mixed[i] * norm);
}

static void attend_head(const Attention *a, long row, long head, float *memory) {
    const long size = a->half ? 2 : 4, end = a->lengths[row] + 1;
    const long begin = a->window && end > a->window ? end - a->window : 0;
    const long place = row * a->cache_row + head / (a->heads / a->kv_heads) * a->cache_head;
    const void *keys = (const char *)a->keys + place * size, *values = (const char *)a->values + place * size;
    float *q = memory, *scores = memory + a->dim;
    for (long d = 0; d < a->dim; d += LANES)
        store(q, 0, d, load(a->q, a->half, row * a->row + head * a->dim + d));
    score(a, q, keys, begin, end, scores);
    const float norm = 1 / weigh(scores, end - begin, largest(scores, end - begin));
    const long to = (row * a->heads + head) * a->dim;
    long d = 0;
    for (; d + 4 * LANES <= a->dim; d += 4 * LANES) mix(4, a, values, scores, begin, end, d, norm, to + d);
    for (; d < a->dim; d += LANES) mix(1, a, values, scores, begin, end, d, norm, to + d);
}

static void keep(const Attention *a, long row, long head) {
    const long size = a->half ? 2 : 4;
    const long place = row * a->cache_row + head * a->cache_head + a->lengths[row] * a->dim;
    const long from = (row * a->row + head * a->dim) * size;
    memcpy((char *)a->keys + place * size, (const char *)a->k + from, a->dim * size);
    memcpy((char *)a->values + place * size, (const char *)a->v + from, a->dim * size);
}

int attend(const Attention *a) {
    long longest = 0;
    for (long row = 0; row < a->rows; row++) longest = a->lengths[row] > longest ? a->lengths[row] : longest;
    const long each = a->dim + longest + 2 * LANES;
    float *memory = scratch(a->threads * each * sizeof(float));
    if (!memory) return 0;
#pragma omp parallel num_threads(a->threads)
    {
#pragma omp for schedule(static)
        for (long i = 0; i < a->rows * a->kv_heads; i++) keep(a, i / a->kv_heads, i % a->kv_heads);
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < a->rows * a->heads; i++)
            attend_head(a, i / a->heads, i % a->heads, memory + omp_get_thread_num() * each);
    }
    return 1;
}
