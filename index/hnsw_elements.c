/* hnsw_elements.c - the elements of an index file: read, summed and checked in one pass, group by group, by several threads.
 * A group is about a megabyte: what is read is still in the cache when it is summed and checked. Private elements are read straight
 * into their blocks. Shared ones are read into a buffer and mapped only when all is well: a file that is cut meanwhile is then
 * an error of reading, never a lost page of a mapping. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_io.h"
#include "index/parallel.h"

struct elements {
    struct hnsw *h;
    const struct hnsw_in *in;
    uint64_t at; // where the first one is
    size_t record; // bytes that mean something, of h->stride
    size_t per_group, n_groups;
    uint64_t *sum; // [n_groups]
    struct hnsw_sum *stream; // instead, of version 1: of all bytes in their order
    atomic_bool failed;
    pthread_mutex_t lock; // guards err
    struct hnsw_err *err;
};

static void fail(struct elements *e, const struct hnsw_err *why)
{
    atomic_store(&e->failed, true);
    pthread_mutex_lock(&e->lock);
    if (!e->err->code) // one thread's cause is enough
        *e->err = *why;
    pthread_mutex_unlock(&e->lock);
}

static bool padding_is_zero(const struct elements *e, const unsigned char *block, struct hnsw_err *err)
{
    unsigned char any = 0;
    for (size_t i = e->record; i < e->h->stride; i++)
        any |= block[i];
    return !any || hnsw_fail(err, HNSW_FORMAT, "padding is not zero");
}

/* One group, into `to`. */
static void take_group(struct elements *e, size_t group, unsigned char *to)
{
    size_t stride = e->h->stride, first = group * e->per_group;
    size_t n = e->h->n - first < e->per_group ? e->h->n - first : e->per_group;
    struct hnsw_err why = {0};
    if (!hnsw_in_read(e->in, e->at + first * stride, to, n * stride, &why)) {
        fail(e, &why);
        return;
    }
    if (e->stream)
        hnsw_sum_add(e->stream, to, n * stride);
    else
        e->sum[group] = hnsw_sum_of(to, n * stride);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *block = to + i * stride;
        if (!hnsw_check_element(e->h, (uint32_t)(first + i), block, &why) || !padding_is_zero(e, block, &why)) {
            struct hnsw_err where = {0};
            hnsw_fail(&where, why.code, "%s: offset %llu: %s", e->in->name,
                      (unsigned long long)(e->at + (first + i) * stride), why.msg);
            fail(e, &where);
            return;
        }
    }
}

static void take_groups(void *ctx, size_t from, size_t to)
{
    struct elements *e = ctx;
    struct hnsw *h = e->h;
    const struct hnsw_err nomem = {.code = HNSW_NOMEM, .msg = "no memory for reading an index"};
    unsigned char *buffer = h->block ? NULL : hnsw_mem_block(e->per_group, h->stride);
    if (!h->block && !buffer)
        fail(e, &nomem);
    for (size_t i = from; i < to && !atomic_load(&e->failed); i++)
        take_group(e, i, buffer ? buffer : h->block + i * e->per_group * h->stride);
    free(buffer);
}

/* The file's last 8 bytes against the sums of its parts. */
static bool sums_agree(struct elements *e, uint64_t head)
{
    struct hnsw_sum all;
    uint64_t found, wanted, at = e->in->size - sizeof(found);
    hnsw_sum_init(&all);
    hnsw_sum_add(&all, &head, sizeof(head));
    hnsw_sum_add(&all, e->sum, e->n_groups * sizeof(*e->sum));
    wanted = hnsw_sum_end(e->stream ? e->stream : &all);
    return hnsw_in_read(e->in, at, &found, sizeof(found), e->err) && hnsw_in_same_sum(e->in, at, "", found, wanted, e->err);
}

size_t hnsw_elements_per_group(size_t stride)
{
    return ((size_t)1 << 20) / stride; // an element has at most 18 KiB
}

bool hnsw_elements_load(struct hnsw *h, struct hnsw_in *in, bool one_stream, unsigned threads, struct hnsw_err *err)
{
    struct hnsw_err local = {0};
    struct elements e = {.h = h, .in = in, .at = in->at, .per_group = hnsw_elements_per_group(h->stride)};
    uint64_t head = hnsw_sum_end(&in->sum);
    e.err = err ? err : &local;
    e.record = h->dim * sizeof(float) + h->m0 * sizeof(uint32_t);
    e.n_groups = (h->n + e.per_group - 1) / e.per_group;
    e.stream = one_stream ? &in->sum : NULL;
    if (!(e.sum = hnsw_mem_new(e.n_groups, sizeof(*e.sum))))
        return hnsw_fail(err, HNSW_NOMEM, "%s: no memory for reading", in->name);
    threads = one_stream || threads < 1 ? 1 : threads > HNSW_THREADS_MAX ? HNSW_THREADS_MAX : threads;
    pthread_mutex_init(&e.lock, NULL);
    hnsw_parallel(threads, e.n_groups, e.n_groups / (8 * threads) + 1, take_groups, &e);
    pthread_mutex_destroy(&e.lock);
    bool ok = !atomic_load(&e.failed) && sums_agree(&e, head);
    free(e.sum);
    return ok;
}
