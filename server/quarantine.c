#include "server/quarantine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"

#define FOLDER_DIGITS 16 // a JSON integer here has 63 bits

json_t *quarantine_to_json(const struct quarantined *q, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        char folder[FOLDER_DIGITS + 1];
        snprintf(folder, sizeof(folder), "%016" PRIx64, q[i].folder);
        json_array_append_new(list, json_pack("{s:I, s:s, s:I, s:s, s:o}", "version", (json_int_t)q[i].version, "folder", folder, "since",
                                              (json_int_t)q[i].since, "duetd", DUET_VERSION, "reason",
                                              json_string(q[i].reason)));
    }
    return list;
}

/* By this duetd? What another one could not read, this one may: an upgrade is what such a refusal asks for. */
static bool is_ours(const json_t *o)
{
    const char *by = json_string_value(json_object_get(o, "duetd"));
    return by && strcmp(by, DUET_VERSION) == 0;
}

static bool read_one(const json_t *o, struct quarantined *q, struct err *err)
{
    uint64_t since;
    const char *folder, *reason;
    if (!json_need_uint(o, "version", INT64_MAX, &q->version, err) || !(folder = json_need_str(o, "folder", err)) ||
        !json_need_uint(o, "since", INT64_MAX, &since, err) || !(reason = json_need_str(o, "reason", err)))
        return false;
    if (q->version == 0)
        return err_set(err, ERR_FORMAT, "\"version\": found 0, want 1 or more");
    if (strlen(folder) != FOLDER_DIGITS || strspn(folder, "0123456789abcdef") != FOLDER_DIGITS)
        return err_set(err, ERR_FORMAT, "\"folder\": found \"%.40s\", want %d hex digits", folder, FOLDER_DIGITS);
    q->folder = strtoull(folder, NULL, 16);
    q->since = (int64_t)since;
    snprintf(q->reason, sizeof(q->reason), "%s", reason);
    utf8_mend(q->reason);
    return true;
}

bool quarantine_from_json(const json_t *list, struct quarantined *q, size_t *n, struct err *err)
{
    *n = 0;
    if (!json_is_array(list))
        return err_set(err, ERR_FORMAT, "found no list of versions");
    if (json_array_size(list) > QUARANTINED_MAX)
        return err_set(err, ERR_LIMIT, "found %zu versions, at most %d are kept", json_array_size(list), QUARANTINED_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!read_one(json_array_get(list, i), &q[*n], err))
            return err_prefix(err, "entry %zu", i);
        *n += is_ours(json_array_get(list, i));
    }
    return true;
}
