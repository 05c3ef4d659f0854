#include "cli/doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/bundle_path.h"
#include "core/bundle.h"
#include "core/dense.h"

#define BACKLOG 1024 // what duetd asks listen(2) for
#define KERNEL_MAJOR 4
#define KERNEL_MINOR 18

struct exam {
    const struct config *c;
    const char *root;
    struct doctor_finding *out;
    unsigned n;
};

static struct doctor_finding *add(struct exam *e, const char *subject, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static struct doctor_finding *add(struct exam *e, const char *subject, const char *fmt, ...)
{
    struct doctor_finding *f = &e->out[e->n < DOCTOR_FINDINGS_MAX ? e->n++ : DOCTOR_FINDINGS_MAX - 1];
    va_list ap;
    *f = (struct doctor_finding){.subject = subject};
    va_start(ap, fmt);
    vsnprintf(f->found, sizeof(f->found), fmt, ap);
    va_end(ap);
    return f;
}

static void fix(struct doctor_finding *f, enum doctor_grade grade, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fix(struct doctor_finding *f, enum doctor_grade grade, const char *fmt, ...)
{
    va_list ap;
    f->grade = grade;
    va_start(ap, fmt);
    vsnprintf(f->fix, sizeof(f->fix), fmt, ap);
    va_end(ap);
}

/* A short file of /proc or /sys without its line end; false if it cannot be read. */
static bool slurp(const struct exam *e, const char *path, char *out, size_t cap)
{
    char full[512];
    snprintf(full, sizeof(full), "%s%s", e->root, path);
    FILE *f = fopen(full, "r");
    size_t n = f ? fread(out, 1, cap - 1, f) : 0;
    if (f)
        fclose(f);
    out[n] = '\0';
    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == ' '))
        out[--n] = '\0';
    return f != NULL;
}

// ----------------------------------------------------------------------------------------------------------- system

static void kernel(struct exam *e)
{
    struct utsname u;
    unsigned major = 0, minor = 0;
    if (uname(&u) != 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2)
        return;
    struct doctor_finding *f = add(e, "kernel", "%s", u.release);
    if (major < KERNEL_MAJOR || (major == KERNEL_MAJOR && minor < KERNEL_MINOR))
        fix(f, DOCTOR_BAD, "run Linux %d.%d or newer: Debian 12 has 6.1", KERNEL_MAJOR, KERNEL_MINOR);
}

/* duetd raises the soft limit to the hard one by itself. */
static void open_files(struct exam *e)
{
    struct rlimit r;
    uint64_t want = (e->c->data.max_connections + e->c->admin.max_connections) * 5 / 4 + 64;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return;
    struct doctor_finding *f = add(e, "open files", "%llu (hard limit), %llu wanted", (unsigned long long)r.rlim_max,
                                   (unsigned long long)want);
    if (r.rlim_max < want)
        fix(f, DOCTOR_BAD, "LimitNOFILE=%llu in the unit, ulimits in the container, or a smaller data.max_connections",
            (unsigned long long)want);
}

static void backlog(struct exam *e)
{
    char text[64];
    if (!slurp(e, "/proc/sys/net/core/somaxconn", text, sizeof(text)))
        return;
    struct doctor_finding *f = add(e, "somaxconn", "%s, %d wanted", text, BACKLOG);
    if (strtoul(text, NULL, 10) < BACKLOG)
        fix(f, DOCTOR_NOTE, "sysctl -w net.core.somaxconn=%d: bursts of new connections are dropped otherwise",
            BACKLOG);
}

static void huge_pages(struct exam *e)
{
    char text[128];
    if (!slurp(e, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text))) {
        fix(add(e, "huge pages", "this kernel has none"), DOCTOR_NOTE,
            "a kernel with transparent huge pages searches faster");
        return;
    }
    struct doctor_finding *f = add(e, "huge pages", "%s", text);
    if (strstr(text, "[never]"))
        fix(f, DOCTOR_NOTE,
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: the index is read at random places");
}

static void clock_source(struct exam *e)
{
    char text[64];
    if (!slurp(e, "/sys/devices/system/clocksource/clocksource0/current_clocksource", text, sizeof(text)))
        return;
    struct doctor_finding *f = add(e, "clock", "%s", text);
    if (strcmp(text, "hpet") == 0 || strcmp(text, "acpi_pm") == 0)
        fix(f, DOCTOR_NOTE,
            "boot with clocksource=tsc if the machine allows: reading this clock is a system call, several times a "
            "request");
}

static bool has_flag(const char *flags, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = flags; p && (p = strstr(p, name)); p += n)
        if (p[-1] == ' ' && (p[n] == ' ' || p[n] == '\n' || p[n] == '\0'))
            return true;
    return false;
}

static const char *widest_kernel(void)
{
    int isa = DENSE_N_ISAS - 1;
    while (isa > 0 && !dense_kernel((enum dense_isa)isa))
        isa--;
    return dense_isa_name((enum dense_isa)isa);
}

static void cpu(struct exam *e)
{
    static const char *const wanted[] = {"avx512f", "avx512_vnni", "avx2", "fma", "sse4_2"};
    static char text[16384];
    char found[128] = "";
    if (!slurp(e, "/proc/cpuinfo", text, sizeof(text)))
        return;
    const char *flags = strstr(text, "flags");
    for (size_t i = 0; flags && i < sizeof(wanted) / sizeof(wanted[0]); i++)
        if (has_flag(flags, wanted[i]))
            snprintf(found + strlen(found), sizeof(found) - strlen(found), " %s", wanted[i]);
    struct doctor_finding *f = add(e, "CPU", "%ld cores,%s; towers use %s", sysconf(_SC_NPROCESSORS_ONLN),
                                   found[0] ? found : " no vector flags seen", widest_kernel());
    if (flags && !has_flag(flags, "avx2"))
        fix(f, DOCTOR_NOTE,
            "a CPU with AVX2 searches several times faster; in a virtual machine, pass the host's CPU through");
}

/* Loops are made for all cores that are seen; a quota below that means loops that stand still together. */
static void cpu_quota(struct exam *e)
{
    char text[64];
    double quota, period;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!slurp(e, "/sys/fs/cgroup/cpu.max", text, sizeof(text)) || sscanf(text, "%lf %lf", &quota, &period) != 2 ||
        period <= 0)
        return;
    struct doctor_finding *f = add(e, "CPU quota", "%.2f of %ld cores", quota / period, cores);
    uint64_t loops = e->c->data.threads ? e->c->data.threads : (uint64_t)cores;
    if (quota / period + 0.01 < (double)loops)
        fix(f, DOCTOR_NOTE, "data.threads: %.0f, so that no loop is throttled while it holds requests",
            quota / period < 1 ? 1 : quota / period);
}

// ----------------------------------------------------------------------------------------------------------- memory

static uint64_t available(const struct exam *e)
{
    static char text[8192];
    unsigned long long kb = 0, limit = 0, used = 0;
    const char *p = slurp(e, "/proc/meminfo", text, sizeof(text)) ? strstr(text, "MemAvailable:") : NULL;
    if (p)
        sscanf(p, "MemAvailable: %llu", &kb);
    uint64_t free_bytes = kb * 1024;
    if (slurp(e, "/sys/fs/cgroup/memory.max", text, sizeof(text)) && sscanf(text, "%llu", &limit) == 1 &&
        slurp(e, "/sys/fs/cgroup/memory.current", text, sizeof(text)) && sscanf(text, "%llu", &used) == 1) {
        uint64_t left = limit > used ? limit - used : 0;
        free_bytes = left < free_bytes ? left : free_bytes;
    }
    return free_bytes;
}

/* What is needed at least: `auto` takes more only where there is more. */
static enum hnsw_layout layout_of(const struct config_model *m)
{
    enum hnsw_layout layout = HNSW_PLAIN;
    if (m->index_layout)
        bundle_layout_parse(m->index_layout, &layout);
    return layout;
}

/* Bytes of the configured models' newest bundles together, and of the largest. */
static uint64_t bundles(const struct config *c, uint64_t *largest)
{
    char dir[PATH_MAX];
    uint64_t sum = 0, one;
    for (size_t i = 0; i < c->n_models; i++)
        if (bundle_path(c->model[i].path, dir, NULL) && bundle_estimate(dir, layout_of(&c->model[i]), &one, NULL)) {
            sum += one;
            *largest = one > *largest ? one : *largest;
        }
    return sum;
}

static void memory(struct exam *e)
{
    uint64_t largest = 0, sum = bundles(e->c, &largest), have = available(e);
    double gib = 1024.0 * 1024 * 1024;
    if (!have)
        return;
    if (!e->c->n_models) {
        add(e, "memory", "%.2f GiB available (give --config to compare with its bundles)", (double)have / gib);
        return;
    }
    struct doctor_finding *f =
        add(e, "memory", "%.2f GiB available; the newest bundles take %.2f, a reload of the largest %.2f more",
            (double)have / gib, (double)sum / gib, (double)largest / gib);
    if (have < sum)
        fix(f, DOCTOR_BAD, "more memory or fewer models: the daemon answers 503 for what does not fit");
    else if (have < sum + largest)
        fix(f, DOCTOR_NOTE, "more memory: reloads will be refused with 507 while the daemon serves");
}

static void overcommit(struct exam *e)
{
    char text[32];
    if (slurp(e, "/proc/sys/vm/overcommit_memory", text, sizeof(text)) && strcmp(text, "2") == 0)
        fix(add(e, "overcommit", "mode 2"), DOCTOR_NOTE,
            "sysctl -w vm.overcommit_memory=0: metrics and buffers reserve address space that they rarely use");
}

static void models(struct exam *e)
{
    char dir[PATH_MAX];
    for (size_t i = 0; i < e->c->n_models && i < 4; i++) {
        struct err err = {0};
        if (!bundle_path(e->c->model[i].path, dir, &err)) {
            struct doctor_finding *f = add(e, "model", "%s: %.200s", e->c->model[i].name, err.msg);
            fix(f, DOCTOR_BAD, "duet publish --repository ... --name %.60s, or correct models[].path",
                e->c->model[i].name);
        }
    }
}

// --------------------------------------------------------------------------------------------------- ports, libraries

static int try_bind(const char *address, uint16_t port)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {0};
    socklen_t n = sizeof(a.v4);
    int one = 1, saved = 0;
    a.sa.sa_family = AF_INET;
    a.v4.sin_port = htons(port);
    if (inet_pton(AF_INET, address, &a.v4.sin_addr) != 1) {
        memset(&a, 0, sizeof(a));
        a.sa.sa_family = AF_INET6;
        a.v6.sin6_port = htons(port);
        n = sizeof(a.v6);
        if (inet_pton(AF_INET6, address, &a.v6.sin6_addr) != 1)
            return EINVAL;
    }
    int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, &a.sa, n) != 0 || listen(fd, 1) != 0)
        saved = errno;
    close(fd);
    return saved;
}

static void port(struct exam *e, const char *subject, const struct config_listener *l)
{
    int failed = l->port ? try_bind(l->address, (uint16_t)l->port) : 0;
    const char *key = subject[0] == 'd' ? "data" : "admin";
    struct doctor_finding *f = add(e, subject, "%s port %llu: %s", l->address, (unsigned long long)l->port,
                                   failed ? strerror(failed) : "free");
    if (failed == EADDRINUSE)
        fix(f, DOCTOR_BAD, "ss -ltnp 'sport = :%llu' tells who listens (duetd already?); stop it, or set %s.port",
            (unsigned long long)l->port, key);
    else if (failed)
        fix(f, DOCTOR_BAD, "set %s.address and %s.port to what this user may bind", key, key);
}

static void blas(struct exam *e)
{
    const char *set = getenv("OPENBLAS_NUM_THREADS");
    add(e, "OpenBLAS", "duetd uses one thread a request whatever the environment says%s%s",
        set ? "; OPENBLAS_NUM_THREADS=" : "", set ? set : "");
}

unsigned doctor_examine(const struct config *c, const char *root, struct doctor_finding *out)
{
    struct exam e = {.c = c, .root = root, .out = out};
    kernel(&e);
    cpu(&e);
    cpu_quota(&e);
    memory(&e);
    overcommit(&e);
    models(&e);
    huge_pages(&e);
    clock_source(&e);
    open_files(&e);
    backlog(&e);
    port(&e, "data port", &c->data);
    port(&e, "admin port", &c->admin);
    blas(&e);
    return e.n;
}
