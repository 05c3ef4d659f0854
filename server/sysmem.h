/* sysmem.h - how much memory is there to load a bundle into? The smaller of what the machine and the container allow.
 * Threads: any. */
#ifndef DUET_SERVER_SYSMEM_H
#define DUET_SERVER_SYSMEM_H

#include <stdint.h>

/* Bytes that can still be had without swapping; UINT64_MAX if the system does not say. `root` NULL = "": tests give a
 * folder that stands for /, with proc/meminfo and sys/fs/cgroup/. */
uint64_t sysmem_available(const char *root);

#endif
