/* Question: what does one user's tower cost, against the same layers through sgemv, and what does a user cost in
 * batches?
 *
 *     bench_tower [rounds]        default 41; prints the median and the best round of each variant, all interleaved
 * within each round; ratio of medians
 *
 * The tower is the paper's with eight fields: z = 8 x 32 + 32 = 288, then 256, 128, 32. Users differ from call to call.
 * The sgemv variant shares the gathering of embeddings, the bias, ReLU and the normalisation, so only the products
 * differ. */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/json.h"
#include "core/base/rng.h"
#include "core/blas.h"
#include "core/tower.h"

#define N_FIELDS 8
#define FIELD_ROWS 1000
#define N_USERS 4096 // a power of two
#define CALLS 2048   // users embedded per measurement
#define MAX_BATCH 1024

struct bench {
    struct schema *schema;
    struct tower t;
    struct tower_ws *ws;
    uint32_t *x; // [N_USERS + MAX_BATCH][N_FIELDS]
    float *a;    // [N_USERS + MAX_BATCH][32]
    float *out;  // [MAX_BATCH][32]
    double sum;  // of outputs, so that no work can be left out
};

static void die(const char *what)
{
    fprintf(stderr, "bench_tower: %s\n", what);
    exit(1);
}

static struct schema *make_schema(void)
{
    json_t *fields = json_array(), *none = json_array(), *values = json_array();
    for (int i = 1; i < FIELD_ROWS; i++)
        json_array_append_new(values, json_sprintf("v%d", i));
    for (int i = 0; i < N_FIELDS; i++)
        json_array_append_new(fields, json_pack("{s:o, s:s, s:O}", "name", json_sprintf("f%d", i), "kind",
                                                "categorical", "values", values));
    json_t *v = json_pack("{s:s, s:i, s:{s:n, s:o}, s:{s:n, s:o}}", "format", "duet-schema", "format_version", 1,
                          "user", "segment", "fields", fields, "item", "segment", "fields", none);
    struct schema *s = schema_from_json(v, NULL);
    json_decref(v);
    json_decref(values);
    return s;
}

static void setup(struct bench *b)
{
    const struct tower_params p = {.k = 32, .d_aug = 32, .n_layers = 3, .width = {256, 128, 32}};
    struct rng r;
    rng_init(&r, 1);
    if (!(b->schema = make_schema()) || !tower_init(&b->t, &b->schema->user, &p, NULL))
        die("setup failed");
    for (size_t i = 0; i < b->t.block_floats; i++)
        b->t.block[i] = (float)(rng_normal(&r) * 0.08);
    b->ws = tower_ws_new(&b->t, MAX_BATCH, NULL);
    b->x = malloc((N_USERS + MAX_BATCH) * N_FIELDS * sizeof(*b->x));
    b->a = malloc((N_USERS + MAX_BATCH) * 32 * sizeof(*b->a));
    b->out = malloc(MAX_BATCH * 32 * sizeof(*b->out));
    if (!b->ws || !b->x || !b->a || !b->out)
        die("out of memory");
    for (size_t i = 0; i < (N_USERS + MAX_BATCH) * N_FIELDS; i++)
        b->x[i] = rng_below(&r, FIELD_ROWS);
    for (size_t i = 0; i < (N_USERS + MAX_BATCH) * 32; i++)
        b->a[i] = (float)rng_normal(&r);
}

static void sgemv_forward(struct bench *b, const uint32_t *x, const float *a, float *out)
{
    const struct tower *t = &b->t;
    static float z[288], h[2][256];
    float *in = z;
    size_t n_in = t->z_dim;
    double s = 0;
    tower_gather(t, x, a, 1, z);
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        size_t n_out = t->shape.width[l];
        float *to = h[l & 1];
        memcpy(to, t->b[l], n_out * sizeof(*to));
        blas_sgemv(n_out, n_in, t->w[l], n_in, in, 1.0f, to);
        for (size_t i = 0; l + 1 < t->shape.n_layers && i < n_out; i++)
            to[i] = to[i] > 0 ? to[i] : 0;
        in = to;
        n_in = n_out;
    }
    for (size_t i = 0; i < t->d; i++)
        s += (double)in[i] * (double)in[i];
    float scale = s > 0 ? (float)(1 / sqrt(s)) : 0;
    for (size_t i = 0; i < t->d; i++)
        out[i] = in[i] * scale;
}

/* batch = 0: sgemv; isa < 0: the best kernel. Microseconds a user. */
static double measure(struct bench *b, size_t batch, int isa)
{
    struct timespec from, to;
    if (!tower_ws_use(b->ws, isa < 0 ? DENSE_PLAIN : (enum dense_isa)isa))
        return 0;
    for (int best = DENSE_N_ISAS - 1; isa < 0 && best >= 0; best--)
        if (tower_ws_use(b->ws, (enum dense_isa)best))
            break;
    size_t step = batch ? batch : 1;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (size_t i = 0; i < CALLS; i += step) {
        size_t u = i & (N_USERS - 1);
        if (batch)
            tower_forward(&b->t, b->x + u * N_FIELDS, b->a + u * 32, batch, b->ws, b->out);
        else
            sgemv_forward(b, b->x + u * N_FIELDS, b->a + u * 32, b->out);
        b->sum += (double)b->out[0];
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    size_t users = (CALLS + step - 1) / step * step;
    return ((double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) / 1e3) / (double)users;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        size_t batch;
        int isa;
    } variants[] = {
        {"sgemv, 1 user", 0, -1},
        {"tower, 1 user", 1, -1},
        {"tower, 1 user, avx2", 1, DENSE_AVX2},
        {"tower, 1 user, plain", 1, DENSE_PLAIN},
        {"batch of 2", 2, -1},
        {"batch of 4", 4, -1},
        {"batch of 8", 8, -1},
        {"batch of 16", 16, -1},
        {"batch of 16, avx2", 16, DENSE_AVX2},
        {"batch of 64", 64, -1},
        {"batch of 64, avx2", 64, DENSE_AVX2},
        {"batch of 256", 256, -1},
        {"batch of 1024", 1024, -1},
    };
    enum { N = sizeof(variants) / sizeof(variants[0]) };
    int rounds = argc > 1 ? atoi(argv[1]) : 41;
    struct bench b = {0};
    double *us = calloc((size_t)(rounds > 0 ? rounds : 1), N * sizeof(*us)), reference = 0;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET(1, &cpu);
    if (rounds < 1 || !us)
        die("want a positive number of rounds");
    if (sched_setaffinity(0, sizeof(cpu), &cpu) != 0)
        fprintf(stderr, "bench_tower: cannot pin to CPU 1, going on without\n");
    blas_set_threads(1);
    setup(&b);
    for (int r = -2; r < rounds; r++) // two rounds to warm up
        for (int v = 0; v < N; v++) {
            double t = measure(&b, variants[v].batch, variants[v].isa);
            if (r >= 0)
                us[v * rounds + r] = t;
        }
    printf("%-24s %10s %10s %8s\n", "variant", "median us", "best us", "ratio");
    for (int v = 0; v < N; v++) {
        qsort(us + v * rounds, (size_t)rounds, sizeof(*us), ascending);
        double median = us[v * rounds + rounds / 2];
        reference = v == 0 ? median : reference;
        printf("%-24s %10.2f %10.2f %8.2f\n", variants[v].name, median, us[v * rounds],
               median > 0 ? reference / median : 0);
    }
    fprintf(stderr, "(checksum %g)\n", b.sum);
    return 0;
}
