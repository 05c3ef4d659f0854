/* report.h - an evaluation (evaluate.h, or its JSON file read back) as a table for people and as CSV for programs. */
#ifndef DUET_TRAIN_REPORT_H
#define DUET_TRAIN_REPORT_H

#include <stdio.h>

#include "core/base/json.h"

/* ERR_FORMAT names what is missing where the object is no evaluation. */
bool report_check(const json_t *report, struct err *err);

/* Of a checked report: the main table with its protocol, then categories and cold start where there are any. */
void report_print(const json_t *report, FILE *to);

/* One row a system and group: system, kind, through, group, n, hr@k.., mrr, mrr_x10, mrr_ceil10. Quoted as RFC 4180 has it. */
void report_csv(const json_t *report, FILE *to);

#endif
