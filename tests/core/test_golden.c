/* If this fails, the C towers no longer compute what PyTorch computes from the same model, or no longer read models
 * that PyTorch wrote. The files and what they hold: tests/golden/forward.py. */
#include "core/base/json.h"
#include "core/model.h"
#include "tests/core/support.h"

#define TOLERANCE 1e-5

static const char *golden(const char *name)
{
    static char path[4][PATH_MAX];
    static int next;
    const char *top = getenv("DUET_SOURCE_DIR");
    char *p = path[next++ % 4];
    snprintf(p, PATH_MAX, "%s/tests/golden/%s", top ? top : ".", name);
    return p;
}

static void near(const json_t *want, const float *got, const char *what, size_t i)
{
    json_t *v;
    size_t c;
    assert_non_null(want);
    json_array_foreach((json_t *)(uintptr_t)want, c, v)
    {
        double off = json_number_value(v) - (double)got[c];
        if (!(off <= TOLERANCE && off >= -TOLERANCE))
            fail_msg("%s of case %zu, component %zu: %.9g, PyTorch says %.9g", what, i, c, (double)got[c],
                     json_number_value(v));
    }
}

/* From the case's text values to x, which must be the rows that Python found. */
static void encode_case(const json_t *c, const struct schema_side *side, uint32_t *x)
{
    const char *name;
    json_t *v, *want = json_object_get(c, "x");
    size_t i;
    schema_encode_unknown(side, x);
    if (side->id_field >= 0)
        x[side->field[side->id_field].slot] = (uint32_t)json_integer_value(json_object_get(c, "id_row"));
    json_object_foreach(json_object_get(c, "features"), name, v)
    {
        const struct schema_field *f = schema_find(side, name, strlen(name));
        assert_non_null(f);
        schema_encode_value(side, f, json_string_value(v), json_string_length(v), x);
    }
    assert_int_equal(json_array_size(want), side->n_slots);
    json_array_foreach(want, i, v) assert_int_equal(x[i], (uint32_t)json_integer_value(v));
    assert_true(schema_check_x(side, x, 1, NULL));
}

static void check_side(const json_t *cases, const struct tower *t, const struct schema_side *side, const char *variant)
{
    char p_key[32], a_key[32];
    snprintf(p_key, sizeof(p_key), "p_%s", variant);
    snprintf(a_key, sizeof(a_key), "a_%s", variant);
    size_t n = json_array_size(cases);
    assert_in_range(n, 1, 64);
    uint32_t x[64 * 16];
    float p[64 * 32], a[64 * 32];
    struct tower_ws *ws = tower_ws_new(t, n, NULL);
    for (size_t i = 0; i < n; i++) {
        const json_t *c = json_array_get(cases, i);
        uint32_t *xi = x + i * side->n_slots;
        encode_case(c, side, xi);
        const float *own = tower_aug_of(t, side, xi);
        near(json_object_get(c, a_key), own, a_key, i);
        memcpy(a + i * t->shape.d_aug, own, t->shape.d_aug * sizeof(*a));
        for (int isa = 0; isa < DENSE_N_ISAS; isa++) {
            if (!tower_ws_use(ws, (enum dense_isa)isa))
                continue;
            tower_forward_own(t, side, xi, 1, ws, p);
            near(json_object_get(c, p_key), p, dense_isa_name((enum dense_isa)isa), i);
        }
    }
    tower_forward(t, x, a, n, ws, p);
    for (size_t i = 0; i < n; i++)
        near(json_object_get(json_array_get(cases, i), p_key), p + i * t->d, "the batch", i);
    tower_ws_free(ws);
}

static void check_variant(const char *variant, bool relu_out)
{
    struct err err = {0};
    char file[64];
    snprintf(file, sizeof(file), "forward_%s.safetensors", variant);
    json_t *cases = json_read_file(golden("forward.cases.json"), 1 << 20, &err);
    assert_ok(cases, &err);
    struct schema *schema = schema_load(golden("forward.schema.json"), &err);
    assert_ok(schema, &err);
    struct model *m = model_load(golden(file), schema, true, &err);
    assert_ok(m, &err);
    assert_int_equal(m->kind, MODEL_DAT);
    assert_int_equal(m->user.shape.relu_out, relu_out);
    assert_int_equal(m->user.shape.skip_aug, strcmp(variant, "skip") == 0);
    assert_true(m->history.alpha == (strcmp(variant, "skip") == 0 ? 0.5f : 1.0f));
    assert_true(m->logit_scale == 20);
    check_side(json_object_get(cases, "user"), &m->user, &m->schema->user, variant);
    check_side(json_object_get(cases, "item"), &m->item, &m->schema->item, variant);
    model_free(m);
    json_decref(cases);
}

static void linear_last_layer(void **state)
{
    (void)state;
    check_variant("linear", false);
}

static void relu_after_the_last_layer(void **state)
{
    (void)state;
    check_variant("relu", true);
}

static void the_augmented_vector_past_the_layers(void **state)
{
    (void)state;
    check_variant("skip", false);
}

/* What we save of a model that Python wrote is, tensor by tensor and byte by byte, what Python wrote. */
static void saves_python_files_unchanged(void **state)
{
    struct err err = {0};
    size_t n, n_back;
    const char *path = tmp_path(state, "back.safetensors");
    struct model *m =
        model_load(golden("forward_linear.safetensors"), schema_load(golden("forward.schema.json"), NULL), true, &err);
    assert_ok(m, &err);
    assert_ok(model_save(m, path, true, &err), &err);
    char *want = get_file(golden("forward_linear.safetensors"), &n), *back = get_file(path, &n_back);
    assert_int_equal(n, n_back);
    assert_memory_equal(want, back, n);
    free(want);
    free(back);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_last_layer),
        cmocka_unit_test(relu_after_the_last_layer),
        cmocka_unit_test(the_augmented_vector_past_the_layers),
        cmocka_unit_test_setup_teardown(saves_python_files_unchanged, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
