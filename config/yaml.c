#include "config/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

// ------------------------------------------------------------------------------------------------------ the tree

static void node_fini(struct ynode *v)
{
    free(v->text);
    for (size_t i = 0; i < v->n; i++) {
        node_fini(&v->child[i]);
        if (v->key)
            node_fini(&v->key[i]);
    }
    free(v->key);
    free(v->child);
    *v = (struct ynode){0};
}

void ynode_free(struct ynode *root)
{
    if (!root)
        return;
    node_fini(root);
    free(root);
}

const struct ynode *ynode_get(const struct ynode *map, const char *key)
{
    if (!map || map->kind != YNODE_MAP)
        return NULL;
    for (size_t i = 0; i < map->n; i++)
        if (strcmp(map->key[i].text, key) == 0)
            return &map->child[i];
    return NULL;
}

bool ynode_error(const struct ynode *at, const char *name, struct err *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, ERR_ARG, "%s:%d:%d: %s", name, at->line, at->column, text);
}

// ------------------------------------------------------------------------------------------------------- parsing

struct reader {
    yaml_parser_t parser;
    const char *name;
    size_t depth;
    struct err *err;
};

static bool refuse(struct reader *r, const yaml_event_t *e, const char *what)
{
    return err_set(r->err, ERR_FORMAT, "%s:%zu:%zu: %s", r->name, e->start_mark.line + 1, e->start_mark.column + 1, what);
}

static bool next_event(struct reader *r, yaml_event_t *e)
{
    if (yaml_parser_parse(&r->parser, e))
        return true;
    if (r->parser.error == YAML_MEMORY_ERROR)
        return err_set(r->err, ERR_NOMEM, "%s: out of memory", r->name);
    return err_set(r->err, ERR_FORMAT, "%s:%zu:%zu: %s", r->name, r->parser.problem_mark.line + 1,
                   r->parser.problem_mark.column + 1, r->parser.problem ? r->parser.problem : "not YAML");
}

static bool read_node(struct reader *r, yaml_event_t *e, struct ynode *out);

static bool read_scalar(struct reader *r, const yaml_event_t *e, struct ynode *out)
{
    const char *text = (const char *)e->data.scalar.value;
    if (e->data.scalar.anchor || e->data.scalar.tag)
        return refuse(r, e, "anchors and tags are not supported");
    if (memchr(text, '\0', e->data.scalar.length))
        return refuse(r, e, "a value holds a NUL byte");
    out->kind = YNODE_SCALAR;
    out->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    out->text = mem_dup(text, e->data.scalar.length, r->err);
    return out->text != NULL;
}

/* Room for one more child (and key): capacity doubles at powers of two. */
static bool grow(struct reader *r, struct ynode *out)
{
    if (out->n & (out->n - 1))
        return true;
    size_t cap = out->n ? out->n * 2 : 1;
    struct ynode *child = mem_grow(out->child, cap, sizeof(*child), r->err);
    if (!child)
        return false;
    out->child = child;
    if (out->kind != YNODE_MAP)
        return true;
    struct ynode *key = mem_grow(out->key, cap, sizeof(*key), r->err);
    if (!key)
        return false;
    out->key = key;
    return true;
}

static bool read_key(struct reader *r, yaml_event_t *e, struct ynode *out, struct ynode *key)
{
    *key = (struct ynode){0};
    if (e->type != YAML_SCALAR_EVENT)
        return refuse(r, e, "a key must be a plain word");
    if (!read_node(r, e, key))
        return false;
    if (!ynode_get(out, key->text))
        return true;
    err_set(r->err, ERR_FORMAT, "%s:%d:%d: key \"%s\" stands here for the second time", r->name, key->line, key->column, key->text);
    node_fini(key);
    return false;
}

static bool read_children(struct reader *r, struct ynode *out)
{
    yaml_event_type_t end = out->kind == YNODE_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    for (;;) {
        yaml_event_t e;
        struct ynode key = {0};
        if (!next_event(r, &e))
            return false;
        if (e.type == end) {
            yaml_event_delete(&e);
            return true;
        }
        bool ok = grow(r, out);
        if (ok && out->kind == YNODE_MAP) {
            ok = read_key(r, &e, out, &key);
            yaml_event_delete(&e);
            if (!ok)
                return false;
            if (!next_event(r, &e)) {
                node_fini(&key);
                return false;
            }
        }
        struct ynode value = {0};
        ok = ok && read_node(r, &e, &value);
        yaml_event_delete(&e);
        if (!ok) {
            node_fini(&key);
            node_fini(&value);
            return false;
        }
        if (out->key)
            out->key[out->n] = key;
        out->child[out->n++] = value;
    }
}

static bool read_node(struct reader *r, yaml_event_t *e, struct ynode *out)
{
    out->line = (int)e->start_mark.line + 1;
    out->column = (int)e->start_mark.column + 1;
    if (e->type == YAML_SCALAR_EVENT)
        return read_scalar(r, e, out);
    if (e->type == YAML_ALIAS_EVENT)
        return refuse(r, e, "aliases are not supported");
    bool map = e->type == YAML_MAPPING_START_EVENT;
    if (!map && e->type != YAML_SEQUENCE_START_EVENT)
        return refuse(r, e, "want a value, a list or a mapping");
    if (map ? e->data.mapping_start.anchor || e->data.mapping_start.tag
            : e->data.sequence_start.anchor || e->data.sequence_start.tag)
        return refuse(r, e, "anchors and tags are not supported");
    if (++r->depth > YAML_DEPTH_MAX)
        return refuse(r, e, "nested too deeply (16 levels at most)");
    out->kind = map ? YNODE_MAP : YNODE_SEQ;
    bool ok = read_children(r, out);
    r->depth--;
    return ok;
}

/* libyaml scans flow brackets ahead of the events it gives, in time quadratic in their depth; so count them first. Brackets
 * inside quotes or comments count too: a file that nests so many is refused although it might be harmless. */
static bool prescan(const char *text, size_t n, const char *name, struct err *err)
{
    size_t depth = 0;
    int line = 1;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n')
            line++;
        if (text[i] == '\0')
            return err_set(err, ERR_FORMAT, "%s:%d: NUL byte", name, line);
        if (text[i] == '[' || text[i] == '{')
            depth++;
        else if ((text[i] == ']' || text[i] == '}') && depth > 0)
            depth--;
        if (depth > 4 * YAML_DEPTH_MAX)
            return err_set(err, ERR_LIMIT, "%s:%d: brackets nested more than %d deep", name, line, 4 * YAML_DEPTH_MAX);
    }
    return true;
}

static bool read_document(struct reader *r, struct ynode *root)
{
    yaml_event_t e;
    do { // STREAM-START, DOCUMENT-START
        if (!next_event(r, &e))
            return false;
        if (e.type == YAML_STREAM_END_EVENT) { // nothing but comments
            yaml_event_delete(&e);
            *root = (struct ynode){.kind = YNODE_MAP, .line = 1, .column = 1};
            return true;
        }
        if (e.type == YAML_STREAM_START_EVENT || e.type == YAML_DOCUMENT_START_EVENT) {
            yaml_event_delete(&e);
            continue;
        }
        break;
    } while (true);
    bool ok = read_node(r, &e, root);
    yaml_event_delete(&e);
    while (ok) { // DOCUMENT-END, STREAM-END
        if (!next_event(r, &e))
            return false;
        yaml_event_type_t type = e.type;
        if (type == YAML_DOCUMENT_START_EVENT)
            ok = refuse(r, &e, "a second document; want one");
        yaml_event_delete(&e);
        if (type == YAML_STREAM_END_EVENT)
            break;
    }
    return ok;
}

struct ynode *ynode_parse(const char *text, size_t n, size_t max_bytes, const char *name, struct err *err)
{
    if (n > max_bytes) {
        err_set(err, ERR_LIMIT, "%s: %zu bytes, at most %zu allowed", name, n, max_bytes);
        return NULL;
    }
    if (!prescan(text, n, name, err))
        return NULL;
    struct ynode *root = mem_array(1, sizeof(*root), err);
    struct reader r = {.name = name, .err = err};
    if (!root)
        return NULL;
    if (!yaml_parser_initialize(&r.parser)) {
        err_set(err, ERR_NOMEM, "%s: out of memory", name);
        free(root);
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    bool ok = read_document(&r, root);
    yaml_parser_delete(&r.parser);
    if (ok)
        return root;
    ynode_free(root);
    return NULL;
}

struct ynode *ynode_read_file(const char *path, size_t max_bytes, struct err *err)
{
    size_t n;
    char *text = fio_read_all(path, max_bytes, &n, err);
    if (!text)
        return NULL;
    struct ynode *root = ynode_parse(text, n, max_bytes, path, err);
    free(text);
    return root;
}

// -------------------------------------------------------------------------------------------------------- values

const char *ynode_str(const struct ynode *v, const char *name, struct err *err)
{
    if (v->kind == YNODE_SCALAR)
        return v->text;
    ynode_error(v, name, err, "found a %s, want a single value", v->kind == YNODE_MAP ? "mapping" : "list");
    return NULL;
}

bool ynode_uint(const struct ynode *v, const char *name, uint64_t *out, struct err *err)
{
    const char *s = ynode_str(v, name, err);
    if (!s)
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(s, &end, 10);
    if (s[0] < '0' || s[0] > '9' || *end || errno)
        return ynode_error(v, name, err, "found \"%.60s\", want a whole number", s);
    *out = value;
    return true;
}

bool ynode_double(const struct ynode *v, const char *name, double *out, struct err *err)
{
    const char *s = ynode_str(v, name, err);
    if (!s)
        return false;
    char *end;
    double value = strtod(s, &end);
    if (end == s || *end || !isfinite(value))
        return ynode_error(v, name, err, "found \"%.60s\", want a number", s);
    *out = value;
    return true;
}

bool ynode_bool(const struct ynode *v, const char *name, bool *out, struct err *err)
{
    const char *s = ynode_str(v, name, err);
    if (!s)
        return false;
    *out = strcmp(s, "true") == 0;
    return *out || strcmp(s, "false") == 0 || ynode_error(v, name, err, "found \"%.60s\", want true or false", s);
}

// -------------------------------------------------------------------------------------------------- edit distance

static size_t distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t row[MAX + 1], n = strlen(a), m = strlen(b);
    if (n > MAX || m > MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *ynode_nearest(const char *word, const char *const *known, size_t n)
{
    const char *best = NULL;
    size_t best_d = strlen(word) / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, known[i]);
        if (d <= best_d && (d < best_d || !best)) {
            best_d = d;
            best = known[i];
        }
    }
    return best;
}
