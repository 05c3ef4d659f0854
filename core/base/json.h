/* json.h - jansson, with the flags and limits that every reader of ours uses. Cold paths only (manifest, config, CLI);
 * the request path has its own parser and writer. Values are jansson's: json_decref them. */
#ifndef DUET_BASE_JSON_H
#define DUET_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

/* Parse n bytes; duplicate keys are refused. NULL and ERR_FORMAT with line and column. */
json_t *json_parse(const char *text, size_t n, struct err *err);
json_t *json_read_file(const char *path, size_t max_bytes, struct err *err);

/* Required members of an object, type-checked; ERR_FORMAT names the key, what was found and what was wanted. */
bool json_need_uint(const json_t *o, const char *key, uint64_t max, uint64_t *out, struct err *err);
bool json_need_num(const json_t *o, const char *key, double *out, struct err *err); // finite
bool json_need_bool(const json_t *o, const char *key, bool *out, struct err *err);
const char *json_need_str(const json_t *o, const char *key, struct err *err); // borrowed
json_t *json_need_array(const json_t *o, const char *key, struct err *err);  // borrowed
json_t *json_need_object(const json_t *o, const char *key, struct err *err); // borrowed

/* Text form, for free(): indented by two, keys in insertion order, numbers with 9 significant digits. */
char *json_text(const json_t *v, struct err *err);

#endif
