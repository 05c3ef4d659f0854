/* If this fails, p_u and p_v are not what docs/model.md says: training, publishing and serving all stand on this
 * function. */
#include "core/base/json.h"
#include "tests/core/support.h"
#include "tests/core/tower_ref.h"

#define ROWS 520 // past every block size of the kernels, and past the size from which sgemm takes over
#define TOLERANCE 1e-5

static struct schema *make_schema(void)
{
    static const char text[] =
        "{\"format\": \"duet-schema\", \"format_version\": 1, \"item\": {\"segment\": null, \"fields\": []},"
        " \"user\": {\"segment\": \"city\", \"fields\": ["
        "   {\"name\": \"uid\", \"kind\": \"id\", \"rows\": 21}, {\"name\": \"note\", \"kind\": \"display\"},"
        "   {\"name\": \"tags\", \"kind\": \"multi\", \"sep\": \",\", \"slots\": 4, \"values\": [\"a\", \"b\", \"c\", "
        "\"d\"]},"
        "   {\"name\": \"city\", \"kind\": \"categorical\", \"values\": [\"SH\", \"BJ\"]},"
        "   {\"name\": \"age\", \"kind\": \"numeric\", \"bounds\": [18, 40]}]}}";
    json_t *v = json_parse(text, sizeof(text) - 1, NULL);
    struct schema *s = schema_from_json(v, NULL);
    json_decref(v);
    assert_non_null(s);
    return s;
}

struct fixture {
    struct schema *schema;
    struct tower t;
    uint32_t x[ROWS * 7];
    float *a; // [ROWS][d_aug]
};

static struct fixture *setup(const struct tower_params *p)
{
    static const char *const tags[] = {"a", "b,d", "c,a,d", "zzz", "", "d,c,b,a"};
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = {0};
    struct rng r;
    rng_init(&r, 11);
    f->schema = make_schema();
    const struct schema_side *side = &f->schema->user;
    if (!tower_init(&f->t, side, p, &err))
        fail_msg("%s", err.msg);
    ref_randomise(&f->t, &r);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t *x = f->x + i * side->n_slots;
        const char *tag = tags[i % 6];
        schema_encode_unknown(side, x);
        schema_encode_value(side, &side->field[2], tag, strlen(tag), x);
        x[0] = rng_below(&r, 21);
        x[side->field[3].slot] = rng_below(&r, 3);
        x[side->field[4].slot] = rng_below(&r, 4);
    }
    assert_true(schema_check_x(side, f->x, ROWS, NULL));
    f->a = malloc(ROWS * (p->d_aug + 1) * sizeof(float));
    for (uint32_t i = 0; i < ROWS * p->d_aug; i++)
        f->a[i] = (float)rng_normal(&r);
    return f;
}

static void teardown(struct fixture *f)
{
    free(f->a);
    tower_fini(&f->t);
    schema_free(f->schema);
    free(f);
}

static const struct tower_params shapes[] = {
    {.k = 32, .d_aug = 32, .n_layers = 3, .width = {256, 128, 32}, .with_aug = true},
    {.k = 32, .d_aug = 32, .n_layers = 3, .width = {256, 128, 32}, .relu_out = true, .with_aug = true},
    {.k = 5, .d_aug = 0, .n_layers = 1, .width = {7}},
    {.k = 3, .d_aug = 9, .n_layers = 4, .width = {17, 65, 33, 9}, .with_aug = true},
    {.k = 1, .d_aug = 1, .n_layers = 2, .width = {1, 1}, .with_aug = true},
    {.k = 32, .d_aug = 128, .n_layers = 2, .width = {256, 128}, .skip_aug = true, .with_aug = true},
    {.k = 12, .d_aug = 0, .n_layers = 2, .width = {20, 12}, .skip_aug = true},
};
#define N_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void same(const float *got, const float *want, size_t n, const char *what, size_t B)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= TOLERANCE))
            fail_msg("%s, B = %zu: component %zu is %.8f, want %.8f", what, B, i, (double)got[i], (double)want[i]);
}

static size_t next_batch(size_t B) // 0 .. 40, 511, 512, 513, ROWS
{
    return B == 40 ? 511 : B == 513 ? ROWS : B + 1;
}

static void agrees_with_the_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct fixture *f = setup(&shapes[i]);
        uint32_t d = f->t.d, n_slots = f->schema->user.n_slots;
        float *want = calloc(ROWS, d * sizeof(float)), *got = calloc(ROWS, d * sizeof(float));
        struct tower_ws *ws = tower_ws_new(&f->t, ROWS, NULL);
        for (size_t j = 0; j < ROWS; j++)
            ref_forward(&f->t, f->x + j * n_slots, f->a + j * shapes[i].d_aug, want + j * d);
        for (int isa = 0; isa < DENSE_N_ISAS; isa++) {
            if (!tower_ws_use(ws, (enum dense_isa)isa))
                continue;
            for (size_t B = 0; B <= ROWS; B = next_batch(B)) {
                memset(got, 0xff, ROWS * d * sizeof(float));
                tower_forward(&f->t, f->x, f->a, B, ws, got);
                same(got, want, B * d, dense_isa_name((enum dense_isa)isa), B);
                assert_true(B == ROWS || isnan(got[B * d])); // nothing after the last row
            }
        }
        tower_ws_free(ws);
        free(want);
        free(got);
        teardown(f);
    }
}

static void outputs_have_unit_length(void **state)
{
    (void)state;
    struct fixture *f = setup(&shapes[0]);
    struct tower_ws *ws = tower_ws_new(&f->t, ROWS, NULL);
    float p[ROWS * 32];
    tower_forward(&f->t, f->x, f->a, ROWS, ws, p);
    for (size_t i = 0; i < ROWS; i++) {
        double s = 0;
        for (size_t c = 0; c < 32; c++)
            s += (double)p[i * 32 + c] * (double)p[i * 32 + c];
        assert_true(fabs(s - 1) < 1e-6);
    }
    tower_ws_free(ws);
    teardown(f);
}

static void own_augmented_vectors(void **state)
{
    (void)state;
    struct fixture *f = setup(&shapes[3]);
    const struct schema_side *side = &f->schema->user;
    float want[9 * ROWS], got[9 * ROWS];
    struct tower_ws *ws = tower_ws_new(&f->t, ROWS, NULL);
    f->x[0] = 0; // an unknown user
    for (size_t i = 0; i < ROWS; i++) {
        const uint32_t *x = f->x + i * side->n_slots;
        const float *a = x[0] ? f->t.aug + x[0] * 9 : f->t.aug_segment + x[side->field[3].slot] * 9;
        assert_ptr_equal(tower_aug_of(&f->t, side, x), a);
        ref_forward(&f->t, x, a, want + i * 9);
    }
    tower_forward_own(&f->t, side, f->x, 1, ws, got);
    same(got, want, 9, "own", 1);
    tower_forward_own(&f->t, side, f->x, ROWS, ws, got);
    same(got, want, 9 * ROWS, "own", ROWS);
    tower_ws_free(ws);
    teardown(f);
}

/* Zero weights, and weights so large that h overflows: p = 0, never NaN or infinity, in both paths. */
static void never_nan(void **state)
{
    (void)state;
    static const float fill[] = {0, 1e38f, -1e38f, 1e-38f};
    for (size_t i = 0; i < 4 * N_SHAPES; i++) {
        struct fixture *f = setup(&shapes[i / 4]);
        struct tower_ws *ws = tower_ws_new(&f->t, ROWS, NULL);
        float *p = calloc(ROWS, f->t.d * sizeof(float));
        for (size_t j = 0; j < f->t.block_floats; j++)
            f->t.block[j] = fill[i % 4];
        for (size_t B = 1; B <= ROWS; B += ROWS - 1) {
            tower_forward(&f->t, f->x, f->a, B, ws, p);
            for (size_t j = 0; j < B * f->t.d; j++)
                assert_true(fabsf(p[j]) <= 1 && (i % 4 || f->t.shape.skip_aug || p[j] == 0));
        }
        free(p);
        tower_ws_free(ws);
        teardown(f);
    }
}

/* A vector too short for float squares keeps its direction. */
static void tiny_vectors_keep_their_direction(void **state)
{
    (void)state;
    struct fixture *f = setup(&shapes[2]);
    struct tower_ws *ws = tower_ws_new(&f->t, 1, NULL);
    float p[7];
    memset(f->t.block, 0, f->t.block_floats * sizeof(float));
    f->t.b[0][0] = 3e-30f;
    f->t.b[0][1] = -4e-30f;
    tower_forward(&f->t, f->x, NULL, 1, ws, p);
    assert_float_equal(p[0], 0.6f, 1e-6);
    assert_float_equal(p[1], -0.8f, 1e-6);
    tower_ws_free(ws);
    teardown(f);
}

static void views_lie_in_one_block(void **state)
{
    (void)state;
    struct fixture *f = setup(&shapes[3]);
    const struct tower *t = &f->t;
    const float *view[] = {t->emb, t->aug, t->aug_segment, t->w[0], t->b[0], t->w[3], t->b[3]};
    for (size_t i = 0; i < 7; i++) {
        assert_true((uintptr_t)view[i] % 64 == 0);
        assert_true(view[i] >= t->block && view[i] < t->block + t->block_floats);
        assert_true(i == 0 || view[i] > view[i - 1]);
    }
    assert_int_equal(t->shape.n_fields, 4); // display fields have no table
    assert_int_equal(t->shape.n_rows, 21 + 5 + 3 + 4);
    assert_int_equal(t->shape.field[3].first_row, 29);
    assert_int_equal(t->z_dim, 4 * 3 + 9);
    assert_int_equal(t->shape.n_ids, 21);
    assert_int_equal(t->shape.n_segments, 3);
    teardown(f);
}

static void refuses_bad_shapes(void **state)
{
    (void)state;
    struct schema *s = make_schema();
    const struct tower_params bad[] = {
        {.k = 8, .n_layers = 0},
        {.k = 8, .n_layers = TOWER_LAYERS_MAX + 1, .width = {1, 1, 1, 1, 1, 1, 1, 1}},
        {.k = 8, .n_layers = 2, .width = {4, 0}},
        {.k = 8, .n_layers = 1, .width = {65537}},
        {.k = 65537, .n_layers = 1, .width = {4}},
        {.k = 8, .d_aug = 65537, .n_layers = 1, .width = {4}},
        {.k = 0, .n_layers = 1, .width = {4}},
    };
    struct tower t;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = {0};
        assert_false(tower_init(&t, &s->user, &bad[i], &err));
        assert_int_equal(err.code, ERR_ARG);
        tower_fini(&t);
    }
    const struct tower_params p = {.k = 8, .n_layers = 1, .width = {4}};
    assert_false(tower_init(&t, &s->item, &p, NULL)); // no fields and no augmented vector: nothing to embed
    schema_free(s);
}

/* Any allocation while it is set to fail would be noticed; the result must be the same as before. */
static void forward_allocates_nothing(void **state)
{
    (void)state;
    struct fixture *f = setup(&shapes[0]);
    struct tower_ws *ws = tower_ws_new(&f->t, ROWS, NULL);
    float *p = calloc(ROWS, 32 * sizeof(float)), *q = calloc(ROWS, 32 * sizeof(float));
    for (size_t B = 1; B <= ROWS; B += ROWS - 1) {
        tower_forward(&f->t, f->x, f->a, B, ws, p);
        alloc_fail_at(1);
        tower_forward(&f->t, f->x, f->a, B, ws, q);
        bool allocated = alloc_failed();
        alloc_fail_at(0);
        assert_false(allocated);
        assert_memory_equal(p, q, B * 32 * sizeof(float));
    }
    free(p);
    free(q);
    tower_ws_free(ws);
    teardown(f);
}

static void survives_lack_of_memory(void **state)
{
    (void)state;
    struct schema *s = make_schema();
    bool done = false;
    for (size_t i = 1; !done; i++) {
        struct err err = {0};
        struct tower t;
        alloc_fail_at(i);
        struct tower_ws *ws = tower_init(&t, &s->user, &shapes[2], &err) ? tower_ws_new(&t, 3, &err) : NULL;
        done = !alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(ws != NULL, done);
        assert_int_equal(err.code, done ? ERR_OK : ERR_NOMEM);
        tower_ws_free(ws);
        tower_fini(&t);
    }
    schema_free(s);
}

static void scratch_has_limits(void **state)
{
    (void)state;
    struct fixture *f = setup(&shapes[2]);
    struct err err = {0};
    assert_null(tower_ws_new(&f->t, 0, &err));
    assert_int_equal(err.code, ERR_ARG);
    tower_ws_free(NULL);
    teardown(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_definition),
        cmocka_unit_test(outputs_have_unit_length),
        cmocka_unit_test(own_augmented_vectors),
        cmocka_unit_test(never_nan),
        cmocka_unit_test(tiny_vectors_keep_their_direction),
        cmocka_unit_test(views_lie_in_one_block),
        cmocka_unit_test(refuses_bad_shapes),
        cmocka_unit_test(scratch_has_limits),
        cmocka_unit_test(forward_allocates_nothing),
        cmocka_unit_test(survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
