/* If this fails, a model comes back from its file as another one, or a file that does not fit the schema is loaded and
 * indexed past its tables' ends. */
#include <math.h>
#include <sys/stat.h>

#include "core/base/json.h"
#include "core/base/rng.h"
#include "core/model.h"
#include "core/safetensors.h"
#include "tests/core/support.h"
#include "tests/core/tower_ref.h"

static struct schema *make_schema(void)
{
    static const char text[] =
        "{\"format\": \"duet-schema\", \"format_version\": 1,"
        " \"user\": {\"segment\": \"city\", \"fields\": [{\"name\": \"uid\", \"kind\": \"id\", \"rows\": 9},"
        "   {\"name\": \"city\", \"kind\": \"categorical\", \"values\": [\"SH\", \"BJ\"]}]},"
        " \"item\": {\"segment\": null, \"fields\": [{\"name\": \"title\", \"kind\": \"display\"},"
        "   {\"name\": \"price\", \"kind\": \"numeric\", \"bounds\": [10, 50]}]}}";
    json_t *v = json_parse(text, sizeof(text) - 1, NULL);
    struct schema *s = schema_from_json(v, NULL);
    json_decref(v);
    return s;
}

static struct model *make_model(enum model_kind kind, bool relu_out, struct err *err)
{
    struct tower_params user = {.k = 4, .n_layers = 2, .width = {6, 5}, .relu_out = relu_out, .with_aug = true},
                        item = user;
    struct rng r;
    item.n_layers = 1; // the towers may differ in all but d
    item.width[0] = 5;
    item.k = 3;
    user.d_aug = item.d_aug = kind == MODEL_DAT ? 5 : 0;
    struct schema *s = make_schema();
    struct model *m = s ? model_new(kind, s, &user, &item, err) : NULL;
    if (!m)
        return NULL;
    rng_init(&r, 5);
    ref_randomise(&m->user, &r);
    ref_randomise(&m->item, &r);
    m->logit_scale = 12.5f;
    return m;
}

static void same_tower(const struct tower *a, const struct tower *b, bool with_aug)
{
    assert_int_equal(a->z_dim, b->z_dim);
    assert_int_equal(a->shape.n_layers, b->shape.n_layers);
    assert_int_equal(a->shape.relu_out, b->shape.relu_out);
    assert_int_equal(a->shape.d_aug, b->shape.d_aug);
    if (with_aug) {
        assert_int_equal(a->block_floats, b->block_floats);
        assert_memory_equal(a->block, b->block, a->block_floats * sizeof(float)); // padding too: zero on both sides
        return;
    }
    assert_null(b->aug);
    assert_memory_equal(a->emb, b->emb, a->shape.n_rows * a->shape.k * sizeof(float));
    assert_memory_equal(a->w[0], b->w[0], (size_t)a->shape.width[0] * a->z_dim * sizeof(float));
}

static void comes_back_the_same(void **state)
{
    for (int i = 0; i < 8; i++) {
        struct err err = {0};
        bool with_aug = i & 1, from_memory = i & 2;
        enum model_kind kind = i & 4 ? MODEL_DAT : MODEL_TWO_TOWER;
        const char *path = tmp_path(state, "model.safetensors");
        struct model *m = make_model(kind, i & 4, &err);
        assert_ok(m, &err);
        assert_ok(model_save(m, path, with_aug, &err), &err);
        size_t n;
        char *bytes = get_file(path, &n);
        struct model *back = from_memory ? model_load_mem(bytes, n, "bytes", make_schema(), with_aug, &err)
                                         : model_load(path, make_schema(), with_aug, &err);
        free(bytes);
        assert_ok(back, &err);
        assert_int_equal(back->kind, kind);
        assert_true(back->logit_scale == 12.5f);
        same_tower(&m->user, &back->user, with_aug);
        same_tower(&m->item, &back->item, with_aug || kind == MODEL_TWO_TOWER || !m->item.aug);
        if (with_aug && kind == MODEL_DAT)
            assert_true(back->user.aug && !back->item.aug); // the item side has no id field, so no table by id
        model_free(back);
        model_free(m);
    }
    model_free(NULL);
}

static void checkpoints_need_what_bundles_lack(void **state)
{
    struct err err = {0};
    const char *bundle = tmp_path(state, "bundle"), *full = tmp_path(state, "full");
    struct model *m = make_model(MODEL_DAT, false, &err);
    assert_ok(model_save(m, bundle, false, &err), &err);
    assert_ok(model_save(m, full, true, &err), &err);
    model_free(m);
    assert_err(model_load(bundle, make_schema(), true, &err), &err, ERR_FORMAT, "user.aug");
    m = model_load(full, make_schema(), false, &err); // *.aug ignored
    assert_ok(m, &err);
    assert_null(m->user.aug);
    assert_err(model_save(m, full, true, &err), &err, ERR_STATE, "loaded without");
    model_free(m);
    size_t n;
    char *bytes = get_file(full, &n);
    err = (struct err){0};
    m = model_load_serving(bytes, n, "bytes", make_schema(), &err);
    assert_ok(m, &err);
    assert_true(m->user.block && !m->user.aug && !m->item.block && !m->item.w[0]);
    assert_true(m->item.d == m->user.d && m->item.shape.n_layers > 0);
    model_free(m);
    free(bytes);
}

static void refuses_towers_that_do_not_match(void **state)
{
    (void)state;
    const struct tower_params good = {.k = 4, .d_aug = 5, .n_layers = 1, .width = {5}};
    struct err err = {0};
    struct tower_params p = good;
    p.width[0] = 6;
    assert_err(model_new(MODEL_DAT, make_schema(), &good, &p, &err), &err, ERR_ARG, "5 outputs, item tower 6");
    p = good;
    p.d_aug = 4;
    assert_err(model_new(MODEL_DAT, make_schema(), &p, &good, &err), &err, ERR_ARG, "augmented");
    assert_err(model_new(MODEL_TWO_TOWER, make_schema(), &good, &good, &err), &err, ERR_ARG, "two_tower");
    p = good;
    p.relu_out = true;
    assert_err(model_new(MODEL_DAT, make_schema(), &good, &p, &err), &err, ERR_ARG, "relu_out");
    p.skip_aug = true;
    assert_err(model_new(MODEL_DAT, make_schema(), &good, &p, &err), &err, ERR_ARG, "linear last layer");
    p.relu_out = false;
    assert_err(model_new(MODEL_DAT, make_schema(), &good, &p, &err), &err, ERR_ARG, "skip_aug");
    p.n_layers = 0;
    assert_err(model_new(MODEL_DAT, make_schema(), &good, &p, &err), &err, ERR_ARG, "model: item: tower: 0 layers");
}

/* Rewrites the file's header with `from` replaced by `to` (same length), then loads it. */
static struct model *load_changed(const char *path, const char *from, const char *to, struct err *err)
{
    size_t n;
    char *bytes = get_file(path, &n);
    char *at = memmem(bytes, n, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    struct model *m = model_load_mem(bytes, n, "changed", make_schema(), true, err);
    free(bytes);
    return m;
}

/* Weights of a history that are not all 1 are in the file; the others are not, and a weight must be positive. */
static void keeps_the_weights_of_a_history(void **state)
{
    struct err err = {0};
    const char *path = tmp_path(state, "model");
    struct model *m = make_model(MODEL_DAT, false, &err);
    for (size_t i = 0; i < HISTORY_STEPS; i++)
        m->history.weight[i] = 1 + (float)i;
    assert_ok(model_save(m, path, true, &err), &err);
    struct model *back = model_load(path, make_schema(), true, &err);
    assert_ok(back, &err);
    assert_memory_equal(back->history.weight, m->history.weight, sizeof(m->history.weight));
    model_free(back);
    for (int i = 0; i < 2; i++) {
        m->history.weight[7] = i ? -1.0f : 0.0f;
        assert_ok(model_save(m, path, true, &err), &err);
        assert_err(model_load(path, make_schema(), true, &err), &err, ERR_FORMAT, "history_weight[7]");
        err = (struct err){0};
    }
    model_free(m);
}

static void refuses_files_that_do_not_fit(void **state)
{
    struct err err = {0};
    const char *path = tmp_path(state, "model");
    struct model *m = make_model(MODEL_DAT, false, &err);
    assert_ok(model_save(m, path, true, &err), &err);
    model_free(m);
    static const struct {
        const char *from, *to, *want;
        enum err_code code;
    } changes[] = {
        {"\"duet_format\":\"1\"", "\"duet_format\":\"2\"", "duet_format", ERR_FORMAT},
        {"\"duet_format\"", "\"duet_farmot\"", "found nothing", ERR_FORMAT},
        {"\"kind\":\"dat\"", "\"kind\":\"cat\"", "found cat", ERR_FORMAT},
        {"\"relu_out\":\"false\"", "\"relu_out\":\"FALSE\"", "found FALSE", ERR_FORMAT},
        {"\"skip_aug\":\"false\"", "\"skip_aug\":\"maybe\"", "found maybe", ERR_FORMAT},
        {"\"history_alpha\":\"1\"", "\"history_alpha\":\"2\"", "from 0 to 1", ERR_FORMAT},
        {"\"history_alpha\":\"1\"", "\"history_alpha\":\"x\"", "found x", ERR_FORMAT},
        {"user.emb.uid", "user.emb.UID", "\"user.emb.uid\" is missing", ERR_FORMAT},
        {"user.aug\"", "user.axe\"", "\"user.aug\" is missing", ERR_FORMAT},
        {"user.aug_segment", "user.axe_segment", "two", ERR_FORMAT},
        {"user.fc.1.bias", "user.fc.1.bios", "not one of this model's", ERR_FORMAT},
        {"user.fc.1.weight", "user.fc.3.weight", "6 outputs", ERR_FORMAT},
        {"user.fc.0.weight", "user.fc.9.weight", "\"user.fc.0.weight\" is missing", ERR_FORMAT},
        {"logit_scale", "logit_slack", "not one of this model's", ERR_FORMAT},
        {"\"shape\":[9,4]", "\"shape\":[4,9]", "4 rows, the schema's field 9", ERR_MISMATCH},
        {"\"shape\":[9,4]", "\"shape\":[36 ]", "1 dimensions", ERR_FORMAT},
        {"\"shape\":[9,5]", "\"shape\":[5,9]", "5 rows, the schema's id field 9", ERR_MISMATCH},
        {"\"shape\":[5,6]", "\"shape\":[6,5]", "takes 5 inputs, the layer before gives 6", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct model *bad = load_changed(path, changes[i].from, changes[i].to, &err);
        if (bad || err.code != changes[i].code || (i != 9 && !strstr(err.msg, changes[i].want)))
            fail_msg("%s: %s (%s)", changes[i].to, bad ? "accepted" : err.msg, err_name(err.code));
        err = (struct err){0};
    }
    assert_err(model_load("/no/such/file", make_schema(), true, &err), &err, ERR_NOT_FOUND, "/no/such/file");
}

static void refuses_values_that_are_not_finite(void **state)
{
    struct err err = {0};
    const char *path = tmp_path(state, "model");
    struct model *m = make_model(MODEL_DAT, false, &err);
    assert_ok(model_save(m, path, true, &err), &err);
    size_t n;
    char *bytes = get_file(path, &n);
    const float nan = NAN, zero = 0;
    for (size_t back = 4; back < 400; back += 4) {
        float keep;
        memcpy(&keep, bytes + n - back, 4);
        memcpy(bytes + n - back, &nan, 4);
        assert_err(model_load_mem(bytes, n, "bytes", make_schema(), true, &err), &err, ERR_FORMAT, "NaN");
        err = (struct err){0}; // what serving does not keep is looked at all the same: here is the item tower
        assert_err(model_load_serving(bytes, n, "bytes", make_schema(), &err), &err, ERR_FORMAT, "NaN");
        memcpy(bytes + n - back, &keep, 4);
    }
    memcpy(bytes + n - 4, &zero, 4);
    assert_err(model_load_mem(bytes, n, "bytes", make_schema(), true, &err), &err, ERR_FORMAT, "logit_scale is 0");
    free(bytes);
    struct stat st;
    m->item.b[0][2] = INFINITY;
    const char *other = tmp_path(state, "diverged");
    assert_err(model_save(m, other, true, &err), &err, ERR_STATE, "item.fc.0.bias");
    assert_int_not_equal(stat(other, &st), 0);
    model_free(m);
}

/* Every header byte changed, and the file cut at every length: refused, or a model whose towers run. */
static void any_byte_may_change(void **state)
{
    struct err err = {0};
    const char *path = tmp_path(state, "model");
    struct model *m = make_model(MODEL_DAT, false, &err);
    assert_ok(model_save(m, path, true, &err), &err);
    model_free(m);
    size_t n, loaded = 0;
    uint64_t header;
    char *bytes = get_file(path, &n);
    memcpy(&header, bytes, 8);
    for (size_t i = 0; i < 8 + header; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            bytes[i] = (char)(bytes[i] ^ 1 << bit);
            struct model *got = model_load_mem(bytes, n, "bytes", make_schema(), true, NULL);
            const uint32_t x[2] = {8, 2};
            float p[5];
            struct tower_ws *ws = got ? tower_ws_new(&got->user, 1, NULL) : NULL;
            if (ws)
                tower_forward_own(&got->user, &got->schema->user, x, 1, ws, p);
            loaded += got != NULL;
            tower_ws_free(ws);
            model_free(got);
            bytes[i] = (char)(bytes[i] ^ 1 << bit);
        }
    printf("%zu of %zu changed headers still load\n", loaded, (size_t)(8 + header) * 3);
    for (size_t cut = 0; cut < n; cut += cut < 8 + header ? 1 : 4) {
        char *part = malloc(cut + 1);
        memcpy(part, bytes, cut);
        assert_null(model_load_mem(part, cut, "bytes", make_schema(), true, NULL));
        free(part);
    }
    free(bytes);
}

static void survives_lack_of_memory(void **state)
{
    const char *path = tmp_path(state, "model");
    bool done = false;
    for (size_t i = 1; !done; i++) {
        struct err err = {0};
        alloc_fail_at(i);
        struct model *m = make_model(MODEL_DAT, false, &err);
        bool ok = m && model_save(m, path, true, &err);
        struct schema *s = ok ? make_schema() : NULL;
        struct model *back = s ? model_load(path, s, true, &err) : NULL;
        done = !alloc_failed();
        alloc_fail_at(0);
        assert_int_equal(back != NULL, done);
        model_free(back);
        model_free(m);
    }
}

static void kinds_have_names(void **state)
{
    (void)state;
    enum model_kind k;
    assert_true(model_kind_parse("dat", &k) && k == MODEL_DAT);
    assert_true(model_kind_parse("two_tower", &k) && k == MODEL_TWO_TOWER);
    assert_false(model_kind_parse("DAT", &k));
    assert_string_equal(model_kind_name(MODEL_DAT), "dat");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_the_same, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(checkpoints_need_what_bundles_lack, tmp_setup, tmp_teardown),
        cmocka_unit_test(refuses_towers_that_do_not_match),
        cmocka_unit_test_setup_teardown(keeps_the_weights_of_a_history, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(refuses_files_that_do_not_fit, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(refuses_values_that_are_not_finite, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(any_byte_may_change, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(survives_lack_of_memory, tmp_setup, tmp_teardown),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
