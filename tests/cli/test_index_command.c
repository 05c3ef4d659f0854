/* duet index as a user runs it. If this fails, an index cannot be built, searched, checked or converted by the
 * documented command lines, its recall is not what exact search says, or a refusal does not name what was found. */
#include "tests/core/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/json.h"
#include "index/hnsw.h"
#include "index/vecs.h"
#include "tests/cli/run.h"

enum { N = 2000, NQ = 40, DIM = 12 };

static char dir[200];

static float noise(uint64_t *s)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *s = *s * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*s >> 40) * 0x1p-24f - 0.5f;
    }
    return sum;
}

static void write_vectors(const char *name, size_t n, uint64_t seed)
{
    char path[300];
    struct hnsw_err e = {0};
    enum hnsw_vecs_kind kind;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_true(hnsw_vecs_kind_of(path, &kind, &e));
    struct hnsw_vecs_out *out = hnsw_vecs_create(path, kind, n, DIM, &e);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        float v[DIM];
        for (size_t j = 0; j < DIM; j++)
            v[j] = noise(&seed);
        assert_true(hnsw_vecs_put(out, v, &e));
    }
    assert_true(hnsw_vecs_finish(out, true, &e));
}

static void write_text(const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    if (tmp_setup(state) != 0)
        return -1;
    snprintf(dir, sizeof(dir), "%s", (char *)*state);
    write_vectors("base.fbin", N, 1);
    write_vectors("base.fvecs", N, 1);
    write_vectors("q.fbin", NQ, 2);
    duet_ok("index build --vectors %s/base.fbin --out %s/a.hnsw --threads 1", dir, dir);
    return 0;
}

/* Exits with 1 and says `why`. */
static void refused(const char *why, const char *command)
{
    char line[1000], *at = line;
    for (const char *p = command; *p; p++) // @ stands for the folder
        at += *p == '@' ? sprintf(at, "%s", dir) : sprintf(at, "%c", *p);
    struct run r = duet(1, "%s", line);
    if (!strstr(r.err, why))
        fail_msg("duet %s: \"%s\" does not say \"%s\"", line, r.err, why);
    run_fini(&r);
}

static json_t *said(const char *command)
{
    struct run r = duet(0, "%s", command);
    struct err e = {0};
    json_t *o = json_parse(r.out, strlen(r.out), &e);
    assert_ok(o != NULL, &e);
    run_fini(&r);
    return o;
}

static void answers_are_those_of_exact_search(void **state)
{
    (void)state;
    char line[1000];
    duet_ok("index truth --vectors %s/base.fbin --queries %s/q.fbin --out %s/t.ibin -k 20", dir, dir, dir);
    duet_ok("index truth --index %s/a.hnsw --queries %s/q.fbin --out %s/u.ibin -k 20", dir, dir, dir);
    char t[300], u[300];
    struct hnsw_err e = {0};
    snprintf(t, sizeof(t), "%s/t.ibin", dir);
    snprintf(u, sizeof(u), "%s/u.ibin", dir);
    struct hnsw_vecs *a = hnsw_vecs_open(t, &e), *b = hnsw_vecs_open(u, &e);
    assert_true(a && b && hnsw_vecs_n(a) == NQ && hnsw_vecs_dim(a) == 20);
    for (size_t i = 0; i < NQ; i++)
        assert_memory_equal(hnsw_vecs_ids(a, i), hnsw_vecs_ids(b, i), 80);
    hnsw_vecs_close(a);
    hnsw_vecs_close(b);
    static const char *const layout[] = {"plain", "fast", "compact"};
    for (int i = 0; i < 3; i++)
        for (int recall = 0; recall < 2; recall++) {
            snprintf(line, sizeof(line), "index search --index %s/a.hnsw --queries %s/q.fbin -k 20 --ef 200 --json --layout %s %s%s%s",
                     dir, dir, layout[i], recall ? "--recall" : "--truth ", recall ? "" : dir, recall ? "" : "/t.ibin");
            json_t *o = said(line);
            double r = json_number_value(json_object_get(o, "recall"));
            assert_true(r > 0.97 && r <= 1);
            assert_string_equal(json_string_value(json_object_get(o, "layout")), layout[i]);
            json_decref(o);
        }
    snprintf(line, sizeof(line), "index search --index %s/a.hnsw --queries %s/q.fbin -k 20 --exact --json --truth %s/t.ibin", dir, dir,
             dir);
    json_t *o = said(line);
    assert_true(json_number_value(json_object_get(o, "recall")) == 1);
    json_decref(o);
    /* Where the index has codes, queries are scanned in groups: each gets its own answer. */
    duet_ok("index convert --in %s/a.hnsw --out %s/k.hnsw --layout compact", dir, dir);
    duet_ok("index truth --index %s/k.hnsw --queries %s/q.fbin --out %s/k.ibin -k 20", dir, dir, dir);
    snprintf(line, sizeof(line), "index search --index %s/k.hnsw --queries %s/q.fbin -k 20 --exact --json --truth %s/k.ibin", dir, dir, dir);
    o = said(line);
    assert_true(json_number_value(json_object_get(o, "recall")) == 1);
    json_decref(o);
    /* One line a query, best first. */
    struct run r = duet(0, "index search --index %s/a.hnsw --queries %s/q.fbin -k 3", dir, dir);
    size_t lines = 0;
    double s[3];
    unsigned id[3];
    for (char *p = strtok(r.out, "\n"); p; p = strtok(NULL, "\n"), lines++) {
        assert_int_equal(sscanf(p, "%u:%lf %u:%lf %u:%lf", &id[0], &s[0], &id[1], &s[1], &id[2], &s[2]), 6);
        assert_true(s[0] >= s[1] && s[1] >= s[2] && id[0] < N);
    }
    assert_int_equal(lines, NQ);
    run_fini(&r);
}

static void indexes_are_converted_and_told_about(void **state)
{
    (void)state;
    char line[1000];
    duet_ok("index convert --in %s/a.hnsw --out %s/a.bin --to hnswlib", dir, dir);
    duet_ok("index convert --in %s/a.bin --out %s/b.hnsw --metric ip --dim %d", dir, dir, DIM);
    duet_ok("index convert --in %s/a.hnsw --out %s/c.hnsw --layout compact", dir, dir);
    duet_ok("index convert --in %s/b.hnsw --out %s/b.fvecs", dir, dir);
    duet_ok("index convert --in %s/base.fbin --out %s/d.fvecs", dir, dir);
    duet_ok("index check %s/a.hnsw %s/b.hnsw %s/c.hnsw", dir, dir, dir);
    struct run r = duet(0, "index check %s/a.bin --metric ip --dim %d", dir, DIM);
    run_fini(&r);
    char a[300], b[300], c[300];
    snprintf(a, sizeof(a), "%s/base.fvecs", dir);
    snprintf(b, sizeof(b), "%s/b.fvecs", dir);
    snprintf(c, sizeof(c), "%s/d.fvecs", dir);
    struct hnsw_err e = {0};
    struct hnsw_vecs *v[3] = {hnsw_vecs_open(a, &e), hnsw_vecs_open(b, &e), hnsw_vecs_open(c, &e)};
    assert_true(v[0] && v[1] && v[2]);
    for (size_t i = 0; i < N; i++)
        for (int k = 1; k < 3; k++)
            assert_memory_equal(hnsw_vecs_row(v[0], i), hnsw_vecs_row(v[k], i), DIM * 4);
    for (int k = 0; k < 3; k++)
        hnsw_vecs_close(v[k]);
    snprintf(line, sizeof(line), "index info %s/a.hnsw --json", dir);
    json_t *plain = said(line);
    snprintf(line, sizeof(line), "index info %s/c.hnsw --json", dir);
    json_t *compact = said(line);
    assert_int_equal(json_integer_value(json_object_get(plain, "elements")), N);
    assert_string_equal(json_string_value(json_object_get(compact, "layout")), "compact");
    assert_true(json_integer_value(json_object_get(compact, "bytes")) * 3 < json_integer_value(json_object_get(plain, "bytes")) * 2);
    json_decref(plain);
    json_decref(compact);
}

static void labels_go_in_and_come_out(void **state)
{
    (void)state;
    char path[300], *ids = malloc(N * 12 + 1), *at = ids;
    for (int i = 0; i < N; i++)
        at += sprintf(at, "%d\n", 3 * (N - i));
    write_text("ids.txt", ids);
    duet_ok("index build --vectors %s/base.fvecs --ids %s/ids.txt --out %s/l.hnsw --metric l2 --m 8", dir, dir, dir);
    duet_ok("index convert --in %s/l.hnsw --out %s/l.fbin --ids-out %s/out.txt", dir, dir, dir);
    snprintf(path, sizeof(path), "%s/out.txt", dir);
    FILE *f = fopen(path, "r");
    unsigned long long id;
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(fscanf(f, "%llu", &id), 1);
        assert_int_equal(id, 3 * (i + 1));
    }
    fclose(f);
    write_text("large.txt", "1\n4294967296\n");
    write_vectors("two.fbin", 2, 3);
    duet_ok("index build --vectors %s/two.fbin --ids %s/large.txt --out %s/large.hnsw", dir, dir, dir);
    refused("holds ids up to 4294967295", "index convert --in @/large.hnsw --out @/large.fbin --ids-out @/large.ibin");
    snprintf(path, sizeof(path), "%s/large.fbin", dir);
    assert_int_not_equal(access(path, F_OK), 0); // vectors without their labels
    write_text("twice.txt", "1\n1\n");
    refused("ids", "index build --vectors @/base.fbin --ids @/twice.txt --out @/x.hnsw");
    strcpy(ids + 8, "no\n");
    write_text("ids.txt", ids);
    refused("line 2", "index build --vectors @/base.fbin --ids @/ids.txt --out @/x.hnsw");
    free(ids);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    char path[300];
    write_vectors("few.fbin", 5, 3);
    write_text("junk.hnsw", "this is no index at all, whatever its name says");
    write_text("cut.fbin", "abc");
    refused("junk.hnsw", "index check @/junk.hnsw");
    refused("--metric and --dim", "index info @/junk.hnsw");
    refused("found \"euclid\", want ip, cosine or l2", "index build --vectors @/base.fbin --out @/x.hnsw --metric euclid");
    refused("cut.fbin", "index build --vectors @/cut.fbin --out @/x.hnsw");
    refused("no/such", "index build --vectors @/base.fbin --out @/no/such/x.hnsw");
    refused("found a folder", "index build --vectors @/base.fbin --out @");
    refused("want at most the index's 2000 elements", "index search --index @/a.hnsw --queries @/q.fbin -k 2001");
    refused("found \"wide\"", "index search --index @/a.hnsw --queries @/q.fbin --layout wide");
    refused("no file holds", "index convert --in @/a.hnsw --out @/x.hnsw --layout fast");
    refused("hnswlib cannot read it", "index convert --in @/a.hnsw --out @/x.bin --layout compact --to hnswlib");
    refused("want at most the 5 vectors", "index truth --vectors @/few.fbin --queries @/q.fbin --out @/x.ibin -k 6");
    refused("ids go to .ibin", "index truth --vectors @/few.fbin --queries @/q.fbin --out @/x.fbin -k 5");
    snprintf(path, sizeof(path), "%s/x.hnsw", dir);
    assert_int_not_equal(access(path, F_OK), 0); // no refusal left a file
    struct run r = duet(2, "index bild");
    assert_non_null(strstr(r.err, "did you mean build"));
    run_fini(&r);
    r = duet(2, "index build");
    assert_non_null(strstr(r.err, "--vectors and --out"));
    run_fini(&r);
    r = duet(2, "index search --index a --queries b -k 0");
    assert_non_null(strstr(r.err, "-k: found"));
    assert_null(strstr(r.err, "--k"));
    run_fini(&r);
    r = duet(0, "index --help");
    assert_non_null(strstr(r.out, "convert"));
    run_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_exact_search), cmocka_unit_test(indexes_are_converted_and_told_about),
        cmocka_unit_test(labels_go_in_and_come_out),         cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, setup, tmp_teardown);
}
