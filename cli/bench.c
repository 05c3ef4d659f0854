#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "train/dataset.h"

#define FILE_MAX ((size_t)1 << 30)

// --------------------------------------------------------------------------------------------------------- requests

/* The body for one user; NULL: none. For free(). */
static char *body_of(const struct bench_input *in, const char *user, size_t n, struct err *err)
{
    json_t *o = json_object();
    if (user)
        json_object_set_new(o, "user_id", json_stringn(user, n));
    if (in->model)
        json_object_set_new(o, "model", json_string(in->model));
    json_object_set_new(o, "k", json_integer((json_int_t)in->k));
    if (in->ef)
        json_object_set_new(o, "ef", json_integer((json_int_t)in->ef));
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (!text)
        err_set(err, ERR_NOMEM, "out of memory");
    return text;
}

static bool add_user(const struct bench_input *in, const struct load_target *t, struct load_requests *q,
                     const char *user, size_t n, struct err *err)
{
    char *body = body_of(in, user, n, err);
    bool ok = body && load_requests_add(q, t, in->path ? in->path : "/v1/retrieve", body, strlen(body), err);
    free(body);
    return ok;
}

static size_t most(const struct bench_input *in)
{
    return in->most ? in->most : BENCH_REQUESTS_MAX;
}

static bool from_dataset(const struct bench_input *in, const struct load_target *t, struct load_requests *q,
                         struct err *err)
{
    struct dataset *d = dataset_open(in->data, err);
    if (!d)
        return false;
    uint64_t n = d->n_users < most(in) ? d->n_users : most(in);
    bool ok = true;
    for (uint64_t i = 0; ok && i < n; i++) {
        struct str id = strtab_get(&d->user_id, (uint32_t)(i * d->n_users / n));
        ok = add_user(in, t, q, id.p, id.n, err);
    }
    dataset_close(d);
    return ok;
}

static size_t count_lines(const char *text)
{
    size_t n = 0;
    for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p != '\0')
        n += *p != '\n';
    return n;
}

/* Each line: an id, or a JSON body. */
static bool from_lines(const struct bench_input *in, const struct load_target *t, struct load_requests *q,
                       const char *path, struct err *err)
{
    size_t size, at = 0;
    char *text = fio_read_all(path, FILE_MAX, &size, err);
    if (!text)
        return false;
    size_t n = count_lines(text), take = n < most(in) ? n : most(in);
    bool ok = n > 0 || err_set(err, ERR_FORMAT, "%s: no lines", path);
    for (const char *p = text; ok && *p;) {
        size_t len = strcspn(p, "\n"), bare = len > 0 && p[len - 1] == '\r' ? len - 1 : len;
        if (bare > 0 && at * take / n != (at + 1) * take / n)
            ok = in->requests ? load_requests_add(q, t, in->path ? in->path : "/v1/retrieve", p, bare, err)
                              : add_user(in, t, q, p, bare, err);
        at += len > 0;
        p += len + (p[len] == '\n');
    }
    free(text);
    return ok;
}

bool bench_read(const struct bench_input *in, struct load_target *t, struct load_requests *q, struct err *err)
{
    int lists = (in->users != NULL) + (in->data != NULL) + (in->requests != NULL) + (in->get != NULL);
    if (lists > 1)
        return err_set(err, ERR_ARG, "--users, --data, --requests, --get: one of them");
    if (!load_resolve(in->url, &in->tls, t, err))
        return false;
    if (in->get)
        return load_requests_add(q, t, in->get, NULL, 0, err);
    if (in->data)
        return from_dataset(in, t, q, err);
    if (in->users || in->requests)
        return from_lines(in, t, q, in->users ? in->users : in->requests, err);
    return add_user(in, t, q, NULL, 0, err);
}

// ---------------------------------------------------------------------------------------------------------- figures

const char *bench_ms(uint64_t ns, char out[32])
{
    double ms = (double)ns * 1e-6;
    snprintf(out, 32, ms < 0.1 ? "%.4f ms" : ms < 10 ? "%.3f ms" : "%.1f ms", ms);
    return out;
}

static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
static const char *const quantile_names[] = {"p50", "p90", "p99", "p99.9"};

void bench_print_latency(const char *name, const struct histogram *h)
{
    char text[32];
    printf("%-12s", name);
    for (size_t i = 0; i < 4; i++)
        printf(" %s %s ", quantile_names[i], bench_ms(histogram_quantile(h, quantiles[i]), text));
    printf(" max %s  (%llu)\n", bench_ms(h->max, text), (unsigned long long)h->n);
}

json_t *bench_latency_json(const struct histogram *h)
{
    json_t *o = json_object();
    json_object_set_new(o, "n", json_integer((json_int_t)h->n));
    json_object_set_new(o, "mean", json_real(histogram_mean(h) * 1e-6));
    for (size_t i = 0; i < 4; i++)
        json_object_set_new(o, quantile_names[i], json_real((double)histogram_quantile(h, quantiles[i]) * 1e-6));
    json_object_set_new(o, "max", json_real((double)h->max * 1e-6));
    return o;
}

void bench_print_failures(const struct load_result *r)
{
    for (unsigned s = 0; s < 600; s++)
        if (r->status[s])
            printf("status %-5u %llu\n", s, (unsigned long long)r->status[s]);
    for (int i = 0; i < LOAD_ERRORS; i++)
        if (r->error[i])
            printf("%-12s %llu\n", load_error_names[i], (unsigned long long)r->error[i]);
    if (r->unsent)
        printf("never sent   %llu (due, but every connection was busy)\n", (unsigned long long)r->unsent);
}

json_t *bench_failures_json(const struct load_result *r)
{
    json_t *o = json_object(), *status = json_object();
    char text[8];
    for (unsigned s = 0; s < 600; s++)
        if (r->status[s]) {
            snprintf(text, sizeof(text), "%u", s);
            json_object_set_new(status, text, json_integer((json_int_t)r->status[s]));
        }
    for (int i = 0; i < LOAD_ERRORS; i++)
        json_object_set_new(o, load_error_names[i], json_integer((json_int_t)r->error[i]));
    json_object_set_new(o, "unsent", json_integer((json_int_t)r->unsent));
    json_object_set_new(o, "status", status);
    return o;
}
