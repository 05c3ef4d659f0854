/* doctor.h - is this machine fit for duetd? One check a subject: what was found, what is wanted, what to do. */
#ifndef DUET_CLI_DOCTOR_H
#define DUET_CLI_DOCTOR_H

#include <stdint.h>

#include "config/config.h"

enum doctor_grade { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_BAD }; // NOTE: it serves, but slower or for fewer; BAD: it will fail

struct doctor_finding {
    enum doctor_grade grade;
    const char *subject;
    char found[256], fix[320]; // fix: "" where there is nothing to do
};

#define DOCTOR_FINDINGS_MAX 16

/* root: "" or a folder that stands for / (proc/, sys/), for tests. Returns how many of out[DOCTOR_FINDINGS_MAX] were
 * filled. */
unsigned doctor_examine(const struct config *c, const char *root, struct doctor_finding *out);

#endif
