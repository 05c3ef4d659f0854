/* If this fails, a damaged or foreign manifest is believed, or bundles written by one version are refused by the next.
 */
#include "tests/core/support.h"

#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/manifest.h"

/* A manifest over small files of one byte each, the first one spanning three chunks. */
static struct manifest sample(void **state)
{
    struct err e = {0};
    struct manifest m = {.n_probes = 5, .users_revision = 3, .m = 16, .ef_construction = 200, .seed = 42};
    m.head = (struct bundle_manifest){.model = "dat",
                                      .version = 7,
                                      .kind = "dat",
                                      .encoder = "tower",
                                      .created = "2026-01-02T03:04:05Z",
                                      .fingerprint = "0123456789abcdef0123456789abcdef",
                                      .d = 32,
                                      .n_interest = 1,
                                      .n_items = 500,
                                      .n_users = 9,
                                      .probe_recall = 0.995,
                                      .probe_k = 100,
                                      .probe_ef = 128,
                                      .default_ef = 128};
    m.metrics = json_pack("{s:f}", "hr@100", 0.25);
    static char big[2 * MANIFEST_CHUNK + 5];
    for (int i = 0; i < MANIFEST_FILES; i++) {
        put_file(tmp_path(state, manifest_file_name[i]), i ? "x" : big, i ? 1 : sizeof(big));
        assert_ok(manifest_hash_file(&m, *state, (enum manifest_file_id)i, &e), &e);
    }
    return m;
}

static void comes_back_as_written(void **state)
{
    struct err e = {0};
    struct manifest m = sample(state), r = {0};
    assert_ok(manifest_write(*state, &m, &e), &e);
    assert_ok(manifest_read(*state, &r, &e), &e);
    assert_string_equal(r.head.model, "dat");
    assert_int_equal(r.head.version, 7);
    assert_string_equal(r.head.created, m.head.created);
    assert_string_equal(r.head.fingerprint, m.head.fingerprint);
    assert_true(r.head.probe_recall == 0.995);
    assert_int_equal(r.head.default_ef, 128);
    assert_int_equal(r.users_revision, 3);
    assert_int_equal(r.seed, 42);
    assert_int_equal(r.n_probes, 5);
    assert_true(json_equal(r.metrics, m.metrics));
    assert_int_equal(r.file[0].n_chunks, 3);
    assert_false(manifest_has(&r, MF_COMPACT)); // which a bundle may lack
    for (int i = 0; i < MANIFEST_FILES; i++) {
        assert_int_equal(r.file[i].bytes, m.file[i].bytes);
        assert_memory_equal(&r.file[i].hash, &m.file[i].hash, sizeof(r.file[i].hash));
        assert_memory_equal(r.file[i].chunk, m.file[i].chunk, r.file[i].n_chunks * sizeof(r.file[i].chunk[0]));
    }
    uint64_t size;
    assert_true(fio_size(tmp_path(state, MANIFEST_NAME), &size, &e));
    assert_int_equal(r.head.n_bytes, size + 6 + 2 * MANIFEST_CHUNK + 5);
    size_t n;
    char *text = get_file(tmp_path(state, MANIFEST_NAME), &n);
    char hex[33]; // the tail that docs/formats.md promises
    char *tail = strstr(text, "\"manifest_xxh3\": \"");
    hash128_hex(hash128(text, (size_t)(tail - text)), hex);
    assert_memory_equal(tail + 18, hex, 32);
    assert_string_equal(tail + 50, "\"\n}\n");
    free(text);
    manifest_fini(&m);
    manifest_fini(&r);
    manifest_fini(&r);
}

/* A bit of every byte, and every bit of the tail that the hash does not cover. */
static void every_flipped_bit_is_refused(void **state)
{
    struct err e = {0};
    struct manifest m = sample(state);
    const char *path = tmp_path(state, MANIFEST_NAME);
    assert_ok(manifest_write(*state, &m, &e), &e);
    manifest_fini(&m);
    size_t n;
    char *good = get_file(path, &n);
    for (size_t bit = 3; bit < n * 8; bit += bit < 8 * (n - 54) ? 9 : 1) {
        struct manifest r = {0};
        good[bit / 8] ^= (char)(1 << bit % 8);
        put_file(path, good, n);
        good[bit / 8] ^= (char)(1 << bit % 8);
        if (manifest_read(*state, &r, &e) || e.code != ERR_FORMAT || !strstr(e.msg, MANIFEST_NAME))
            fail_msg("bit %zu: %s", bit, e.msg);
        e = (struct err){0};
        manifest_fini(&r);
    }
    for (size_t cut = 0; cut < n; cut += 1 + cut / 3) {
        struct manifest r = {0};
        put_file(path, good, cut);
        assert_err(manifest_read(*state, &r, &e), &e, ERR_FORMAT, "cut or damaged");
        manifest_fini(&r);
    }
    free(good);
}

// ------------------------------------------------------------------------------------------- well sealed, badly said

/* Replace `from` by `to` in the manifest and make its own hash right again. */
static void edit(void **state, const char *good, const char *from, const char *to)
{
    char text[8192], hex[33];
    const char *at = strstr(good, from), *tail = strstr(good, "\"manifest_xxh3\"");
    assert_true(at && tail && at < tail);
    int n = snprintf(text, sizeof(text), "%.*s%s%.*s", (int)(at - good), good, to,
                     (int)(tail - at - (long)strlen(from)), at + strlen(from));
    hash128_hex(hash128(text, (size_t)n), hex);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "\"manifest_xxh3\": \"%s\"\n}\n", hex);
    put_file(tmp_path(state, MANIFEST_NAME), text, (size_t)n);
}

static void wrong_members_are_named(void **state)
{
    struct err e = {0};
    struct manifest m = sample(state);
    assert_ok(manifest_write(*state, &m, &e), &e);
    manifest_fini(&m);
    size_t n;
    char *good = get_file(tmp_path(state, MANIFEST_NAME), &n);
    static const struct {
        const char *from, *to, *want;
    } cases[] = {
        {"duet-bundle", "duet-basket", "\"format\": found \"duet-basket\", want \"duet-bundle\""},
        {"\"format_version\": 1", "\"format_version\": 2", "format version 2, this program reads 1"},
        {"\"model\": \"dat\"", "\"model\": \".dat\"", "no legal name"},
        {"\"model\": \"dat\"", "\"model\": \"\"", "no legal name"},
        {"\"model\": \"dat\"", "\"mood\": \"dat\"", "\"model\": found nothing, want a string"},
        {"\"version\": 7", "\"version\": 0", "no legal name and version"},
        {"\"version\": 7", "\"version\": -1", "\"version\": found -1"},
        {"\"version\": 7", "\"version\": \"7\"", "\"version\": found a string"},
        {"\"encoder\": \"tower\"", "\"encoder\": \"oracle\"",
         "\"encoder\": found \"oracle\", want tower, history_tower"},
        {"\"n_interest\": 1", "\"n_interest\": 2", "encoder tower wants 1"},
        {"\"d\": 32", "\"d\": 0", "\"d\": found 0, want 1 to 4096"},
        {"\"metric\": \"ip\"", "\"metric\": \"l2\"", "\"metric\": found \"l2\", want \"ip\""},
        {"0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdeg", "\"fingerprint\": found"},
        {"\"items\": 500", "\"items\": 0", "counts: \"items\": found 0"},
        {"\"items\": 500", "\"items\": 4000000000", "counts: \"items\": found 4000000000"},
        {"\"items\": 500", "\"items\": 99", "search: \"probe_k\": found 100, want 99"},
        {"\"m\": 16", "\"m\": 0", "index: \"m\": found 0"},
        {"\"default_ef\": 128", "\"default_ef\": 0", "search: \"default_ef\": found 0"},
        {"\"probe_recall\": 0.995", "\"probe_recall\": 1.5", "\"probe_recall\": found 1.5, want 0 to 1"},
        {"\"metrics\": {", "\"medals\": {", "\"metrics\": found nothing, want an object"},
        {"\"users.pack\"", "\"losers.pack\"", "files: users.pack: \"users.pack\": found nothing"},
        {"\"bytes\": 2097157", "\"bytes\": 3145729", "files: schema.json: \"chunks\": 96 digits, 4 chunks want 128"},
        {"\"created\": \"2026", "\"created\": \"2026-01-02T03:04:05Z2026-01-02T03:04:05Z",
         "\"created\": 56 bytes, at most 31"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct manifest r = {0};
        edit(state, good, cases[i].from, cases[i].to);
        assert_err(manifest_read(*state, &r, &e), &e, ERR_FORMAT, cases[i].want);
        manifest_fini(&r);
    }
    static const char *const fine[][2] = {{"\"metrics\"", "\"later\": [1, {}], \"metrics\""},
                                          {"\"encoder\": \"tower\"", "\"encoder\": \"stored\""},
                                          {"\"n_interest\": 1", "\"n_interest\":1"}};
    for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
        struct manifest r = {0};
        edit(state, good, fine[i][0], fine[i][1]);
        assert_ok(manifest_read(*state, &r, &e), &e);
        manifest_fini(&r);
    }
    free(good);
}

static void links_and_folders_are_no_manifest(void **state)
{
    struct err e = {0};
    struct manifest m = sample(state), r = {0};
    assert_err(manifest_read(*state, &r, &e), &e, ERR_NOT_FOUND, MANIFEST_NAME);
    assert_ok(manifest_write(*state, &m, &e), &e);
    manifest_fini(&m);
    assert_int_equal(rename(tmp_path(state, MANIFEST_NAME), tmp_path(state, "real")), 0);
    assert_int_equal(symlink("real", tmp_path(state, MANIFEST_NAME)), 0);
    assert_err(manifest_read(*state, &r, &e), &e, ERR_FORMAT, "not a regular file");
    unlink(tmp_path(state, MANIFEST_NAME));
    assert_int_equal(mkdir(tmp_path(state, MANIFEST_NAME), 0755), 0);
    assert_err(manifest_read(*state, &r, &e), &e, ERR_FORMAT, "not a regular file");
}

// ----------------------------------------------------------------------------------------------------------- place

static void names_and_versions(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "dat-2", "A.b_c", "0"}, *const bad[] = {"",    ".a",       "a/b",
                                                                                    "a b", "\xc3\xa9", ".."};
    for (size_t i = 0; i < 4; i++)
        assert_true(manifest_name_ok(good[i]));
    for (size_t i = 0; i < 6; i++)
        assert_false(manifest_name_ok(bad[i]));
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = '\0';
    assert_false(manifest_name_ok(longest));
    longest[64] = '\0';
    assert_true(manifest_name_ok(longest));
    uint64_t v;
    assert_true(manifest_version_parse("1", &v) && v == 1);
    assert_true(manifest_version_parse("9223372036854775807", &v) && v == INT64_MAX);
    static const char *const no[] = {
        "", "0", "01", "-1", "+1", "1a", " 1", "9223372036854775808", "99999999999999999999", "1.0"};
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_false(manifest_version_parse(no[i], &v));
}

static void the_place_must_be_the_named_one(void **state)
{
    struct err e = {0};
    struct manifest m = {.head = {.model = "dat", .version = 7}};
    static const char *const good[] = {"dat/7", "dat/7/", "dat/7//", "./dat/7", "dat/../dat/7"};
    assert_ok(fio_mkdirs(tmp_path(state, "dat/7"), &e) && fio_mkdirs(tmp_path(state, "dat/8"), &e) &&
                  fio_mkdirs(tmp_path(state, "x/7"), &e),
              &e);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_ok(manifest_check_place(tmp_path(state, good[i]), &m, &e), &e);
    assert_err(manifest_check_place(tmp_path(state, "dat/8"), &m, &e), &e, ERR_FORMAT,
               "says model dat version 7, but the folder is dat/8");
    assert_err(manifest_check_place(tmp_path(state, "x/7"), &m, &e), &e, ERR_FORMAT, "the folder is x/7");
    assert_err(manifest_check_place(tmp_path(state, "y/7"), &m, &e), &e, ERR_NOT_FOUND, "y/7");
    assert_int_equal(symlink("dat/7", tmp_path(state, "current")), 0); // a link to the right place
    assert_ok(manifest_check_place(tmp_path(state, "current"), &m, &e), &e);
    char here[PATH_MAX];
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(tmp_path(state, "dat/7")), 0);
    assert_ok(manifest_check_place(".", &m, &e) && manifest_check_place("../7", &m, &e), &e);
    assert_int_equal(chdir(here), 0);
}

static void only_known_entries_are_taken(void **state)
{
    struct err e = {0};
    struct manifest m = {0};
    static const char *const fine[] = {"manifest.json", "manifest.json.sig", ".nfs0001", ".DS_Store", "users.pack"},
                             *const bad[] = {"manifest.jsonx", "manifest.jso", "notes.txt", "users.pack.bak"};
    for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
        put_file(tmp_path(state, fine[i]), "", 0);
    assert_ok(manifest_check_entries(*state, &m, &e), &e);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put_file(tmp_path(state, bad[i]), "", 0);
        assert_err(manifest_check_entries(*state, &m, &e), &e, ERR_FORMAT, bad[i]);
        unlink(tmp_path(state, bad[i]));
    }
    const char *optional = manifest_file_name[MF_COMPACT]; // only where the manifest has it
    put_file(tmp_path(state, optional), "x", 1);
    assert_err(manifest_check_entries(*state, &m, &e), &e, ERR_FORMAT, optional);
    assert_ok(manifest_hash_file(&m, *state, MF_COMPACT, &e) && manifest_check_entries(*state, &m, &e), &e);
    manifest_fini(&m);
    assert_err(manifest_check_entries(tmp_path(state, "none"), &m, &e), &e, ERR_NOT_FOUND, "none");
}

static void lack_of_memory_is_an_error(void **state)
{
    struct manifest m = sample(state);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct manifest r = {0};
        alloc_fail_at(n);
        bool ok = manifest_write(*state, &m, &e) && manifest_read(*state, &r, &e);
        alloc_fail_at(0);
        manifest_fini(&r);
        assert_int_equal(e.code, ok ? ERR_OK : ERR_NOMEM);
        if (ok)
            break;
    }
    manifest_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_as_written, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(every_flipped_bit_is_refused, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(wrong_members_are_named, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(links_and_folders_are_no_manifest, tmp_setup, tmp_teardown),
        cmocka_unit_test(names_and_versions),
        cmocka_unit_test_setup_teardown(the_place_must_be_the_named_one, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(only_known_entries_are_taken, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(lack_of_memory_is_an_error, tmp_setup, tmp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
