/* Question: what does a request cost that is nothing but tower, search, and an answer of the usual size, behind a bare
 * libmicrohttpd handler: what is the least that a daemon on libmicrohttpd could take (bench/service.sh)?
 *
 *     bench_floor BUNDLE [port=0] [k=100] [ef=150] [layout=compact] [bytes=3500] [searches=1] [memory=16384]
 *
 * Prints its port and serves until it is killed. What is asked for is not looked at: each request is a random user's, and all
 * get the same `bytes`. With `searches` of 0 and of several per request, what one costs can be told from what is around it; `memory` is
 * that of a connection, which libmicrohttpd clears after every request (limits.header_bytes). */
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/util.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/blas.h"
#include "core/retrieve.h"

struct floor {
    struct bundle *b;
    struct tower_ws *tower;
    struct hnsw_ws *search;
    struct hnsw_hit *found;
    struct hnsw_query query;
    struct rng r;
    unsigned long searches;
    char *answer;
    size_t bytes;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_floor: %s\n", what);
    exit(1);
}

static void retrieve(struct floor *f)
{
    const struct users *users = f->b->users;
    const struct tower_shape *s = &f->b->model->user.shape;
    size_t u = rng_below(&f->r, users->n);
    float p[HNSW_DIM_MAX];
    tower_forward(&f->b->model->user, users->x + u * s->n_slots, users->aug + u * s->d_aug, 1, f->tower, p);
    if (hnsw_search(f->b->hnsw, p, &f->query, f->search, f->found, NULL) == 0)
        die("search");
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                              const char *upload, size_t *size, void **req)
{
    static int seen;
    struct floor *f = cls;
    (void)url, (void)method, (void)version, (void)upload;
    if (!*req || *size) {
        *req = &seen;
        *size = 0;
        return MHD_YES;
    }
    for (unsigned long i = 0; i < f->searches; i++)
        retrieve(f);
    struct MHD_Response *r = MHD_create_response_from_buffer(f->bytes, f->answer, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(r, "Content-Type", "application/json");
    enum MHD_Result ok = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return ok;
}

static void load(struct floor *f, int argc, char **argv)
{
    struct err e = {0};
    struct bundle_load_params p = {.threads = 1};
    if (argc < 2 || !bundle_layout_parse(bench_option(argc, argv, "layout", "compact"), &p.layout))
        die("usage: bench_floor BUNDLE [port=N] [k=N] [ef=N] [layout=fast|compact|plain] [bytes=N] [searches=N] [memory=N]");
    if (!(f->b = bundle_load(argv[1], &p, &e)))
        die(e.msg);
    if (f->b->model->stored || !f->b->users->aug || f->b->users->n == 0)
        die("the bundle has no users with a_u and a tower");
    f->query = (struct hnsw_query){.k = strtoul(bench_option(argc, argv, "k", "100"), NULL, 10),
                                   .ef = strtoul(bench_option(argc, argv, "ef", "150"), NULL, 10)};
    f->searches = strtoul(bench_option(argc, argv, "searches", "1"), NULL, 10);
    f->bytes = strtoul(bench_option(argc, argv, "bytes", "3500"), NULL, 10);
    f->tower = tower_ws_new(&f->b->model->user, 1, &e);
    f->search = hnsw_ws_new();
    f->found = mem_array(f->query.k, sizeof(*f->found), &e);
    f->answer = mem_array(f->bytes, 1, &e);
    if (!f->tower || !f->search || !f->found || !f->answer)
        die("out of memory");
    memset(f->answer, ' ', f->bytes);
    rng_init(&f->r, 1);
}

/* External epoll, as duetd's: the internal one stalls with more than about 120 busy connections. */
int main(int argc, char **argv)
{
    struct floor f = {0};
    blas_set_threads(1);
    load(&f, argc, argv);
    struct MHD_Daemon *d = MHD_start_daemon(MHD_USE_EPOLL, (uint16_t)strtoul(bench_option(argc, argv, "port", "0"), NULL, 10), NULL, NULL,
                                            handle, &f, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                            (size_t)strtoul(bench_option(argc, argv, "memory", "16384"), NULL, 10), MHD_OPTION_END);
    if (!d)
        die("libmicrohttpd");
    printf("%u\n", MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    for (struct pollfd p = {.fd = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN};;) {
        MHD_UNSIGNED_LONG_LONG wait;
        poll(&p, 1, MHD_get_timeout(d, &wait) == MHD_YES && wait == 0 ? 0 : 100);
        MHD_run(d);
    }
}
