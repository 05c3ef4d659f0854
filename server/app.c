/* app.c - putting a daemon together and taking it apart. */
#include "server/app.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "server/access.h"
#include "server/admission.h"
#include "server/api_keys.h"
#include "server/http_tls.h"
#include "server/process.h"
#include "server/route.h"

#define TOKEN_MIN 16
#define TOKEN_MAX 4096

/* The configuration in force: what SIGHUP brought last. Handlers read modules' copies, so this is for dumps and
 * comparison only. */
struct app_live {
    pthread_mutex_t lock; // guards config
    struct config *config;
};

uint64_t app_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct http *app_listener(struct app *app, bool admin)
{
    return atomic_load(admin ? &app->admin : &app->data);
}

// ---------------------------------------------------------------------------------------------- addresses, token

static bool is_numeric(const char *address)
{
    struct in6_addr any;
    return inet_pton(AF_INET, address, &any) == 1 || inet_pton(AF_INET6, address, &any) == 1;
}

static bool is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, address, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, address, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* False: *err. *out is NULL without TLS. */
static bool read_cert(const struct config *c, bool admin, struct http_cert **out, struct err *err)
{
    const struct config_tls *t = admin ? &c->admin_tls : &c->tls;
    struct http_tls_files f = {admin ? "admin_tls" : "tls", t->cert_file, t->key_file, t->client_ca_file};
    *out = NULL;
    if (!f.cert[0] != !f.key[0])
        return err_set(err, ERR_ARG, "%s.%s is set without %s.%s", f.section, f.cert[0] ? "cert_file" : "key_file", f.section,
                       f.cert[0] ? "key_file" : "cert_file");
    if (!f.cert[0])
        return !f.client_ca[0] || err_set(err, ERR_ARG, "%s.client_ca_file is set without %s.cert_file", f.section, f.section);
    return (*out = http_cert_read(&f, err)) != NULL;
}

/* Of both listeners. False: *err, and both are NULL. */
static bool read_certs(const struct config *c, struct http_cert *out[2], struct err *err)
{
    out[1] = NULL;
    if (read_cert(c, false, &out[0], err) && read_cert(c, true, &out[1], err))
        return true;
    http_cert_release(out[0]);
    out[0] = NULL;
    return false;
}

bool app_check_config(const struct config *c, struct err *err)
{
    const char *const address[] = {c->data.address, c->admin.address};
    for (int i = 0; i < 2; i++)
        if (!is_numeric(address[i]))
            return err_set(err, ERR_ARG, "%s.address: found \"%s\", want a numeric IPv4 or IPv6 address",
                           i ? "admin" : "data", address[i]);
    if (!c->admin_token_file[0] && !is_loopback(c->admin.address))
        return err_set(err, ERR_ARG,
                       "admin.address is %s, which others can reach: set admin.token_file, or listen on 127.0.0.1",
                       c->admin.address);
    struct api_key_table *keys = api_key_table_read(c->data_keys_file, err);
    api_key_table_free(keys);
    struct http_cert *cert[2] = {NULL, NULL};
    bool ok = keys && read_certs(c, cert, err);
    http_cert_release(cert[0]);
    http_cert_release(cert[1]);
    return ok;
}

/* The token in a file, for free(). NULL: *err. */
static char *read_token(const char *path, struct err *err)
{
    size_t n;
    char *text = fio_read_all(path, TOKEN_MAX, &n, err);
    if (!text) {
        err_prefix(err, "admin.token_file");
        return NULL;
    }
    while (n > 0 && strchr("\r\n \t", text[n - 1]))
        text[--n] = '\0';
    if (n >= TOKEN_MIN && strlen(text) == n)
        return text;
    err_set(err, ERR_ARG, "admin.token_file: %s holds %zu characters, want at least %d", path, n, TOKEN_MIN);
    free(text);
    return NULL;
}

static bool set_token(struct app *app, struct err *err)
{
    const char *path = app->config->admin_token_file;
    return !path[0] || (app->admin_token = read_token(path, err)) != NULL;
}

bool app_check_files(const struct config *c, const struct service *service, struct err *err)
{
    char *token = c->admin_token_file[0] ? read_token(c->admin_token_file, err) : NULL;
    bool ok = token || !c->admin_token_file[0];
    free(token);
    return ok && (!service->check_files || service->check_files(c, err));
}

/* Time depends on the length of what was sent, not on how much of it is right. */
static bool same_token(const char *given, const char *want)
{
    size_t n = strlen(given), want_n = strlen(want);
    unsigned differ = (unsigned)(n != want_n);
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned)((unsigned char)given[i] ^ (unsigned char)want[i % want_n]);
    return differ == 0;
}

bool app_admin_allowed(const struct app *app, const struct http_request *r)
{
    if (!app->admin_token)
        return true;
    const char *given = http_header(r, "Authorization");
    return given && strncasecmp(given, "Bearer ", 7) == 0 && same_token(given + 7, app->admin_token);
}

// ---------------------------------------------------------------------------------------------------- loops' state

void *app_thread_new(void *ctx)
{
    struct app *app = ctx;
    struct thread_state *ts = calloc(1, sizeof(*ts));
    if (!ts)
        return NULL;
    ts->app = app;
    ts->shard = atomic_fetch_add(&app->next_shard, 1) + 1; // 0 is everybody's
    if (app->service->thread_new)
        ts->serve = app->service->thread_new(app);
    return ts;
}

void app_thread_free(void *ctx, void *state)
{
    struct app *app = ctx;
    struct thread_state *ts = state;
    if (ts->serve && app->service->thread_free)
        app->service->thread_free(app, ts->serve);
    free(ts);
}

// ------------------------------------------------------------------------------------------------------ life cycle

static void init_log(struct app *app)
{
    const struct config *c = app->config;
    enum log_level level = LOG_INFO;
    log_level_parse(c->log.level, &level); // the key table has checked the word
    app->log.fd = STDERR_FILENO;
    app->log.json =
        strcmp(c->log.format, "json") == 0 || (strcmp(c->log.format, "auto") == 0 && !isatty(STDERR_FILENO));
    atomic_store(&app->log.level, (int)level);
}

/* What may change while running, from `c` to the modules that keep it. */
static void tune(struct app *app, const struct config *c)
{
    enum log_level level;
    if (log_level_parse(c->log.level, &level))
        atomic_store(&app->log.level, (int)level);
    access_tune(app->access, c->log.slow_ms, c->log.sample);
    admission_tune(app->admission, c->admission.max_lag_ms, c->admission.retry_after_s, c->admission.ef_percent);
    atomic_store(&app->drain_delay_ms, c->drain.delay_ms);
    atomic_store(&app->drain_timeout_ms, c->drain.timeout_ms);
}

static unsigned threads_of(const struct config_listener *l)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return l->threads ? (unsigned)l->threads : cores > 0 ? (unsigned)cores : 1;
}

static bool read_keys(struct app *app, struct err *err)
{
    struct api_key_table *t = api_key_table_read(app->config->data_keys_file, err);
    app->api_keys = t ? api_keys_new(t, app->n_shards, app->metrics, err) : NULL;
    return app->api_keys != NULL;
}

static double cert_expires(void *ctx)
{
    return (double)http_tls_expires(ctx);
}

static bool start_tls(struct app *app, struct err *err)
{
    static const char *const labels[] = {"listener=\"data\"", "listener=\"admin\""};
    struct http_cert *cert[2];
    if (!read_certs(app->config, cert, err))
        return false;
    for (int i = 0; i < 2; i++)
        if (cert[i] && (app->tls[i] = http_tls_new(cert[i], err)))
            metrics_gauge_fn(app->metrics, "duet_tls_certificate_expires_timestamp_seconds",
                             "When the listener's certificate expires, Unix time.", labels[i], cert_expires, app->tls[i]);
    return !cert[0] == !app->tls[0] && !cert[1] == !app->tls[1];
}

unsigned app_worker_threads(const struct config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return c->workers.threads ? (unsigned)c->workers.threads : cores > 1 ? (unsigned)cores / 2 : 1;
}

bool app_init(struct app *app, struct config *c, const struct service *service, struct err *err)
{
    *app = (struct app){
        .config = c, .service = service, .start_ns = app_now_ns(), .start_unix_s = (int64_t)time(NULL), .wake_fd = -1};
    init_log(app);
    if (!(app->live = mem_array(1, sizeof(*app->live), err)))
        return false;
    pthread_mutex_init(&app->live->lock, NULL);
    app->n_shards = 1 + threads_of(&c->data) + threads_of(&c->admin) + app_worker_threads(c);
    struct admission_params p = {.n_shards = app->n_shards};
    if (!app_check_config(c, err) || !set_token(app, err) || !(app->metrics = metrics_new(app->n_shards, err)) ||
        !(app->access = access_new(app, err)) || !(app->admission = admission_new(&p, app->metrics, err)) ||
        !read_keys(app, err) || !start_tls(app, err))
        return false;
    if ((app->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        return err_errno(err, "eventfd");
    process_metrics(app->metrics);
    tune(app, c);
    return true;
}

/* Where a socket that was passed listens is not the configuration's to say. */
static bool check_passed_admin(const struct app *app, struct err *err)
{
    char address[INET6_ADDRSTRLEN];
    if (app->passed_admin <= 0 || app->admin_token)
        return true;
    http_passed_address(app->passed_admin, address, sizeof(address));
    return is_loopback(address) ||
           err_set(err, ERR_ARG, "the passed admin socket is on %s, which others can reach: set admin.token_file, or listen on 127.0.0.1", address);
}

static struct http *listen_on(struct app *app, bool admin, struct err *err)
{
    const struct config *c = app->config;
    const struct config_listener *l = admin ? &c->admin : &c->data;
    struct http_params p = {.address = l->address,
                            .port = (uint16_t)l->port,
                            .passed_fd = admin ? app->passed_admin : app->passed_data,
                            .threads = threads_of(l),
                            .is_admin = admin,
                            .max_connections = (unsigned)l->max_connections,
                            .max_body = c->limits.body_bytes,
                            .conn_memory = c->limits.header_bytes,
                            .header_ms = (unsigned)c->http.header_ms,
                            .body_ms = (unsigned)c->http.body_ms,
                            .idle_ms = (unsigned)c->http.idle_ms,
                            .deadline_ms = (unsigned)c->http.deadline_ms,
                            .tls = app->tls[admin],
                            .handler = route_dispatch,
                            .ctx = app,
                            .thread_state_new = app_thread_new,
                            .thread_state_free = app_thread_free,
                            .done = access_done};
    struct http *h = http_start(&p, err);
    if (!h)
        err_prefix(err, "%s listener", admin ? "admin" : "data");
    return h;
}

bool app_listen(struct app *app, struct err *err)
{
    if (!check_passed_admin(app, err))
        return false;
    struct http *data = listen_on(app, false, err);
    atomic_store(&app->data, data);
    if (!data)
        return false;
    struct http *admin = listen_on(app, true, err);
    atomic_store(&app->admin, admin);
    return admin != NULL;
}

bool app_start_service(struct app *app, struct err *err)
{
    app->service_started = true;
    if (app->service->start && !app->service->start(app, err))
        return false;
    atomic_store_explicit(&app->serving, true, memory_order_release);
    return true;
}

bool app_reconfigure(struct app *app, struct config *next, struct buf *frozen, struct err *err)
{
    config_frozen_changes(app->config, next, frozen);
    struct api_key_table *keys = api_key_table_read(next->data_keys_file, err);
    struct http_cert *cert[2] = {NULL, NULL};
    if (!keys || !config_keep_frozen(next, app->config, err) || !read_certs(next, cert, err) ||
        (app->service->check && !app->service->check(next, err)) ||
        (app->service->apply && !app->service->apply(app, next, err))) {
        http_cert_release(cert[0]);
        http_cert_release(cert[1]);
        api_key_table_free(keys);
        config_free(next);
        return false;
    }
    api_keys_replace(app->api_keys, keys);
    for (int i = 0; i < 2; i++)
        if (app->tls[i])
            http_tls_replace(app->tls[i], cert[i]);
    tune(app, next);
    pthread_mutex_lock(&app->live->lock);
    struct config *old = app->live->config;
    app->live->config = next;
    pthread_mutex_unlock(&app->live->lock);
    config_free(old);
    return true;
}

void app_config_dump(struct app *app, struct buf *out)
{
    pthread_mutex_lock(&app->live->lock);
    config_dump(app->live->config ? app->live->config : app->config, out);
    pthread_mutex_unlock(&app->live->lock);
}

void app_request_drain(struct app *app)
{
    uint64_t one = 1;
    ssize_t done = write(app->wake_fd, &one, sizeof(one));
    (void)done; // the counter is full only if it was asked for already
}

void app_begin_drain(struct app *app)
{
    atomic_store(&app->draining, true);
    for (int admin = 0; admin < 2; admin++)
        if (app_listener(app, admin))
            http_drain(app_listener(app, admin));
}

bool app_is_quiet(struct app *app, uint64_t quiet_ms)
{
    if (http_in_flight(app_listener(app, false)) > 0)
        return false;
    return app_now_ns() - access_last_answer_ns(app->access) >= quiet_ms * 1000000;
}

/* The service first answers what it has suspended, since the listeners wait for that; it is taken down when no handler
 * can run. */
void app_fini(struct app *app)
{
    struct http *data = app_listener(app, false), *admin = app_listener(app, true);
    bool started = app->service_started;
    if (started && app->service->stop_accepting)
        app->service->stop_accepting(app);
    http_halt(data); // each one's health tells of both: neither is freed while the other can still answer
    http_halt(admin);
    http_stop(data);
    http_stop(admin);
    atomic_store(&app->data, NULL);
    atomic_store(&app->admin, NULL);
    if (started && app->service->stop)
        app->service->stop(app);
    access_free(app->access);
    admission_free(app->admission);
    api_keys_free(app->api_keys);
    http_tls_free(app->tls[0]);
    http_tls_free(app->tls[1]);
    metrics_free(app->metrics);
    free(app->admin_token);
    if (app->live) {
        pthread_mutex_destroy(&app->live->lock);
        config_free(app->live->config);
        free(app->live);
    }
    if (app->wake_fd >= 0)
        close(app->wake_fd);
    config_free((struct config *)(uintptr_t)app->config);
}
