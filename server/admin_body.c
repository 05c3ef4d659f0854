#include "server/admin_body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"
#include "core/base/utf8.h"
#include "server/problem.h"

json_t *admin_read_object(const struct http_request *r, const char *const *known, size_t n, bool may_be_empty,
                           struct http_response *resp)
{
    struct err err = {0};
    const char *key;
    json_t *v;
    if (r->body_len == 0 && may_be_empty)
        return json_object();
    json_t *o = json_parse(r->body, r->body_len, &err);
    if (!o) {
        problem_write(resp, r, 400, "malformed_json", "", "%s", err.msg);
        return NULL;
    }
    if (!json_is_object(o)) {
        problem_write(resp, r, 400, "wrong_type", "", "found no object");
        json_decref(o);
        return NULL;
    }
    json_object_foreach(o, key, v)
    {
        size_t i = 0;
        while (i < n && strcmp(known[i], key) != 0)
            i++;
        if (i < n)
            continue;
        const char *near = ynode_nearest(key, known, n);
        char pointer[80];
        snprintf(pointer, sizeof(pointer), "/%.64s", key);
        problem_write(resp, r, 400, "unknown_field", utf8_valid(pointer, strlen(pointer)) ? pointer : "",
                      "unknown field '%.64s'%s%s%s", key, near ? ", did you mean '" : "", near ? near : "",
                      near ? "'?" : "");
        json_decref(o);
        return NULL;
    }
    return o;
}

bool admin_read_if_match(const struct http_request *r, uint64_t *revision, struct http_response *resp)
{
    const char *h = http_header(r, "If-Match");
    char *end;
    *revision = STATE_ANY_REVISION;
    if (!h || strcmp(h, "*") == 0)
        return true;
    bool quoted = *h == '"';
    h += quoted;
    *revision = *h >= '0' && *h <= '9' ? strtoull(h, &end, 10) : STATE_ANY_REVISION;
    if (*revision == STATE_ANY_REVISION || *end != (quoted ? '"' : '\0') || (quoted && end[1]))
        return !problem_write(resp, r, 400, "invalid_header", NULL, "If-Match must be a revision such as \"12\"");
    return true;
}

bool admin_state_kept(const struct state *s, const struct http_request *r, struct http_response *resp)
{
    return state_persistent(s) || !problem_write(resp, r, 409, "state_read_only", NULL,
                                                 "state.path is not configured, so a change would be lost: set it, or change the "
                                                 "configuration file and send SIGHUP");
}

bool admin_change_failed(const struct http_request *r, const struct err *err, const char *code, const char *pointer,
                         struct http_response *resp)
{
    if (err->code == ERR_MISMATCH)
        return problem_write(resp, r, 412, "revision_mismatch", NULL, "%s", err->msg);
    if (err->code == ERR_STATE)
        return problem_write(resp, r, 409, "state_read_only", NULL, "%s", err->msg);
    if (err->code == ERR_ARG || err->code == ERR_LIMIT)
        return problem_write(resp, r, 422, code, pointer, "%s", err->msg);
    return problem_from_err(resp, r, err, NULL);
}
