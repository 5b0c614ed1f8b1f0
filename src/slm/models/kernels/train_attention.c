// Causal attention for training: its result, and on the way back the gradients of queries, keys and values.
//
// 64 queries meet 64 keys at a time; weights are made again on the way back from the logarithms of their sums (Dao et
// al. 2022, FlashAttention). A word is what one multiplication takes along the summed dimension: an fp32 number, or two
// bf16 numbers side by side. A head is one thread's from beginning to end, so no sum depends on how many there are.
#include "softmax.h"
#include <omp.h>

enum { TILE = 64, ROWS = 4, VECTORS = 4, PANEL = VECTORS * LANES };

typedef struct {
    const void *q, *k, *v;                // (rows, heads or kv heads, length, dim), dim a multiple of 16
    long q_row, q_head, q_position;       // numbers from one to the next, all even
    long k_row, k_head, k_position;
    long v_row, v_head, v_position;
    void *out;                            // (rows, length, heads, dim)
    float *norms;                         // (rows, heads, length): ln of the sum of e^score
    const void *grad_out;                 // as `out`
    void *grad_q, *grad_k, *grad_v;       // (rows, length, heads or kv heads, dim)
    long rows, heads, kv_heads, dim, length;
    int half, threads;                    // bf16 instead of fp32
} Training;

EXPORT int has_train_attention(int half) {
#if defined __AVX512BF16__
    return 1;
#elif defined __AVX512F__
    return !half;
#else
    return 0;
#endif
}

INLINE floats times(const int half, floats total, uint32_t a, floats b) {
#ifdef __AVX512BF16__
    if (half) return (floats)_mm512_dpbf16_ps((__m512)total, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
#endif
    float number;
    memcpy(&number, &a, 4);
    return total + number * b;
}

// 32 numbers to bf16, side by side.
INLINE void narrow(const float *x, bf16 *y) {
#ifdef __AVX512BF16__
    const __m512bh found = _mm512_cvtne2ps_pbh((__m512)load(x, 0, LANES), (__m512)load(x, 0, 0));
    memcpy(y, &found, sizeof found);
#else
    store(y, 1, 0, load(x, 0, 0));
    store(y, 1, LANES, load(x, 0, LANES));
#endif
}

// Words of two rows: bf16 of the first one's numbers below, of the second one's above.
INLINE floats paired(floats first, floats second) {
#ifdef __AVX512BF16__
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second));
    return (floats)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#else
    return first;  // never asked for
#endif
}

// c (4, 16 vectors) = or += a b: `steps` words of each row of a, `a_row` and `a_step` words apart, times rows of b.
INLINE void tile(const int half, const int vectors, const int adds, const uint32_t *a, long a_row, long a_step,
                 const float *b, long b_step, long steps, float *c, long c_row) {
    floats sums[ROWS][VECTORS];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) sums[i][j] = adds ? load(c, 0, i * c_row + j * LANES) : (floats){0};
    for (long s = 0; s < steps; s++) {
        floats these[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) these[j] = load(b, 0, s * b_step + j * LANES);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sums[i][j] = times(half, sums[i][j], a[i * a_row + s * a_step], these[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) store(c, 0, i * c_row + j * LANES, sums[i][j]);
}

// What of a product counts where queries and keys are the same places, and no query sees a key after its own.
enum { ALL, KEYS_TO, STEPS_TO, STEPS_FROM };  // columns up to the row, or summed places up to or from the row on

// c (64, columns) = or += a b, columns a multiple of 16; of `part` KEYS_TO they are 64, and the rest stays as it was.
INLINE void product(const int half, const int adds, const int part, const void *a, long a_row, long a_step, const float *b,
                    long columns, long steps, float *c, long c_row) {
#define TILE_OF(vectors) \
    tile(half, vectors, adds, words + m * a_row + begin * a_step, a_row, a_step, b + begin * columns + n, columns, end - begin, \
         c + m * c_row + n, c_row)
    const uint32_t *words = a;
    const long numbers = half ? 2 : 1;  // in a word
    for (long n = 0; n < columns; n += columns - n >= PANEL ? PANEL : LANES)
        for (long m = 0; m < TILE; m += ROWS) {
            const long begin = part == STEPS_FROM ? m / numbers : 0;
            const long end = part == STEPS_TO ? steps - (TILE - ROWS - m) / numbers : steps;
            const long vectors = part == KEYS_TO ? m / LANES + 1 : columns - n >= PANEL ? VECTORS : 1;
            switch (vectors) {
                case 1: TILE_OF(1); break;
                case 2: TILE_OF(2); break;
                case 3: TILE_OF(3); break;
                default: TILE_OF(VECTORS);
            }
        }
#undef TILE_OF
}

// 64 rows from `x` on, of which `n` are there, as words (64, dim words); the others 0.
INLINE void take(const int half, const void *x, long position, long n, long dim, void *to) {
    const long size = half ? 2 : 4;
    for (long t = 0; t < TILE; t++)
        if (t < n)
            memcpy((char *)to + t * dim * size, (const char *)x + t * position * size, dim * size);
        else
            memset((char *)to + t * dim * size, 0, dim * size);
}

// Those rows turned: words (dim words, 64).
INLINE void turned(const int half, const void *taken, long dim, float *to) {
    const long words = half ? dim / 2 : dim;
    for (long w = 0; w < words; w++)
        for (long t = 0; t < TILE; t++) memcpy(to + w * TILE + t, (const float *)taken + t * words + w, 4);
}

// Those rows as words along them: (64 or 32, dim).
INLINE void along(const int half, const void *taken, long dim, float *to) {
    if (!half) {
        memcpy(to, taken, TILE * dim * sizeof(float));
        return;
    }
    for (long t = 0; t < TILE; t += 2)
        for (long d = 0; d < dim; d += LANES)
            store(to, 0, t / 2 * dim + d, paired(load(taken, 1, t * dim + d), load(taken, 1, (t + 1) * dim + d)));
}

// `n` rows of fp32 numbers times `factor`, to where rows are `position` apart.
INLINE void give(const int half, const float *x, long n, long dim, float factor, void *to, long position) {
    for (long t = 0; t < n; t++)
        for (long d = 0; d < dim; d += LANES) store(to, half, t * position + d, load(x, 0, t * dim + d) * factor);
}

INLINE const void *at(const void *x, const int half, long place) { return (const char *)x + place * (half ? 2 : 4); }

// Where a head's row of `out` and of gradients in its order begins.
INLINE long placed(const Training *t, long heads, long row, long head, long first) {
    return ((row * t->length + first) * heads + head) * t->dim;
}

INLINE long rows_there(const Training *t, long first) { return t->length - first < TILE ? t->length - first : TILE; }

// ---- forward ----

// The 64 queries from `first` on; `scores` (64, room).
INLINE void answer(const Training *t, const int half, long row, long head, long first, const float *keys,
                   const float *values, float *queries, float *scores, float *mixed, long room) {
    const long dim = t->dim, n = rows_there(t, first), seen = first + TILE, words = half ? dim / 2 : dim;
    const float scale = 1 / sqrtf((float)dim);
    take(half, at(t->q, half, row * t->q_row + head * t->q_head + first * t->q_position), t->q_position, n, dim, queries);
    for (long s = 0; s < seen; s += TILE)
        product(half, 0, s == first ? KEYS_TO : ALL, queries, words, 1, keys + s * words, TILE, words, scores + s, room);
    float norm[TILE];
    for (long i = 0; i < TILE; i++) {
        float *mine = scores + i * room;
        const long own = first + i + 1, whole = (own + LANES - 1) / LANES * LANES;
        for (long s = 0; s < whole; s += LANES) store(mine, 0, s, load(mine, 0, s) * scale);
        const float top = largest(mine, own), total = weigh(mine, own, top);
        norm[i] = 1 / total;
        if (i < n) t->norms[(row * t->heads + head) * t->length + first + i] = top + logf(total);
        for (long s = whole; s < seen; s += LANES) store(mine, 0, s, (floats){0});
        if (half)
            for (long s = 0; s < seen; s += 2 * LANES) narrow(mine + s, (bf16 *)mine + s);  // never ahead of the reading
    }
    product(half, 0, STEPS_TO, scores, room, 1, values, dim, half ? seen / 2 : seen, mixed, dim);
    for (long i = 0; i < n; i++)
        give(half, mixed + i * dim, 1, dim, norm[i], (void *)at(t->out, half, placed(t, t->heads, row, head, first + i)), 0);
}

INLINE void forward_pair(const Training *t, const int half, long pair, float *memory) {
    const long row = pair / t->kv_heads, kv = pair % t->kv_heads, dim = t->dim, group = t->heads / t->kv_heads;
    const long room = (t->length + TILE - 1) / TILE * TILE, words = half ? dim / 2 : dim;
    float *keys = memory, *values = keys + room * dim, *block = values + room * dim, *mixed = block + TILE * dim;
    float *scores = mixed + TILE * dim;
    for (long s = 0; s < room; s += TILE) {
        take(half, at(t->k, half, row * t->k_row + kv * t->k_head + s * t->k_position), t->k_position, rows_there(t, s), dim, block);
        turned(half, block, dim, keys + s * words);
        take(half, at(t->v, half, row * t->v_row + kv * t->v_head + s * t->v_position), t->v_position, rows_there(t, s), dim, block);
        along(half, block, dim, values + (half ? s / 2 : s) * dim);
    }
    for (long head = kv * group; head < (kv + 1) * group; head++)
        for (long first = 0; first < t->length; first += TILE)
            answer(t, half, row, head, first, keys, values, block, scores, mixed, room);
}

// ---- backward ----

// What 64 queries are on the way back.
typedef struct {
    float *queries, *grads;              // words (64, dim words)
    float *queries_along, *grads_along;  // words (32 or 64, dim)
    float norms[TILE], own[TILE];        // ln of the sum of e^score; sum of a result times its gradient
    float *grad;                         // (64, dim)
} Asking;

INLINE void ask(const Training *t, const int half, long row, long head, long first, const Asking *a, float *norms, float *own) {
    const long dim = t->dim, n = rows_there(t, first), place = placed(t, t->heads, row, head, first);
    const long position = t->heads * dim;
    take(half, at(t->q, half, row * t->q_row + head * t->q_head + first * t->q_position), t->q_position, n, dim, a->queries);
    take(half, at(t->grad_out, half, place), position, n, dim, a->grads);
    along(half, a->queries, dim, a->queries_along);
    along(half, a->grads, dim, a->grads_along);
    memset(a->grad, 0, TILE * dim * sizeof(float));
    for (long i = 0; i < TILE; i++) {
        floats total = {0};
        for (long d = 0; i < n && d < dim; d += LANES)
            total += load(t->out, half, place + i * position + d) * load(a->grads, half, i * dim + d);
        own[i] = sum(total);
        norms[i] = i < n ? t->norms[(row * t->heads + head) * t->length + first + i] : 0;
    }
}

// The room of a tile: scores and gradients of weights (64, 64), and both as words.
typedef struct {
    float *scores, *grads, *weights_along, *grads_along, *grads_words;
} Tile;

// Scores to weights, gradients of weights to those of scores; `diagonal`: no query sees a key after its own place.
INLINE void weigh_tile(const int half, const int diagonal, const float *norms, const float *own, float scale, const Tile *r) {
    static const float first[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const floats places = load(first, 0, 0);
    for (long i = 0; i < TILE; i += 2)
        for (long s = 0; s < TILE; s += LANES) {
            floats weights[2], grads[2];
            for (int j = 0; j < 2; j++) {
                const long place = (i + j) * TILE + s;
                floats w = exp_of(load(r->scores, 0, place) * scale - norms[i + j]);
                floats g = w * (load(r->grads, 0, place) - own[i + j]) * scale;
                if (diagonal) {  // what no query sees was not computed and may be anything
                    const ints seen = places + (float)s <= (float)(i + j);
                    w = choose(seen, w, (floats){0}), g = choose(seen, g, (floats){0});
                }
                weights[j] = w;
                grads[j] = g;
                store(r->grads, 0, place, grads[j]);
                if (!half) store(r->weights_along, 0, place, w);
            }
            if (half) {
                store(r->weights_along, 0, i / 2 * TILE + s, paired(weights[0], weights[1]));
                store(r->grads_along, 0, i / 2 * TILE + s, paired(grads[0], grads[1]));
            }
        }
    if (half)
        for (long s = 0; s < TILE * TILE; s += 2 * LANES) narrow(r->grads + s, (bf16 *)r->grads_words + s);
}

// 64 queries and the keys from `s` on.
INLINE void meet(const int half, const int diagonal, long s, long dim, float scale, const float *keys, const float *values,
                 const float *keys_along, const Asking *a, const Tile *r, float *grad_k, float *grad_v) {
    const long words = half ? dim / 2 : dim, steps = half ? TILE / 2 : TILE;
    const int seen = diagonal ? KEYS_TO : ALL, to = diagonal ? STEPS_TO : ALL, from = diagonal ? STEPS_FROM : ALL;
    product(half, 0, seen, a->queries, words, 1, keys + s * words, TILE, words, r->scores, TILE);
    product(half, 0, seen, a->grads, words, 1, values + s * words, TILE, words, r->grads, TILE);
    weigh_tile(half, diagonal, a->norms, a->own, scale, r);
    product(half, 1, from, r->weights_along, 1, TILE, a->grads_along, dim, steps, grad_v + s * dim, dim);
    product(half, 1, from, r->grads_along, 1, TILE, a->queries_along, dim, steps, grad_k + s * dim, dim);
    product(half, 1, to, r->grads_words, steps, 1, keys_along + s / TILE * steps * dim, dim, steps, a->grad, dim);
}

INLINE void backward_pair(const Training *t, const int half, long pair, float *memory) {
    const long row = pair / t->kv_heads, kv = pair % t->kv_heads, dim = t->dim, group = t->heads / t->kv_heads;
    const long room = (t->length + TILE - 1) / TILE * TILE, words = half ? dim / 2 : dim, steps = half ? TILE / 2 : TILE;
    const float scale = 1 / sqrtf((float)dim);
    float *keys = memory, *values = keys + room * dim, *keys_along = values + room * dim;
    float *grad_k = keys_along + room * dim, *grad_v = grad_k + room * dim, *blocks = grad_v + room * dim;
    Asking a = {blocks, blocks + TILE * dim, blocks + 2 * TILE * dim, blocks + 3 * TILE * dim, .grad = blocks + 4 * TILE * dim};
    float *tiles = blocks + 5 * TILE * dim;
    Tile r = {tiles, tiles + TILE * TILE, tiles + 2 * TILE * TILE, tiles + 3 * TILE * TILE, tiles + 4 * TILE * TILE};
    if (!half) r.grads_along = r.grads_words = r.grads;
    for (long s = 0; s < room; s += TILE) {
        take(half, at(t->k, half, row * t->k_row + kv * t->k_head + s * t->k_position), t->k_position, rows_there(t, s), dim, a.queries);
        turned(half, a.queries, dim, keys + s * words);
        along(half, a.queries, dim, keys_along + s / TILE * steps * dim);
        take(half, at(t->v, half, row * t->v_row + kv * t->v_head + s * t->v_position), t->v_position, rows_there(t, s), dim, a.queries);
        turned(half, a.queries, dim, values + s * words);
    }
    memset(grad_k, 0, 2 * room * dim * sizeof(float));
    for (long head = kv * group; head < (kv + 1) * group; head++)
        for (long first = 0; first < t->length; first += TILE) {
            ask(t, half, row, head, first, &a, a.norms, a.own);
            for (long s = 0; s <= first; s += TILE) {
                if (s == first)
                    meet(half, 1, s, dim, scale, keys, values, keys_along, &a, &r, grad_k, grad_v);
                else
                    meet(half, 0, s, dim, scale, keys, values, keys_along, &a, &r, grad_k, grad_v);
            }
            give(half, a.grad, rows_there(t, first), dim, 1, (void *)at(t->grad_q, half, placed(t, t->heads, row, head, first)),
                 t->heads * dim);
        }
    const long place = placed(t, t->kv_heads, row, kv, 0), position = t->kv_heads * dim;
    give(half, grad_k, t->length, dim, 1, (void *)at(t->grad_k, half, place), position);
    give(half, grad_v, t->length, dim, 1, (void *)at(t->grad_v, half, place), position);
}

static long numbers_forward(const Training *t, long room) { return 2 * (room + TILE) * t->dim + TILE * room; }

static long numbers_backward(const Training *t, long room) { return 5 * (room + TILE) * t->dim + 5 * TILE * TILE; }

// 0 if memory is lacking.
EXPORT int train_attention(const Training *t, int backward) {
#ifdef __AVX512F__
    const long room = (t->length + TILE - 1) / TILE * TILE;
    const long each = (backward ? numbers_backward(t, room) : numbers_forward(t, room)) + LANES;
    float *memory = scratch((size_t)(t->threads * each) * sizeof(float));
    if (!memory) return 0;
#pragma omp parallel num_threads(t->threads)
    {
        float *mine = memory + omp_get_thread_num() * each;
#pragma omp for schedule(dynamic, 1)
        for (long pair = 0; pair < t->rows * t->kv_heads; pair++) {
            if (backward)
                t->half ? backward_pair(t, 1, pair, mine) : backward_pair(t, 0, pair, mine);
            else
                t->half ? forward_pair(t, 1, pair, mine) : forward_pair(t, 0, pair, mine);
        }
    }
    return 1;
#else
    return 0;  // never asked for: it would take fifty times as long to compile as all the rest
#endif
}
