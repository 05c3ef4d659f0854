/* slice.c - what does the short slice bring that event loops ask for (server/priority.h)?
 *
 *     bench_slice [rounds=40] [wakes=70]
 *
 * A thread on one core wakes up every 1 to 2.6 ms and works for 80 us, as an event loop does at some 600 requests a second; it does so with the
 * usual slice and with the short one, taking turns, alone in its process and beside a thread at nice 10 that never sleeps, as the
 * loader is. Prints how late it woke up, in microseconds. Where nothing else runs on the machine the first two rows are alike. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "server/priority.h"

#define WORK_NS 80000

struct turn {
    size_t wakes;
    bool short_slice;
    double *late_us; // [wakes]
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void stay_on_core(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sysconf(_SC_NPROCESSORS_ONLN) - 1, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

static void *load(void *arg)
{
    atomic_bool *stop = arg;
    stay_on_core();
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
    while (!atomic_load(stop))
        ;
    return NULL;
}

static void *wake(void *arg)
{
    const struct turn *t = arg;
    stay_on_core();
    if (t->short_slice)
        priority_requests();
    uint64_t at = now_ns();
    for (size_t i = 0; i < t->wakes; i++) {
        at += 1000000 + i * 37 % 17 * 100000;
        const struct timespec until = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        uint64_t woken = now_ns();
        t->late_us[i] = (double)(woken - at) / 1000;
        while (now_ns() < woken + WORK_NS)
            ;
        at = now_ns() > at ? now_ns() : at;
    }
    return NULL;
}

static void take_turn(const struct turn *t, bool beside_loader)
{
    atomic_bool stop = false;
    pthread_t waker, loader;
    bool ok = !beside_loader || pthread_create(&loader, NULL, load, &stop) == 0;
    ok = ok && pthread_create(&waker, NULL, wake, (void *)(uintptr_t)t) == 0;
    if (!ok) {
        fprintf(stderr, "bench_slice: no thread\n");
        exit(1);
    }
    pthread_join(waker, NULL);
    atomic_store(&stop, true);
    if (beside_loader)
        pthread_join(loader, NULL);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const char *const name[] = {"usual slice", "short slice", "usual slice, beside a loader", "short slice, beside a loader"};
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 40, wakes = argc > 2 ? strtoul(argv[2], NULL, 10) : 70, n = rounds * wakes;
    double *late[4];
    for (int k = 0; k < 4; k++)
        if (n == 0 || !(late[k] = malloc(n * sizeof(*late[k]))))
            return 1;
    for (size_t r = 0; r < rounds; r++)
        for (int k = 0; k < 4; k++)
            take_turn(&(struct turn){wakes, k % 2 == 1, late[k] + r * wakes}, k >= 2);
    printf("us late | p50 | p90 | p95 | p99\n");
    for (int k = 0; k < 4; k++) {
        qsort(late[k], n, sizeof(*late[k]), ascending);
        printf("%s | %.0f | %.0f | %.0f | %.0f\n", name[k], late[k][n / 2], late[k][n * 9 / 10], late[k][n * 95 / 100], late[k][n * 99 / 100]);
        free(late[k]);
    }
    return 0;
}
