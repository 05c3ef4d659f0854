/* progress.h - how far a long command is, on standard error: on a terminal one line that fills up, otherwise a line at the end of each
 * stage. */
#ifndef DUET_CLI_PROGRESS_H
#define DUET_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct progress {
    const char *command; // "publish"
    bool tty;
    char stage[48];
    int percent;
};

struct progress progress_start(const char *command);
void progress_show(void *user, const char *stage, double share); // user: struct progress *, share 0 .. 1

#endif
