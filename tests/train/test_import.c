/* Import of a PyTorch state dict. If this fails, a model trained elsewhere is published with tables in the wrong place, or
 * a file that does not fit is refused without a word on what to change. PyTorch itself: import_torch.py. */
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "core/safetensors.h"
#include "tests/train/toy.h"
#include "train/checkpoint.h"
#include "train/import.h"

#define ENTRIES 40

/* What a PyTorch module of the toy's shape would write. */
struct lab {
    char dir[40], path[80], out[80];
    struct toy toy;
    struct model *m;
    char name[ENTRIES][96];
    struct st_tensor t[ENTRIES];
    size_t n;
    struct st_meta meta[2];
    size_t n_meta;
};

static size_t add(struct lab *l, const float *data, uint32_t n_dims, uint64_t rows, uint64_t cols, const char *fmt,
                  const char *side, const char *what)
{
    snprintf(l->name[l->n], sizeof(l->name[l->n]), fmt, side, what);
    l->t[l->n] = (struct st_tensor){.name = l->name[l->n], .dtype = ST_F32, .n_dims = n_dims, .dim = {rows, cols}};
    l->t[l->n].n_bytes = (size_t)(rows * (n_dims > 1 ? cols : 1)) * sizeof(float);
    l->t[l->n].data = data;
    return l->n++;
}

/* Layers with a gap after each, where an nn.Sequential has its ReLU. */
static void add_tower(struct lab *l, const char *side, const struct tower *t, bool segment)
{
    const struct tower_shape *s = &t->shape;
    uint32_t in = t->z_dim;
    for (uint32_t f = 0; f < s->n_fields; f++)
        add(l, t->emb + s->field[f].first_row * s->k, 2, s->field[f].n_rows, s->k, "%s_tower.emb.%s.weight", side,
            s->field[f].name);
    for (uint32_t i = 0; i < s->n_layers; in = s->width[i++]) {
        char at[8];
        snprintf(at, sizeof(at), "%u", 2 * i);
        add(l, t->w[i], 2, s->width[i], in, "%s_tower.fc.%s.weight", side, at);
        add(l, t->b[i], 1, s->width[i], 0, "%s_tower.fc.%s.bias", side, at);
    }
    if (s->d_aug)
        add(l, t->aug, 2, s->n_ids, s->d_aug, "%s_tower.aug.weight", side, "");
    if (s->d_aug && segment)
        add(l, t->aug_segment, 2, s->n_segments, s->d_aug, "%s_tower.aug_segment", side, "");
}

static void begin(struct lab *l, enum model_kind kind, bool segment)
{
    struct recipe r = toy_recipe(kind);
    *l = (struct lab){.dir = "/tmp/duet-import-XXXXXX"};
    assert_non_null(mkdtemp(l->dir));
    snprintf(l->path, sizeof(l->path), "%s/state.safetensors", l->dir);
    snprintf(l->out, sizeof(l->out), "%s/out", l->dir);
    toy_init(&l->toy, 20, 24, 1);
    l->m = toy_model(&l->toy, &r, 1);
    add_tower(l, "user", &l->m->user, segment);
    add_tower(l, "item", &l->m->item, segment);
}

static void end(struct lab *l)
{
    model_free(l->m);
    toy_fini(&l->toy);
    fio_remove_tree(l->dir, NULL);
}

static const char *const renames[] = {"user_tower.=user.", "item_tower.=item."};

static struct import_params params(const struct lab *l)
{
    return (struct import_params){.data = &l->toy.d,
                                  .state = l->path,
                                  .rename = renames,
                                  .n_rename = 2,
                                  .kind = l->m->kind,
                                  .history_alpha = 0.5};
}

static void write_state(struct lab *l)
{
    struct err err = {0};
    struct st_layout layout = {l->t, l->n, l->meta, l->n_meta};
    struct safetensors_writer *w = safetensors_writer_new(l->path, &layout, &err);
    bool ok = w != NULL;
    for (size_t i = 0; ok && i < l->n; i++)
        ok = safetensors_put(w, l->t[i].data, l->t[i].n_bytes, &err);
    if (!ok || !safetensors_finish(w, &err))
        fail_msg("%s", err.msg);
    safetensors_writer_free(w);
}

static size_t at(const struct lab *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->name[i], name) == 0)
            return i;
    fail_msg("no %s", name);
    return 0;
}

static void every_tensor_gets_to_its_place(void **state)
{
    (void)state;
    enum model_kind kinds[] = {MODEL_TWO_TOWER, MODEL_DAT};
    for (int i = 0; i < 2; i++) {
        struct lab l;
        struct err err = {0};
        const float scale = 12.5F;
        begin(&l, kinds[i], true);
        add(&l, &scale, i ? 1 : 0, 1, 0, "logit_scale%s%s", "", ""); // nn.Parameter(torch.tensor(..)) has no dimension
        write_state(&l);
        struct import_params p = params(&l);
        struct model *m = import_state(&p, &err);
        if (!m)
            fail_msg("%s", err.msg);
        assert_int_equal(m->user.block_floats, l.m->user.block_floats);
        assert_memory_equal(m->user.block, l.m->user.block, m->user.block_floats * sizeof(float));
        assert_memory_equal(m->item.block, l.m->item.block, m->item.block_floats * sizeof(float));
        assert_true(m->logit_scale == 12.5F && m->history.alpha == 0.5F);
        model_free(m);
        end(&l);
    }
}

/* The mean a_v of a class is that of its items that have a row and an interaction. */
static void means_of_segments_come_from_the_dataset(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    begin(&l, MODEL_DAT, false);
    write_state(&l);
    struct import_params p = params(&l);
    struct model *m = import_state(&p, &err);
    if (!m)
        fail_msg("%s", err.msg);
    const struct dataset *d = &l.toy.d;
    const struct schema_side *s = &d->schema->item;
    size_t w = m->item.shape.d_aug;
    for (uint32_t q = 1; q < m->item.shape.n_segments; q++) {
        double sum = 0, n = 0;
        for (uint32_t i = 0; i < d->n_items; i++) {
            const uint32_t *x = d->item_x + i * s->n_slots;
            if (schema_segment(s, x) == q && x[0] && d->item_count[i]) {
                sum += l.m->item.aug[x[0] * w + 1];
                n++;
            }
        }
        assert_true(n > 0);
        assert_true(fabs(m->item.aug_segment[q * w + 1] - sum / n) < 1e-6);
    }
    model_free(m);
    end(&l);
}

static void a_checkpoint_is_left(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    begin(&l, MODEL_DAT, true);
    write_state(&l);
    struct import_params p = params(&l);
    if (!import_checkpoint(&p, l.out, &err))
        fail_msg("%s", err.msg);
    struct checkpoint *c = checkpoint_load(l.out, &err);
    if (!c)
        fail_msg("%s", err.msg);
    assert_string_equal(c->info.recipe.name, "imported");
    assert_string_equal(c->info.dataset_hash, l.toy.d.hash);
    assert_int_equal(c->info.recipe.k, l.m->user.shape.k);
    assert_memory_equal(c->model->item.block, l.m->item.block, l.m->item.block_floats * sizeof(float));
    checkpoint_free(c);
    char path[PATH_MAX];
    assert_true(fio_join(path, l.out, "optimizer.safetensors", &err) && fio_write_atomic(path, "x", 1, &err));
    assert_false(import_checkpoint(&p, l.out, &err));
    assert_non_null(strstr(err.msg, "holds the state of a training run"));
    end(&l);
}

static void metadata_say_what_shapes_do_not(void **state)
{
    (void)state;
    struct lab l;
    struct err err = {0};
    bool has_kind;
    struct import_params p = {0};
    begin(&l, MODEL_DAT, true);
    write_state(&l);
    assert_true(import_defaults(l.path, &p, &has_kind, &err));
    assert_true(!has_kind && !p.relu_out && !p.skip_aug && p.history_alpha == 1);
    l.meta[0] = (struct st_meta){"kind", "dat"};
    l.meta[1] = (struct st_meta){"skip_aug", "true"};
    l.n_meta = 2;
    write_state(&l);
    assert_true(import_defaults(l.path, &p, &has_kind, &err));
    assert_true(has_kind && p.kind == MODEL_DAT && p.skip_aug && !p.relu_out);
    end(&l);
}

/* Taken for 0 or false they would make another model than the file's. */
static void metadata_that_say_nothing_known_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct st_meta meta;
        const char *say;
    } cases[] = {
        {{"history_alpha", "abc"}, "history_alpha: found \"abc\", want a number from 0 to 1"},
        {{"history_alpha", ""}, "history_alpha: found \"\""},
        {{"history_alpha", "0.5x"}, "found \"0.5x\""},
        {{"history_alpha", "1.5"}, "found \"1.5\""},
        {{"history_alpha", "nan"}, "found \"nan\""},
        {{"relu_out", "True"}, "relu_out: found \"True\", want true or false"},
        {{"skip_aug", "1"}, "skip_aug: found \"1\""},
    };
    struct lab l;
    begin(&l, MODEL_DAT, true);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct err err = {0};
        struct import_params p = {0};
        bool has_kind;
        l.meta[0] = cases[i].meta;
        l.n_meta = 1;
        write_state(&l);
        assert_false(import_defaults(l.path, &p, &has_kind, &err));
        assert_int_equal(err.code, ERR_FORMAT);
        if (!strstr(err.msg, cases[i].say) || !strstr(err.msg, "state.safetensors"))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.msg, cases[i].say);
    }
    end(&l);
}

// --------------------------------------------------------------------------------------------- what is refused

static float damaged[4096];

static void gone(struct lab *l)
{
    size_t i = at(l, "user_tower.emb.city.weight");
    l->t[i] = l->t[--l->n];
}

static void rows_of_another_schema(struct lab *l)
{
    l->t[at(l, "user_tower.emb.city.weight")].dim[0]--;
}

static void transposed(struct lab *l)
{
    struct st_tensor *t = &l->t[at(l, "item_tower.fc.0.weight")];
    uint64_t d = t->dim[0];
    t->dim[0] = t->dim[1];
    t->dim[1] = d;
}

static void tables_of_two_widths(struct lab *l)
{
    l->t[at(l, "item_tower.emb.price.weight")].dim[1]--;
}

static void short_bias(struct lab *l)
{
    l->t[at(l, "user_tower.fc.2.bias")].dim[0]--;
}

static void narrow_aug(struct lab *l)
{
    l->t[at(l, "item_tower.aug.weight")].dim[1]--;
}

static void doubles(struct lab *l)
{
    struct st_tensor *t = &l->t[at(l, "item_tower.fc.0.weight")];
    t->dtype = ST_F64;
    t->data = damaged;
}

static void not_finite(struct lab *l)
{
    damaged[3] = NAN;
    l->t[at(l, "user_tower.fc.0.weight")].data = damaged;
}

static void another_tensor(struct lab *l)
{
    add(l, damaged, 1, 1, 0, "%s_tower.norm.%s", "user", "running_mean");
}

static void twice(struct lab *l)
{
    add(l, damaged, 2, 5, 2, "%s.emb.%s", "user", "city");
}

static void scale_below_zero(struct lab *l)
{
    static const float scale = -1;
    add(l, &scale, 1, 1, 0, "logit_scale%s%s", "", "");
}

static void unequal_outputs(struct lab *l)
{
    size_t i = at(l, "user_tower.fc.4.weight"), b = at(l, "user_tower.fc.4.bias");
    l->t[i].dim[0]--;
    l->t[b].dim[0]--;
    l->t[at(l, "user_tower.fc.0.weight")].dim[1]--;
    l->t[at(l, "user_tower.aug.weight")].dim[1]--;
    l->t[at(l, "user_tower.aug_segment")].dim[1]--;
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        void (*damage)(struct lab *l);
        const char *say[3];
    } cases[] = {
        {gone, {"no tensor is \"user.emb.city\"", "--rename", NULL}},
        {rows_of_another_schema, {"\"user_tower.emb.city.weight\" (user.emb.city)", "has shape [4, ", "want [5, "}},
        {transposed, {"\"item_tower.fc.0.weight\" (item.fc.0.weight) has shape [", "want [any, ", "layer 0 takes 4"}},
        {tables_of_two_widths, {"(item.emb.price) has shape [6, ", "want [6, ", NULL}},
        {short_bias, {"\"user_tower.fc.2.bias\" (user.fc.1.bias) has shape [", NULL, NULL}},
        {narrow_aug, {"\"item_tower.aug.weight\" (item.aug) has shape [25, ", "want [25, ", NULL}},
        {doubles, {"(item.fc.0.weight) is of F64, want F32", ".float()", NULL}},
        {not_finite, {"\"user_tower.fc.0.weight\" (user.fc.0.weight) holds a value that is not finite", NULL, NULL}},
        {another_tensor,
         {"\"user_tower.norm.running_mean\" (user.norm.running_mean) has no place in a dat", NULL, NULL}},
        {twice, {"\"user_tower.emb.city.weight\" and \"user.emb.city\" would both be user.emb.city", NULL, NULL}},
        {scale_below_zero, {"(logit_scale) holds -1, want positive", NULL, NULL}},
        {unequal_outputs, {"user tower has", "outputs, item tower", "want the same"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct lab l;
        struct err err = {0};
        begin(&l, MODEL_DAT, true);
        cases[i].damage(&l);
        for (size_t k = 0; k < l.n; k++) {
            struct st_tensor *t = &l.t[k];
            t->n_bytes = (size_t)(t->dim[0] * (t->n_dims > 1 ? t->dim[1] : 1)) * st_dtype_size(t->dtype);
        }
        write_state(&l);
        struct import_params p = params(&l);
        struct model *m = import_state(&p, &err);
        assert_null(m);
        for (int k = 0; k < 3 && cases[i].say[k]; k++)
            if (!strstr(err.msg, cases[i].say[k]))
                fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.msg, cases[i].say[k]);
        assert_non_null(strstr(err.msg, "state.safetensors"));
        end(&l);
    }
}

static void a_rename_without_its_sign_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"user_tower."};
    struct lab l;
    struct err err = {0};
    begin(&l, MODEL_DAT, true);
    write_state(&l);
    struct import_params p = params(&l);
    p.rename = wrong;
    p.n_rename = 1;
    assert_null(import_state(&p, &err));
    assert_int_equal(err.code, ERR_ARG);
    assert_non_null(strstr(err.msg, "want OLD=NEW"));
    end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_gets_to_its_place), cmocka_unit_test(means_of_segments_come_from_the_dataset),
        cmocka_unit_test(a_checkpoint_is_left),           cmocka_unit_test(metadata_say_what_shapes_do_not),
        cmocka_unit_test(metadata_that_say_nothing_known_are_refused),
        cmocka_unit_test(what_does_not_fit_is_named),     cmocka_unit_test(a_rename_without_its_sign_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
