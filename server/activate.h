/* activate.h - listening sockets that systemd (or whoever speaks its protocol) passes: LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES.
 * What:    sockets named `data` and `admin` (FileDescriptorName= of a .socket unit) are taken instead of being bound. They outlive the
 *          daemon: while it is restarted the kernel queues connections instead of refusing them.
 * Place:   main.c, before there are threads. By hand, as notify.c, so that libsystemd is not needed.
 * Threads: one user; reads and unsets environment variables. */
#ifndef DUET_SERVER_ACTIVATE_H
#define DUET_SERVER_ACTIVATE_H

#include <stdbool.h>

#include "core/base/err.h"

struct activated {
    int data, admin; // -1: not passed
};

/* What was passed to this process; nothing is fine. ERR_ARG: a name that is neither, one twice, or no listening TCP socket. */
bool activate_sockets(struct activated *out, struct err *err);

#endif
