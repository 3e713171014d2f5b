/* The small work between the matrix products of a Llama forward pass, for one thread.

   Keys and values live in blocks of 16 positions, all layers of one block together, so that a row's cache is a table of
   block addresses and siblings of a group share the blocks of their prompt. In a block, keys are stored [head_dim][16]
   and values [16][head_dim]: both products then run along full vectors without a horizontal sum. With CM2_BF16 storage is
   bfloat16, two neighbours of the summed dimension side by side, as the processor's own bfloat16 product wants them;
   without such a product, and for everything else, arithmetic is fp32. GCC/Clang vector extensions: any CPU. */
#if defined(CM2_BF16) && defined(__AVX512BF16__)
#include <immintrin.h>
#define CM2_DOT
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 16
typedef float vec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
#define INLINE static inline __attribute__((always_inline))

#ifdef CM2_BF16
typedef uint16_t real;
typedef uint16_t rvec __attribute__((vector_size(32)));
INLINE vec load(const real *p) {
    rvec r;
    memcpy(&r, p, sizeof r);
    return (vec)(__builtin_convertvector(r, uvec) << 16);
}
INLINE void store(real *p, vec v) { /* round to nearest even */
    uvec u = (uvec)v;
    u += 0x7fff + ((u >> 16) & 1);
    rvec r = __builtin_convertvector(u >> 16, rvec);
    memcpy(p, &r, sizeof r);
}
INLINE float load1(const real *p) {
    union { uint32_t u; float f; } x = {(uint32_t)*p << 16};
    return x.f;
}
INLINE void store1(real *p, float f) {
    union { float f; uint32_t u; } x = {f};
    *p = (uint16_t)((x.u + 0x7fff + ((x.u >> 16) & 1)) >> 16);
}
#else
typedef float real;
INLINE vec load(const real *p) { vec v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(real *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE float load1(const real *p) { return *p; }
INLINE void store1(real *p, float f) { *p = f; }
#endif

INLINE vec loadf(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
INLINE void storef(float *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE vec splat(float f) { return f - (vec){0}; }
INLINE vec pick(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }
INLINE float total(vec v) {
    float s = 0;
    for (int i = 0; i < BLOCK; i++) s += v[i];
    return s;
}
#ifdef CM2_BF16 /* a pair of neighbours in the summed dimension; `at` is where element (i, lane) stands, `width` lanes wide */
INLINE int64_t at(int64_t i, int64_t lane, int64_t width) { return (i / 2 * width + lane) * 2 + i % 2; }
#else
INLINE int64_t at(int64_t i, int64_t lane, int64_t width) { return i * width + lane; }
#endif
#ifdef CM2_DOT
typedef uint32_t pair;
INLINE void pack(pair *p, vec v) { store((real *)p, v); } /* 16 numbers as 8 pairs */
INLINE vec dot(vec sum, const real *p, int64_t width, pair q) {
    (void)width;
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(p), (__m512bh)_mm512_set1_epi32((int)q));
}
#else
typedef struct { float a, b; } pair;
INLINE void pack(pair *p, vec v) { storef((float *)p, v); }
INLINE vec dot(vec sum, const real *p, int64_t width, pair q) {
#ifdef CM2_BF16
    uvec u;
    memcpy(&u, p, sizeof u);
    (void)width;
    return sum + (vec)(u << 16) * q.a + (vec)(u & 0xffff0000u) * q.b;
#else
    return sum + loadf(p) * q.a + loadf(p + width) * q.b;
#endif
}
#endif
INLINE vec vexp(vec x) { /* exp within 2 ulp; below -87 it is exp(-87), about 0, above 88 exp(88): always finite */
    x = pick(x < -87.0f, splat(-87.0f), x);
    x = pick(x > 88.0f, splat(88.0f), x);
    vec y = x * 1.44269504f;
    ivec n = __builtin_convertvector(y + pick(y < 0.0f, splat(-0.5f), splat(0.5f)), ivec);
    vec f = x - __builtin_convertvector(n, vec) * 0.693145752f - __builtin_convertvector(n, vec) * 1.42860677e-6f;
    vec p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    return (vec)((ivec)p + (n << 23));
}

typedef struct {
    int64_t tokens, heads, kv_heads, head_dim, layer_bytes;
    const int64_t *tables;    /* per token: address of its row's table of block addresses */
    const int64_t *positions; /* per token */
    const float *cos, *sin;   /* (tokens, head_dim / 2) */
    float *query;             /* scratch: 2 * heads * head_dim */
    float *scores;            /* scratch: 2 * 4 * the longest row, padded to a block */
    float scale;
} Batch;

INLINE void rotate(const real *x, const float *c, const float *s, int half, float scale, float *out) {
    for (int d = 0; d < half; d++) {
        float a = load1(x + d), b = load1(x + d + half);
        out[d] = (a * c[d] - b * s[d]) * scale;
        out[d + half] = (b * c[d] + a * s[d]) * scale;
    }
}

#if defined(CM2_BF16) || defined(__AVX512F__)
/* Scores of one block of 16 keys for G query heads. */
INLINE void scores_of(const real *key, const pair *q, int G, int hd, float *out, int64_t stride) {
    vec even[4], odd[4];
    for (int g = 0; g < G; g++) even[g] = odd[g] = splat(0);
    for (int d = 0; d < hd; d += 4)
        for (int g = 0; g < G; g++) {
            even[g] = dot(even[g], key + d * BLOCK, BLOCK, q[(g * hd + d) / 2]);
            odd[g] = dot(odd[g], key + (d + 2) * BLOCK, BLOCK, q[(g * hd + d) / 2 + 1]);
        }
    for (int g = 0; g < G; g++) storef(out + g * stride, even[g] + odd[g]);
}

/* Weighted sums over the first `length` positions of C vectors of the head's values, for G query heads. */
INLINE void values_of(const int64_t *table, int64_t offset, int64_t length, int G, int hd, int C, int c0,
                      const pair *p, int64_t stride, const float *inverse, real *out) {
    vec acc[4][4];
    for (int g = 0; g < G; g++)
        for (int c = 0; c < C; c++) acc[g][c] = splat(0);
    for (int64_t start = 0; start < length; start += BLOCK) {
        const real *value = (const real *)(table[start / BLOCK] + offset) + at(0, c0 * BLOCK, hd);
        int n = length - start < BLOCK ? (int)(length - start + 1) / 2 : BLOCK / 2;
        for (int j = 0; j < n; j++)
            for (int c = 0; c < C; c++)
                for (int g = 0; g < G; g++)
                    acc[g][c] = dot(acc[g][c], value + 2 * j * hd + at(0, c * BLOCK, hd), hd, p[g * stride / 2 + start / 2 + j]);
    }
    for (int g = 0; g < G; g++)
        for (int c = 0; c < C; c++) store(out + g * hd + (c0 + c) * BLOCK, acc[g][c] * inverse[g]);
}

#else
/* The same two for registers of 8 numbers, of which there are 16: sums that stay in them are what counts. */
typedef float oct __attribute__((vector_size(32)));
INLINE oct load8(const float *p) { oct v; memcpy(&v, p, sizeof v); return v; }
INLINE void store8(float *p, oct v) { memcpy(p, &v, sizeof v); }

INLINE void scores_of(const real *key, const pair *q, int G, int hd, float *out, int64_t stride) {
    const float *query = (const float *)q;
    oct sum[4][2];
    for (int g = 0; g < G; g++) sum[g][0] = sum[g][1] = (oct){0};
    for (int d = 0; d < hd; d++) {
        oct low = load8(key + d * BLOCK), high = load8(key + d * BLOCK + 8);
        for (int g = 0; g < G; g++) {
            sum[g][0] += low * query[g * hd + d];
            sum[g][1] += high * query[g * hd + d];
        }
    }
    for (int g = 0; g < G; g++) { store8(out + g * stride, sum[g][0]); store8(out + g * stride + 8, sum[g][1]); }
}

INLINE void eights_of(const int64_t *table, int64_t offset, int64_t length, int G, int hd, int C, int from,
                      const float *weights, int64_t stride, const float *inverse, real *out) {
    oct acc[4][3];
    for (int g = 0; g < G; g++)
        for (int c = 0; c < C; c++) acc[g][c] = (oct){0};
    for (int64_t start = 0; start < length; start += BLOCK) {
        const float *value = (const float *)(table[start / BLOCK] + offset) + from;
        int n = length - start < BLOCK ? (int)(length - start) : BLOCK;
        for (int j = 0; j < n; j++)
            for (int c = 0; c < C; c++) {
                oct v = load8(value + j * hd + 8 * c);
                for (int g = 0; g < G; g++) acc[g][c] += v * weights[g * stride + start + j];
            }
    }
    for (int g = 0; g < G; g++)
        for (int c = 0; c < C; c++) store8(out + g * hd + from + 8 * c, acc[g][c] * inverse[g]);
}

INLINE void values_of(const int64_t *table, int64_t offset, int64_t length, int G, int hd, int C, int c0,
                      const pair *p, int64_t stride, const float *inverse, real *out) {
    int from = c0 * BLOCK, stop = from + C * BLOCK;
    for (; from + 24 <= stop; from += 24)
        eights_of(table, offset, length, G, hd, 3, from, (const float *)p, stride, inverse, out);
    for (; from < stop; from += 8)
        eights_of(table, offset, length, G, hd, 1, from, (const float *)p, stride, inverse, out);
}
#endif

/* Attention of G query heads that share one key head, over the first `length` positions of a row. */
INLINE void attend(const Batch *b, const int64_t *table, int64_t keys, int64_t values, int64_t length, const pair *q,
                   int G, real *out) {
    int hd = (int)b->head_dim;
    int64_t stride = (length + BLOCK - 1) / BLOCK * BLOCK;
    float inverse[4];
    pair *weights = (pair *)(b->scores + 4 * stride);
    for (int64_t start = 0; start < length; start += BLOCK)
        scores_of((const real *)(table[start / BLOCK] + keys), q, G, hd, b->scores + start, stride);
    for (int g = 0; g < G; g++) {
        float *s = b->scores + g * stride, top;
        for (int64_t i = length; i < stride; i++) s[i] = -1e30f;
        vec tops = loadf(s), sums = splat(0);
        for (int64_t i = BLOCK; i < stride; i += BLOCK) { vec x = loadf(s + i); tops = pick(x > tops, x, tops); }
        top = tops[0];
        for (int i = 1; i < BLOCK; i++) top = tops[i] > top ? tops[i] : top;
        for (int64_t i = 0; i < stride; i += BLOCK) {
            vec e = vexp(loadf(s + i) - top); /* beyond the row: exp(-87), nothing */
            pack(weights + (g * stride + i) / 2, e);
            sums += e;
        }
        inverse[g] = 1.0f / total(sums);
    }
    int C = hd / BLOCK, c = 0;
    for (; c + 4 <= C; c += 4) values_of(table, values, length, G, hd, 4, c, weights, stride, inverse, out);
    for (; c < C; c++) values_of(table, values, length, G, hd, 1, c, weights, stride, inverse, out);
}

/* Rotate q and k, write k and v into the cache, attend. qkv: (tokens, (heads + 2 kv_heads) head_dim); out: (tokens, heads
   head_dim). Tokens of one row stand in order, so each finds its predecessors in the cache. */
void cm2_attention(const Batch *b, int64_t layer, const real *qkv, real *out) {
    int64_t H = b->heads, K = b->kv_heads, hd = b->head_dim, half = hd / 2, G = H / K;
    int64_t base = layer * b->layer_bytes, head_bytes = hd * BLOCK * (int64_t)sizeof(real);
    pair *queries = (pair *)b->query;
    float rotated[hd];
    for (int64_t t = 0; t < b->tokens; t++) {
        const real *x = qkv + t * (H + 2 * K) * hd;
        const float *c = b->cos + t * half, *s = b->sin + t * half;
        const int64_t *table = (const int64_t *)b->tables[t];
        int64_t position = b->positions[t], slot = position % BLOCK;
        for (int64_t k = 0; k < K; k++) {
            real *key = (real *)(table[position / BLOCK] + base + k * head_bytes);
            real *value = (real *)((char *)key + K * head_bytes);
            const real *v = x + (H + K + k) * hd;
            rotate(x + (H + k) * hd, c, s, (int)half, 1.0f, rotated);
            for (int64_t d = 0; d < hd; d++) store1(key + at(d, slot, BLOCK), rotated[d]);
            for (int64_t d = 0; d < hd; d++) value[at(slot, d, hd)] = v[d];
        }
        for (int64_t h = 0; h < H; h++) {
            rotate(x + h * hd, c, s, (int)half, b->scale, rotated);
            for (int64_t d = 0; d < hd; d += BLOCK) pack(queries + (h * hd + d) / 2, loadf(rotated + d));
        }
        for (int64_t k = 0; k < K; k++) {
            int64_t keys = base + k * head_bytes, values = base + (K + k) * head_bytes, left = G;
            const pair *q = queries + k * G * half;
            real *o = out + (t * H + k * G) * hd;
            for (; left >= 4; left -= 4, q += 2 * hd, o += 4 * hd) attend(b, table, keys, values, position + 1, q, 4, o);
            if (left == 3) attend(b, table, keys, values, position + 1, q, 3, o);
            if (left == 2) attend(b, table, keys, values, position + 1, q, 2, o);
            if (left == 1) attend(b, table, keys, values, position + 1, q, 1, o);
        }
    }
}

/* hidden += delta (where given); out = rmsnorm(hidden) * weight. `hidden` is the fp32 residual stream (tokens, width). */
void cm2_add_norm(int64_t tokens, int64_t width, float *hidden, const real *delta, const float *weight, float eps, real *out) {
    for (int64_t t = 0; t < tokens; t++) {
        float *h = hidden + t * width;
        vec squares = splat(0);
        for (int64_t i = 0; i < width; i += BLOCK) {
            vec x = loadf(h + i);
            if (delta) { x += load(delta + t * width + i); storef(h + i, x); }
            squares += x * x;
        }
        float scale = 1.0f / sqrtf(total(squares) / (float)width + eps);
        for (int64_t i = 0; i < width; i += BLOCK) store(out + t * width + i, loadf(h + i) * scale * loadf(weight + i));
    }
}

/* out = silu(gate) * up; gate_up: (tokens, 2 width), gate first. */
void cm2_silu_mul(int64_t tokens, int64_t width, const real *gate_up, real *out) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < width; i += BLOCK) {
            vec g = load(gate_up + 2 * t * width + i), u = load(gate_up + (2 * t + 1) * width + i);
            store(out + t * width + i, g / (1.0f + vexp(-g)) * u);
        }
}

/* Sample one token per row from softmax(logits * inverse_temperature) at the point u of its distribution function, or the
   likeliest token where `greedy`. logprobs: of the token under that softmax over the whole vocabulary. */
void cm2_draw(int64_t rows, int64_t vocabulary, const real *logits, float inverse_temperature, int64_t greedy,
              const double *u, int64_t *ids, float *logprobs) {
    enum { SPAN = 512 };
    int64_t spans = (vocabulary + SPAN - 1) / SPAN;
    double mass[spans];
    for (int64_t r = 0; r < rows; r++) {
        const real *x = logits + r * vocabulary;
        int64_t whole = vocabulary / BLOCK * BLOCK, best = 0;
        vec tops = splat(-1e30f);
        for (int64_t i = 0; i < whole; i += BLOCK) { vec y = load(x + i); tops = pick(y > tops, y, tops); }
        float top = -1e30f;
        for (int i = 0; i < BLOCK; i++) top = tops[i] > top ? tops[i] : top;
        for (int64_t i = whole; i < vocabulary; i++) top = load1(x + i) > top ? load1(x + i) : top;
        while (load1(x + best) != top && best + 1 < vocabulary) best++;
        double sum = 0;
        for (int64_t s = 0; s < spans; s++) {
            int64_t i = s * SPAN, stop = i + SPAN < vocabulary ? i + SPAN : vocabulary;
            vec sums = splat(0);
            for (; i + BLOCK <= stop; i += BLOCK) sums += vexp((load(x + i) - top) * inverse_temperature);
            float rest = 0;
            for (; i < stop; i++) rest += vexp(splat((load1(x + i) - top) * inverse_temperature))[0];
            sum += total(sums) + rest;
            mass[s] = sum;
        }
        int64_t id = best;
        if (!greedy) {
            double target = u[r] * sum;
            int64_t s = 0;
            while (s + 1 < spans && mass[s] <= target) s++;
            double below = s ? mass[s - 1] : 0;
            int64_t stop = (s + 1) * SPAN < vocabulary ? (s + 1) * SPAN : vocabulary;
            for (int64_t i = s * SPAN; i < stop; i++) {
                float y = (load1(x + i) - top) * inverse_temperature;
                if (y < -87.0f) continue; /* what vexp cuts off is nothing */
                below += vexp(splat(y))[0];
                if (below > target) { id = i; break; }
            }
        }
        ids[r] = id;
        logprobs[r] = (load1(x + id) - top) * inverse_temperature - (float)log(sum);
    }
}
