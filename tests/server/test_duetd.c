/* Breaks when the program itself does not start, drain, reload its configuration or stop as an orchestrator needs it
 * to. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "tests/server/tcp.h"

static char dir[] = "/tmp/duetd-test-XXXXXX";
static char config_path[PATH_MAX], ports_path[PATH_MAX], log_path[PATH_MAX];

struct daemon {
    pid_t pid;
    uint16_t data, admin;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void write_text(const char *path, const char *text)
{
    struct err err = {0};
    if (!fio_write_atomic(path, text, strlen(text), &err))
        fail_msg("%s", err.msg);
}

static char *read_text(const char *path)
{
    size_t n;
    struct err err = {0};
    char *text = fio_read_all(path, 1 << 20, &n, &err);
    return text ? text : calloc(1, 1);
}

/* Start duetd; output and log lines go to log_path. */
static pid_t spawn(const char *const *args)
{
    char binary[PATH_MAX];
    snprintf(binary, sizeof(binary), "%s/duetd", getenv("DUET_BIN_DIR") ? getenv("DUET_BIN_DIR") : ".");
    const char *argv[16] = {binary};
    for (int i = 0; args[i] && i < 14; i++)
        argv[i + 1] = args[i];
    unlink(ports_path);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(binary, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static int status_of(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static struct daemon start_daemon(const char *set)
{
    struct daemon d = {.pid = spawn((const char *const[]){"--config", config_path, "--ports-file", ports_path,
                                                          set ? "--set" : NULL, set, NULL})};
    for (int i = 0; i < 1000 && !d.admin; i++) {
        unsigned data, admin;
        char *text = read_text(ports_path);
        if (sscanf(text, "{\"data\": %u, \"admin\": %u}", &data, &admin) == 2) {
            d.data = (uint16_t)data;
            d.admin = (uint16_t)admin;
        }
        free(text);
        sleep_ms(10);
    }
    if (!d.admin)
        fail_msg("duetd did not start:\n%s", read_text(log_path));
    return d;
}

static bool log_has(const char *text)
{
    for (int i = 0; i < 300; i++) {
        char *log = read_text(log_path);
        bool found = strstr(log, text) != NULL;
        free(log);
        if (found)
            return true;
        sleep_ms(10);
    }
    print_error("not in the log: %s\n%s\n", text, read_text(log_path));
    return false;
}

static void expect_run(const char *const *args, int status, const char *text)
{
    int rc = status_of(spawn(args));
    char *log = read_text(log_path);
    if (rc != status || !strstr(log, text))
        fail_msg("duetd %s ...: exit %d, want %d\n%s\nwant: %s", args[0], rc, status, log, text);
    free(log);
}

static const char config_text[] =
    "data: {port: 0, threads: 2}\nadmin: {port: 0}\ndrain: {delay_ms: 300, timeout_ms: 10000}\nlog: {level: info}\n";

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(config_path, sizeof(config_path), "%s/duetd.yaml", dir);
    snprintf(ports_path, sizeof(ports_path), "%s/ports.json", dir);
    snprintf(log_path, sizeof(log_path), "%s/log", dir);
    write_text(config_path, config_text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return !fio_remove_tree(dir, NULL);
}

static void options(void **state)
{
    (void)state;
    char bad[PATH_MAX];
    snprintf(bad, sizeof(bad), "%s/bad.yaml", dir);
    write_text(bad, "data:\n  prot: 1\n");
    expect_run((const char *const[]){"--version", NULL}, 0, "duetd " DUET_VERSION);
    expect_run((const char *const[]){"--help", NULL}, 0, "--check-config");
    expect_run((const char *const[]){"--check-config", "--config", config_path, NULL}, 0, "fine");
    expect_run((const char *const[]){"--dump-config", "--config", config_path, "--set=data.port=7", NULL}, 0,
               "  port: 7  # --set\n");
    expect_run((const char *const[]){"--sample-config", NULL}, 0, "max_connections: 4096");
    expect_run((const char *const[]){"--check-config", "--config", bad, NULL}, 1,
               "bad.yaml:2:3: unknown key data.prot; did you mean data.port?");
    expect_run((const char *const[]){"--config", bad, NULL}, 1, "unknown key data.prot");
    expect_run((const char *const[]){"--config", "/nowhere", NULL}, 1, "/nowhere");
    expect_run((const char *const[]){"--confgi", NULL}, 2, "unknown option --confgi");
    expect_run((const char *const[]){"--config", NULL}, 2, "no value after --config");
    expect_run((const char *const[]){"--set", "admin.address=0.0.0.0", "--set", "data.port=0", NULL}, 1,
               "set admin.token_file");
    expect_run((const char *const[]){"--check-config", "--set", "admin.address=0.0.0.0", NULL}, 1,
               "set admin.token_file");
    expect_run((const char *const[]){"--check-config", "--set", "data.address=localhost", NULL}, 1,
               "data.address: found \"localhost\", want a numeric");
    expect_run((const char *const[]){"--check-config", "--set", "data.address=::1", NULL}, 0, "fine");
}

static void serves_and_stops(void **state)
{
    (void)state;
    struct daemon d = start_daemon(NULL);
    struct reply r;
    uint16_t ports[] = {d.data, d.admin};
    for (int i = 0; i < 2; i++) {
        tcp_get(ports[i], "/livez", &r);
        assert_int_equal(r.status, 200);
        reply_fini(&r);
    }
    tcp_get(d.admin, "/metrics", &r);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body, "duet_build_info{version=\"" DUET_VERSION "\"} 1\n"));
    reply_fini(&r);
    char port[32];
    snprintf(port, sizeof(port), "data.port=%u", d.data);
    // A second one on the same port is told so, not let in beside the first.
    char first_log[PATH_MAX], saved[PATH_MAX];
    snprintf(first_log, sizeof(first_log), "%s", log_path);
    snprintf(saved, sizeof(saved), "%s/log2", dir);
    snprintf(log_path, sizeof(log_path), "%s", saved);
    expect_run((const char *const[]){"--config", config_path, "--set", port, NULL}, 1, "Address already in use");
    snprintf(log_path, sizeof(log_path), "%s", first_log);
    kill(d.pid, SIGINT);
    assert_int_equal(status_of(d.pid), 0);
    assert_true(log_has("\"event\":\"stop\""));
}

static void reads_its_configuration_again(void **state)
{
    (void)state;
    struct daemon d = start_daemon(NULL);
    struct reply r;
    write_text(config_path,
               "data: {port: 0, threads: 1}\nadmin: {port: 0}\ndrain: {delay_ms: 0}\nlog: {level: debug}\n");
    kill(d.pid, SIGHUP);
    assert_true(log_has("\"event\":\"config_read\",\"needs_restart\":\"data.threads\""));
    tcp_get(d.data, "/livez", &r);
    reply_fini(&r);
    assert_true(log_has("\"level\":\"debug\",\"event\":\"request\""));
    write_text(config_path, "data: {prot: 0}\n");
    kill(d.pid, SIGHUP);
    assert_true(log_has("\"event\":\"config_refused\""));
    assert_true(log_has("did you mean data.port?"));
    tcp_get(d.data, "/livez", &r);
    assert_int_equal(r.status, 200);
    reply_fini(&r);
    write_text(config_path, config_text);
    kill(d.pid, SIGTERM);
    assert_int_equal(status_of(d.pid), 0);
    assert_true(log_has("\"event\":\"drain\",\"delay_ms\":0,"));
}

// ---------------------------------------------------------------------------------------------------------- drain

struct client {
    uint16_t port;
    unsigned sent, answered;
    _Atomic bool *stop;
};

/* One request after the other on connections of its own, until told to stop, as a balancer does once readiness fails.
 */
static void *ask(void *arg)
{
    struct client *c = arg;
    while (!atomic_load(c->stop)) {
        struct reply r;
        c->sent++;
        tcp_get(c->port, "/v1/nothing", &r); // not health: a drain waits for requests, not for probes
        c->answered += r.status == 404;
        reply_fini(&r);
    }
    return NULL;
}

static void drain_loses_nothing(void **state)
{
    (void)state;
    enum { N = 8 };
    struct daemon d = start_daemon(NULL);
    _Atomic bool enough = false;
    struct client c[N];
    pthread_t t[N];
    struct reply r = {0};
    for (int i = 0; i < N; i++) {
        c[i] = (struct client){.port = d.data, .stop = &enough};
        pthread_create(&t[i], NULL, ask, &c[i]);
    }
    sleep_ms(200);
    kill(d.pid, SIGTERM);
    uint64_t begun = test_now_ms();
    bool draining = false;
    while (!draining && test_now_ms() - begun < 5000) { // the first probe after the signal already sees it
        tcp_get(d.admin, "/readyz", &r);
        draining = r.status == 503 && strstr(r.body, "draining");
        reply_fini(&r);
    }
    assert_true(draining);
    sleep_ms(500); // beyond the drain delay: clients that are slow to notice are served too
    atomic_store(&enough, true);
    for (int i = 0; i < N; i++) {
        pthread_join(t[i], NULL);
        assert_true(c[i].sent > 10);
        assert_int_equal(c[i].answered, c[i].sent);
    }
    assert_int_equal(status_of(d.pid), 0);
    assert_true(log_has("\"forced\":false,\"in_flight\":0"));
}

static void second_signal_does_not_wait(void **state)
{
    (void)state;
    struct daemon d = start_daemon("drain.delay_ms=9000");
    uint64_t begun = test_now_ms();
    kill(d.pid, SIGTERM);
    assert_true(log_has("\"event\":\"drain\""));
    kill(d.pid, SIGTERM);
    assert_int_equal(status_of(d.pid), 0);
    assert_in_range(test_now_ms() - begun, 0, 5000);
    assert_true(log_has("\"forced\":true"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options),
        cmocka_unit_test(serves_and_stops),
        cmocka_unit_test(reads_its_configuration_again),
        cmocka_unit_test(drain_loses_nothing),
        cmocka_unit_test(second_signal_does_not_wait),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
