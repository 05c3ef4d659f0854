/* http.c - what does our listener cost over a bare libmicrohttpd handler, and what do routes, admission, metrics and
 * log add?
 *
 *     bench_http [rounds] [connections] [requests per round]
 *
 * Variants are interleaved within each round. One client thread keeps all connections busy with one small POST each;
 * the server's CPU time is the process's less the client thread's, so other work on the machine hardly matters. */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"
#include "server/app.h"
#include "server/http.h"
#include "server/route.h"

static const char request[] =
    "POST /v1/null HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    "{\"user_id\":\"253\",\"k\":100,\"fields\":[\"title\"],\"x\":1}";
static const char answer[] = "{\"request_id\":\"0123456789abcdef\",\"items\":[]}\n";

// ------------------------------------------------------------------------------------------------- bare libmicrohttpd

static enum MHD_Result bare(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                            const char *version, const char *upload, size_t *size, void **req)
{
    static int seen;
    (void)cls, (void)url, (void)method, (void)version, (void)upload;
    if (!*req) {
        *req = &seen;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    struct MHD_Response *r =
        MHD_create_response_from_buffer(sizeof(answer) - 1, (void *)(uintptr_t)answer, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(r, "Content-Type", "application/json");
    enum MHD_Result ok = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return ok;
}

/* External epoll, as ours: the internal one stalls with more than about 120 busy connections. */
static _Atomic bool bare_stop;

static void *bare_loop(void *arg)
{
    struct MHD_Daemon *d = arg;
    int epoll_fd = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    while (!bare_stop) {
        struct pollfd p = {.fd = epoll_fd, .events = POLLIN};
        MHD_UNSIGNED_LONG_LONG wait;
        poll(&p, 1, MHD_get_timeout(d, &wait) == MHD_YES && wait == 0 ? 0 : 100);
        MHD_run(d);
    }
    return NULL;
}

static uint16_t bare_port(struct MHD_Daemon *d)
{
    return MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port;
}

// ---------------------------------------------------------------------------------------------- our listener, our
// daemon

static bool null_handler(void *ctx, struct http_request *r, struct http_response *resp)
{
    (void)ctx, (void)r;
    resp->status = 200;
    buf_put(&resp->body, answer, sizeof(answer) - 1);
    return true;
}

static bool null_route(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)m;
    return null_handler(app, r, resp);
}

static const struct route routes[] = {
    {.method = HTTP_POST,
     .pattern = "/v1/null",
     .on = ROUTE_DATA,
     .name = "null",
     .sheds = true,
     .handler = null_route},
    {.handler = NULL},
};
static const struct service service = {.routes = routes};

static void die(const char *what)
{
    fprintf(stderr, "bench_http: %s\n", what);
    exit(1);
}

static void start_app(struct app *app)
{
    struct err err = {0};
    struct config_override set[] = {
        {"data.port=0"}, {"admin.port=0"}, {"data.threads=1"}, {"log.level=error"}, {"http.deadline_ms=60000"}};
    struct config *c = config_read(NULL, NULL, set, 5, &err);
    if (!c || !app_init(app, c, &service, &err) || !app_listen(app, &err) || !app_start_service(app, &err))
        die(err.msg);
}

// --------------------------------------------------------------------------------------------------------- the client

struct client {
    int epoll_fd, n;
    int *fd;
};

static struct client open_client(uint16_t port, int n)
{
    struct client c = {.epoll_fd = epoll_create1(0), .n = n, .fd = calloc((size_t)n, sizeof(int))};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < n; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = c.fd[i] = socket(AF_INET, SOCK_STREAM, 0)};
        if (connect(c.fd[i], (struct sockaddr *)&a, sizeof(a)) != 0)
            die("connect");
        epoll_ctl(c.epoll_fd, EPOLL_CTL_ADD, c.fd[i], &ev);
    }
    return c;
}

static void close_client(struct client *c)
{
    for (int i = 0; i < c->n; i++)
        close(c->fd[i]);
    close(c->epoll_fd);
    free(c->fd);
}

static void ask(int fd)
{
    if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1)
        die("send");
}

/* n requests, one outstanding on each connection. Answers are small: one recv gets a whole one. */
static void run_client(const struct client *c, long n)
{
    struct epoll_event ev[256];
    char text[2048];
    long asked = 0, got = 0;
    for (; asked < c->n && asked < n; asked++)
        ask(c->fd[asked]);
    while (got < n) {
        int k = epoll_wait(c->epoll_fd, ev, 256, 5000);
        if (k <= 0)
            die("the server stalls");
        for (int i = 0; i < k; i++) {
            ssize_t len = recv(ev[i].data.fd, text, sizeof(text) - 1, 0);
            if (len < 12 || memcmp(text + 9, "200", 3) != 0)
                die("an answer is not 200");
            got++;
            if (asked < n) {
                ask(ev[i].data.fd);
                asked++;
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------ measurement

static double cpu_us(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return 1e6 * (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Microseconds of server CPU per request. */
static double measure(uint16_t port, int connections, long n)
{
    struct client c = open_client(port, connections);
    run_client(&c, connections); // all connections known to the server
    double before = cpu_us(RUSAGE_SELF) - cpu_us(RUSAGE_THREAD);
    run_client(&c, n);
    double cost = cpu_us(RUSAGE_SELF) - cpu_us(RUSAGE_THREAD) - before;
    close_client(&c);
    return cost / (double)n;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 15, connections = argc > 2 ? atoi(argv[2]) : 64;
    long n = argc > 3 ? atol(argv[3]) : 20000;
    static const char *const names[] = {"bare libmicrohttpd", "our listener", "our daemon, null route"};
    enum { VARIANTS = 3 };
    if (rounds < 1 || rounds > 1000 || connections < 1 || n < 1)
        die("usage: bench_http [rounds] [connections] [requests per round]");
    struct MHD_Daemon *mhd = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, bare, NULL, MHD_OPTION_END);
    struct http_params p = {.address = "127.0.0.1",
                            .threads = 1,
                            .max_connections = 4096,
                            .max_body = 1 << 20,
                            .header_ms = 10000,
                            .body_ms = 10000,
                            .idle_ms = 60000,
                            .deadline_ms = 60000,
                            .handler = null_handler};
    struct err err = {0};
    struct http *http = http_start(&p, &err);
    struct app app;
    if (!mhd || !http)
        die(http ? "libmicrohttpd" : err.msg);
    pthread_t bare_thread;
    pthread_create(&bare_thread, NULL, bare_loop, mhd);
    start_app(&app);
    uint16_t port[VARIANTS] = {bare_port(mhd), http_port(http), http_port(app_listener(&app, false))};
    double(*us)[VARIANTS] = calloc((size_t)rounds, sizeof(*us)), column[1000], first = 0;
    for (int r = -1; r < rounds; r++) // the first round warms up
        for (int v = 0; v < VARIANTS; v++) {
            double cost = measure(port[v], connections, n);
            if (r >= 0)
                us[r][v] = cost;
        }
    printf("%d connections, %d rounds of %ld requests; us of server CPU per request\n", connections, rounds, n);
    for (int v = 0; v < VARIANTS; v++) {
        for (int r = 0; r < rounds; r++)
            column[r] = us[r][v];
        qsort(column, (size_t)rounds, sizeof(column[0]), ascending);
        double median = column[rounds / 2];
        first = v ? first : median;
        printf("%-36s median %6.2f  best %6.2f  requests/CPU s %7.0f  of bare %.2f\n", names[v], median, column[0],
               1e6 / median, first / median);
    }
    free(us);
    bare_stop = true;
    pthread_join(bare_thread, NULL);
    MHD_stop_daemon(mhd);
    http_stop(http);
    app_fini(&app);
    return 0;
}
