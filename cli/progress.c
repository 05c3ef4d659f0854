#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct progress progress_start(const char *command)
{
    return (struct progress){.command = command, .tty = isatty(STDERR_FILENO)};
}

void progress_show(void *user, const char *stage, double share)
{
    struct progress *p = user;
    int percent = (int)(share * 100);
    if (strcmp(p->stage, stage) == 0 && percent == p->percent)
        return;
    snprintf(p->stage, sizeof(p->stage), "%s", stage);
    p->percent = percent;
    if (p->tty)
        fprintf(stderr, "\r%-24s %3d %%%s", stage, percent, percent == 100 ? "\n" : "");
    else if (percent == 100)
        fprintf(stderr, "%s: %s: done\n", p->command, stage);
}
