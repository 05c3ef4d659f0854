/* Studies. If this fails, a table shows figures that its runs do not have, a run counts for another configuration, or the order
 * wastes a budget. */
#include "tests/core/support.h"

#include <math.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/pack.h"
#include "tests/train/toy.h"
#include "train/baseline.h"
#include "train/study/groups.h"
#include "train/study/parameters.h"
#include "train/study/rows.h"
#include "train/study/table.h"
#include "train/wals.h"

#define assert_near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))
#define USERS 60
#define ITEMS 260

struct lab {
    struct toy toy;
    struct pool *pool;
    struct cell_place place;
    struct study *study;
    const char *dir;
};

static const struct study_options quick = {.recipe = "duet", .n_seeds = 2, .n_points = 2, .epochs = 1};

static void lab_init(struct lab *l, void **state, const char *name, const struct study_options *o)
{
    struct err err = {0};
    memset(l, 0, sizeof(*l));
    toy_init(&l->toy, USERS, ITEMS, 3);
    snprintf(l->toy.d.hash, sizeof(l->toy.d.hash), "0123456789abcdef0123456789abcdef");
    l->dir = tmp_path(state, "study");
    l->study = malloc(sizeof(*l->study));
    assert_non_null(l->pool = pool_new(1, &err));
    assert_ok(study_make(l->study, name, o, &l->toy.d, &err), &err);
    assert_ok(cell_place_init(&l->place, &l->toy.d, NULL, l->dir, l->pool, &err), &err);
}

static void lab_fini(struct lab *l)
{
    cell_place_fini(&l->place);
    pool_free(l->pool);
    free(l->study);
    toy_fini(&l->toy);
}

static void run_all(struct lab *l, double budget_s)
{
    struct err err = {0};
    struct study_run r = {.threads = 1, .budget_s = budget_s};
    assert_ok(study_go(l->study, &l->place, &r, &err), &err);
}

static const struct study_row *row_named(const struct lab *l, const char *name, size_t *at)
{
    for (size_t i = 0; i < l->study->n_rows; i++)
        if (strcmp(l->study->row[i].name, name) == 0) {
            *(at ? at : &(size_t){0}) = i;
            return &l->study->row[i];
        }
    fail_msg("no row %s", name);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------------- order

static void what_tells_most_comes_first(void **state)
{
    struct lab l;
    struct err err = {0};
    size_t n, at = 0;
    lab_init(&l, state, "compare", &quick);
    struct study_step *s = study_steps(l.study, &n, &err);
    assert_int_equal(l.study->n_rows, 11);
    assert_string_equal(l.study->row[s[0].row].name, "dat");
    for (size_t r = 0; r < l.study->n_rows; r++, at++) // every system once ..
        assert_true(s[at].row == r && s[at].point == 0 && s[at].seed == 1 && !s[at].chosen);
    for (size_t r = 0; r < l.study->n_rows; r++) // .. is tuned ..
        if (l.study->row[r].n_points > 1) {
            assert_true(s[at].row == r && s[at].point == 1 && s[at].seed == 1 && !s[at].chosen);
            at++;
        }
    for (; at < n; at++) // .. and done again with other seeds, where there is something random
        assert_true(s[at].seed == 2 && !l.study->row[s[at].row].one_seed && s[at].chosen);
    assert_int_equal(n, 11 + 10 + 9);
    free(s);
    lab_fini(&l);
}

static void every_system_is_tuned_with_as_many_runs(void **state)
{
    struct lab l;
    lab_init(&l, state, "compare", &(struct study_options){.recipe = "duet", .n_seeds = 1, .n_points = STUDY_GRID});
    for (size_t r = 0; r < l.study->n_rows; r++) {
        const struct study_row *row = &l.study->row[r];
        assert_int_equal(row->n_points, strcmp(row->name, "popularity") == 0 ? 1 : STUDY_GRID);
        for (size_t i = 0; i < row->n_points; i++)
            for (size_t k = 0; k < i; k++) { // no point twice
                char a[64], b[64];
                assert_true(cell_name(&l.place, &row->point[i].cell, a, NULL) && cell_name(&l.place, &row->point[k].cell, b, NULL));
                assert_string_not_equal(a, b);
            }
    }
    lab_fini(&l);
}

static void a_budget_is_spent_from_the_front_and_one_run_is_always_done(void **state)
{
    struct lab l;
    struct err err = {0};
    struct study_options o = quick;
    size_t n;
    o.systems = "dat,wals,popularity";
    lab_init(&l, state, "compare", &o);
    struct study_step *s = study_steps(l.study, &n, &err);
    for (size_t done = 1; done <= n; done++) {
        run_all(&l, 1e-9);
        for (size_t i = 0; i < n; i++) {
            struct cell c = study_cell(l.study, &l.place, &s[i]);
            bool is_done = cell_done(&l.place, &c, NULL);
            if (is_done != (i < done))
                fail_msg("after %zu runs, step %zu is %s", done, i, is_done ? "done" : "not done");
        }
    }
    free(s);
    lab_fini(&l);
}

// ----------------------------------------------------------------------------------------------------------- names

static void a_name_holds_what_a_result_depends_on(void **state)
{
    struct lab l;
    lab_init(&l, state, "compare", &quick);
    struct cell c = l.study->row[0].point[0].cell;
    char name[64], other[64];
    assert_true(cell_name(&l.place, &c, name, NULL));
    assert_int_equal(strlen(name), 45);
    assert_int_equal(strcmp(name + 33, cell_version(&c)), 0);
    c.recipe.threads = 7; // the result is the same
    assert_true(cell_name(&l.place, &c, other, NULL));
    assert_string_equal(name, other);
    c.recipe.lr *= 2;
    assert_true(cell_name(&l.place, &c, other, NULL));
    assert_string_not_equal(name, other);
    c.recipe.lr /= 2;
    c.recipe.seed++;
    assert_true(cell_name(&l.place, &c, other, NULL));
    assert_string_not_equal(name, other);
    c.recipe.seed--;
    l.toy.d.hash[0] = 'f';
    assert_true(cell_name(&l.place, &c, other, NULL));
    assert_string_not_equal(name, other);
    lab_fini(&l);
}

static void other_model_code_counts_only_if_asked_for(void **state)
{
    struct lab l;
    struct study_options o = quick;
    char name[64], path[PATH_MAX], moved[PATH_MAX];
    o.systems = "popularity";
    lab_init(&l, state, "compare", &o);
    run_all(&l, 0);
    const struct cell *c = &l.study->row[0].point[0].cell;
    assert_true(cell_name(&l.place, c, name, NULL) && cell_path(&l.place, name, ".json", path, NULL));
    static const char *const extensions[] = {".json", ".ranks"};
    for (size_t i = 0; i < 2; i++) { // as if another program had left it
        char was[64];
        memcpy(was, name, sizeof(was));
        assert_true(cell_path(&l.place, was, extensions[i], path, NULL));
        memcpy(was + 33, "000000000000", 12);
        assert_true(cell_path(&l.place, was, extensions[i], moved, NULL));
        assert_int_equal(rename(path, moved), 0);
    }
    assert_false(cell_done(&l.place, c, NULL));
    l.place.any_version = true;
    assert_true(cell_done(&l.place, c, path));
    assert_string_equal(path, (cell_path(&l.place, name, "", moved, NULL), memcpy(strrchr(moved, '-') + 1, "000000000000", 12),
                               strcat(moved, ".json")));
    struct cell_result r;
    struct err err = {0};
    assert_ok(cell_load(&l.place, c, &r, &err), &err);
    cell_result_fini(&r);
    lab_fini(&l);
}

/* Of the toy about a tenth of all pairs are there. */
static void wals_begins_with_the_weight_that_the_data_wants(void **state)
{
    struct lab l;
    struct study_options o = quick;
    struct recipe want = {0};
    o.systems = "wals";
    lab_init(&l, state, "compare", &o);
    wals_weights(recipe_data_of(&l.toy.d), &want);
    assert_true(want.w0 > 0 && want.w0 < 0.1);
    assert_true(row_named(&l, "wals", NULL)->point[0].cell.recipe.w0 == want.w0);
    lab_fini(&l);
}

/* A baseline that was killed after two of its epochs is not begun again: its time is not known then. */
static void a_baseline_under_way_goes_on(void **state)
{
    struct lab l;
    struct err err = {0};
    struct study_options o = quick;
    struct cell_result whole, rest;
    struct trainer_result res;
    char name[64], dir[PATH_MAX];
    o.systems = "wals";
    lab_init(&l, state, "compare", &o);
    struct cell c = row_named(&l, "wals", NULL)->point[0].cell;
    c.recipe.epochs = 4;
    c.recipe.patience = 0;
    assert_ok(cell_run(&l.place, &c, 1, &err), &err);
    assert_ok(cell_load(&l.place, &c, &whole, &err), &err);
    assert_true(whole.cpu_s >= 0);
    assert_true(cell_name(&l.place, &c, name, NULL) && cell_path(&l.place, name, ".json", dir, NULL));
    assert_int_equal(unlink(dir), 0);
    assert_true(cell_path(&l.place, name, ".train", dir, NULL));
    struct trainer_params p = {.data = &l.toy.d, .recipe = c.recipe, .out_dir = dir};
    p.recipe.epochs = 2;
    p.recipe.threads = 1;
    assert_ok(baseline_run(&p, &res, &err), &err);
    assert_ok(cell_run(&l.place, &c, 1, &err), &err);
    assert_ok(cell_load(&l.place, &c, &rest, &err), &err);
    assert_true(isnan(rest.cpu_s));
    assert_int_equal(rest.epochs, 4);
    assert_int_equal(rest.best_epoch, whole.best_epoch);
    assert_memory_equal(rest.rank, whole.rank, whole.n * sizeof(*whole.rank));
    cell_result_fini(&whole);
    cell_result_fini(&rest);
    lab_fini(&l);
}

static void a_damaged_result_is_named(void **state)
{
    struct lab l;
    struct err err = {0};
    struct study_options o = quick;
    struct cell_result r;
    char name[64], path[PATH_MAX];
    o.systems = "popularity";
    lab_init(&l, state, "compare", &o);
    run_all(&l, 0);
    const struct cell *c = &l.study->row[0].point[0].cell;
    assert_true(cell_name(&l.place, c, name, NULL) && cell_path(&l.place, name, ".ranks", path, NULL));
    uint64_t size;
    assert_true(fio_size(path, &size, NULL));
    flip_bit(path, size - 80, 3);
    assert_err(cell_load(&l.place, c, &r, &err), &err, ERR_FORMAT, name);
    assert_int_equal(unlink(path), 0);
    assert_err(cell_load(&l.place, c, &r, &err), &err, ERR_NOT_FOUND, name);
    lab_fini(&l);
}

// --------------------------------------------------------------------------------------------------------- figures

static uint32_t *ranks_of(const struct lab *l, const struct cell *c, size_t *n)
{
    struct err err = {0};
    char name[64], path[PATH_MAX];
    assert_true(cell_name(&l->place, c, name, &err) && cell_path(&l->place, name, ".ranks", path, &err));
    struct pack *p = pack_open(path, "study-ranks", PACK_READ, true, &err);
    assert_non_null(p);
    const uint32_t *r = pack_get(p, "rank", PACK_U32, 1, n, &err);
    uint32_t *copy = malloc(*n * sizeof(*copy));
    memcpy(copy, r, *n * sizeof(*copy));
    pack_close(p);
    return copy;
}

/* HR@k of the targets of one user group, straight from the file: the toy has one target a user. */
static double share(const struct lab *l, const struct cell *c, uint32_t k, int group)
{
    size_t n, hits = 0, all = 0;
    uint32_t *rank = ranks_of(l, c, &n);
    assert_int_equal(n, USERS);
    uint8_t g[USERS];
    struct err err = {0};
    assert_true(groups_of_users(&l->toy.d, g, &err));
    for (size_t u = 0; u < n; u++)
        if (group < 0 || g[u] == group) {
            all++;
            hits += rank[u] <= k;
        }
    free(rank);
    return (double)hits / (double)all;
}

static void figures_follow_from_the_ranks_alone(void **state)
{
    struct lab l;
    struct err err = {0};
    struct study_options o = quick;
    struct view v;
    size_t at = 0;
    o.systems = "dat,wals,ease";
    lab_init(&l, state, "compare", &o);
    run_all(&l, 0);
    assert_ok(view_init(&v, l.study, &l.place, &err), &err);
    assert_int_equal(v.n_done, v.n_steps);
    row_named(&l, "wals", &at);
    const struct view_row *row = &v.row[at];
    assert_int_equal(row->n_seeds, 2);
    struct cell c = l.study->row[at].point[row->chosen].cell;
    c.recipe.seed = 1;
    double a = share(&l, &c, 100, -1), tail = share(&l, &c, 100, GROUP_TAIL), a50 = share(&l, &c, 50, -1);
    c.recipe.seed = 2;
    double b = share(&l, &c, 100, -1), tail_b = share(&l, &c, 100, GROUP_TAIL);
    assert_true(a50 > 0 && a50 < a && a < 1);
    assert_true(a != b); // or the deviation says nothing
    assert_near(row->all.mean[VIEW_HR100], (a + b) / 2, 1e-12);
    assert_near(row->all.dev[VIEW_HR100], fabs(a - b) / sqrt(2), 1e-12);
    view_keep_users(&v, GROUP_TAIL, v.keep);
    assert_near(view_summary(&v, row, v.keep).mean[VIEW_HR100], (tail + tail_b) / 2, 1e-12);
    assert_true(isnan(v.row[1].all.dev[VIEW_HR100])); // ease: one run
    struct paired t;
    assert_ok(view_paired(&v, row, &v.row[0], VIEW_HR100, &t, &err), &err);
    assert_int_equal(t.n_users, USERS);
    assert_near(t.diff, row->all.mean[VIEW_HR100] - v.row[0].all.mean[VIEW_HR100], 1e-12);
    view_fini(&v);
    lab_fini(&l);
}

/* Makes a run's validation HR@100 what the test wants it to be. */
static void set_validation(const struct lab *l, const struct cell *c, double hr100)
{
    struct err err = {0};
    char name[64], path[PATH_MAX];
    assert_true(cell_name(&l->place, c, name, NULL) && cell_path(&l->place, name, ".json", path, NULL));
    json_t *o = json_read_file(path, 1 << 20, &err);
    json_object_set_new(json_object_get(o, "validation"), "hr@100", json_real(hr100));
    assert_int_equal(json_dump_file(o, path, 0), 0);
    json_decref(o);
}

static void the_point_of_best_validation_is_taken(void **state)
{
    struct lab l;
    struct study_options o = quick;
    struct err err = {0};
    size_t n_done;
    static const double hr100[STUDY_GRID] = {0.3, 0.2, 0.5, 0.5};
    o.systems = "ease,wals";
    o.n_points = STUDY_GRID;
    o.n_seeds = 1;
    lab_init(&l, state, "compare", &o);
    assert_int_equal(study_chosen(l.study, &l.place, 1, &n_done), 0); // nothing is done
    assert_int_equal(n_done, 0);
    run_all(&l, 0);
    for (size_t r = 0; r < 2; r++)
        for (size_t i = 0; i < STUDY_GRID; i++) {
            const struct study_step step = {.row = r, .point = i, .seed = 1};
            struct cell c = study_cell(l.study, &l.place, &step);
            set_validation(&l, &c, hr100[i]);
        }
    assert_int_equal(study_chosen(l.study, &l.place, 0, &n_done), 2); // the first of equals
    assert_int_equal(n_done, STUDY_GRID);
    l.study->n_seeds = 2; // another seed is of that point
    const struct study_step step = {.row = 1, .seed = 2, .chosen = true};
    struct cell c = study_cell(l.study, &l.place, &step), want = l.study->row[1].point[2].cell;
    want.recipe.seed = 2;
    char *a = cell_config(&c, &err), *b = cell_config(&want, &err);
    assert_string_equal(a, b);
    free(a);
    free(b);
    lab_fini(&l);
}

/* Every line of the CSV is right, and sums over groups are sums over all. */
static void groups_part_the_targets(void **state)
{
    struct lab l;
    struct err err = {0};
    struct study_options o = quick;
    struct view v;
    o.systems = "popularity";
    lab_init(&l, state, "compare", &o);
    run_all(&l, 0);
    assert_ok(view_init(&v, l.study, &l.place, &err), &err);
    const char *path = tmp_path(state, "t.csv");
    FILE *f = fopen(path, "w");
    table_csv(&v, f);
    fclose(f);
    size_t size;
    char *text = get_file(path, &size), *save = NULL;
    double hits[4] = {0};
    size_t n[4] = {0};
    static const char *const kinds[] = {"all", "item_frequency", "user_frequency", "category"};
    strtok_r(text, "\n", &save);
    for (char *line; (line = strtok_r(NULL, "\n", &save));)
        for (size_t k = 0; k < 4; k++) {
            char kind[32];
            unsigned seed;
            size_t count;
            double hr100;
            if (sscanf(line, "popularity,own,%u,%31[a-z_],%*[^,],%zu,%*f,%lf", &seed, kind, &count, &hr100) != 4 &&
                sscanf(line, "popularity,own,%u,%31[a-z_],,%zu,%*f,%lf", &seed, kind, &count, &hr100) != 4)
                fail_msg("line \"%s\"", line);
            if (strcmp(kind, kinds[k]) == 0) {
                n[k] += count;
                hits[k] += hr100 * (double)count;
            }
        }
    free(text);
    for (size_t k = 0; k < 4; k++) {
        assert_int_equal(n[k], USERS);
        assert_near(hits[k], hits[0], 1e-3);
    }
    view_fini(&v);
    lab_fini(&l);
}

static void heads_and_tails(void **state)
{
    (void)state;
    struct err err = {0};
    const uint32_t count[] = {5, 9, 1, 1, 7, 0, 3, 3, 2, 1};
    const uint8_t want[] = {GROUP_MIDDLE, GROUP_HEAD, GROUP_TAIL,   GROUP_TAIL, GROUP_MIDDLE,
                            GROUP_TAIL,   GROUP_MIDDLE, GROUP_MIDDLE, GROUP_TAIL, GROUP_TAIL};
    uint8_t got[10];
    assert_true(groups_by_count(count, 10, got, &err));
    assert_memory_equal(got, want, 10);
}

// ------------------------------------------------------------------------------------------------------------ rows

static void the_equal_two_tower_is_as_large(void **state)
{
    struct lab l;
    struct err err = {0};
    uint64_t want, got, plain;
    lab_init(&l, state, "compare", &quick);
    assert_true(parameters_count(l.toy.d.schema, &row_named(&l, "dat", NULL)->point[0].cell.recipe, &want, &err));
    assert_true(parameters_count(l.toy.d.schema, &row_named(&l, "two_tower", NULL)->point[0].cell.recipe, &plain, &err));
    assert_true(parameters_count(l.toy.d.schema, &row_named(&l, "two_tower_equal", NULL)->point[0].cell.recipe, &got, &err));
    assert_true(fabs((double)got - (double)want) < 0.01 * (double)want);
    assert_true(fabs((double)plain - (double)want) > 0.01 * (double)want);
    lab_fini(&l);
}

static void assert_recipes_are_valid(const struct study *s)
{
    struct err err = {0};
    for (size_t r = 0; r < s->n_rows; r++)
        for (size_t k = 0; k < s->row[r].n_points; k++)
            if (s->row[r].point[k].cell.kind <= CELL_INDEX && !recipe_check(&s->row[r].point[k].cell.recipe, &err))
                fail_msg("%s of %s: %s", s->row[r].name, s->name, err.msg);
}

/* Where interactions have times DAT uses them, and one row does not. */
static void with_times_there_is_a_row_without(void **state)
{
    static const char *const names[] = {"compare", "ablation", "dimension", "negatives", "recipes", "index"};
    struct lab l;
    struct err err = {0};
    lab_init(&l, state, "compare", &quick);
    toy_give_times(&l.toy);
    for (size_t i = 0; i < 6; i++) {
        assert_ok(study_make(l.study, names[i], &quick, &l.toy.d, &err), &err);
        assert_recipes_are_valid(l.study);
        if (i < 2) {
            const struct recipe *dat = &row_named(&l, "dat", NULL)->point[0].cell.recipe;
            const struct recipe *untimed = &row_named(&l, "dat_untimed", NULL)->point[0].cell.recipe;
            assert_true(dat->recency && dat->window > 0);
            assert_true(!untimed->recency && untimed->window == 0 && untimed->denoise > 0 && untimed->aug == AUG_CLOSED);
        }
        if (i == 0) {
            const struct recipe *history = &row_named(&l, "two_tower_history", NULL)->point[0].cell.recipe;
            assert_true(history->recency && history->window > 0 && history->aug == AUG_CLOSED && !history->amm && !history->cal);
            assert_int_equal(row_named(&l, "two_tower_history", NULL)->n_points, quick.n_points);
        }
    }
    lab_fini(&l);
}

static void every_study_is_made(void **state)
{
    static const char *const names[] = {"compare", "ablation", "dimension", "negatives", "recipes", "index"};
    static const char *const recipes[] = {"duet", "paper", "plain"};
    for (size_t i = 0; i < 18; i++) {
        struct lab l;
        struct study_options o = quick;
        o.recipe = recipes[i / 6];
        lab_init(&l, state, names[i % 6], &o);
        assert_true(l.study->n_rows >= 3 && l.study->about);
        assert_recipes_are_valid(l.study);
        lab_fini(&l);
    }
    struct lab l;
    struct err err = {0};
    struct study_options o = quick;
    lab_init(&l, state, "compare", &o);
    assert_err(study_make(l.study, "compares", &o, &l.toy.d, &err), &err, ERR_ARG, "compares");
    o.systems = "dat,datt";
    assert_err(study_make(l.study, "compare", &o, &l.toy.d, &err), &err, ERR_ARG, "datt");
    o.systems = NULL;
    o.recipe = "papers";
    assert_err(study_make(l.study, "compare", &o, &l.toy.d, &err), &err, ERR_ARG, "papers");
    lab_fini(&l);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, tmp_setup, tmp_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_tells_most_comes_first),
        IN_FOLDER(every_system_is_tuned_with_as_many_runs),
        IN_FOLDER(a_budget_is_spent_from_the_front_and_one_run_is_always_done),
        IN_FOLDER(a_name_holds_what_a_result_depends_on),
        IN_FOLDER(other_model_code_counts_only_if_asked_for),
        IN_FOLDER(wals_begins_with_the_weight_that_the_data_wants),
        IN_FOLDER(a_baseline_under_way_goes_on),
        IN_FOLDER(a_damaged_result_is_named),
        IN_FOLDER(figures_follow_from_the_ranks_alone),
        IN_FOLDER(the_point_of_best_validation_is_taken),
        IN_FOLDER(groups_part_the_targets),
        cmocka_unit_test(heads_and_tails),
        IN_FOLDER(the_equal_two_tower_is_as_large),
        IN_FOLDER(with_times_there_is_a_row_without),
        IN_FOLDER(every_study_is_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
