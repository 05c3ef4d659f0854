#include "cli/source.h"

#include <stdlib.h>

#include "cli/client.h"
#include "cli/source_priv.h"

struct source {
    struct local *local; // one of the two
    struct remote *remote;
};

struct source *source_open(const char *where, const struct client_tls *tls, struct err *err)
{
    struct source *s = mem_array(1, sizeof(*s), err);
    if (!s)
        return NULL;
    if (client_is_url(where))
        s->remote = remote_open(where, tls, err);
    else
        s->local = local_open(where, err);
    if (s->remote || s->local)
        return s;
    free(s);
    return NULL;
}

void source_free(struct source *s)
{
    if (!s)
        return;
    local_free(s->local);
    remote_free(s->remote);
    free(s);
}

const struct bundle *source_bundle(const struct source *s)
{
    return s->local ? local_bundle(s->local) : NULL;
}

bool source_want_attributes(struct source *s, json_t *request, struct err *err)
{
    json_t *fields = json_array();
    bool ok = s->local ? local_fields(s->local, fields) : remote_fields(s->remote, request, fields, err);
    if (ok && json_object_set(request, "fields", fields) != 0)
        ok = err_set(err, ERR_NOMEM, "out of memory");
    json_decref(fields);
    return ok;
}

json_t *source_ask(struct source *s, const json_t *request, double *us, struct err *err)
{
    double ignored;
    return s->local ? local_ask(s->local, request, us ? us : &ignored, err)
                    : remote_ask(s->remote, request, us ? us : &ignored, err);
}

json_t *source_embed(struct source *s, const json_t *request, struct err *err)
{
    return s->local ? local_embed(s->local, request, err) : remote_embed(s->remote, request, err);
}
