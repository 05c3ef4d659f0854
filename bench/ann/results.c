/* results.c - see results.h. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/ann/results.h"
#include "core/base/mem.h"

static bool read_name(const json_t *o, const char *key, char out[RESULTS_NAME_MAX], struct err *err)
{
    const char *s = json_string_value(json_object_get(o, key));
    if (!s || strlen(s) >= RESULTS_NAME_MAX)
        return err_set(err, ERR_FORMAT, "\"%s\" is no string of fewer than %d bytes", key, RESULTS_NAME_MAX);
    strcpy(out, s);
    return true;
}

static bool read_double(const json_t *o, const char *key, double *out, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v))
        return err_set(err, ERR_FORMAT, "\"%s\" is no number", key);
    *out = json_number_value(v);
    return true;
}

static bool read_size(const json_t *o, const char *key, size_t *out, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(err, ERR_FORMAT, "\"%s\" is no count", key);
    *out = (size_t)json_integer_value(v);
    return true;
}

static bool read_point(struct results *r, const json_t *o, struct err *err)
{
    struct result_point *grown = mem_grow(r->point, r->n_points + 1, sizeof(*grown), err);
    if (!grown)
        return false;
    r->point = grown;
    struct result_point *p = &r->point[r->n_points];
    bool ok = read_name(o, "data", p->data, err) && read_name(o, "system", p->system, err) && read_size(o, "n", &p->n, err) &&
              read_size(o, "dim", &p->dim, err) && read_size(o, "k", &p->k, err) && read_size(o, "ef", &p->ef, err) &&
              read_double(o, "recall", &p->recall, err) && read_double(o, "qps", &p->qps, err) &&
              read_double(o, "qps_min", &p->qps_min, err) && read_double(o, "qps_max", &p->qps_max, err) &&
              read_double(o, "p50_us", &p->p50_us, err) && read_double(o, "p99_us", &p->p99_us, err) &&
              read_double(o, "ratio", &p->ratio, err) && read_double(o, "load", &p->load, err);
    r->n_points += ok;
    return ok;
}

static bool read_build(struct results *r, const json_t *o, struct err *err)
{
    struct result_build *grown = mem_grow(r->build, r->n_builds + 1, sizeof(*grown), err);
    if (!grown)
        return false;
    r->build = grown;
    struct result_build *b = &r->build[r->n_builds];
    bool ok = read_name(o, "data", b->data, err) && read_name(o, "system", b->system, err) && read_size(o, "n", &b->n, err) &&
              read_size(o, "dim", &b->dim, err) && read_size(o, "threads", &b->threads, err) &&
              read_double(o, "cpu_s", &b->cpu_s, err) && read_double(o, "wall_s", &b->wall_s, err) &&
              read_double(o, "layout_cpu_s", &b->layout_cpu_s, err) &&
              read_double(o, "bytes_per_item", &b->bytes_per_item, err);
    r->n_builds += ok;
    return ok;
}

static bool read_line(struct results *r, const char *line, struct err *err)
{
    json_error_t why;
    json_t *o = json_loads(line, 0, &why);
    if (!o)
        return err_set(err, ERR_FORMAT, "%s", why.text);
    const char *type = json_string_value(json_object_get(o, "type"));
    bool ok = type && strcmp(type, "point") == 0   ? read_point(r, o, err)
              : type && strcmp(type, "build") == 0 ? read_build(r, o, err)
                                                   : err_set(err, ERR_FORMAT, "\"type\" is neither point nor build");
    json_decref(o);
    return ok;
}

bool results_read(struct results *r, const char *path, struct err *err)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return err_errno(err, "cannot open %s", path);
    char *line = NULL;
    size_t room = 0, at = 0;
    bool ok = true;
    while (ok && getline(&line, &room, f) > 0) {
        at++;
        ok = read_line(r, line, err) || err_prefix(err, "%s, line %zu", path, at);
    }
    if (ok && ferror(f))
        ok = err_errno(err, "reading %s", path);
    free(line);
    fclose(f);
    return ok;
}

void results_fini(struct results *r)
{
    free(r->point);
    free(r->build);
    *r = (struct results){0};
}
