/* main.c - duetd: options, signals, and the order of start and stop.
 *
 *     configuration -> sockets bound -> service starts loading -> serve until SIGTERM -> drain -> stop
 *
 * Signal handlers only write the signal's number into a pipe that the main thread reads. (Blocking them and reading a
 * signalfd would not do: OpenBLAS starts a thread when it is loaded, before main could block anything, and that thread
 * would take the default action.) */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "config/config.h"
#include "core/base/fio.h"
#include "core/base/json.h"
#include "core/blas.h"
#include "server/activate.h"
#include "server/app.h"
#include "server/notify.h"
#include "server/probe.h"

#define SET_MAX 64
#define QUIET_MS 500 // nothing answered for so long: the drain is over
#define DRAIN_TICK_MS 50
#define LOOP_STUCK_MS 30000 // as /livez has it

struct options {
    const char *config, *ports_file, *probe;
    struct probe_cert probe_cert;
    bool check, dump;
    struct config_override set[SET_MAX];
    size_t n_set;
};

// -------------------------------------------------------------------------------------------------------- options

static const char help[] =
    "usage: duetd [--config FILE] [--set section.key=value]... [--ports-file FILE]\n"
    "Serves candidates from published bundles over HTTP.\n"
    "\n"
    "  --config FILE         configuration (YAML); DUET__SECTION__KEY in the environment and --set win over it\n"
    "  --set KEY=VALUE       one key, as data.port=9000; may be repeated\n"
    "  --ports-file FILE     write {\"data\": port, \"admin\": port} there once both listen\n"
    "  --probe WHAT          ask a running daemon's admin listener for livez, readyz or startupz, and exit 0 or 1\n"
    "  --probe-cert FILE, --probe-key FILE\n"
    "                        its client certificate, where admin_tls.client_ca_file wants one; without, that of admin_tls itself\n"
    "  --check-config        say whether the configuration is fine, and exit 0 or 1\n"
    "  --dump-config         print the configuration in force and where each value came from, and exit\n"
    "  --sample-config       print a file with every key, its default and its meaning, and exit\n"
    "  --table-config        the same as a Markdown table\n"
    "  --version, --help\n"
    "\n"
    "SIGTERM or SIGINT drains and stops (a second one does not wait), SIGHUP reads the configuration again.\n";

static int print_text(void (*write_to)(struct buf *))
{
    struct buf out = {0};
    write_to(&out);
    if (!out.failed)
        fputs(out.data, stdout);
    buf_fini(&out);
    return 0;
}

static int wrong_usage(const char *text, const char *arg)
{
    fprintf(stderr, "duetd: %s %s (--help lists the options)\n", text, arg);
    return 2;
}

/* An option's value: behind '=' or the next argument. NULL if it is missing. */
static const char *value_of(const char *arg, size_t name_n, int argc, char **argv, int *i)
{
    if (arg[name_n] == '=')
        return arg + name_n + 1;
    return *i + 1 < argc ? argv[++*i] : NULL;
}

static bool is_option(const char *arg, const char *name, size_t *name_n)
{
    *name_n = strlen(name);
    return strncmp(arg, name, *name_n) == 0 && (arg[*name_n] == '\0' || arg[*name_n] == '=');
}

/* -1: go on; otherwise the exit status. */
static int parse_option(struct options *o, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *v = "";
    size_t n;
    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
        return fputs(help, stdout) < 0;
    if (strcmp(arg, "--version") == 0)
        return printf("duetd %s\n", DUET_VERSION) < 0;
    if (strcmp(arg, "--sample-config") == 0)
        return print_text(config_sample);
    if (strcmp(arg, "--table-config") == 0)
        return print_text(config_table);
    if (strcmp(arg, "--check-config") == 0)
        o->check = true;
    else if (strcmp(arg, "--dump-config") == 0)
        o->dump = true;
    else if (is_option(arg, "--config", &n))
        o->config = v = value_of(arg, n, argc, argv, i);
    else if (is_option(arg, "--ports-file", &n))
        o->ports_file = v = value_of(arg, n, argc, argv, i);
    else if (is_option(arg, "--probe-cert", &n))
        o->probe_cert.cert = v = value_of(arg, n, argc, argv, i);
    else if (is_option(arg, "--probe-key", &n))
        o->probe_cert.key = v = value_of(arg, n, argc, argv, i);
    else if (is_option(arg, "--probe", &n))
        o->probe = v = value_of(arg, n, argc, argv, i);
    else if (is_option(arg, "--set", &n) && o->n_set < SET_MAX)
        o->set[o->n_set++].text = v = value_of(arg, n, argc, argv, i);
    else
        return wrong_usage("unknown option", arg);
    return v ? -1 : wrong_usage("no value after", arg);
}

static struct config *read_config(const struct options *o, struct err *err)
{
    return config_read(o->config, environ, o->set, o->n_set, err);
}

/* --check-config and --dump-config. */
static int inspect_config(const struct options *o)
{
    struct err err = {0};
    struct buf out = {0};
    struct config *c = read_config(o, &err);
    bool ok = c && app_check_config(c, &err) && (!duet_service.check || duet_service.check(c, &err)) &&
              (o->dump || app_check_files(c, &duet_service, &err));
    if (!ok)
        fprintf(stderr, "duetd: %s\n", err.msg);
    else if (o->dump)
        config_dump(c, &out);
    else
        printf("duetd: the configuration is fine: %zu models, %zu experiments\n", c->n_models, c->n_experiments);
    if (out.data)
        fputs(out.data, stdout);
    buf_fini(&out);
    config_free(c);
    return ok ? 0 : 1;
}

static int probe(const struct options *o)
{
    struct err err = {0};
    struct config *c = read_config(o, &err);
    bool ok = c && probe_ask(c, o->probe, &o->probe_cert, &err);
    if (!ok)
        fprintf(stderr, "duetd: %s\n", err.msg);
    config_free(c);
    return ok ? 0 : 1;
}

// --------------------------------------------------------------------------------------------------------- start

static bool write_ports(struct app *app, const char *path, struct err *err)
{
    char text[80];
    int n = snprintf(text, sizeof(text), "{\"data\": %u, \"admin\": %u}\n", http_port(app_listener(app, false)),
                     http_port(app_listener(app, true)));
    return fio_write_atomic(path, text, (size_t)n, err);
}

static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r); // a wish: 1024 serves too
    }
}

static int signal_pipe[2]; // the one thing that a handler can reach

static void on_signal(int sig)
{
    int saved = errno;
    unsigned char byte = (unsigned char)sig;
    ssize_t done = write(signal_pipe[1], &byte, 1);
    (void)done; // full: enough signals wait already
    errno = saved;
}

static void handle_signals(void (*handler)(int))
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &sa, NULL);
}

static bool open_signals(struct err *err)
{
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_errno(err, "signal pipe");
    handle_signals(on_signal);
    signal(SIGPIPE, SIG_IGN);
    return true;
}

static bool start(struct app *app, const struct options *o, const struct activated *passed, struct err *err)
{
    struct config *c = read_config(o, err);
    if (!c)
        return false;
    if (duet_service.check && !duet_service.check(c, err)) {
        config_free(c);
        return false;
    }
    if (!app_init(app, c, &duet_service, err))
        return false;
    app->passed_data = passed->data;
    app->passed_admin = passed->admin;
    if (!app_listen(app, err))
        return false;
    if (o->ports_file && !write_ports(app, o->ports_file, err))
        return err_prefix(err, "--ports-file");
    log_event(&app->log, LOG_INFO, "listening", LOG_STR("version", DUET_VERSION),
              LOG_STR("data_address", c->data.address), LOG_INT("data_port", http_port(app_listener(app, false))),
              LOG_STR("admin_address", c->admin.address), LOG_INT("admin_port", http_port(app_listener(app, true))),
              LOG_BOOL("passed", passed->data >= 0 || passed->admin >= 0), LOG_INT("models", c->n_models), LOG_INT("experiments", c->n_experiments));
    return app_start_service(app, err);
}

// --------------------------------------------------------------------------------------------------------- serve

static void reload_config(struct app *app, const struct options *o)
{
    struct err err = {0};
    struct buf frozen = {0};
    char state[64];
    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(app_now_ns() / 1000));
    notify(state);
    if (duet_service.reopen)
        duet_service.reopen(app);
    struct config *next = read_config(o, &err);
    if (!next || !app_reconfigure(app, next, &frozen, &err))
        log_event(&app->log, LOG_ERROR, "config_refused", LOG_STR("error", err.msg),
                  LOG_STR("note", "the old configuration stays in force"));
    else
        log_event(&app->log, LOG_INFO, "config_read", LOG_STR("needs_restart", frozen.data ? frozen.data : ""));
    buf_fini(&frozen);
    notify("READY=1");
}

/* The next signal, or 0 after timeout_ms (-1: never) or when a drain was asked for through the admin listener (*asked).
 */
static int next_signal(int wake_fd, int timeout_ms, bool *asked)
{
    struct pollfd p[2] = {{.fd = signal_pipe[0], .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
    unsigned char sig;
    uint64_t count;
    if (poll(p, 2, timeout_ms) <= 0)
        return 0;
    if ((p[1].revents & POLLIN) && read(wake_fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        *asked = true;
    return read(signal_pipe[0], &sig, 1) == 1 ? sig : 0;
}

/* What systemd's watchdog is told while the event loops turn. */
static void tell_alive(struct app *app, int watchdog_ms)
{
    if (watchdog_ms > 0 && http_loop_age_ms(app_listener(app, false)) < LOOP_STUCK_MS &&
        http_loop_age_ms(app_listener(app, true)) < LOOP_STUCK_MS)
        notify("WATCHDOG=1");
}

static void serve(struct app *app, const struct options *o)
{
    bool asked = false;
    int watchdog_ms = notify_watchdog_ms();
    notify("READY=1\nSTATUS=listening");
    for (;;) {
        tell_alive(app, watchdog_ms);
        int sig = next_signal(app->wake_fd, watchdog_ms, &asked);
        if (sig == SIGHUP)
            reload_config(app, o);
        if (sig == SIGTERM || sig == SIGINT || asked)
            return;
    }
}

/* Not ready from the first moment, but serving on: a balancer needs a while to notice, and its last requests are to be
 * answered. */
static void drain(struct app *app)
{
    uint64_t begun = app_now_ns(), delay = atomic_load(&app->drain_delay_ms),
             most = atomic_load(&app->drain_timeout_ms), ms = 0;
    bool asked = false, forced = false;
    log_event(&app->log, LOG_INFO, "drain", LOG_INT("delay_ms", delay), LOG_INT("timeout_ms", most));
    notify("STOPPING=1\nSTATUS=draining");
    app_begin_drain(app);
    while (!forced && ms < most && (ms < delay || !app_is_quiet(app, QUIET_MS))) {
        int sig = next_signal(app->wake_fd, DRAIN_TICK_MS, &asked);
        uint64_t before = ms;
        forced = sig == SIGTERM || sig == SIGINT;
        ms = (app_now_ns() - begun) / 1000000;
        if (ms - before >= QUIET_MS && delay < ms + QUIET_MS)
            delay = ms + QUIET_MS; // it stood still, perhaps with its machine: that nobody was answered meanwhile is no quiet
    }
    log_event(&app->log, forced || ms >= most ? LOG_WARN : LOG_INFO, "stop", LOG_INT("drained_ms", ms),
              LOG_BOOL("forced", forced), LOG_INT("in_flight", http_in_flight(app_listener(app, false))));
}

int main(int argc, char **argv)
{
    struct options o = {0};
    for (int i = 1; i < argc; i++) {
        int rc = parse_option(&o, argc, argv, &i);
        if (rc >= 0)
            return rc;
    }
    if (!o.probe_cert.cert != !o.probe_cert.key)
        return wrong_usage("--probe-cert and --probe-key go together: there is no", o.probe_cert.cert ? "--probe-key" : "--probe-cert");
    if (o.check || o.dump)
        return inspect_config(&o);
    if (o.probe)
        return probe(&o);
    struct app app = {.wake_fd = -1};
    struct err err = {0};
    json_object_seed(0); // before there are threads
    blas_set_threads(1); // requests are the parallelism
    raise_file_limit();
    struct activated passed;
    bool ok = activate_sockets(&passed, &err) && open_signals(&err) && start(&app, &o, &passed, &err);
    if (ok) {
        serve(&app, &o);
        drain(&app);
        handle_signals(SIG_DFL); // from here on one more signal ends the process at once
    } else {
        fprintf(stderr, "duetd: %s\n", err.msg[0] ? err.msg : "cannot start");
    }
    app_fini(&app);
    return ok ? 0 : 1;
}
