/* train and evaluate as a user runs them. If this fails, a run that was killed cannot be finished, a collapse passes
 * for a success, or a refusal does not say what to do. */
#include "tests/core/support.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/json.h"
#include "tests/cli/run.h"

static char folder[] = "/tmp/duet-train-XXXXXX";

static const char *in(const char *name)
{
    static char ring[8][PATH_MAX];
    static unsigned at;
    char *out = ring[at++ % 8];
    snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return out;
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    duet_ok("synth --out %s --users 300 --items 200 --interactions 6000", in("raw"));
    duet_ok("prepare --in %s --out %s --hold-out 0.05", in("raw"), in("data.duet"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fio_remove_tree(folder, NULL) ? 0 : -1;
}

#define SMALL "--widths 16,8 --k 8 --threads 1"

static void assert_same(const char *a, const char *b)
{
    size_t n, m;
    char *x = get_file(a, &n), *y = get_file(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void train_then_evaluate(void **state)
{
    (void)state;
    struct run r = duet(0, "train --data %s --model dat --out %s --epochs 3 " SMALL, in("data.duet"), in("dat"));
    assert_non_null(strstr(r.err, "epoch 3/3 loss"));
    assert_non_null(strstr(r.err, "pairs/s"));
    assert_non_null(strstr(r.out, "validation HR@50"));
    run_fini(&r);
    duet_ok("train --data %s --model two_tower --out %s --epochs 3 --quiet " SMALL, in("data.duet"), in("two_tower"));
    r = duet(0, "evaluate --data %s --checkpoint %s --checkpoint %s --per-category --json %s --csv %s", in("data.duet"),
             in("dat"), in("two_tower"), in("report.json"), in("report.csv"));
    const char *words[] = {"popularity",     "/dat",       "/two_tower", "protocol:", "held-out users, by history",
                           "held-out items", "by category"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (!strstr(r.out, words[i]))
            fail_msg("evaluate's table lacks \"%s\":\n%s", words[i], r.out);
    struct run again = duet(0, "evaluate --show %s", in("report.json"));
    assert_string_equal(r.out, again.out);
    run_fini(&r);
    run_fini(&again);
    assert_true(fio_exists(in("report.csv")) && fio_exists(in("dat/metrics.json")) &&
                fio_exists(in("dat/train.jsonl")));
}

/* Each epoch is one JSON line with the loss by part and the validation metrics. */
static void the_log_has_a_line_for_each_epoch(void **state)
{
    (void)state;
    struct err err = {0};
    size_t n, lines = 0;
    duet_ok("train --data %s --out %s --epochs 4 --patience 0 --quiet " SMALL, in("data.duet"), in("log"));
    char *text = get_file(in("log/train.jsonl"), &n), *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_parse(line, strlen(line), &err);
        assert_non_null(o);
        assert_int_equal(json_integer_value(json_object_get(o, "epoch")), ++lines);
        const char *keys[] = {"loss", "main", "mimic_u", "mimic_v", "cal", "pairs_per_s", "validation", "best"};
        for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
            assert_non_null(json_object_get(o, keys[i]));
        json_decref(o);
    }
    assert_int_equal(lines, 4);
    free(text);
}

static void collapse_ends_with_status_1_and_a_reason(void **state)
{
    (void)state;
    const char *literal = "--recipe paper --batch 32 --lr 0.02 --epochs 60 --patience 0 --quiet " SMALL;
    struct run r = duet(1, "train --data %s --model dat --out %s %s", in("data.duet"), in("literal"), literal);
    assert_non_null(strstr(r.err, "collapse after"));
    assert_non_null(strstr(r.err, "--recipe duet"));
    run_fini(&r);
    r = duet(0, "evaluate --data %s --checkpoint %s", in("data.duet"), in("literal"));
    assert_non_null(strstr(r.out, "collapsed in training"));
    run_fini(&r);
    duet_ok("train --data %s --model dat --out %s %s --keep-going --epochs 2", in("data.duet"), in("literal"), literal);
}

/* `k`: columns of tables, NULL of models without. */
static void kill_once_it_has_a_checkpoint(const char *model, const char *epochs, const char *k, const char *out)
{
    char program[PATH_MAX];
    const char *bin = getenv("DUET_BIN_DIR");
    snprintf(program, sizeof(program), "%s/duet", bin ? bin : ".");
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, "duet", "train", "--model", model, "--data", in("data.duet"), "--out", out, "--epochs", epochs,
              "--patience", "0", "--quiet", "--widths", "16,8", "--threads", "1", k ? "--k" : NULL, k, (char *)NULL);
        _exit(127);
    }
    char state[PATH_MAX + 32];
    snprintf(state, sizeof(state), "%s/optimizer.safetensors", out);
    for (int i = 0; i < 60000 && !fio_exists(state); i++)
        usleep(500);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); // it was not done yet
}

static json_t *epoch_of(const char *dir)
{
    char path[PATH_MAX + 32];
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/checkpoint.json", dir);
    json_t *o = json_read_file(path, 1 << 20, &err);
    assert_non_null(o);
    return o;
}

/* Lines of train.jsonl are of the epochs 1, 2, .. in this order; how many. */
static size_t count_epochs(const char *dir)
{
    char path[PATH_MAX + 32], *save = NULL;
    size_t n, lines = 0;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/train.jsonl", dir);
    char *text = get_file(path, &n);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_parse(line, strlen(line), &err);
        assert_int_equal(json_integer_value(json_object_get(o, "epoch")), ++lines);
        json_decref(o);
    }
    free(text);
    return lines;
}

/* What a kill after an epoch's line and before its state leaves, and one within a line. */
static void a_log_has_one_line_for_each_epoch_after_a_kill_too(void **state)
{
    (void)state;
    static const char *const kinds[] = {"two_tower", "wals"};
    for (int i = 0; i < 2; i++) {
        char out[PATH_MAX], path[PATH_MAX + 32];
        snprintf(out, sizeof(out), "%s", in(i ? "cut-wals" : "cut"));
        snprintf(path, sizeof(path), "%s/train.jsonl", out);
        duet_ok("train --data %s --model %s --out %s --epochs 2 --patience 0 --quiet --threads 1 --widths 8%s",
                in("data.duet"), kinds[i], out, i ? "" : " --k 8");
        FILE *f = fopen(path, "a");
        assert_non_null(f);
        fputs("{\"epoch\":3,\"loss\":1}\n{\"epoch\":", f);
        fclose(f);
        duet_ok("train --data %s --model %s --out %s --epochs 4 --patience 0 --quiet --threads 1 --widths 8%s --resume",
                in("data.duet"), kinds[i], out, i ? "" : " --k 8");
        assert_int_equal(count_epochs(out), 4);
        duet_ok("train --data %s --model %s --out %s --epochs 1 --patience 0 --quiet --threads 1 --widths 8%s",
                in("data.duet"), kinds[i], out, i ? "" : " --k 8");
        assert_int_equal(count_epochs(out), 1); // begun again
    }
}

/* Killed at some moment and resumed, up to a given epoch = never killed. Epochs: enough for the kill to come before the
 * last. */
static void killed_it_goes_on_to_the_same_bits(const char *model, const char *epochs, const char *k)
{
    char out[2][80], file[2][128], common[2 * PATH_MAX];
    json_t *info[2];
    for (int i = 0; i < 2; i++) {
        snprintf(out[i], sizeof(out[i]), "%s/%s-%s", folder, i ? "whole" : "killed", model);
        snprintf(file[i], sizeof(file[i]), "%s/model.safetensors", out[i]);
    }
    snprintf(common, sizeof(common), "--model %s --data %s --epochs %s --patience 0 --quiet --widths 16,8 --threads 1%s%s",
             model, in("data.duet"), epochs, k ? " --k " : "", k ? k : "");
    kill_once_it_has_a_checkpoint(model, epochs, k, out[0]);
    duet_ok("train %s --out %s --resume", common, out[0]);
    duet_ok("train %s --out %s", common, out[1]);
    assert_same(file[0], file[1]);
    assert_int_equal(count_epochs(out[0]), count_epochs(out[1]));
    for (int i = 0; i < 2; i++)
        info[i] = epoch_of(out[i]);
    assert_true(json_equal(json_object_get(info[0], "validation"), json_object_get(info[1], "validation")));
    assert_int_equal(json_integer_value(json_object_get(info[0], "epoch")),
                     json_integer_value(json_object_get(info[1], "epoch")));
    json_decref(info[0]);
    json_decref(info[1]);
}

static void a_killed_run_goes_on_to_the_same_bits(void **state)
{
    (void)state;
    const char *runs[][3] = {{"dat", "25", "8"},
                             {"wals", "150", NULL},
                             {"fm", "30", NULL},
                             {"youtube_dnn", "30", "8"},
                             {"mind", "25", "8"}};
    for (size_t i = 0; i < sizeof(runs) / sizeof(*runs); i++)
        killed_it_goes_on_to_the_same_bits(runs[i][0], runs[i][1], runs[i][2]);
}

/* The best epoch's validation, though this process has not seen it. */
static void a_resumed_run_without_a_better_epoch_tells_the_best(void **state)
{
    (void)state;
    char args[PATH_MAX * 2];
    snprintf(args, sizeof(args), "train --data %s --out %s --epochs 2 --quiet " SMALL, in("data.duet"), in("again"));
    struct run first = duet(0, "%s", args), again = duet(0, "%s --resume", args);
    const char *want = strstr(first.out, "best epoch"), *found = strstr(again.out, "best epoch");
    assert_true(want && found);
    assert_string_equal(found, want);
    assert_null(strstr(found, "HR@100 0.0000"));
    run_fini(&first);
    run_fini(&again);
}

static void refused(int status, const char *word, const char *args)
{
    struct run r = duet(status, "%s", args);
    if (!strstr(r.err, word))
        fail_msg("duet %s: \"%s\" does not name %s", args, r.err, word);
    run_fini(&r);
}

/* A model without towers through every command that knows checkpoints. */
static void wals_is_trained_inspected_and_evaluated(void **state)
{
    (void)state;
    char args[PATH_MAX * 2];
    duet_ok("train --data %s --model wals --out %s --widths 8 --epochs 3 --quiet --threads 1", in("data.duet"),
            in("wals"));
    struct run r = duet(0, "inspect %s", in("wals"));
    assert_non_null(strstr(r.out, "wals"));
    assert_non_null(strstr(r.out, "folds_in"));
    run_fini(&r);
    r = duet(0, "evaluate --data %s --checkpoint %s --yardsticks ease --ease-lambda 50 --threads 1", in("data.duet"),
             in("wals"));
    assert_non_null(strstr(r.out, "EASE^R"));
    assert_non_null(strstr(r.out, "/wals"));
    assert_null(strstr(r.out, "popularity"));
    run_fini(&r);
    snprintf(args, sizeof(args), "evaluate --data %s --yardsticks fame", in("data.duet"));
    refused(1, "popularity,ease", args);
}

static double trained_weight(const char *dir, const char *name)
{
    json_t *info = epoch_of(dir);
    double v = json_number_value(json_object_get(json_object_get(info, "recipe"), name));
    json_decref(info);
    return v;
}

/* w0 follows the data, is told and written down, and what the command line says goes before it. */
static void weights_of_wals_are_told_and_kept(void **state)
{
    (void)state;
    const char *of[2] = {in("own"), in("given")}, *options[2] = {"", "--w0 0.25 --reg 0.5"};
    for (int i = 0; i < 2; i++) {
        struct run r = duet(0, "train --data %s --model wals --out %s --widths 8 --epochs 1 --threads 1 %s", in("data.duet"),
                            of[i], options[i]);
        char told[64];
        snprintf(told, sizeof(told), "w0 %.3g%s, reg %.3g%s;", trained_weight(of[i], "w0"), i ? " (given)" : "",
                 trained_weight(of[i], "reg"), i ? " (given)" : "");
        if (!strstr(r.err, told))
            fail_msg("%s does not begin with %s", r.err, told);
        run_fini(&r);
    }
    assert_float_equal(trained_weight(of[0], "w0"), 0.094, 0.003); // a density of about .08
    assert_float_equal(trained_weight(of[0], "reg"), 0.01, 1e-12);
    assert_float_equal(trained_weight(of[1], "w0"), 0.25, 1e-12);
    assert_float_equal(trained_weight(of[1], "reg"), 0.5, 1e-12);
}

/* What `duet train` writes has the names of a state dict, and says its kind. */
static void a_state_dict_is_imported(void **state)
{
    (void)state;
    char common[PATH_MAX * 2], args[PATH_MAX * 3];
    duet_ok("train --data %s --out %s --epochs 1 --quiet " SMALL, in("data.duet"), in("there"));
    snprintf(common, sizeof(common), "import --data %s --state %s", in("data.duet"), in("there/model.safetensors"));
    duet_ok("%s --out %s", common, in("here"));
    assert_same(in("there/model.safetensors"), in("here/model.safetensors"));
    struct run r = duet(0, "evaluate --data %s --checkpoint %s", in("data.duet"), in("here"));
    assert_non_null(strstr(r.out, "/here"));
    run_fini(&r);
    const struct {
        int status;
        const char *option, *word;
    } bad[] = {
        {1, "--out there", "holds the state of a training run"},
        {1, "--out none --rename user.=item.", "would both be item."},
        {1, "--out none --kind two_tower", "layer 0 takes"},
        {2, "--out none --kind wals", "dat and two_tower can be imported"},
        {2, "--out none --history-alpha 2", "history-alpha"},
        {2, "--out none --rename user_tower.", "--rename \"user_tower.\", want OLD=NEW"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        snprintf(args, sizeof(args), "%s --out %s/%s", common, folder, bad[i].option + strlen("--out "));
        refused(bad[i].status, bad[i].word, args);
    }
    snprintf(args, sizeof(args), "import --data %s --state /none.safetensors --out %s", in("data.duet"), in("none"));
    refused(1, "/none.safetensors", args);
    snprintf(args, sizeof(args), "import --data %s --state %s --out %s", in("data.duet"), in("data.duet"), in("none"));
    refused(1, "header", args);
    refused(2, "--data, --state and --out", "import");
    assert_false(fio_exists(in("none")));
}

/* Models that read no history learn by batches that are cut in time all the same: other targets, other candidates. */
static void a_window_is_for_whatever_learns_by_batches(void **state)
{
    (void)state;
    size_t n, m;
    duet_ok("train --data %s --model fm --out %s --epochs 1 --quiet --threads 1 --widths 8", in("data.duet"), in("fm"));
    duet_ok("train --data %s --model fm --out %s --epochs 1 --quiet --threads 1 --widths 8 --window 4", in("data.duet"), in("fm_timed"));
    char *whole = get_file(in("fm/model.safetensors"), &n), *timed = get_file(in("fm_timed/model.safetensors"), &m);
    assert_true(n != m || memcmp(whole, timed, n) != 0);
    free(whole);
    free(timed);
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    char args[PATH_MAX * 2];
    const struct {
        int status;
        const char *option, *word;
    } bad[] = {
        {2, "--model gru4rec", "dat, two_tower"},
        {2, "--model wals --recipe paper", "is for dat and two_tower"},
        {2, "--model wals --w0 2", "w0"},
        {2, "--recipe dut", "duet, plain or paper"},
        {2, "--loss hinge", "bce, softmax"},
        {2, "--widths 256,,32", "--widths"},
        {2, "--widths 8,9999", "--widths"},
        {2, "--batching rows", "pairs or users"},
        {2, "--aug open", "table or closed"},
        {2, "--aug table --denoise 0.5", "no history to leave"},
        {2, "--batching pairs", "whole users"},
        {2, "--model two_tower --batching pairs --window 4", "no past to cut"},
        {2, "--lr 100", "lr"},
        {2, "--threads 0", "threads"},
        {2, "--epoch 3", "epochs"},
        {2, "--scale 0", "scale"},
        {2, "--model wals --window 4", "--window means nothing to --model wals; it is for two_tower, dat, fm, youtube_dnn, mind"},
        {2, "--model wals --widths 8 --lr=0.1", "--lr means nothing to --model wals"},
        {2, "--model two_tower --no-cal", "--cal means nothing to --model two_tower; it is for dat"},
        {2, "--reg 0.1", "--reg means nothing to --model dat; it is for wals"},
        {2, "--model fm --k 8", "--k means nothing to --model fm"},
        {2, "--model youtube_dnn --interests 2", "it is for mind"},
        {2, "--model mind --user-weight 0.5", "it is for two_tower, dat, fm"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        snprintf(args, sizeof(args), "train --data %s --out %s %s", in("data.duet"), in("none"), bad[i].option);
        refused(bad[i].status, bad[i].word, args);
    }
    refused(2, "--data and --out", "train");
    refused(2, "--data", "evaluate");
    refused(1, "/none.duet", "train --data /none.duet --out /tmp/x");
    snprintf(args, sizeof(args), "train --data %s --out %s --tensorboard /dev/null/x", in("data.duet"), in("none"));
    refused(1, "/dev/null/x", args);
    snprintf(args, sizeof(args), "evaluate --data %s --split trian", in("data.duet"));
    refused(2, "test or valid", args);
    snprintf(args, sizeof(args), "evaluate --data %s --k 0", in("data.duet"));
    refused(2, "--k", args);
    snprintf(args, sizeof(args), "evaluate --data %s --through graph", in("data.duet"));
    refused(2, "exact or index", args);
    snprintf(args, sizeof(args), "evaluate --data %s --checkpoint /nowhere", in("data.duet"));
    refused(1, "/nowhere", args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(train_then_evaluate),
        cmocka_unit_test(the_log_has_a_line_for_each_epoch),
        cmocka_unit_test(collapse_ends_with_status_1_and_a_reason),
        cmocka_unit_test(a_log_has_one_line_for_each_epoch_after_a_kill_too),
        cmocka_unit_test(a_killed_run_goes_on_to_the_same_bits),
        cmocka_unit_test(a_resumed_run_without_a_better_epoch_tells_the_best),
        cmocka_unit_test(wals_is_trained_inspected_and_evaluated),
        cmocka_unit_test(weights_of_wals_are_told_and_kept),
        cmocka_unit_test(a_state_dict_is_imported),
        cmocka_unit_test(a_window_is_for_whatever_learns_by_batches),
        cmocka_unit_test(wrong_usage_is_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
