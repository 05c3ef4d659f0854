#include "server/exposure_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "core/base/hash.h"
#include "server/exposure.h"
#include "server/jsonw.h"
#include "server/service.h"
#include "server/tally.h"

/* One exposure, and who it was: the user's id is hashed (XXH64, as for buckets but without salt). */
struct exposed {
    const struct http_request *r;
    const struct serve_choice *c;
    const struct experiment *e;
    const struct experiment_variant *v;
    uint16_t bucket;
    bool overridden;
    char unit_hash[17]; // "" without a user
};

static void put_member(struct buf *b, const char *key, const char *text)
{
    jsonw_text(b, key);
    JSONW_LIT(b, ":");
    jsonw_text(b, text);
    JSONW_LIT(b, ",");
}

static void put_ids(struct buf *b, const struct items *it, const struct retrieve_hit *hit, size_t n)
{
    JSONW_LIT(b, "[");
    for (size_t i = 0; i < n; i++) {
        struct str id = strtab_get(&it->ids, hit[i].item_idx);
        if (i)
            JSONW_LIT(b, ",");
        jsonw_string(b, id.p, id.n);
    }
    JSONW_LIT(b, "]");
}

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void put_line(struct buf *b, const struct exposed *x, const struct serve_state *s, size_t ids_max)
{
    const struct retrieve_result *res = &s->result;
    JSONW_LIT(b, "{\"ts_ms\":");
    jsonw_uint(b, now_ms());
    JSONW_LIT(b, ",");
    put_member(b, "request_id", x->r->id);
    trace_put(b, &x->r->trace);
    put_member(b, "unit_hash", x->unit_hash[0] ? x->unit_hash : NULL);
    put_member(b, "experiment", x->e->name);
    put_member(b, "variant", x->v->name);
    JSONW_LIT(b, "\"bucket\":");
    jsonw_uint(b, x->bucket);
    JSONW_LIT(b, ",\"override\":");
    buf_puts(b, x->overridden ? "true," : "false,");
    put_member(b, "model", x->c->g->model[x->c->model].name);
    JSONW_LIT(b, "\"version\":");
    jsonw_uint(b, x->c->loaded->bundle->manifest.version);
    JSONW_LIT(b, ",\"ef_used\":");
    if (res->ef_used)
        jsonw_uint(b, res->ef_used);
    else
        JSONW_LIT(b, "null");
    JSONW_LIT(b, ",");
    put_member(b, "fallback", retrieve_fallback_name(res->fallback));
    JSONW_LIT(b, "\"returned\":");
    jsonw_uint(b, res->n);
    JSONW_LIT(b, ",\"items\":");
    put_ids(b, x->c->loaded->bundle->items, s->hit, res->n < ids_max ? res->n : ids_max);
    JSONW_LIT(b, "}\n");
}

static void to_daemon_log(struct app *app, const struct exposed *x)
{
    log_event(&app->log, LOG_INFO, "exposure", LOG_STR("request_id", x->r->id), LOG_STR("experiment", x->e->name),
              LOG_STR("variant", x->v->name), LOG_INT("bucket", x->bucket), LOG_BOOL("override", x->overridden),
              LOG_STR("unit_hash", x->unit_hash), LOG_STR("model", x->c->g->model[x->c->model].name),
              LOG_INT("version", x->c->loaded->bundle->manifest.version), TRACE_LOG(&x->r->trace));
}

static void write_down(struct app *app, unsigned shard, const struct exposed *x, struct serve_state *s)
{
    struct exposure *e = app->parts->exposure;
    if (!e) {
        to_daemon_log(app, x);
        return;
    }
    buf_reset(&s->line);
    put_line(&s->line, x, s, app->config->exposure.items);
    if (!s->line.failed)
        exposure_put(e, shard, s->line.data, s->line.len);
}

void exposure_log(struct app *app, unsigned shard, const struct http_request *r, const struct serve_choice *c,
                  struct serve_state *s)
{
    struct exposed x = {.r = r, .c = c};
    struct str unit = s->query->user_id;
    const struct exposure *e = app->parts->exposure;
    if (c->a.n == 0)
        return;
    uint64_t hash = hash_xxh64(unit.p ? unit.p : "", unit.n);
    bool wanted = e ? exposure_wants(e, hash)
                    : atomic_load_explicit(&app->log.level, memory_order_relaxed) <= (int)LOG_INFO;
    if (wanted && unit.n)
        snprintf(x.unit_hash, sizeof(x.unit_hash), "%016" PRIx64, hash);
    for (size_t i = 0; i < c->a.n; i++) {
        if (c->a.variant[i] == EXPERIMENT_NO_OWNER)
            continue;
        x.e = experiment_table_get(c->g->experiments, i);
        x.v = &x.e->variant[c->a.variant[i]];
        x.bucket = c->a.bucket[i];
        x.overridden = c->a.overridden[i];
        metrics_add(app->metrics, shard, x.v->metric, 1);
        if (unit.n && !x.overridden)
            tally_unit(x.e->tally, hash, c->a.variant[i]);
        if (wanted)
            write_down(app, shard, &x, s);
    }
}
