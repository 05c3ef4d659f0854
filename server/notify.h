/* notify.h - tell systemd how the service is (Type=notify), without libsystemd: one datagram to the socket of
 * NOTIFY_SOCKET. Does nothing where nobody asked. Source: sd_notify(3), sd_watchdog_enabled(3). Threads: main's. */
#ifndef DUET_SERVER_NOTIFY_H
#define DUET_SERVER_NOTIFY_H

#include <stdbool.h>

/* state: "READY=1", "STOPPING=1\nSTATUS=...". False: nobody asked, or it could not be sent, which is no reason to fail.
 */
bool notify(const char *state);

/* Milliseconds between two "WATCHDOG=1": half of what the unit allows; -1 if it wants none. */
int notify_watchdog_ms(void);

#endif
