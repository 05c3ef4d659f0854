/* wire.c - what does JSON cost a request? Reading bodies of 200 bytes and 8 KB, writing 100 and 1,000 candidates, beside jansson.
 * Goals: 200 B in < 1 us; 100 / 1,000 rows in <= 1.5 / 12 us. Prints medians of rounds, interleaved ours / jansson. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/json.h"
#include "core/base/rng.h"
#include "server/hits.h"
#include "server/query.h"

#define ROUNDS 31
#define N_ITEMS 1000000

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); // the machine may be busy with other work
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct job {
    const char *name;
    void (*run)(void *ctx, size_t times);
    void *ctx;
    size_t times;
    double us[ROUNDS];
};

static void measure(struct job *job, size_t n)
{
    for (int r = 0; r < ROUNDS; r++)
        for (size_t i = 0; i < n; i++) {
            uint64_t begin = now_ns();
            job[i].run(job[i].ctx, job[i].times);
            job[i].us[r] = (double)(now_ns() - begin) / 1000 / (double)job[i].times;
        }
    for (size_t i = 0; i < n; i++) {
        qsort(job[i].us, ROUNDS, sizeof(double), by_value);
        printf("%-28s %8.3f us\n", job[i].name, job[i].us[ROUNDS / 2]);
    }
}

// ------------------------------------------------------------------------------------------------------- reading

struct body {
    char text[16384];
    size_t n;
    struct query q;
};
static const struct query_limits limits = {
    .k = 10000, .ef = 20000, .ids = 10000, .id_bytes = 256, .history = 1000, .depth = 16};

static void read_ours(void *ctx, size_t times)
{
    struct body *b = ctx;
    struct wire_error e;
    for (size_t i = 0; i < times; i++)
        if (!query_parse(&b->q, QUERY_RETRIEVE, b->text, b->n, &limits, &e))
            abort();
}

static void read_jansson(void *ctx, size_t times)
{
    struct body *b = ctx;
    for (size_t i = 0; i < times; i++)
        json_decref(json_parse(b->text, b->n, NULL));
}

static void make_bodies(struct body *small, struct body *large)
{
    small->n = (size_t)snprintf(
        small->text, sizeof(small->text),
        "{\"user_id\":\"253\",\"features\":{\"city\":\"SH\",\"age\":25,\"gender\":\"f\"},\"k\":100,\"ef\":200,"
        "\"exact\":false,\"exclude_seen\":true,\"min_score\":0.125,\"exclude_ids\":[\"149\",\"31\"],"
        "\"fields\":[\"title\"],\"format\":\"rows\"}");
    size_t at = (size_t)sprintf(large->text, "{\"user_id\":\"253\",\"k\":100,\"exclude_ids\":[\"0\"");
    for (unsigned i = 0; at < 8180; i++)
        at += (size_t)sprintf(large->text + at, ",\"%u\"", 100000 + i * 7);
    large->n = at + (size_t)sprintf(large->text + at, "]}");
    query_init(&small->q);
    query_init(&large->q);
}

// ------------------------------------------------------------------------------------------------------- writing

struct hits {
    struct items items;
    struct retrieve_hit *hit;
    size_t n, round, parts; // a request takes the next of `parts` sets of 1,000 hits: 64 are too many for the L2 cache
    struct buf out;
};

static void write_ours(void *ctx, size_t times)
{
    struct hits *h = ctx;
    for (size_t i = 0; i < times; i++) {
        buf_reset(&h->out);
        hits_write_rows(&h->out, &h->items, h->hit + h->round++ % h->parts * 1000, h->n, &(struct hits_attrs){NULL, 0});
    }
}

static void write_columns(void *ctx, size_t times)
{
    struct hits *h = ctx;
    for (size_t i = 0; i < times; i++) {
        buf_reset(&h->out);
        hits_write_columns(&h->out, &h->items, h->hit + h->round++ % h->parts * 1000, h->n,
                           &(struct hits_attrs){NULL, 0});
    }
}

static void write_jansson(void *ctx, size_t times)
{
    struct hits *h = ctx;
    for (size_t i = 0; i < times; i++) {
        const struct retrieve_hit *hit = h->hit + h->round++ % h->parts * 1000;
        json_t *list = json_array();
        for (size_t k = 0; k < h->n; k++) {
            struct str id = strtab_get(&h->items.ids, hit[k].item_idx);
            json_array_append_new(list, json_pack("{s:s%, s:f}", "id", id.p, (int)id.n, "score", (double)hit[k].score));
        }
        char *text = json_dumps(list, JSON_COMPACT | JSON_REAL_PRECISION(7));
        free(text);
        json_decref(list);
    }
}

static struct strtab make_ids(struct strtab_builder *b)
{
    char id[16];
    for (unsigned i = 0; i < N_ITEMS; i++)
        if (!strtab_add(b, id, (size_t)snprintf(id, sizeof(id), "%u", i * 13 + 1), NULL, NULL))
            abort();
    return strtab_view(b);
}

int main(void)
{
    static struct body small, large;
    static struct hits h100, h1000, warm100, warm1000;
    struct strtab_builder ids = {0};
    struct rng r;
    rng_init(&r, 1);
    make_bodies(&small, &large);
    h100.items.ids = make_ids(&ids);
    h100.items.n = N_ITEMS;
    if (!items_shorten_ids(&h100.items, NULL))
        abort();
    h100.hit = mem_array(64 * 1000, sizeof(struct retrieve_hit), NULL);
    for (size_t i = 0; i < 64 * 1000; i++)
        h100.hit[i] = (struct retrieve_hit){rng_below(&r, N_ITEMS), (float)rng_unit(&r)};
    h1000 = h100;
    h100.n = 100;
    h1000.n = 1000;
    h100.parts = h1000.parts = 64;
    warm100 = h100;
    warm1000 = h1000;
    warm100.parts = warm1000.parts = 1;
    printf("bodies of %zu and %zu bytes; %d rounds, medians\n", small.n, large.n, ROUNDS);
    struct job jobs[] = {
        {.name = "read small, ours", .run = read_ours, .ctx = &small, .times = 20000},
        {.name = "read small, jansson", .run = read_jansson, .ctx = &small, .times = 2000},
        {.name = "read 8 KB, ours", .run = read_ours, .ctx = &large, .times = 500},
        {.name = "read 8 KB, jansson", .run = read_jansson, .ctx = &large, .times = 50},
        {.name = "write 100 rows, ours", .run = write_ours, .ctx = &h100, .times = 2000},
        {.name = "write 100 columns, ours", .run = write_columns, .ctx = &h100, .times = 2000},
        {.name = "write 100 rows, jansson", .run = write_jansson, .ctx = &h100, .times = 100},
        {.name = "write 100 rows, ids in L1", .run = write_ours, .ctx = &warm100, .times = 2000},
        {.name = "write 1,000 rows, ids in L2", .run = write_ours, .ctx = &warm1000, .times = 200},
        {.name = "write 1,000 rows, ours", .run = write_ours, .ctx = &h1000, .times = 200},
        {.name = "write 1,000 columns, ours", .run = write_columns, .ctx = &h1000, .times = 200},
        {.name = "write 1,000 rows, jansson", .run = write_jansson, .ctx = &h1000, .times = 10},
    };
    measure(jobs, sizeof(jobs) / sizeof(jobs[0]));
    query_fini(&small.q);
    query_fini(&large.q);
    buf_fini(&h100.out);
    buf_fini(&h1000.out);
    buf_fini(&warm100.out);
    buf_fini(&warm1000.out);
    free(h100.hit);
    strtab_builder_fini(&ids);
    return 0;
}
