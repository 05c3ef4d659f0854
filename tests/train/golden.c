#include "tests/train/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct safetensors *golden_open(const char *name)
{
    struct err err = {0};
    char path[512];
    snprintf(path, sizeof(path), "%s/tests/golden/%s", getenv("DUET_SOURCE_DIR") ? getenv("DUET_SOURCE_DIR") : ".",
             name);
    struct safetensors *f = safetensors_open(path, &err);
    if (!f)
        fail_msg("%s", err.msg);
    return f;
}

const void *golden_tensor(const struct safetensors *f, const char *name, enum st_dtype dtype, size_t n)
{
    const struct st_tensor *t = safetensors_find(f, name);
    if (!t || t->dtype != dtype || t->n_bytes != n * st_dtype_size(dtype)) {
        fail_msg("golden tensor %s is missing or not of %zu values", name, n);
        return NULL;
    }
    return t->data;
}

void golden_take(const struct safetensors *f, const char *prefix, const char *name, float *p, size_t n)
{
    char full[192];
    snprintf(full, sizeof(full), "%s%s", prefix, name);
    memcpy(p, golden_tensor(f, full, ST_F32, n), n * sizeof(*p));
}

void golden_compare(const struct safetensors *f, const char *prefix, const char *name, const float *p, size_t n)
{
    char full[192];
    snprintf(full, sizeof(full), "%s%s", prefix, name);
    const float *want = golden_tensor(f, full, ST_F32, n);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(p[i] - want[i]) <= (float)GOLDEN_TOLERANCE))
            fail_msg("%s[%zu] is %.8g, PyTorch says %.8g", full, i, (double)p[i], (double)want[i]);
}

struct tower_visit {
    const struct safetensors *f;
    const char *prefix;
    bool take;
};

static void visit(const struct tower_visit *v, const char *name, float *p, size_t n)
{
    if (v->take)
        golden_take(v->f, v->prefix, name, p, n);
    else
        golden_compare(v->f, v->prefix, name, p, n);
}

static void each_tensor(const struct tower *t, const char *side, const struct tower_visit *v)
{
    char name[160];
    for (uint32_t f = 0; f < t->shape.n_fields; f++) {
        snprintf(name, sizeof(name), "%s.emb.%s", side, t->shape.field[f].name);
        visit(v, name, t->emb + t->shape.field[f].first_row * t->shape.k,
              (size_t)t->shape.field[f].n_rows * t->shape.k);
    }
    snprintf(name, sizeof(name), "%s.aug", side);
    if (t->aug)
        visit(v, name, t->aug, (size_t)t->shape.n_ids * t->shape.d_aug);
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        snprintf(name, sizeof(name), "%s.fc.%u.weight", side, l);
        visit(v, name, t->w[l], (size_t)t->shape.width[l] * (l ? t->shape.width[l - 1] : t->z_dim));
        snprintf(name, sizeof(name), "%s.fc.%u.bias", side, l);
        visit(v, name, t->b[l], t->shape.width[l]);
    }
}

void golden_take_tower(const struct safetensors *f, const char *prefix, const char *side, struct tower *t)
{
    each_tensor(t, side, &(struct tower_visit){f, prefix, true});
}

void golden_compare_tower(const struct safetensors *f, const char *prefix, const char *side, const struct tower *t)
{
    each_tensor(t, side, &(struct tower_visit){f, prefix, false});
}

size_t golden_rows(const struct safetensors *f, const char *name, size_t n_rows, size_t most, uint32_t *off, uint32_t *value)
{
    const struct st_tensor *t = safetensors_find(f, name);
    size_t n = t ? t->n_bytes / (2 * sizeof(uint32_t)) : 0;
    assert_in_range(n, 1, most);
    const uint32_t *pair = golden_tensor(f, name, ST_U32, 2 * n);
    memset(off, 0, (n_rows + 1) * sizeof(*off));
    for (size_t i = 0; i < n; i++) {
        assert_in_range(pair[2 * i], i ? pair[2 * i - 2] : 0, n_rows - 1);
        value[i] = pair[2 * i + 1];
        for (size_t r = pair[2 * i] + 1; r <= n_rows; r++)
            off[r] = (uint32_t)i + 1;
    }
    return n;
}
