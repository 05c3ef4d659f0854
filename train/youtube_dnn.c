/* Source: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, sec. 3: the watch
 * history is the mean of its videos' embeddings, beside the user's features, through a multi-layer perceptron; softmax
 * over videos. */
#include <string.h>

#include "train/history_net.h"

static uint32_t one(const struct recipe *r, size_t n_history)
{
    (void)r;
    (void)n_history;
    return 1;
}

static bool init(struct history_net *m, struct err *err)
{
    (void)m;
    (void)err;
    return true;
}

static void prepare(struct history_net *m, const struct history *h)
{
    (void)m;
    (void)h;
}

static void forward(struct history_net *m, const struct history *h, float *out)
{
    size_t d = m->dim;
    memset(out, 0, h->n_users * d * sizeof(*out));
    for (size_t u = 0; u < h->n_users; u++)
        for (uint32_t q = h->off[u]; q < h->off[u + 1]; q++)
            for (size_t c = 0; c < d; c++)
                out[u * d + c] += h->pv[h->hist[q] * d + c] / (float)(h->off[u + 1] - h->off[u]);
}

static void backward(struct history_net *m, const struct history *h, const float *dout, size_t stride, float *dpv)
{
    size_t d = m->dim;
    for (size_t u = 0; u < h->n_users; u++)
        for (uint32_t q = h->off[u]; q < h->off[u + 1]; q++)
            for (size_t c = 0; c < d; c++)
                dpv[h->hist[q] * d + c] += dout[u * stride + c] / (float)(h->off[u + 1] - h->off[u]);
}

const struct pooling mean_pooling = {one, init, prepare, forward, backward};

static void *create(const struct dataset *d, const struct recipe *r, struct pool *pool, struct err *err)
{
    return history_net_create(&mean_pooling, d, r, pool, err);
}

const struct baseline_ops youtube_dnn_ops = {"epoch",
                                             create,
                                             history_net_epoch,
                                             history_net_vectors,
                                             history_net_state,
                                             history_net_resumed,
                                             history_net_destroy};
