/* dump.c - the configuration in force as YAML again, and behind each value a comment that says where it came from. */
#include <ctype.h>
#include <string.h>

#include "config/keys.h"

// -------------------------------------------------------------------------------------------------------- origins

static void put_file(const struct config *c, int line, struct buf *out)
{
    buf_puts(out, "  # ");
    for (const char *p = c->file; *p; p++) // a line end would end the comment
        buf_put(out, (unsigned char)*p < 0x20 || *p == 0x7f ? "?" : p, 1);
    buf_printf(out, ":%d\n", line);
}

/* data.port was DUET__DATA__PORT. */
static void put_variable(const char *key, struct buf *out)
{
    buf_puts(out, "  # DUET__");
    for (; *key; key++)
        if (*key == '.')
            buf_puts(out, "__");
        else
            buf_put(out, (char[]){(char)toupper((unsigned char)*key)}, 1);
    buf_puts(out, "\n");
}

static void put_origin(const struct config *c, size_t i, struct buf *out)
{
    switch (c->origin[i].source) {
    case CONFIG_DEFAULT:
        buf_puts(out, "  # default\n");
        break;
    case CONFIG_FILE:
        put_file(c, c->origin[i].line, out);
        break;
    case CONFIG_ENVIRONMENT:
        put_variable(keys[i].name, out);
        break;
    case CONFIG_FLAG:
        buf_puts(out, "  # --set\n");
        break;
    }
}

// ---------------------------------------------------------------------------------------------------------- lists

static void dump_pair(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "%s: ", key);
    key_quote(out, value);
}

static void dump_model(const struct config_model *m, struct buf *out)
{
    const char *at_version = strchr(m->name, '@'); // one of several
    buf_printf(out, "  - {name: \"%.*s\"", (int)strcspn(m->name, "@"), m->name);
    dump_pair(out, ", path", m->path);
    if (at_version)
        buf_printf(out, ", versions: [%s]", at_version + 1);
    else if (m->version)
        buf_printf(out, ", version: %llu", (unsigned long long)m->version);
    else
        buf_puts(out, ", version: latest");
    buf_printf(out, ", index_layout: %s", m->index_layout ? m->index_layout : "auto");
    if (m->target_recall > 0)
        buf_printf(out, ", target_recall: %.17g", m->target_recall);
    buf_puts(out, "}");
}

static void dump_guardrails(const struct config_guardrails *g, struct buf *out)
{
    const struct {
        const char *key;
        double value;
    } pair[] = {{"error_share", g->error_share}, {"p99_ms", g->p99_ms}, {"empty_share", g->empty_share},
                {"window_s", (double)g->window_s}, {"min_requests", (double)g->min_requests}};
    const char *sep = "    guardrails: {";
    for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++)
        if (pair[i].value > 0) {
            buf_printf(out, "%s%s: %.17g", sep, pair[i].key, pair[i].value);
            sep = ", ";
        }
    buf_puts(out, "}\n");
}

static void dump_variant(const struct config_variant *v, struct buf *out)
{
    dump_pair(out, "      - {name", v->name);
    if (v->model)
        dump_pair(out, ", model", v->model);
    buf_printf(out, ", weight: %.17g", v->weight);
    if (v->ef)
        buf_printf(out, ", ef: %llu", (unsigned long long)v->ef);
    if (v->k)
        buf_printf(out, ", k: %llu", (unsigned long long)v->k);
    if (v->shadow)
        buf_puts(out, ", shadow: true");
    if (v->share > 0)
        buf_printf(out, ", share: %.17g", v->share);
    if (v->filter)
        buf_printf(out, ", filter: %s", v->filter); // JSON is YAML
    buf_puts(out, "}\n");
}

static void dump_experiment(const struct config *c, const struct config_experiment *e, struct buf *out)
{
    dump_pair(out, "  - name", e->name);
    put_file(c, e->line, out);
    dump_pair(out, "    salt", e->salt);
    dump_pair(out, "\n    unit", e->unit);
    buf_puts(out, "\n");
    if (e->guardrails.given)
        dump_guardrails(&e->guardrails, out);
    buf_puts(out, "    variants:\n");
    for (size_t i = 0; i < e->n_variants; i++)
        dump_variant(&e->variant[i], out);
}

static void dump_lists(const struct config *c, struct buf *out)
{
    buf_puts(out, c->n_models ? "models:\n" : "models: []  # default\n");
    for (size_t i = 0; i < c->n_models; i++) {
        dump_model(&c->model[i], out);
        put_file(c, c->model[i].line, out);
    }
    buf_puts(out, c->n_labels ? "labels:\n" : "labels: {}  # default\n");
    for (size_t i = 0; i < c->n_labels; i++) {
        buf_puts(out, "  ");
        key_quote(out, c->label[i].name);
        dump_pair(out, "", c->label[i].model);
        put_file(c, c->label[i].line, out);
    }
    buf_puts(out, c->n_experiments ? "experiments:\n" : "experiments: []  # default\n");
    for (size_t i = 0; i < c->n_experiments; i++)
        dump_experiment(c, &c->experiment[i], out);
}

// --------------------------------------------------------------------------------------------------------- public

void config_dump(const struct config *c, struct buf *out)
{
    const char *section = "";
    size_t section_n = 0;
    for (size_t i = 0; i < n_keys; i++) {
        size_t n = strcspn(keys[i].name, ".");
        if (n != section_n || strncmp(section, keys[i].name, n) != 0)
            buf_printf(out, "%.*s:\n", (int)n, keys[i].name);
        section = keys[i].name;
        section_n = n;
        buf_printf(out, "  %s: ", keys[i].name + n + 1);
        key_text(c, &keys[i], out);
        put_origin(c, i, out);
    }
    dump_lists(c, out);
}
