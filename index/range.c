/* range.c - the lowest and highest value of each dimension of an index: what codes are spread over. */
#include <math.h>
#include <pthread.h>

#include "index/hnsw_priv.h"
#include "index/parallel.h"

struct range {
    const struct hnsw *h;
    float *low, *high;    // [dim]
    pthread_mutex_t lock; // of these two
};

static void none_yet(float *low, float *high, size_t dim)
{
    for (size_t j = 0; j < dim; j++) {
        low[j] = INFINITY;
        high[j] = -INFINITY;
    }
}

static void range_part(void *ctx, size_t from, size_t to)
{
    struct range *r = ctx;
    size_t dim = r->h->dim;
    float low[HNSW_DIM_MAX], high[HNSW_DIM_MAX];
    none_yet(low, high, dim);
    for (size_t i = from; i < to; i++) {
        const float *v = node_vec(r->h, (uint32_t)i);
        for (size_t j = 0; j < dim; j++) {
            low[j] = v[j] < low[j] ? v[j] : low[j];
            high[j] = v[j] > high[j] ? v[j] : high[j];
        }
    }
    pthread_mutex_lock(&r->lock);
    for (size_t j = 0; j < dim; j++) {
        r->low[j] = low[j] < r->low[j] ? low[j] : r->low[j];
        r->high[j] = high[j] > r->high[j] ? high[j] : r->high[j];
    }
    pthread_mutex_unlock(&r->lock);
}

void hnsw_range(const struct hnsw *h, unsigned threads, float *low, float *high)
{
    struct range r = {.h = h, .low = low, .high = high};
    none_yet(low, high, h->dim);
    pthread_mutex_init(&r.lock, NULL);
    hnsw_parallel(threads, h->n, HNSW_PART, range_part, &r);
    pthread_mutex_destroy(&r.lock);
}
