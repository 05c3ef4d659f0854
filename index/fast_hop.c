/* fast_hop.c - scoring one block of fast.h: AVX-512 with VNNI, AVX2, SSE4.1, and plain C, which the others are tested against.
 * Sums of products of bytes are exact, so all give the same floats and the same graph walk. */
#include "index/hnsw_priv.h"
#include "index/fast.h"

size_t hnsw_fast_hop_plain(const struct fast *p, const unsigned char *block, const int8_t *q, float scale, float above,
                           const uint32_t *seen, uint32_t mask, uint32_t *id, float *score)
{
    const uint32_t *to = (const uint32_t *)(const void *)block;
    const unsigned char *code = fast_codes(p, block);
    size_t n = 0;
    for (unsigned g = 0; g < p->width; g += FAST_GROUP, code += (size_t)p->words * 64) {
        int32_t sum[FAST_GROUP] = {0};
        for (unsigned w = 0; w < p->words; w++)
            for (unsigned i = 0; i < FAST_GROUP; i++)
                for (unsigned b = 0; b < 4; b++)
                    sum[i] += q[4 * w + b] * code[64 * w + 4 * i + b];
        for (unsigned i = 0; i < FAST_GROUP; i++) {
            float s = (float)sum[i] * scale;
            if (p->has_bias)
                s -= fast_bias(p, block)[g + i];
            id[n] = to[g + i];
            score[n] = s;
            n += s > above && to[g + i] != NO_ID && seen[to[g + i] & mask] != to[g + i];
        }
    }
    return n;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Of some neighbours those whose bit is set in `better`, unless seen, behind the n there are; how many then. */
static inline size_t keep_unseen(const uint32_t *to, const float *all, unsigned better, const uint32_t *seen, uint32_t mask,
                                 uint32_t *id, float *score, size_t n)
{
    for (; better; better &= better - 1) {
        unsigned i = (unsigned)__builtin_ctz(better);
        id[n] = to[i];
        score[n] = all[i];
        n += to[i] != NO_ID && seen[to[i] & mask] != to[i];
    }
    return n;
}

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i pairs(const unsigned char *code, __m256i qw)
{
    __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)code)); // 4 neighbours x 4 dims
    return _mm256_madd_epi16(wide, qw); // for each neighbour two sums of two products
}

/* 8 neighbours' sums of the words: products in 16 bits, pairs added in 32; then the two halves of each neighbour. */
AVX2 static inline __m256i sums8(const unsigned char *code, const int8_t *q, unsigned words)
{
    __m256i lo = _mm256_setzero_si256(), hi = lo;
    for (unsigned w = 0; w < words; w++) {
        int32_t word;
        __builtin_memcpy(&word, q + 4 * w, sizeof(word));
        __m256i qw = _mm256_cvtepi8_epi16(_mm_set1_epi32(word));
        lo = _mm256_add_epi32(lo, pairs(code + 64 * w, qw));
        hi = _mm256_add_epi32(hi, pairs(code + 64 * w + 16, qw));
    }
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(lo, hi), _MM_SHUFFLE(3, 1, 2, 0));
}

AVX2 size_t hnsw_fast_hop_avx2(const struct fast *p, const unsigned char *block, const int8_t *q, float scale,
                               float above, const uint32_t *seen, uint32_t mask, uint32_t *id, float *score)
{
    const uint32_t *to = (const uint32_t *)(const void *)block;
    const unsigned char *code = fast_codes(p, block);
    size_t n = 0;
    for (unsigned g = 0; g < p->width; g += 8) {
        const unsigned char *at = code + (size_t)(g / FAST_GROUP) * p->words * 64 + (g % FAST_GROUP) * 4;
        __m256 s = _mm256_mul_ps(_mm256_cvtepi32_ps(sums8(at, q, p->words)), _mm256_set1_ps(scale));
        if (p->has_bias)
            s = _mm256_sub_ps(s, _mm256_loadu_ps(fast_bias(p, block) + g));
        unsigned better = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(s, _mm256_set1_ps(above), _CMP_GT_OQ));
        float all[8];
        _mm256_storeu_ps(all, s);
        n = keep_unseen(to + g, all, better, seen, mask, id, score, n);
    }
    return n;
}

#define SSE4 __attribute__((target("sse4.1")))

SSE4 static inline __m128i pairs4(const unsigned char *code, __m128i qw)
{
    __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)code)); // 2 neighbours x 4 dims
    return _mm_madd_epi16(wide, qw);
}

SSE4 static inline __m128i sums4(const unsigned char *code, const int8_t *q, unsigned words)
{
    __m128i lo = _mm_setzero_si128(), hi = lo;
    for (unsigned w = 0; w < words; w++) {
        int32_t word;
        __builtin_memcpy(&word, q + 4 * w, sizeof(word));
        __m128i qw = _mm_cvtepi8_epi16(_mm_set1_epi32(word));
        lo = _mm_add_epi32(lo, pairs4(code + 64 * w, qw));
        hi = _mm_add_epi32(hi, pairs4(code + 64 * w + 8, qw));
    }
    return _mm_hadd_epi32(lo, hi);
}

SSE4 size_t hnsw_fast_hop_sse(const struct fast *p, const unsigned char *block, const int8_t *q, float scale, float above,
                              const uint32_t *seen, uint32_t mask, uint32_t *id, float *score)
{
    const uint32_t *to = (const uint32_t *)(const void *)block;
    const unsigned char *code = fast_codes(p, block);
    size_t n = 0;
    for (unsigned g = 0; g < p->width; g += 4) {
        const unsigned char *at = code + (size_t)(g / FAST_GROUP) * p->words * 64 + (g % FAST_GROUP) * 4;
        __m128 s = _mm_mul_ps(_mm_cvtepi32_ps(sums4(at, q, p->words)), _mm_set1_ps(scale));
        if (p->has_bias)
            s = _mm_sub_ps(s, _mm_loadu_ps(fast_bias(p, block) + g));
        unsigned better = (unsigned)_mm_movemask_ps(_mm_cmpgt_ps(s, _mm_set1_ps(above)));
        float all[4];
        _mm_storeu_ps(all, s);
        n = keep_unseen(to + g, all, better, seen, mask, id, score, n);
    }
    return n;
}

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

VNNI static inline __m512i sums16(const unsigned char *code, const int8_t *q, unsigned words)
{
    __m512i a = _mm512_setzero_si512(), b = a;
    unsigned w = 0;
    const int32_t *q4 = (const int32_t *)(const void *)q;
    for (; w + 2 <= words; w += 2) {
        a = _mm512_dpbusd_epi32(a, _mm512_loadu_si512(code + 64 * w), _mm512_set1_epi32(q4[w]));
        b = _mm512_dpbusd_epi32(b, _mm512_loadu_si512(code + 64 * w + 64), _mm512_set1_epi32(q4[w + 1]));
    }
    if (w < words)
        a = _mm512_dpbusd_epi32(a, _mm512_loadu_si512(code + 64 * w), _mm512_set1_epi32(q4[w]));
    return _mm512_add_epi32(a, b);
}

VNNI size_t hnsw_fast_hop_vnni(const struct fast *p, const unsigned char *block, const int8_t *q, float scale,
                               float above, const uint32_t *seen, uint32_t mask, uint32_t *id, float *score)
{
    const unsigned char *code = fast_codes(p, block);
    size_t n = 0;
    for (unsigned g = 0; g < p->width; g += FAST_GROUP, code += (size_t)p->words * 64) {
        __m512i sum = p->words == 8 ? sums16(code, q, 8) : sums16(code, q, p->words); // d = 32 unrolled
        __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale));
        if (p->has_bias)
            s = _mm512_sub_ps(s, _mm512_loadu_ps(fast_bias(p, block) + g));
        __m512i to = _mm512_loadu_si512(block + g * sizeof(uint32_t));
        __mmask16 ok = _mm512_cmp_ps_mask(s, _mm512_set1_ps(above), _CMP_GT_OQ);
        ok = _mm512_mask_cmpneq_epi32_mask(ok, to, _mm512_set1_epi32(-1));
        if (!ok)
            continue;
        __m512i slot = _mm512_and_si512(to, _mm512_set1_epi32((int)mask));
// Without optimisation gcc's intrinsic is a macro that gives the mask to a signed parameter.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
        __m512i known = _mm512_mask_i32gather_epi32(_mm512_set1_epi32(-1), ok, slot, seen, 4);
#pragma GCC diagnostic pop
        ok = _mm512_mask_cmpneq_epi32_mask(ok, known, to);
        _mm512_storeu_si512(id + n, _mm512_maskz_compress_epi32(ok, to));
        _mm512_storeu_ps(score + n, _mm512_maskz_compress_ps(ok, s));
        n += (unsigned)__builtin_popcount(ok);
    }
    return n;
}

static hnsw_fast_hop_fn *pick(const char *kernel)
{
    if (kernel[0] == 'a' && kernel[3] == '5' && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return hnsw_fast_hop_vnni;
    if (kernel[0] == 'a')
        return hnsw_fast_hop_avx2;
    return kernel[0] == 's' && __builtin_cpu_supports("sse4.1") ? hnsw_fast_hop_sse : hnsw_fast_hop_plain;
}
#else
static hnsw_fast_hop_fn *pick(const char *kernel)
{
    (void)kernel;
    return hnsw_fast_hop_plain;
}
#endif

hnsw_fast_hop_fn *hnsw_fast_hop_get(void)
{
    return pick(hnsw_kernel());
}
