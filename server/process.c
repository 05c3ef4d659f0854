#include "server/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double cpu_seconds(void *ctx)
{
    struct rusage u;
    (void)ctx;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double resident_bytes(void *ctx)
{
    unsigned long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    (void)ctx;
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double entries(const char *dir)
{
    DIR *d = opendir(dir);
    double n = 0;
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static double open_fds(void *ctx)
{
    (void)ctx;
    return entries("/proc/self/fd") - 1; // but the one that lists them
}

static double threads(void *ctx)
{
    (void)ctx;
    return entries("/proc/self/task");
}

void process_metrics(struct metrics *m)
{
    struct rlimit files;
    metrics_counter_fn(m, "process_cpu_seconds_total", "User and system CPU time.", "", cpu_seconds, NULL);
    metrics_gauge_fn(m, "process_resident_memory_bytes", "Resident memory.", "", resident_bytes, NULL);
    metrics_gauge_fn(m, "process_open_fds", "Open file descriptors.", "", open_fds, NULL);
    metrics_gauge_fn(m, "process_threads", "Threads.", "", threads, NULL);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        metrics_set(m, metrics_gauge(m, "process_max_fds", "Most file descriptors allowed.", ""),
                    (double)files.rlim_cur);
    metrics_set(m, metrics_gauge(m, "process_start_time_seconds", "Start of the process, seconds since 1970.", ""),
                (double)time(NULL));
    metrics_set(
        m,
        metrics_gauge(m, "duet_build_info", "Always 1; the version is in the label.", "version=\"" DUET_VERSION "\""),
        1);
}
