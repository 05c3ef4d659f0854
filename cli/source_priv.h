/* source_priv.h - the two kinds behind source.c. */
#ifndef DUET_CLI_SOURCE_PRIV_H
#define DUET_CLI_SOURCE_PRIV_H

#include "cli/source.h"
#include "core/bundle.h"

struct local;
struct local *local_open(const char *dir, struct err *err);
void local_free(struct local *l);
const struct bundle *local_bundle(const struct local *l);
bool local_fields(struct local *l, json_t *fields);
json_t *local_ask(struct local *l, const json_t *request, double *us, struct err *err);
json_t *local_embed(struct local *l, const json_t *request, struct err *err);

struct remote;
struct remote *remote_open(const char *url, const struct client_tls *tls, struct err *err);
void remote_free(struct remote *r);
bool remote_fields(struct remote *r, const json_t *request, json_t *fields, struct err *err);
json_t *remote_ask(struct remote *r, const json_t *request, double *us, struct err *err);
json_t *remote_embed(struct remote *r, const json_t *request, struct err *err);

#endif
