#include "server/priority.h"

#include <sched.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's struct sched_attr (sched_setattr(2)), version 0: glibc has no name for it before 2.41. */
struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; // runtime: the slice, for ordinary threads too since Linux 6.12
};

static bool get(struct attr *a)
{
    *a = (struct attr){.size = sizeof(*a)};
    return syscall(SYS_sched_getattr, 0, a, sizeof(*a), 0) == 0;
}

void priority_requests(void)
{
    struct attr a;
    if (!get(&a) || a.policy != SCHED_OTHER)
        return;
    a.runtime = PRIORITY_SLICE_NS;
    syscall(SYS_sched_setattr, 0, &a, 0);
}

uint64_t priority_slice_ns(void)
{
    struct attr a;
    return get(&a) ? a.runtime : 0;
}
