/* compact_hop.c - the work of one hop of a walk by upper bytes: AVX-512 with VNNI, AVX2, SSE4.1, and plain C, which the others are tested
 * against. Sums of products of bytes are exact, so all give the same walk. */
#include <string.h>

#include "index/hnsw_priv.h"

static size_t fresh_plain(const struct compact *c, uint32_t id, const struct seen *seen, uint32_t *out)
{
    size_t n = 0;
    unsigned all = compact_links(c, id, out);
    for (unsigned i = 0; i < all; i++) {
        uint32_t to = out[i], tag = to | seen->walk, *slot = &seen->tag[to & seen->mask];
        out[n] = to;
        n += *slot != tag;
        *slot = tag;
    }
    memset(out + n, 0, 8 * sizeof(*out));
    return n;
}

static void sums_plain(const uint8_t *hi, size_t dim, const uint32_t *id, size_t n, const int8_t *q, int32_t *sum)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = hi + (size_t)id[i] * dim;
        sum[i] = 0;
        for (size_t j = 0; j < dim; j++)
            sum[i] += q[j] * row[j];
    }
}

static size_t near_plain(const struct lack *l, const int32_t *sum, size_t n, uint32_t last, uint32_t *id, uint32_t *bin)
{
    uint32_t all[HOP_ROOM];
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        all[i] = compact_bin(l, sum[i]);
    for (size_t i = 0; i < n; i++) {
        id[found] = id[i];
        bin[found] = all[i];
        found += all[i] <= last;
    }
    return found;
}

const struct compact_hop hnsw_compact_hop_plain = {fresh_plain, sums_plain, near_plain};

#if defined(__x86_64__)
#include <immintrin.h>

/* 16 bytes of a row against 16 of the query: eight sums of two products. */
#define SSE4 __attribute__((target("sse4.1")))

SSE4 static inline __m128i pairs8(const uint8_t *row, const int8_t *q)
{
    __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)row));
    return _mm_madd_epi16(v, _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)q)));
}

SSE4 static void sums_sse(const uint8_t *hi, size_t dim, const uint32_t *id, size_t n, const int8_t *q, int32_t *sum)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = hi + (size_t)id[i] * dim;
        __m128i s = _mm_setzero_si128();
        for (size_t j = 0; j < dim; j += 8)
            s = _mm_add_epi32(s, pairs8(row + j, q + j));
        s = _mm_hadd_epi32(s, s);
        sum[i] = _mm_cvtsi128_si32(_mm_hadd_epi32(s, s));
    }
}

#define AVX2 __attribute__((target("avx2")))

/* The sums of the eight numbers in each of s[8]. */
AVX2 static inline __m256i across8(const __m256i s[8])
{
    __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
    __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(s[4], s[5]), _mm256_hadd_epi32(s[6], s[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

AVX2 static inline __m256i pairs16(const uint8_t *row, __m256i q)
{
    return _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)row)), q);
}

AVX2 static void sums_avx2(const uint8_t *hi, size_t dim, const uint32_t *id, size_t n, const int8_t *q, int32_t *sum)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256i s[8];
        for (size_t l = 0; l < 8; l++)
            s[l] = _mm256_setzero_si256();
        for (size_t j = 0; j < dim; j += 16) {
            __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(q + j)));
            for (size_t l = 0; l < 8; l++)
                s[l] = _mm256_add_epi32(s[l], pairs16(hi + (size_t)id[i + l] * dim + j, x));
        }
        _mm256_storeu_si256((__m256i *)(void *)(sum + i), across8(s));
    }
}

#define VNNI __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))

VNNI static inline __attribute__((always_inline)) void sums_of(const uint8_t *hi, size_t dim, const uint32_t *id, size_t n,
                                                               const int8_t *q, int32_t *sum)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256i s[8];
        for (size_t l = 0; l < 8; l++)
            s[l] = _mm256_setzero_si256();
        for (size_t j = 0; j < dim; j += COMPACT_PAST) {
            __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(q + j));
            for (size_t l = 0; l < 8; l++) {
                const uint8_t *row = hi + (size_t)id[i + l] * dim + j;
                s[l] = _mm256_dpbusd_epi32(s[l], _mm256_loadu_si256((const __m256i *)(const void *)row), x);
            }
        }
        _mm256_storeu_si256((__m256i *)(void *)(sum + i), across8(s));
    }
}

VNNI static void sums_vnni(const uint8_t *hi, size_t dim, const uint32_t *id, size_t n, const int8_t *q, int32_t *sum)
{
    if (dim == 32) // unrolled
        sums_of(hi, 32, id, n, q, sum);
    else
        sums_of(hi, dim, id, n, q, sum);
}

// Without optimisation gcc's gathers and scatters are macros that give masks and sizes to signed parameters.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

/* 16 links a step, two bytes of the row for each bit of a link: of link i the three half words from bit 16 w on that hold all of it. */
VNNI static size_t fresh_vnni(const struct compact *c, uint32_t id, const struct seen *seen, uint32_t *out)
{
    const unsigned char *row = c->link + (size_t)id * c->row;
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i twice = _mm512_set1_epi32(0x10001);
    __m512i bit = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int)c->bits)), w = _mm512_mullo_epi32(_mm512_srli_epi32(bit, 4), twice);
    __m512i low = _mm512_add_epi32(w, _mm512_set1_epi32(0x10000)), high = _mm512_add_epi32(low, twice);
    __m512i down = _mm512_and_si512(bit, _mm512_set1_epi32(15)), up = _mm512_sub_epi32(_mm512_set1_epi32(16), down);
    __m512i none = _mm512_set1_epi32((int)compact_none(c)), some = _mm512_set1_epi32((int)seen->mask);
    __m512i walk = _mm512_set1_epi32((int)seen->walk);
    __mmask64 bytes = UINT64_MAX >> (64 - 2 * c->bits);
    size_t n = 0;
    for (unsigned left = c->width; left > 0; left -= left < 16 ? left : 16, row += 2 * c->bits) {
        __mmask16 ok = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffffu);
        if (left < 16)
            bytes = UINT64_MAX >> (64 - (left * c->bits + 7) / 8);
        __m512i in = _mm512_maskz_loadu_epi8(bytes, row);
        __m512i to = _mm512_srlv_epi32(_mm512_permutexvar_epi16(low, in), down);
        to = _mm512_or_si512(to, _mm512_sllv_epi32(_mm512_permutexvar_epi16(high, in), up));
        to = _mm512_and_si512(to, none);
        ok = _mm512_mask_cmpneq_epi32_mask(ok, to, none);
        __m512i slot = _mm512_and_si512(to, some), tag = _mm512_or_si512(to, walk);
        __m512i known = _mm512_mask_i32gather_epi32(none, ok, slot, seen->tag, 4);
        ok = _mm512_mask_cmpneq_epi32_mask(ok, known, tag);
        _mm512_mask_i32scatter_epi32(seen->tag, ok, slot, tag, 4);
        _mm512_storeu_si512(out + n, _mm512_maskz_compress_epi32(ok, to));
        n += (unsigned)__builtin_popcount(ok);
    }
    memset(out + n, 0, 8 * sizeof(*out));
    return n;
}

#pragma GCC diagnostic pop

/* The product is rounded before it is taken off, as compact_bin does it: not left to the compiler, which has one instruction for both. */
VNNI static size_t near_vnni(const struct lack *l, const int32_t *sum, size_t n, uint32_t last, uint32_t *id, uint32_t *bin)
{
    const __m512 top = _mm512_set1_ps(l->top), scale = _mm512_set1_ps(l->scale);
    const __m512i first = _mm512_set1_epi32(l->first), most = _mm512_set1_epi32(N_BINS - 1), cut = _mm512_set1_epi32((int)last);
    size_t found = 0;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 ok = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffffu);
        __m512 product = _mm512_mul_round_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sum + i)), scale, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m512 lack = _mm512_max_ps(_mm512_sub_ps(top, product), _mm512_setzero_ps());
        __m512i at = _mm512_sub_epi32(_mm512_srli_epi32(_mm512_castps_si512(lack), LACK_SHIFT), first);
        at = _mm512_min_epi32(_mm512_max_epi32(at, _mm512_setzero_si512()), most);
        ok = _mm512_mask_cmple_epi32_mask(ok, at, cut);
        __m512i ids = _mm512_loadu_si512(id + i);
        _mm512_storeu_si512(id + found, _mm512_maskz_compress_epi32(ok, ids));
        _mm512_storeu_si512(bin + found, _mm512_maskz_compress_epi32(ok, at));
        found += (unsigned)__builtin_popcount(ok);
    }
    return found;
}

static const struct compact_hop hop_sse = {fresh_plain, sums_sse, near_plain}, hop_avx2 = {fresh_plain, sums_avx2, near_plain},
                                hop_vnni = {fresh_vnni, sums_vnni, near_vnni};

const struct compact_hop *hnsw_compact_hop_get(void)
{
    const char *kernel = hnsw_kernel();
    if (kernel[0] == 'a' && kernel[3] == '5' && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        return &hop_vnni;
    if (kernel[0] == 'a')
        return &hop_avx2;
    return kernel[0] == 's' && __builtin_cpu_supports("sse4.1") ? &hop_sse : &hnsw_compact_hop_plain;
}
#else
const struct compact_hop *hnsw_compact_hop_get(void)
{
    return &hnsw_compact_hop_plain;
}
#endif
