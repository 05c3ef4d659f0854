/* If this fails, a bad bundle reaches traffic, a good one does not, a rollback goes to the wrong version, or a restart forgets it. */
#include "tests/core/support.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "server/reload_priv.h"
#include "tests/core/world.h"

struct fixture {
    char *repository; // with model m, versions 1 to 3
    char path[PATH_MAX];
    struct generations *g;
    struct state *state;
    struct reloads *rl;
    struct log log;
};
static struct fixture f;
static _Atomic uint64_t memory_left = UINT64_MAX; // polling looks at it while a test runs

static uint64_t memory(void)
{
    return memory_left;
}

static void publish_as(uint64_t version, bool no_compact)
{
    struct err e = {0};
    struct world *w =
        world_new(&(struct world_params){.kind = MODEL_DAT, .seed = version, .n_items = 60, .n_users = 12});
    struct publish_params p = {.repository = f.repository, .name = "m", .version = version, .threads = 1, .no_compact = no_compact};
    assert_ok(bundle_publish(&w->in, &p, &version, NULL, &e), &e);
    world_free(w);
}

static void publish(uint64_t version)
{
    publish_as(version, false);
}

static const char *version_file(uint64_t version, const char *name)
{
    static char out[PATH_MAX + 64];
    snprintf(out, sizeof(out), "%s/%llu/%.30s", f.path, (unsigned long long)version, name);
    return out;
}

static int setup(void **state)
{
    tmp_setup(state);
    f.repository = *state;
    f.log = (struct log){.fd = -1, .level = LOG_ERROR + 1};
    snprintf(f.path, sizeof(f.path), "%s/m", f.repository);
    for (uint64_t v = 1; v <= 3; v++)
        publish(v);
    memory_left = UINT64_MAX;
    return 0;
}

static const struct pace_clock *pace_clock; // NULL = the system's
static const char *layout; // NULL = auto
static unsigned poll_ms;   // 0 = never

static void start(uint64_t config_version, const char *state_path)
{
    struct err e = {0};
    static const char *const names[] = {"m"};
    struct reload_model m = {.name = "m", .path = f.path, .version = config_version, .index_layout = layout};
    assert_ok(f.g = generations_new(names, 1, &e), &e);
    assert_ok(f.state = state_open(state_path, &e), &e);
    struct reload_params p = {.generations = f.g,
                              .state = f.state,
                              .log = &f.log,
                              .mode = BUNDLE_PRIVATE,
                              .check_memory = true,
                              .workspaces = 1,
                              .memory_available = memory,
                              .poll_ms = poll_ms,
                              .clock = pace_clock};
    assert_ok(f.rl = reloads_new(&p, &m, 1, &e), &e);
    assert_ok(reloads_start(f.rl, &e), &e);
}

static void stop(void)
{
    reloads_free(f.rl);
    generations_free(f.g);
    state_free(f.state);
    f.rl = NULL;
}

static int teardown(void **state)
{
    if (f.rl)
        stop();
    return tmp_teardown(state);
}

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void until_idle(void)
{
    for (int i = 0; i < 10000; i++) {
        json_t *o = reloads_operations(f.rl), *first = json_array_get(json_object_get(o, "operations"), 0);
        const char *state = json_string_value(json_object_get(first, "state"));
        bool idle = state && (strcmp(state, "succeeded") == 0 || strcmp(state, "failed") == 0);
        json_decref(o);
        if (idle)
            return;
        wait_a_little();
    }
    fail_msg("an operation does not end");
}

static uint64_t serving(void)
{
    const struct generation *g = generation_acquire(f.g);
    uint64_t v = g->model[0].loaded ? g->model[0].loaded->bundle->manifest.version : 0;
    generation_release(f.g, g);
    return v;
}

/* Run one operation to its end and compare how it ended. */
static void expect(enum operation_kind kind, uint64_t version, int status, const char *code, const char *says)
{
    char id[OPERATION_ID_MAX];
    struct err e = {0};
    while (!reloads_submit(f.rl, kind, "m", version, "r1", id, &e)) { // where versions are looked for one may be loading
        if (!strstr(e.msg, "is under way"))
            fail_msg("%s", e.msg);
        e = (struct err){0};
        wait_a_little();
    }
    until_idle();
    json_t *o = reloads_operation(f.rl, id);
    assert_non_null(o);
    const char *detail = json_string_value(json_object_get(o, "detail")),
               *found = json_string_value(json_object_get(o, "code"));
    if (json_integer_value(json_object_get(o, "status")) != status || strcmp(found, code) || !strstr(detail, says))
        fail_msg("found %s: %s, want %d %s: %s", found, detail, status, code, says);
    json_decref(o);
}

static void newest_first_then_reload_and_rollback(void **state)
{
    (void)state;
    start(0, NULL);
    until_idle();
    assert_int_equal(serving(), 3);
    struct buf why = {0};
    assert_true(reloads_ready(f.rl, &why) && reloads_started(f.rl, &why));
    buf_fini(&why);
    expect(OPERATION_RELOAD, 0, 200, "unchanged", "");
    expect(OPERATION_RELOAD, 1, 200, "swapped", "");
    assert_int_equal(serving(), 1);
    assert_int_equal(state_pin(f.state, "m"), 1);
    expect(OPERATION_ROLLBACK, 0, 200, "swapped", "");
    assert_int_equal(serving(), 3); // what served before, not what is below
    expect(OPERATION_ROLLBACK, 0, 200, "swapped", "");
    assert_int_equal(serving(), 2); // nothing is remembered now: the newest below
    expect(OPERATION_ROLLBACK, 0, 200, "swapped", "");
    expect(OPERATION_ROLLBACK, 0, 404, "no_previous_version", "no older version");
    assert_int_equal(serving(), 1);
    expect(OPERATION_RELOAD, 0, 200, "swapped", ""); // back to the newest, no pin
    assert_int_equal(serving(), 3);
    assert_int_equal(state_pin(f.state, "m"), 0);
    expect(OPERATION_RELOAD, 9, 404, "unknown_version", "no version 9");
    assert_true(generation_settle(f.g, 5000));
}

static void a_restart_keeps_what_was_pinned(void **state)
{
    const char *path = tmp_path(state, "state.json");
    start(0, path);
    until_idle();
    expect(OPERATION_ROLLBACK, 0, 200, "swapped", "");
    assert_int_equal(serving(), 2);
    stop();
    start(0, path);
    until_idle();
    assert_int_equal(serving(), 2);
    stop();
    start(1, path); // the state file wins over the configuration
    until_idle();
    assert_int_equal(serving(), 2);
    stop();
    start(1, NULL);
    until_idle();
    assert_int_equal(serving(), 1);
}

static void a_flipped_bit_in_any_file_is_refused(void **state)
{
    (void)state;
    static const char *const files[] = {"manifest.json",     "schema.json", "model.safetensors", "items.pack",
                                        "items.safetensors", "index.hnsw",  "users.pack",        "probes.pack",
                                        "compact.hnsw"};
    start(1, NULL);
    until_idle();
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        const char *path = version_file(2, files[i]);
        uint64_t size;
        assert_true(fio_size(path, &size, NULL));
        flip_bit(path, size / 2, 3);
        expect(OPERATION_VERIFY, 2, 422, "bundle_invalid", files[i]);
        if (strcmp(files[i], "index.hnsw") != 0) // which this layout does not read
            expect(OPERATION_RELOAD, 2, 422, "bundle_invalid", files[i]);
        assert_int_equal(serving(), 1);
        flip_bit(version_file(2, files[i]), size / 2, 3);
    }
    expect(OPERATION_VERIFY, 2, 200, "valid", "");
    assert_int_equal(serving(), 1);
}

/* 409 is kept for parts of different publications; what is wrong in itself is 422. */
static void a_mixture_is_told_from_a_bad_bundle(void **state)
{
    (void)state;
    char moved[PATH_MAX + 64];
    size_t n;
    struct err e = {0};
    start(1, NULL);
    until_idle();
    char *users = fio_read_all(version_file(2, "users.pack"), 1 << 24, &n, &e);
    assert_ok(users && fio_write_atomic(version_file(3, "users.pack"), users, n, &e), &e);
    free(users);
    expect(OPERATION_RELOAD, 3, 409, "fingerprint_mismatch", "users.pack: made for fingerprint");
    snprintf(moved, sizeof(moved), "%s/4", f.path);
    assert_int_equal(rename(version_file(2, ""), moved), 0);
    expect(OPERATION_RELOAD, 4, 422, "bundle_invalid", "folders of bundles keep their names");
    assert_int_equal(serving(), 1);
}

static void a_broken_newest_version_falls_back(void **state)
{
    (void)state;
    flip_bit(version_file(3, "users.pack"), 200, 1);
    start(0, NULL);
    until_idle();
    assert_int_equal(serving(), 2);
    const struct generation *g = generation_acquire(f.g);
    assert_non_null(strstr(g->model[0].degraded, "version 3"));
    generation_release(f.g, g);
    publish(4);
    expect(OPERATION_RELOAD, 0, 200, "swapped", "");
    g = generation_acquire(f.g);
    assert_string_equal(g->model[0].degraded, "");
    generation_release(f.g, g);
}

static void no_version_that_verifies(void **state)
{
    (void)state;
    struct buf why = {0};
    for (uint64_t v = 1; v <= 3; v++)
        assert_int_equal(unlink(version_file(v, "index.hnsw")), 0);
    start(0, NULL);
    until_idle();
    assert_int_equal(serving(), 0);
    assert_false(reloads_ready(f.rl, &why));
    assert_true(reloads_started(f.rl, &why)); // it has failed: no time will help
    assert_non_null(strstr(why.data, "no version could be loaded"));
    buf_fini(&why);
    publish(4);
    expect(OPERATION_RELOAD, 0, 200, "swapped", "");
    assert_int_equal(serving(), 4);
}

static void too_little_memory(void **state)
{
    (void)state;
    start(1, NULL);
    until_idle();
    memory_left = 1000;
    expect(OPERATION_RELOAD, 2, 507, "insufficient_memory", "load.check_memory");
    assert_int_equal(serving(), 1);
    memory_left = UINT64_MAX;
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
}

static enum hnsw_layout served_layout(void)
{
    const struct generation *g = generation_acquire(f.g);
    enum hnsw_layout l = g->model[0].loaded->bundle->layout;
    generation_release(f.g, g);
    return l;
}

/* What is free when a load may take `bytes`: a reload gives back the version before the current one. */
static uint64_t free_for(uint64_t bytes)
{
    const struct loaded *prev = f.rl->model[0]->prev;
    return bytes - (prev ? prev->bytes : 0);
}

/* auto: the compact layout where it fits, else the plain one, before anything is refused. */
static void layout_follows_memory(void **state)
{
    (void)state;
    struct err e = {0};
    uint64_t need[BUNDLE_LAYOUTS], older[BUNDLE_LAYOUTS];
    for (uint64_t v = 4; v <= 5; v++) {
        publish_as(v, true);
        for (int l = 0; l < BUNDLE_LAYOUTS; l++)
            assert_ok(bundle_estimate(version_file(v, ""), (enum hnsw_layout)l, v == 4 ? &older[l] : &need[l], &e), &e);
    }
    assert_true(need[HNSW_PLAIN] < need[HNSW_COMPACT] && need[HNSW_COMPACT] < need[HNSW_FAST]);
    start(5, NULL);
    until_idle();
    assert_int_equal(served_layout(), HNSW_COMPACT);
    memory_left = free_for(older[HNSW_COMPACT]);
    expect(OPERATION_RELOAD, 4, 200, "swapped", "");
    assert_int_equal(served_layout(), HNSW_COMPACT);
    memory_left = free_for(need[HNSW_COMPACT] - 1);
    expect(OPERATION_RELOAD, 5, 200, "swapped", "");
    assert_int_equal(served_layout(), HNSW_PLAIN);
    memory_left = free_for(older[HNSW_PLAIN] - 1);
    expect(OPERATION_RELOAD, 4, 507, "insufficient_memory", "needs up to");
}

/* Read from its own file the compact layout needs the least: the other form of the index is never in memory. */
static void the_compact_file_needs_less_memory(void **state)
{
    (void)state;
    struct err e = {0};
    uint64_t plain, compact;
    assert_ok(bundle_estimate(version_file(2, ""), HNSW_PLAIN, &plain, &e), &e);
    assert_ok(bundle_estimate(version_file(2, ""), HNSW_COMPACT, &compact, &e), &e);
    assert_true(compact < plain);
    start(1, NULL);
    until_idle();
    memory_left = free_for(compact - 1);
    expect(OPERATION_RELOAD, 2, 507, "insufficient_memory", "needs up to");
    memory_left = free_for(compact);
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
    assert_int_equal(served_layout(), HNSW_COMPACT);
}

static void layout_that_is_asked_for(void **state)
{
    (void)state;
    struct err e = {0};
    layout = "plain";
    start(2, NULL);
    until_idle();
    assert_int_equal(served_layout(), HNSW_PLAIN);
    struct reload_model m = {.name = "m", .path = f.path, .version = 2, .index_layout = "fast"};
    assert_ok(reloads_set_models(f.rl, &m, 1, &e), &e); // another layout is a reload
    until_idle();
    assert_int_equal(served_layout(), HNSW_FAST);
    uint64_t fast;
    const char *dir = version_file(2, "");
    assert_ok(bundle_estimate(dir, HNSW_FAST, &fast, &e), &e);
    memory_left = fast - 1; // asked for by name: nothing else will do
    expect(OPERATION_VERIFY, 2, 507, "insufficient_memory", "needs up to");
    layout = NULL;
}

static void previous_stays_in_memory_if_it_fits(void **state)
{
    (void)state;
    start(1, NULL);
    until_idle();
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
    assert_int_equal(fio_remove_tree(version_file(1, ""), NULL), true);
    expect(OPERATION_ROLLBACK, 0, 200, "swapped", ""); // version 1 is gone from disk
    assert_int_equal(serving(), 1);
}

static void one_at_a_time(void **state)
{
    (void)state;
    struct err e = {0};
    char id[OPERATION_ID_MAX];
    start(0, NULL); // the first load is under way
    unsigned busy = 0;
    for (int i = 0; i < 50; i++) {
        e = (struct err){0};
        if (!reloads_submit(f.rl, OPERATION_VERIFY, "m", 1, "r", id, &e)) {
            assert_int_equal(e.code, ERR_STATE);
            busy++;
        }
    }
    assert_true(busy >= 45);
    assert_false(reloads_submit(f.rl, OPERATION_VERIFY, "n", 1, "r", id, &e));
    until_idle();
    reloads_stop_accepting(f.rl);
    assert_err(reloads_submit(f.rl, OPERATION_VERIFY, "m", 1, "r", id, &e), &e, ERR_STATE, "draining");
}

static void only_the_last_operations_are_kept(void **state)
{
    (void)state;
    char first[OPERATION_ID_MAX], id[OPERATION_ID_MAX];
    struct err e = {0};
    start(0, NULL);
    until_idle();
    assert_ok(reloads_submit(f.rl, OPERATION_RELOAD, "m", 99, "r", first, &e), &e);
    until_idle();
    for (int i = 0; i < OPERATIONS_KEPT; i++) {
        assert_ok(reloads_submit(f.rl, OPERATION_RELOAD, "m", 99, "r", id, &e), &e);
        until_idle();
    }
    json_t *o = reloads_operations(f.rl);
    assert_int_equal(json_array_size(json_object_get(o, "operations")), OPERATIONS_KEPT);
    json_decref(o);
    assert_null(reloads_operation(f.rl, first));
    json_decref(o = reloads_operation(f.rl, id));
    assert_non_null(o);
    const char *bad[] = {"", "1", "-", "0-1", "ffff-", "zz"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_null(reloads_operation(f.rl, bad[i]));
}

static void a_new_list_of_models(void **state)
{
    (void)state;
    struct err e = {0};
    const char *names[] = {"other", "m"};
    start(1, NULL);
    until_idle();
    struct reload_model list[] = {{.name = "other", .path = f.path, .version = 2},
                                  {.name = "m", .path = f.path, .version = 1}};
    assert_ok(generation_swap_names(f.g, names, 2, experiment_table_new(&e), NULL, NULL, &e), &e);
    assert_ok(reloads_set_models(f.rl, list, 2, &e), &e);
    until_idle();
    const struct generation *g = generation_acquire(f.g);
    assert_int_equal(g->model[0].loaded->bundle->manifest.version, 2);
    assert_int_equal(g->model[1].loaded->bundle->manifest.version, 1);
    generation_release(f.g, g);
    assert_ok(generation_swap_names(f.g, names, 1, experiment_table_new(&e), NULL, NULL, &e), &e);
    assert_ok(reloads_set_models(f.rl, list, 1, &e), &e);
    char id[OPERATION_ID_MAX];
    assert_err(reloads_submit(f.rl, OPERATION_RELOAD, "m", 0, "r", id, &e), &e, ERR_NOT_FOUND, "'m'");
    json_t *o = reloads_models(f.rl);
    assert_int_equal(json_array_size(json_object_get(o, "models")), 1);
    json_decref(o);
}

/* A configuration with one model more takes no replica out of service, neither while that one loads nor when it cannot. */
static void a_model_that_comes_later_takes_nothing_away(void **state)
{
    (void)state;
    struct err e = {0};
    struct buf why = {0};
    const char *names[] = {"m", "later"};
    start(1, NULL);
    until_idle();
    struct reload_model list[] = {{.name = "m", .path = f.path, .version = 1}, {.name = "later", .path = "/nowhere", .version = 1}};
    assert_ok(generation_swap_names(f.g, names, 2, experiment_table_new(&e), NULL, NULL, &e), &e);
    assert_ok(reloads_set_models(f.rl, list, 2, &e), &e);
    assert_true(reloads_ready(f.rl, &why) && reloads_started(f.rl, &why));
    until_idle();
    buf_reset(&why);
    assert_true(reloads_ready(f.rl, &why) && reloads_started(f.rl, &why));
    assert_non_null(strstr(why.data, "1 of 2 models in service, state revision 0; model later: no version could be loaded"));

    assert_ok(generation_swap_names(f.g, names + 1, 1, experiment_table_new(&e), NULL, NULL, &e), &e);
    assert_ok(reloads_set_models(f.rl, list + 1, 1, &e), &e); // nothing is left to serve
    assert_false(reloads_ready(f.rl, &why));
    buf_fini(&why);
}

static size_t n_quarantined(void)
{
    json_t *o = reloads_models(f.rl), *m = json_array_get(json_object_get(o, "models"), 0);
    size_t n = json_array_size(json_object_get(m, "quarantined"));
    json_decref(o);
    return n;
}

static void a_broken_version_is_not_tried_again(void **state)
{
    (void)state;
    flip_bit(version_file(3, "users.pack"), 200, 1);
    start(2, NULL);
    until_idle();
    stop();
    start(0, NULL);
    until_idle();
    assert_int_equal(serving(), 2);
    assert_int_equal(n_quarantined(), 1);
    expect(OPERATION_RELOAD, 0, 200, "unchanged", "version 3 is in quarantine"); // passed by, and said
    expect(OPERATION_RELOAD, 3, 422, "bundle_invalid", "users.pack");            // asked for by number: tried
    flip_bit(version_file(3, "users.pack"), 200, 1);                             // repaired: its folder has changed
    expect(OPERATION_RELOAD, 0, 200, "swapped", "");
    assert_int_equal(serving(), 3);
    assert_int_equal(n_quarantined(), 0);
}

/* Nor after a restart, for the state file tells of it; until its folder changes, which the file then tells too. */
static void a_restart_does_not_try_a_broken_version_again(void **state)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s", tmp_path(state, "state.json"));
    flip_bit(version_file(3, "users.pack"), 200, 1);
    start(0, path);
    until_idle();
    assert_int_equal(serving(), 2);
    assert_int_equal(n_quarantined(), 1);
    assert_int_equal(state_revision(f.state), 0); // nobody has asked for anything
    stop();
    start(0, path);
    assert_int_equal(n_quarantined(), 1); // before anything was tried
    until_idle();
    const struct generation *g = generation_acquire(f.g);
    assert_non_null(strstr(g->model[0].degraded, "version 3 is in quarantine"));
    assert_non_null(strstr(g->model[0].degraded, "users.pack"));
    generation_release(f.g, g);
    assert_int_equal(serving(), 2);
    stop();
    flip_bit(version_file(3, "users.pack"), 200, 1);
    start(0, path);
    until_idle();
    assert_int_equal(serving(), 3);
    assert_int_equal(n_quarantined(), 0);
    stop();
    start(0, path);
    assert_int_equal(n_quarantined(), 0);
    until_idle();
}

/* Loading the same again, as a change of the configuration does, does not hide that a newer one was refused. */
static void another_load_says_that_a_newer_one_was_refused(void **state)
{
    (void)state;
    struct err e = {0};
    flip_bit(version_file(3, "users.pack"), 200, 1);
    start(0, NULL);
    until_idle();
    struct reload_model m = {.name = "m", .path = f.path, .target_recall = 0.9};
    assert_ok(reloads_set_models(f.rl, &m, 1, &e), &e);
    until_idle();
    const struct generation *g = generation_acquire(f.g);
    assert_true(g->model[0].loaded->target_recall > 0.8);
    assert_non_null(strstr(g->model[0].degraded, "version 3"));
    generation_release(f.g, g);
    assert_int_equal(serving(), 2);
}

/* What is wrong with the moment, or only tried out, is no reason. */
static void only_what_is_broken_is_barred(void **state)
{
    (void)state;
    start(1, NULL);
    until_idle();
    memory_left = 1000;
    expect(OPERATION_RELOAD, 2, 507, "insufficient_memory", "needs up to");
    memory_left = UINT64_MAX;
    flip_bit(version_file(2, "users.pack"), 200, 1);
    expect(OPERATION_VERIFY, 2, 422, "bundle_invalid", "users.pack");
    assert_int_equal(n_quarantined(), 0);
    expect(OPERATION_RELOAD, 2, 422, "bundle_invalid", "users.pack");
    assert_int_equal(n_quarantined(), 1);
    flip_bit(version_file(2, "users.pack"), 200, 1);
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
    assert_int_equal(n_quarantined(), 0);
}

static void lack_of_descriptors_is_no_reason(void **state)
{
    (void)state;
    struct rlimit was, none;
    start(1, NULL);
    until_idle();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    expect(OPERATION_RELOAD, 2, 422, "bundle_invalid", "open");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(n_quarantined(), 0);
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
}

/* More than there is room for in the list of operations would overwrite what is queued. */
static void too_many_changes_at_once(void **state)
{
    (void)state;
    static char name[2][60][8];
    struct reload_model list[2][60];
    struct err e = {0};
    start(1, NULL);
    until_idle();
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 60; j++) {
            snprintf(name[i][j], sizeof(name[i][j]), "%c%d", 'a' + i, j);
            list[i][j] = (struct reload_model){.name = name[i][j], .path = f.path, .version = 1};
        }
    assert_ok(reloads_set_models(f.rl, list[0], 60, &e), &e);
    assert_err(reloads_set_models(f.rl, list[1], 60, &e), &e, ERR_STATE, "99 operations are queued");
    until_idle();
}

/* A reload that fails before anything was loaded has not cost the version that a rollback goes to. */
static void a_failed_reload_keeps_the_previous(void **state)
{
    (void)state;
    start(1, NULL);
    until_idle();
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
    assert_true(fio_remove_tree(version_file(1, ""), NULL));
    expect(OPERATION_RELOAD, 9, 404, "unknown_version", "");
    memory_left = 1000;
    expect(OPERATION_RELOAD, 3, 507, "insufficient_memory", "");
    memory_left = UINT64_MAX;
    assert_int_equal(truncate(version_file(3, "manifest.json"), 10), 0);
    expect(OPERATION_RELOAD, 3, 422, "bundle_invalid", "manifest.json");
    expect(OPERATION_ROLLBACK, 0, 200, "swapped", ""); // from memory: it is gone from disk
    assert_int_equal(serving(), 1);
}

static void until_serving(uint64_t version)
{
    for (int i = 0; i < 10000 && serving() != version; i++)
        wait_a_little();
    assert_int_equal(serving(), version);
    until_idle();
}

static void newer_versions_are_looked_for(void **state)
{
    (void)state;
    poll_ms = 5;
    start(0, NULL);
    until_serving(3);
    publish(4);
    until_serving(4);
    publish(5);
    flip_bit(version_file(5, "users.pack"), 200, 1); // it may have been taken before; then there is nothing to see
    expect(OPERATION_RELOAD, 2, 200, "swapped", ""); // pinned: looked for no more
    publish(6);
    for (int i = 0; i < 50; i++)
        wait_a_little();
    assert_int_equal(serving(), 2);
    expect(OPERATION_RELOAD, 0, 200, "swapped", "");
    assert_int_equal(serving(), 6);
    publish(7);
    until_serving(7);
    poll_ms = 0;
}

static void a_broken_newer_version_is_tried_once(void **state)
{
    (void)state;
    start(0, NULL);
    until_idle();
    stop();
    publish(4);
    flip_bit(version_file(4, "users.pack"), 200, 1);
    poll_ms = 5;
    start(3, NULL); // by configuration: nothing is looked for
    until_idle();
    for (int i = 0; i < 20; i++)
        wait_a_little();
    assert_int_equal(n_quarantined(), 0);
    stop();
    start(0, NULL);
    until_serving(3);
    for (int i = 0; i < 50; i++)
        wait_a_little();
    assert_int_equal(n_quarantined(), 1);
    json_t *o = reloads_operations(f.rl);
    assert_int_equal(json_array_size(json_object_get(o, "operations")), 1); // the first load, which passed it by
    json_decref(o);
    flip_bit(version_file(4, "users.pack"), 200, 1);
    until_serving(4);
    poll_ms = 0;
}

static json_t *retry_of(void) // new reference
{
    json_t *o = reloads_models(f.rl), *r = json_incref(json_object_get(json_array_get(json_object_get(o, "models"), 0), "retry"));
    json_decref(o);
    return r;
}

static json_int_t failures(void)
{
    json_t *r = retry_of();
    json_int_t n = json_integer_value(json_object_get(r, "failures"));
    json_decref(r);
    return n;
}

static uint64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Without it a daemon that lacks memory for a new version goes on checking and failing, at every poll. */
static void what_there_is_no_room_for_is_tried_ever_later(void **state)
{
    (void)state;
    poll_ms = 4;
    memory_left = UINT64_MAX;
    start(0, NULL);
    until_idle();
    json_t *none = retry_of();
    assert_true(json_is_null(none));
    memory_left = 1000;
    uint64_t begin = clock_ms();
    publish(4);
    while (failures() < 6)
        wait_a_little();
    assert_true(clock_ms() - begin >= 4 + 8 + 16 + 32 + 64); // five pauses between six attempts
    json_t *r = retry_of();
    assert_int_equal(json_integer_value(json_object_get(r, "version")), 4);
    assert_string_equal(json_string_value(json_object_get(r, "code")), "insufficient_memory");
    assert_true(json_real_value(json_object_get(r, "pause_s")) >= 0.127);
    json_decref(r);
    json_int_t before = failures();
    expect(OPERATION_VERIFY, 2, 507, "insufficient_memory", ""); // asked for by somebody: changes nothing
    assert_true(failures() >= before);
    publish(5); // another version begins anew
    while ((r = retry_of(), json_integer_value(json_object_get(r, "version"))) != 5) {
        json_decref(r);
        wait_a_little();
    }
    json_decref(r);
    memory_left = UINT64_MAX;
    until_serving(5);
    until_idle();
    r = retry_of();
    assert_true(json_is_null(r));
    json_decref(r);
    poll_ms = 0;
}

// ---------------------------------------------------------------------------------------------------------------- pace

static struct {
    _Atomic uint64_t time, rests; // the loader's thread has used and taken
    pthread_mutex_t lock;         // held: rests go on until it is not
} rest = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Each look at it finds a slice over. */
static uint64_t next_slice(void *ctx)
{
    (void)ctx;
    return atomic_fetch_add(&rest.time, PACE_SLICE_NS) + PACE_SLICE_NS;
}

static void take_rest(void *ctx, uint64_t ns)
{
    (void)ctx;
    atomic_fetch_add(&rest.time, ns);
    atomic_fetch_add(&rest.rests, 1);
    pthread_mutex_lock(&rest.lock);
    pthread_mutex_unlock(&rest.lock);
}

static const struct pace_clock slices = {next_slice, next_slice, take_rest, NULL};

static int slow_setup(void **state)
{
    pace_clock = &slices;
    atomic_store(&rest.rests, 0);
    return setup(state);
}

static int slow_teardown(void **state)
{
    pace_clock = NULL;
    return teardown(state);
}

static void loads_rest_while_something_is_served(void **state)
{
    (void)state;
    start(1, NULL);
    until_idle();
    assert_int_equal(serving(), 1);
    assert_int_equal(atomic_load(&rest.rests), 0); // at the start nobody is served yet
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
    uint64_t after = atomic_load(&rest.rests);
    assert_true(after > 5); // each file is a piece at least
    expect(OPERATION_VERIFY, 3, 200, "valid", "");
    assert_true(atomic_load(&rest.rests) > after);
}

static void without_anything_served_nothing_rests(void **state)
{
    (void)state;
    memory_left = 0;
    start(1, NULL);
    until_idle();
    assert_int_equal(serving(), 0);
    memory_left = UINT64_MAX;
    expect(OPERATION_RELOAD, 2, 200, "swapped", "");
    assert_int_equal(atomic_load(&rest.rests), 0);
}

static void who_is_to_stop_does_not_rest(void **state)
{
    (void)state;
    char id[OPERATION_ID_MAX];
    struct err e = {0};
    start(1, NULL);
    until_idle();
    pthread_mutex_lock(&rest.lock);
    assert_ok(reloads_submit(f.rl, OPERATION_RELOAD, "m", 2, "r1", id, &e), &e);
    while (atomic_load(&rest.rests) == 0)
        wait_a_little();
    reloads_stop_accepting(f.rl);
    pthread_mutex_unlock(&rest.lock);
    until_idle();
    assert_int_equal(serving(), 2); // what was under way ends
    assert_int_equal(atomic_load(&rest.rests), 1);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
#define SLOW_TEST(t) cmocka_unit_test_setup_teardown(t, slow_setup, slow_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(newest_first_then_reload_and_rollback),
        TEST(a_restart_keeps_what_was_pinned),
        TEST(a_flipped_bit_in_any_file_is_refused),
        TEST(a_mixture_is_told_from_a_bad_bundle),
        TEST(a_broken_newest_version_falls_back),
        TEST(no_version_that_verifies),
        TEST(too_little_memory),
        TEST(layout_follows_memory),
        TEST(the_compact_file_needs_less_memory),
        TEST(layout_that_is_asked_for),
        TEST(previous_stays_in_memory_if_it_fits),
        TEST(one_at_a_time),
        TEST(only_the_last_operations_are_kept),
        TEST(a_new_list_of_models),
        TEST(a_model_that_comes_later_takes_nothing_away),
        TEST(a_broken_version_is_not_tried_again),
        TEST(a_restart_does_not_try_a_broken_version_again),
        TEST(another_load_says_that_a_newer_one_was_refused),
        TEST(only_what_is_broken_is_barred),
        TEST(lack_of_descriptors_is_no_reason),
        TEST(too_many_changes_at_once),
        TEST(a_failed_reload_keeps_the_previous),
        TEST(newer_versions_are_looked_for),
        TEST(a_broken_newer_version_is_tried_once),
        TEST(what_there_is_no_room_for_is_tried_ever_later),
        SLOW_TEST(loads_rest_while_something_is_served),
        SLOW_TEST(without_anything_served_nothing_rests),
        SLOW_TEST(who_is_to_stop_does_not_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
