/* publish, inspect, verify and query as a user runs them. If this fails, the quickstart or a documented command line
 * does not work, or a refusal does not say what to do. */
#include "tests/core/support.h"

#include <math.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/json.h"
#include "core/bundle.h"
#include "core/manifest.h"
#include "tests/cli/run.h"
#include "tests/core/world.h"
#include "train/dataset.h"

static char folder[PATH_MAX];
static struct world *world;

static const char *in(const char *name)
{
    static char ring[8][PATH_MAX];
    static unsigned at;
    char *out = ring[at++ % 8];
    snprintf(out, PATH_MAX, "%.2000s/%s", folder, name);
    return out;
}

/* The world as a dataset: what users have seen is their training split, the first unseen item their test split. */
static void save_dataset(const struct world *w, const char *path)
{
    struct err e = {0};
    const struct publish_input *i = &w->in;
    uint64_t *test_off = calloc(i->n_users + 1, 8), *none = calloc(i->n_users + 1, 8);
    uint32_t *test = calloc(i->n_users, 4);
    uint8_t *held = calloc(i->n_items + i->n_users, 1);
    struct dataset_attr attr[2];
    for (int a = 0; a < 2; a++) {
        memcpy(attr[a].name, i->attr[a].name, sizeof(attr[a].name));
        attr[a].values = i->attr[a].values;
    }
    for (uint32_t u = 0; u < i->n_users; u++) {
        uint32_t item = 0;
        for (uint64_t s = i->seen_off[u]; s < i->seen_off[u + 1]; s++)
            item += i->seen[s] == item;
        test[u] = item;
        test_off[u + 1] = u + 1;
    }
    struct dataset d = {.schema = w->model->schema,
                        .n_users = i->n_users,
                        .n_items = i->n_items,
                        .user_id = i->user_id,
                        .item_id = i->item_id,
                        .user_x = i->user_x,
                        .item_x = i->item_x,
                        .attr = attr,
                        .n_attrs = 2,
                        .category = i->category,
                        .item_category = i->item_category,
                        .item_count = i->item_count,
                        .train = {.off = i->seen_off, .item = i->seen},
                        .valid = {.off = none, .item = test},
                        .test = {.off = test_off, .item = test},
                        .held = {.off = none, .item = test},
                        .user_held_out = held,
                        .item_held_out = held};
    assert_ok(dataset_save(&d, NULL, path, &e), &e);
    free(test_off);
    free(none);
    free(test);
    free(held);
}

static int setup(void **state)
{
    struct err e = {0};
    if (tmp_setup(state) != 0)
        return -1;
    snprintf(folder, sizeof(folder), "%s", (char *)*state);
    world = world_new(&(struct world_params){.kind = MODEL_DAT, .seed = 21});
    save_dataset(world, in("data.duet"));
    if (!fio_mkdirs(in("ckpt"), &e) || !model_save(world->model, in("ckpt/model.safetensors"), true, &e) ||
        !schema_save(world->model->schema, in("ckpt/schema.json"), &e))
        return -1;
    put_file(in("ckpt/metrics.json"), "{\"hr@100\": 0.5}", 15);
    duet_ok("publish --data %s --checkpoint %s --repository %s --name m --threads 1", in("data.duet"), in("ckpt"),
            in("repo"));
    return 0;
}

static int teardown(void **state)
{
    world_free(world);
    return tmp_teardown(state);
}

static json_t *parse(const char *text)
{
    struct err e = {0};
    json_t *v = json_parse(text, strlen(text), &e);
    assert_ok(v, &e);
    return v;
}

static void publish_makes_versions(void **state)
{
    (void)state;
    struct run r = duet(0, "publish --data %s --checkpoint %s --repository %s --name n --version 7 --m 8 --ef 150",
                        in("data.duet"), in("ckpt"), in("repo"));
    assert_non_null(strstr(r.out, "/n/7\n"));
    assert_non_null(strstr(r.out, "items          300"));
    assert_non_null(strstr(r.out, "default_ef     150"));
    assert_non_null(strstr(r.out, "recall@100"));
    assert_non_null(strstr(r.err, "publish: checking: done"));
    run_fini(&r);
    r = duet(1, "publish --data %s --checkpoint %s --repository %s --name n --version 7", in("data.duet"), in("ckpt"),
             in("repo"));
    assert_non_null(strstr(r.err, "n/7 exists already"));
    run_fini(&r);
    r = duet(0, "publish --data %s --checkpoint %s --repository %s --name n --users-only", in("data.duet"), in("ckpt"),
             in("repo"));
    assert_non_null(strstr(r.out, "/n/8\n"));
    assert_non_null(strstr(r.out, "(revision 2)"));
    run_fini(&r);
    r = duet(0, "publish --data %s --from %s --repository %s --name from --threads 1", in("data.duet"),
             in("ckpt/model.safetensors"), in("repo"));
    assert_non_null(strstr(r.out, "/from/1\n"));
    run_fini(&r);
    r = duet(0, "publish --data %s --from %s --schema %s --repository %s --name from", in("data.duet"),
             in("ckpt/model.safetensors"), in("ckpt/schema.json"), in("repo"));
    run_fini(&r);
    r = duet(0, "inspect %s --json", in("repo/m"));
    json_t *o = parse(r.out);
    assert_true(json_number_value(json_object_get(json_object_get(o, "metrics"), "hr@100")) > 0.49);
    json_decref(o);
    run_fini(&r);
}

static void publish_warns_of_low_recall(void **state)
{
    (void)state;
    struct err e = {0};
    struct world *big = world_new(
        &(struct world_params){.kind = MODEL_DAT, .n_items = 4000, .n_users = 60, .seed = 5, .no_rare = true});
    save_dataset(big, in("big.duet"));
    assert_ok(fio_mkdirs(in("big"), &e) && model_save(big->model, in("big/model.safetensors"), true, &e) &&
                  schema_save(big->model->schema, in("big/schema.json"), &e),
              &e);
    world_free(big);
    struct run r =
        duet(0, "publish --data %s --checkpoint %s --repository %s --name thin --m 2 --ef-construction 2 --ef 100",
             in("big.duet"), in("big"), in("repo"));
    assert_non_null(strstr(r.err, "publish: warning: recall@100 is"));
    run_fini(&r);
}

static void publish_refuses(void **state)
{
    (void)state;
    static const char *const wrong_usage[] = {"publish",
                                              "publish --data x --repository y --name z",
                                              "publish --data x --repository y --name z --checkpoint a --from b",
                                              "publish --data x --repository y --name z --checkpoint a --schema b",
                                              "verify",
                                              "query",
                                              "inspect",
                                              "inspect a b"};
    for (size_t i = 0; i < sizeof(wrong_usage) / sizeof(wrong_usage[0]); i++) {
        struct run r = duet(2, "%s", wrong_usage[i]);
        assert_non_null(strstr(r.err, "usage: duet "));
        run_fini(&r);
    }
    struct run r = duet(1, "publish --data %s --checkpoint %s --repository %s --name ../evil", in("data.duet"),
                        in("ckpt"), in("repo"));
    assert_non_null(strstr(r.err, "model name"));
    run_fini(&r);
    r = duet(1, "publish --data %s --checkpoint %s --repository %s --name m", in("none.duet"), in("ckpt"), in("repo"));
    assert_non_null(strstr(r.err, "none.duet: No such file"));
    run_fini(&r);
    struct err e = {0};
    struct world *other = world_new(&(struct world_params){.kind = MODEL_DAT, .seed = 22, .n_items = 290});
    fio_mkdirs(in("other"), &e);
    assert_ok(model_save(other->model, in("other/model.safetensors"), true, &e) &&
                  schema_save(other->model->schema, in("other/schema.json"), &e),
              &e);
    world_free(other);
    r = duet(1, "publish --data %s --checkpoint %s --repository %s --name m", in("data.duet"), in("other"), in("repo"));
    assert_non_null(strstr(r.err, "schema is not the dataset's"));
    run_fini(&r);
    r = duet(1, "publish --data %s --checkpoint %s --repository %s --name new --users-only", in("data.duet"),
             in("ckpt"), in("repo"));
    assert_non_null(strstr(r.err, "publish the whole first"));
    run_fini(&r);
}

static void verify_tells_good_from_bad(void **state)
{
    (void)state;
    struct run r = duet(0, "verify %s %s", in("repo/m"), in("repo/m/1"));
    assert_non_null(strstr(r.out, "repo/m/1: good: m version 1, 300 items, 40 users"));
    run_fini(&r);
    duet_ok("verify --shared %s", in("repo/m/1"));
    fio_mkdirs(in("bad"), NULL);
    copy_dir(in("repo/m/1"), in("bad/m/1"));
    flip_bit(in("bad/m/1/index.hnsw"), 5000, 3);
    r = duet(1, "verify %s %s", in("bad/m/1"), in("repo/m/1"));
    assert_non_null(strstr(r.err, "index.hnsw: checksum mismatch in chunk 0"));
    assert_non_null(strstr(r.out, "good")); // the other one is told about all the same
    run_fini(&r);
    r = duet(1, "verify %s", in("nothing"));
    assert_non_null(strstr(r.err, "holds neither a bundle"));
    run_fini(&r);
}

static void inspect_shows_each_kind(void **state)
{
    (void)state;
    struct run r = duet(0, "inspect %s --first-user", in("data.duet"));
    assert_string_equal(r.out, "u0\n");
    run_fini(&r);
    const char *const paths[] = {in("data.duet"), in("ckpt"), in("repo/m/1")}, *const is[] = {"dataset", "checkpoint",
                                                                                              "bundle"};
    for (int i = 0; i < 3; i++) {
        r = duet(0, "inspect %s --json", paths[i]);
        json_t *o = parse(r.out);
        assert_string_equal(json_string_value(json_object_get(o, "is")), is[i]);
        assert_int_equal(json_array_size(json_object_get(json_object_get(o, "fields"), "item")), 5);
        json_decref(o);
        run_fini(&r);
        r = duet(0, "inspect %s", paths[i]);
        assert_non_null(strstr(r.out, "name tags, kind multi, rows 5, slots 3"));
        run_fini(&r);
    }
    r = duet(2, "inspect %s --first-user", in("ckpt"));
    run_fini(&r);
    r = duet(1, "inspect %s", in("ckpt/schema.json"));
    assert_non_null(strstr(r.err, "schema.json"));
    run_fini(&r);
}

/* Daemons serve the compact layout where they can: a bundle that is good in the plain one alone is refused by them. */
static void verify_probes_the_compact_layout(void **state)
{
    (void)state;
    struct err e = {0};
    struct manifest m = {0};
    const char *common = "publish --data %s --checkpoint %s --repository %s --name m --threads 1 --ef 100 %s";
    duet_ok(common, in("data.duet"), in("ckpt"), in("thin"), "--m 16");
    duet_ok(common, in("data.duet"), in("ckpt"), in("thin"), "--m 2 --ef-construction 4");
    duet_ok("verify %s %s", in("thin/m/1"), in("thin/m/2"));
    copy_file(in("thin/m/2/compact.hnsw"), in("thin/m/1/compact.hnsw"));
    assert_ok(manifest_read(in("thin/m/1"), &m, &e), &e); // the manifest says so
    assert_ok(manifest_hash_file(&m, in("thin/m/1"), MF_COMPACT, &e) && manifest_write(in("thin/m/1"), &m, &e), &e);
    manifest_fini(&m);
    struct run r = duet(1, "verify %s", in("thin/m/1"));
    assert_non_null(strstr(r.err, "compact layout"));
    assert_non_null(strstr(r.err, "compact.hnsw: recall@100 of the probes"));
    assert_string_equal(r.out, "");
    run_fini(&r);
}

static void query_answers(void **state)
{
    (void)state;
    const char *b = in("repo/m/1");
    struct run r = duet(0, "query --bundle %s --user u3 -k 7 --exclude-seen --json", b);
    json_t *o = parse(r.out);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 7);
    assert_true(json_is_null(json_object_get(o, "fallback")));
    assert_non_null(
        json_object_get(json_object_get(json_array_get(json_object_get(o, "items"), 0), "attributes"), "title"));
    json_decref(o);
    run_fini(&r);
    r = duet(0, "query --bundle %s --user stranger -k 3", b);
    assert_non_null(strstr(r.out, "m version 1: 3 items for fallback popular, by popularity"));
    run_fini(&r);
    r = duet(0, "query --bundle %s --user stranger --feature city=BJ --feature age=x -k 3 --exact", b);
    assert_non_null(strstr(r.out, "fallback features, exact scan"));
    assert_non_null(strstr(r.out, "unknown value of feature age"));
    run_fini(&r);
    r = duet(0, "query --bundle %s --user stranger --history i1,i2 --category food,hotel --exclude i5 --ef 40 --json",
             b);
    o = parse(r.out);
    assert_string_equal(json_string_value(json_object_get(o, "fallback")), "history");
    json_decref(o);
    run_fini(&r);
    r = duet(1, "query --bundle %s --user u1 --category fodo", b);
    assert_non_null(strstr(r.err, "--category: the bundle has no \"fodo\""));
    run_fini(&r);
    r = duet(1, "query --bundle %s --user u1 --feature city", b);
    assert_non_null(strstr(r.err, "want NAME=VALUE"));
    run_fini(&r);
    r = duet(1, "query --bundle %s --user u1 --feature town=x", b);
    assert_non_null(strstr(r.err, "feature \"town\""));
    run_fini(&r);
}

/* Nobody is at the address: what is wrong with the command's own files is said first. */
static void files_of_tls_are_looked_at_before_the_network(void **state)
{
    (void)state;
    char replay[PATH_MAX + 100];
    snprintf(replay, sizeof(replay), "replay --a https://duetd.invalid --b https://duetd.invalid --requests %s", in("repo/m/1/manifest.json"));
    const char *const command[] = {"query --url https://duetd.invalid --user u1", replay, "bench load --url https://duetd.invalid --get /livez"};
    static const struct {
        const char *options, *word;
    } bad[] = {{"--ca /none/ca.pem", "--ca /none/ca.pem: No such file"},
               {"--cert /none/own.pem", "--cert /none/own.pem: No such file"},
               {"--cert /dev/null --key /none/own.key", "--key /none/own.key: No such file"},
               {"--key /dev/null", "--key is given without --cert"}};
    for (size_t c = 0; c < sizeof(command) / sizeof(*command); c++)
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
            struct run r = duet(1, "%s %s", command[c], bad[i].options);
            if (!strstr(r.err, bad[i].word))
                fail_msg("%s %s: \"%s\" does not say \"%s\"", command[c], bad[i].options, r.err, bad[i].word);
            run_fini(&r);
        }
}

static void query_embeds_with_nine_digits(void **state)
{
    (void)state;
    struct run r = duet(0, "query --bundle %s --user u3 --embed", in("repo/m/1"));
    json_t *o = parse(r.out), *p = json_object_get(o, "p_u"), *a = json_object_get(o, "a_u");
    const struct schema_side *side = &world->model->schema->user;
    const uint32_t *x = world->in.user_x + 3 * side->n_slots;
    const float *a_u = tower_aug_of(&world->model->user, side, x);
    float p_u[16];
    struct tower_ws *ws = tower_ws_new(&world->model->user, 1, NULL);
    tower_forward(&world->model->user, x, a_u, 1, ws, p_u);
    tower_ws_free(ws);
    assert_int_equal(json_array_size(p), 16);
    for (size_t i = 0; i < 16; i++) {
        assert_true((float)json_number_value(json_array_get(p, i)) == p_u[i]);
        assert_true((float)json_number_value(json_array_get(a, i)) == a_u[i]);
    }
    json_decref(o);
    run_fini(&r);
    r = duet(0, "query --bundle %s --embed", in("repo/m/1"));
    o = parse(r.out);
    assert_true(json_is_null(json_object_get(o, "p_u")));
    json_decref(o);
    run_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publish_makes_versions),
        cmocka_unit_test(publish_warns_of_low_recall),
        cmocka_unit_test(publish_refuses),
        cmocka_unit_test(verify_tells_good_from_bad),
        cmocka_unit_test(verify_probes_the_compact_layout),
        cmocka_unit_test(inspect_shows_each_kind),
        cmocka_unit_test(query_answers),
        cmocka_unit_test(files_of_tls_are_looked_at_before_the_network),
        cmocka_unit_test(query_embeds_with_nine_digits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
