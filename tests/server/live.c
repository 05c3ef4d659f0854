#include "tests/server/live.h"

#include <time.h>

#include "server/route.h"
#include "tests/core/support.h"
#include "tests/core/world.h"

struct app live_app;

void live_publish(const char *dir)
{
    struct err e = {0};
    uint64_t version = 1;
    struct world *w = world_new(&(struct world_params){.kind = MODEL_DAT, .seed = 3, .n_items = 2000, .n_users = 60});
    struct publish_params p = {.repository = dir, .name = "dat", .version = version, .threads = 1};
    assert_ok(bundle_publish(&w->in, &p, &version, NULL, &e), &e);
    world_free(w);
}

static bool ready(void)
{
    struct buf why = {0};
    bool yes = live_app.service->ready(&live_app, &why);
    buf_fini(&why);
    return yes;
}

void live_start(const char *dir, const char *yaml)
{
    static char text[4096 + 4 * PATH_MAX];
    struct err e = {0};
    int n = snprintf(text, sizeof(text),
                     "data: {port: 0, threads: 1}\nadmin: {port: 0}\nlog: {level: error}\nload: {check_memory: false}\nhttp: {deadline_ms: 60000}\n"
                     "admission: {max_lag_ms: 0}\nmodels: [{name: dat, path: %s/dat}]\n%s",
                     dir, yaml);
    assert_true(n > 0 && (size_t)n < sizeof(text));
    struct config *c = config_parse(text, strlen(text), "live.yaml", NULL, NULL, 0, &e);
    assert_ok(c, &e);
    assert_ok(app_init(&live_app, c, &duet_service, &e), &e);
    assert_ok(app_listen(&live_app, &e), &e);
    assert_ok(app_start_service(&live_app, &e), &e);
    for (int i = 0; i < 3000 && !ready(); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_true(ready());
}

void live_stop(void)
{
    app_fini(&live_app);
    memset(&live_app, 0, sizeof(live_app));
}

int live_connect(void)
{
    return tcp_connect(http_port(app_listener(&live_app, false)));
}

void live_call(int fd, const char *path, const char *headers, const char *body, struct reply *r)
{
    static char text[65536]; // in one piece: two would wait for the peer's delayed acknowledgement
    int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: t\r\n%sContent-Length: %zu\r\n\r\n%s", *body ? "POST" : "GET", path, headers,
                     strlen(body), body);
    assert_true(n > 0 && (size_t)n < sizeof(text));
    tcp_puts(fd, text);
    tcp_read_reply(fd, r, 30000, false);
}
