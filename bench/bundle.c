/* bundle.c - a large bundle to measure the service with: made-up users and items, towers with random weights, published
 * as `duet publish` does. Training at this size would take hours and changes nothing in what is measured.
 *
 * Versions after the first have the same users anew: something to swap to.
 *
 *   bench_bundle REPOSITORY [items=1000000] [users=50000] [versions=2] [threads=2] [seed=1]
 *
 * An entity belongs to one of 4096 clusters (shares ~ rank^-1/2), which decides its seven features; its id's embedding
 * and its augmented vector are the cluster's plus noise. Both towers have the same weights, as if trained to agree:
 * 288-256-128-32, ReLU, each layer's bias and scale set so that its outputs are spread as normalised ones are (else
 * random layers turn everything to one direction). The users' vectors are then distributed as the items' are: the kind
 * of data of bench_ann's `relu`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/blas.h"
#include "core/publish.h"

#define CLUSTERS 4096
#define FIELDS 7 // beside the id
#define K 32
#define SAMPLE 1024 // entities that a layer's spread is measured on
#define NOISE 1.0
#define PUBLISH_SEED 1000003 // not the data's, or the users drawn as probes would be those of certain clusters

static const uint32_t vocab[FIELDS] = {8, 16, 64, 64, 256, 256, 1024};

static void must(bool ok, const struct err *e)
{
    if (ok)
        return;
    fprintf(stderr, "bench_bundle: %s\n", e->msg);
    exit(1);
}

// ----------------------------------------------------------------------------------------------------------- data

struct side {
    uint32_t n;
    struct strtab_builder id;
    uint32_t *x;       // [n][1 + FIELDS]
    uint16_t *cluster; // [n]
};

static uint32_t feature_of(uint32_t cluster, int field)
{
    return cluster * (2 * (uint32_t)field + 0x9e3779b1u) % 65521 % vocab[field];
}

/* Running sums of the shares, and one draw from them. */
static void make_shares(double sum[CLUSTERS])
{
    double total = 0;
    for (int c = 0; c < CLUSTERS; c++)
        sum[c] = total += 1 / sqrt(c + 1);
}

static uint16_t draw_cluster(const double sum[CLUSTERS], struct rng *r)
{
    double at = rng_unit(r) * sum[CLUSTERS - 1];
    int lo = 0, hi = CLUSTERS - 1;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (sum[mid] > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return (uint16_t)lo;
}

static void make_side(struct side *s, uint32_t n, const double *shares, struct rng *r)
{
    struct err e = {0};
    char id[16];
    s->n = n;
    s->x = mem_array((size_t)n * (1 + FIELDS), sizeof(*s->x), &e);
    s->cluster = mem_array(n, sizeof(*s->cluster), &e);
    must(s->x && s->cluster, &e);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *x = s->x + (size_t)i * (1 + FIELDS);
        must(strtab_add(&s->id, id, (size_t)snprintf(id, sizeof(id), "%u", i + 1), NULL, &e), &e);
        s->cluster[i] = draw_cluster(shares, r);
        x[0] = i + 1;
        for (int f = 0; f < FIELDS; f++)
            x[1 + f] = 1 + feature_of(s->cluster[i], f);
    }
}

// ---------------------------------------------------------------------------------------------------------- model

static void put_fields(struct buf *b, const char *id, uint32_t rows, const char *prefix)
{
    buf_printf(b, "{\"segment\": \"%s0\", \"fields\": [{\"name\": \"%s\", \"kind\": \"id\", \"rows\": %u}", prefix, id,
               rows);
    for (int f = 0; f < FIELDS; f++) {
        buf_printf(b, ", {\"name\": \"%s%d\", \"kind\": \"categorical\"%s, \"values\": [", prefix, f,
                   f == 0 && prefix[0] == 'i' ? ", \"category\": true" : "");
        for (uint32_t v = 0; v < vocab[f]; v++)
            buf_printf(b, "%s\"v%u\"", v ? ", " : "", v);
        buf_puts(b, "]}");
    }
    buf_puts(b, "]}");
}

static struct schema *make_schema(uint32_t n_users, uint32_t n_items)
{
    struct err e = {0};
    struct buf b = {0};
    buf_puts(&b, "{\"format\": \"duet-schema\", \"format_version\": 1, \"user\": ");
    put_fields(&b, "user_id", n_users + 1, "u");
    buf_puts(&b, ", \"item\": ");
    put_fields(&b, "item_id", n_items + 1, "i");
    buf_puts(&b, "}");
    json_t *v = json_parse(b.data, b.len, &e);
    struct schema *s = v ? schema_from_json(v, &e) : NULL;
    must(s, &e);
    json_decref(v);
    buf_fini(&b);
    return s;
}

static void fill(float *v, size_t n, double scale, struct rng *r)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(scale * rng_normal(r));
}

/* center [CLUSTERS][2 K]: of the ids' embeddings, then of the augmented vectors. */
static void fill_entities(struct tower *t, const struct side *s, const float *center, struct rng *r)
{
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t j = 0; j < K; j++) {
            const float *c = center + (size_t)s->cluster[i] * 2 * K;
            t->emb[(size_t)(i + 1) * K + j] = c[j] + (float)(NOISE * rng_normal(r));
            t->aug[(size_t)(i + 1) * K + j] = c[K + j] + (float)(NOISE * rng_normal(r));
        }
}

/* The tables of the features and the layers, which both towers have alike. */
static void share_weights(struct model *m)
{
    size_t rows = 0;
    for (int f = 0; f < FIELDS; f++)
        rows += vocab[f] + 1;
    memcpy(m->user.emb + m->user.shape.field[1].first_row * K, m->item.emb + m->item.shape.field[1].first_row * K,
           rows * K * sizeof(float));
    for (uint32_t l = 0, in = m->item.z_dim; l < m->item.shape.n_layers; in = m->item.shape.width[l++]) {
        memcpy(m->user.w[l], m->item.w[l], (size_t)in * m->item.shape.width[l] * sizeof(float));
        memcpy(m->user.b[l], m->item.b[l], m->item.shape.width[l] * sizeof(float));
    }
}

/* Scale row `o` of a layer and set its bias so that over the sample h [SAMPLE][in] its outputs have mean 0 and variance
 * 1; they go through ReLU to out [SAMPLE][n_out]. */
static void spread_output(float *w, float *b, uint32_t in, const float *h, uint32_t o, uint32_t n_out, float *out)
{
    double sum = 0, sum2 = 0;
    for (size_t i = 0; i < SAMPLE; i++) {
        float a = 0;
        for (uint32_t j = 0; j < in; j++)
            a += w[(size_t)o * in + j] * h[i * in + j];
        out[i * n_out + o] = a;
        sum += (double)a;
        sum2 += (double)a * (double)a;
    }
    double mean = sum / SAMPLE, scale = 1 / sqrt(sum2 / SAMPLE - mean * mean);
    for (uint32_t j = 0; j < in; j++)
        w[(size_t)o * in + j] *= (float)scale;
    b[o] = (float)(-mean * scale);
    for (size_t i = 0; i < SAMPLE; i++)
        out[i * n_out + o] = fmaxf(0, (float)scale * out[i * n_out + o] + b[o]);
}

static void spread_layers(struct tower *t, const struct side *s)
{
    struct err e = {0};
    float *h = mem_array((size_t)SAMPLE * t->z_dim, sizeof(float), &e), *out = NULL;
    must(h, &e);
    for (size_t i = 0; i < SAMPLE; i++) {
        size_t row = i * s->n / SAMPLE;
        tower_gather(t, s->x + row * (1 + FIELDS), t->aug + (row + 1) * K, 1, h + i * t->z_dim);
    }
    for (uint32_t l = 0, in = t->z_dim; l < t->shape.n_layers; in = t->shape.width[l++]) {
        must((out = mem_array((size_t)SAMPLE * t->shape.width[l], sizeof(float), &e)), &e);
        for (uint32_t o = 0; o < t->shape.width[l]; o++)
            spread_output(t->w[l], t->b[l], in, h, o, t->shape.width[l], out);
        free(h);
        h = out;
    }
    free(h);
}

static struct model *make_model(const struct side *users, const struct side *items, struct rng *r)
{
    struct err e = {0};
    const struct tower_params p = {
        .k = K, .d_aug = K, .n_layers = 3, .width = {256, 128, 32}, .relu_out = true, .with_aug = true};
    struct model *m = model_new(MODEL_DAT, make_schema(users->n, items->n), &p, &p, &e);
    float *center = mem_array((size_t)CLUSTERS * 2 * K, sizeof(*center), &e);
    must(m && center, &e);
    fill(center, (size_t)CLUSTERS * 2 * K, 1, r);
    struct tower *t = &m->item;
    fill(t->emb, t->shape.n_rows * K, 1, r);
    for (uint32_t l = 0, in = t->z_dim; l < t->shape.n_layers; in = t->shape.width[l++])
        fill(t->w[l], (size_t)in * t->shape.width[l], 1 / sqrt(in), r);
    fill_entities(&m->item, items, center, r);
    fill_entities(&m->user, users, center, r);
    spread_layers(&m->item, items);
    share_weights(m);
    m->logit_scale = 1;
    free(center);
    return m;
}

// ------------------------------------------------------------------------------------------------------- publishing

static void show(void *user, const char *stage, double share)
{
    static int last = -1;
    (void)user;
    if ((int)(share * 20) != last)
        fprintf(stderr, "%s %.0f %%\n", stage, 100 * share);
    last = (int)(share * 20);
}

static uint64_t option(int argc, char **argv, const char *name, uint64_t otherwise)
{
    size_t n = strlen(name);
    for (int i = 2; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            return strtoull(argv[i] + n + 1, NULL, 10);
    return otherwise;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_bundle REPOSITORY [items=N] [users=N] [versions=N] [threads=N] [seed=N]\n");
        return 2;
    }
    uint32_t n_items = (uint32_t)option(argc, argv, "items", 1000000),
             n_users = (uint32_t)option(argc, argv, "users", 50000);
    unsigned threads = (unsigned)option(argc, argv, "threads", 2);
    struct err e = {0};
    struct rng r;
    static double shares[CLUSTERS];
    struct side users = {0}, items = {0};
    struct strtab_builder category = {0}, price = {0};
    uint32_t *category_of = mem_array(n_items, sizeof(*category_of), &e),
             *count = mem_array(n_items, sizeof(*count), &e);
    must(category_of && count, &e);
    rng_init(&r, option(argc, argv, "seed", 1));
    make_shares(shares);
    make_side(&users, n_users, shares, &r);
    make_side(&items, n_items, shares, &r);
    must(strtab_add(&category, "", 0, NULL, &e), &e);
    for (uint32_t v = 0; v < vocab[0]; v++) {
        char name[8];
        must(strtab_add(&category, name, (size_t)snprintf(name, sizeof(name), "v%u", v), NULL, &e), &e);
    }
    for (uint32_t i = 0; i < n_items; i++) {
        char text[16];
        category_of[i] = items.x[(size_t)i * (1 + FIELDS) + 1];
        count[i] = rng_below(&r, 1000);
        must(strtab_add(&price, text, (size_t)snprintf(text, sizeof(text), "%u", 1 + rng_below(&r, 500)), NULL, &e),
             &e);
    }
    blas_set_threads((int)threads);
    struct model *m = make_model(&users, &items, &r);
    struct item_attr attr = {.name = "price", .values = strtab_view(&price)};
    const struct publish_input in = {.model = m,
                                     .n_users = n_users,
                                     .n_items = n_items,
                                     .user_id = strtab_view(&users.id),
                                     .item_id = strtab_view(&items.id),
                                     .user_x = users.x,
                                     .item_x = items.x,
                                     .attr = &attr,
                                     .n_attrs = 1,
                                     .category = strtab_view(&category),
                                     .item_category = category_of,
                                     .item_count = count};
    const struct publish_params p = {
        .repository = argv[1], .name = "dat", .threads = threads, .seed = PUBLISH_SEED, .progress = show};
    uint64_t version;
    char dir[4096];
    for (uint64_t v = 0; v < option(argc, argv, "versions", 2); v++) {
        must((v ? bundle_publish_users : bundle_publish)(&in, &p, &version, dir, &e), &e);
        printf("%s\n", dir);
    }
    model_free(m);
    strtab_builder_fini(&users.id);
    strtab_builder_fini(&items.id);
    strtab_builder_fini(&category);
    strtab_builder_fini(&price);
    free(users.x);
    free(items.x);
    free(users.cluster);
    free(items.cluster);
    free(category_of);
    free(count);
    return 0;
}
