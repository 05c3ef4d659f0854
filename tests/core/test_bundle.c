/* If this fails, a damaged, mixed or foreign bundle is served, or a good one is refused. Each test breaks one thing in
 * a copy of a small good bundle. */
#include "tests/core/support.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/bundle.h"
#include "core/manifest.h"
#include "core/probes.h"
#include "tests/core/world.h"

static char home[PATH_MAX];                  // of the good bundles
static char good[PATH_MAX], other[PATH_MAX]; // m/1 of two repositories: same shape, different weights
static struct bundle_load_params private_mode = {.mode = BUNDLE_PRIVATE}, shared_mode = {.mode = BUNDLE_SHARED};

static void publish(const char *repository, const struct world_params *p, const struct publish_params *how,
                    char dir[PATH_MAX])
{
    struct err e = {0};
    struct world *w = world_new(p);
    struct publish_params q = how ? *how : (struct publish_params){0};
    uint64_t version;
    q.repository = repository;
    q.name = "m";
    q.threads = 1;
    assert_ok(bundle_publish(&w->in, &q, &version, dir, &e), &e);
    world_free(w);
}

static int setup_home(void **state)
{
    if (tmp_setup(state) != 0)
        return -1;
    snprintf(home, sizeof(home), "%s", (char *)*state);
    publish(tmp_path(state, "a"), &(struct world_params){.kind = MODEL_DAT, .n_items = 50, .n_users = 10, .seed = 1},
            NULL, good);
    publish(tmp_path(state, "b"), &(struct world_params){.kind = MODEL_DAT, .n_items = 50, .n_users = 10, .seed = 2},
            NULL, other);
    return 0;
}

/* A fresh copy of the good bundle, in a place of its own. */
static const char *fresh(void *const *state)
{
    const char *dir = tmp_path(state, "m/1");
    assert_true(fio_remove_tree(dir, NULL));
    copy_dir(good, dir);
    return dir;
}

static const char *file_in(const char *dir, const char *name)
{
    static char out[4][PATH_MAX];
    static unsigned at;
    char *p = out[at++ % 4];
    assert_true(fio_join(p, dir, name, NULL));
    return p;
}

static void refused(const char *dir, enum err_code code, const char *want)
{
    struct err e = {0};
    for (int i = 0; i < 2; i++) {
        struct bundle *b = bundle_load(dir, i ? &shared_mode : &private_mode, &e);
        if (b || e.code != code || !strstr(e.msg, want))
            fail_msg("loading: %s \"%s\", want %s with \"%s\"", err_name(e.code), e.msg, err_name(code), want);
        e = (struct err){0};
    }
}

/* Make the manifest agree with the files again; `fix_fingerprint` also with the model's parts (and none of the packs).
 */
static void reseal(const char *dir, bool fix_fingerprint)
{
    struct err e = {0};
    struct manifest m = {0};
    assert_ok(manifest_read(dir, &m, &e), &e);
    for (int i = 0; i < MANIFEST_FILES_MAX; i++)
        if (manifest_has(&m, (enum manifest_file_id)i))
            assert_ok(manifest_hash_file(&m, dir, (enum manifest_file_id)i, &e), &e);
    if (fix_fingerprint) {
        struct pack *p = pack_open(file_in(dir, "items.pack"), "items", PACK_READ, true, &e);
        struct strtab ids;
        struct hash128 h = {0};
        assert_ok(p && pack_get_strtab(p, "ids", &ids, &e) && items_ids_hash(&ids, &h, &e), &e);
        manifest_fingerprint(&m, h, m.head.fingerprint);
        pack_close(p);
    }
    assert_ok(manifest_write(dir, &m, &e), &e);
    manifest_fini(&m);
}

// ------------------------------------------------------------------------------------------------------ good bundles

static void good_bundles_load(void **state)
{
    struct err e = {0};
    const char *dir = fresh(state);
    put_file(file_in(dir, ".nfs000"), "x", 1);
    put_file(file_in(dir, "manifest.json.sig"), "x", 1);
    for (int i = 0; i < 3; i++) {
        struct bundle *b = bundle_load(dir, i == 2 ? NULL : i ? &shared_mode : &private_mode, &e);
        assert_ok(b, &e);
        assert_int_equal(b->emb_mapped, i == 1);
        assert_int_equal(b->manifest.version, 1);
        assert_int_equal(b->probes->n, 10);
        bundle_warm(b);
        bundle_free(b);
    }
    bundle_free(NULL);
}

/* Private means private: once loaded, nothing on disk matters. */
static void private_copies_outlive_their_files(void **state)
{
    struct err e = {0};
    const char *dir = fresh(state);
    struct bundle *b = bundle_load(dir, NULL, &e);
    assert_ok(b, &e);
    for (int i = 0; i <= MF_COMPACT; i++)
        assert_int_equal(truncate(file_in(dir, manifest_file_name[i]), 0), 0);
    bundle_warm(b);
    assert_int_equal(users_find(b->users, "u3", 2), 3);
    bundle_free(b);
}

/* Published under one kernel, loaded under each: their last bits differ, the probes must not care. */
static void every_kernel_verifies(void **state)
{
    (void)state;
    static const char *const kernels[] = {"plain", "sse", "avx2", "avx512"};
    struct err e = {0};
    for (size_t from = 0; from < 4; from++) {
        char dir[PATH_MAX];
        if (!hnsw_force_kernel(kernels[from]))
            continue;
        publish(tmp_path(state, kernels[from]),
                &(struct world_params){.kind = MODEL_DAT, .n_items = 500, .seed = 3, .d = 32}, NULL, dir);
        for (size_t to = 0; to < 4; to++) {
            if (!hnsw_force_kernel(kernels[to]))
                continue;
            struct bundle *b = bundle_load(dir, NULL, &e);
            assert_ok(b, &e);
            bundle_free(b);
        }
    }
    assert_true(hnsw_force_kernel(NULL));
}

// ------------------------------------------------------------------------------------------------------ damaged files

/* A bit of each sampled byte of each file (all of the small ones): refused, and the file is named. */
static void flipped_bits_are_refused(void **state)
{
    struct err e = {0};
    const char *dir = fresh(state);
    for (int i = 0; i <= MANIFEST_FILES; i++) {
        const char *name = i < MANIFEST_FILES ? manifest_file_name[i] : MANIFEST_NAME, *path = file_in(dir, name);
        uint64_t size;
        assert_true(fio_size(path, &size, NULL));
        for (uint64_t at = 0; at < size; at += 1 + size / 300) {
            int bit = (int)(at * 7 % 8);
            flip_bit(path, at, bit);
            struct bundle *b = bundle_load(dir, at & 1 ? &shared_mode : &private_mode, &e);
            if (b || e.code != ERR_FORMAT || !strstr(e.msg, name))
                fail_msg("%s, byte %llu: %s \"%s\"", name, (unsigned long long)at, err_name(e.code), e.msg);
            e = (struct err){0};
            flip_bit(path, at, bit);
        }
    }
    struct bundle *b = bundle_load(dir, NULL, &e);
    assert_ok(b, &e);
    bundle_free(b);
}

static void cut_and_extended_files_are_refused(void **state)
{
    for (int i = 0; i <= MANIFEST_FILES; i++) {
        const char *name = i < MANIFEST_FILES ? manifest_file_name[i] : MANIFEST_NAME;
        uint64_t size;
        assert_true(fio_size(file_in(fresh(state), name), &size, NULL));
        const uint64_t sizes[] = {0, 1, size / 2, size - 1, size + 1, 2 * size};
        for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
            const char *dir = fresh(state);
            assert_int_equal(truncate(file_in(dir, name), (off_t)sizes[j]), 0);
            refused(dir, ERR_FORMAT, name);
        }
    }
}

static void missing_and_odd_entries_are_refused(void **state)
{
    for (int i = 0; i <= MANIFEST_FILES; i++) {
        const char *name = i < MANIFEST_FILES ? manifest_file_name[i] : MANIFEST_NAME, *dir = fresh(state);
        const char *path = file_in(dir, name);
        unlink(path);
        refused(dir, ERR_NOT_FOUND, name);
        assert_int_equal(symlink(file_in(good, name), path), 0); // right bytes behind a link
        refused(dir, ERR_FORMAT, name);
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        refused(dir, ERR_FORMAT, name);
        unlink(path);
        assert_int_equal(mkdir(path, 0755), 0);
        refused(dir, ERR_FORMAT, name);
    }
    const char *dir = fresh(state);
    put_file(file_in(dir, "index.hnsw.bak"), "x", 1);
    refused(dir, ERR_FORMAT, "index.hnsw.bak: no part of a bundle");
    refused(tmp_path(state, "nowhere/1"), ERR_NOT_FOUND, "nowhere/1");
}

// ------------------------------------------------------------------------------------------------------ mixed parts

static void swap_in(const char *dir, const char *name)
{
    copy_file(file_in(other, name), file_in(dir, name));
}

/* One file of another bundle of the same shape. Packs say whose they are; of the others only the hash knows. */
static void files_of_another_bundle_are_refused(void **state)
{
    for (int i = 0; i < MANIFEST_FILES; i++) {
        const char *name = manifest_file_name[i], *dir = fresh(state);
        bool pack = strstr(name, ".pack") != NULL;
        if (i == MF_SCHEMA)
            continue; // the same in both
        swap_in(dir, name);
        refused(dir, pack ? ERR_MISMATCH : ERR_FORMAT, name);
    }
}

/* The same with a manifest made to fit: now nothing but the fingerprint, and the vectors for the index, can tell. */
static void resealed_mixtures_are_refused(void **state)
{
    static const struct {
        enum manifest_file_id id;
        const char *want;
    } cases[] = {{MF_MODEL, "do not belong together"},           {MF_EMBEDDINGS, "do not belong together"},
                 {MF_INDEX, "index.hnsw: does not hold item"},   {MF_ITEMS, "items.pack: made for fingerprint"},
                 {MF_USERS, "users.pack: made for fingerprint"}, {MF_PROBES, "probes.pack: made for fingerprint"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *dir = fresh(state);
        swap_in(dir, manifest_file_name[cases[i].id]);
        reseal(dir, false);
        refused(dir, ERR_MISMATCH, cases[i].want);
    }
}

// ------------------------------------------------------------------------------------------------ both forms of the index

static struct bundle *load_compact(const char *dir, bool all_files, struct err *e)
{
    *e = (struct err){0};
    return bundle_load(dir, &(struct bundle_load_params){.layout = HNSW_COMPACT, .all_files = all_files}, e);
}

static void want_compact_refused(const char *dir, bool all_files, enum err_code code, const char *want)
{
    struct err e;
    struct bundle *b = load_compact(dir, all_files, &e);
    if (b || e.code != code || !strstr(e.msg, want))
        fail_msg("loading: %s \"%s\", want %s with \"%s\"", err_name(e.code), e.msg, err_name(code), want);
}

/* The compact form is read where the compact layout is wanted, the other one is not; without it, it is made. Answers are the same. */
static void each_layout_reads_its_own_index(void **state)
{
    struct err e = {0};
    struct bundle *b[2];
    const char *dir = fresh(state);
    flip_bit(file_in(dir, "index.hnsw"), 3000, 1); // not read
    assert_ok(b[0] = load_compact(dir, false, &e), &e);
    want_compact_refused(dir, true, ERR_FORMAT, "index.hnsw: checksum mismatch");
    flip_bit(file_in(dir, "index.hnsw"), 3000, 1);
    flip_bit(file_in(dir, "compact.hnsw"), 700, 1);
    want_compact_refused(dir, false, ERR_FORMAT, "compact.hnsw: checksum mismatch");
    struct bundle *plain = bundle_load(dir, &private_mode, &e);
    assert_ok(plain, &e);
    bundle_free(plain);
    assert_null(bundle_load(dir, &(struct bundle_load_params){.all_files = true}, &e));
    assert_non_null(strstr(e.msg, "compact.hnsw: checksum mismatch"));
    unlink(file_in(dir, "compact.hnsw"));
    refused(dir, ERR_NOT_FOUND, "compact.hnsw");
    want_compact_refused(dir, false, ERR_NOT_FOUND, "compact.hnsw");

    char lean[PATH_MAX];
    publish(tmp_path(state, "lean"), &(struct world_params){.kind = MODEL_DAT, .n_items = 50, .n_users = 10, .seed = 1},
            &(struct publish_params){.no_compact = true}, lean);
    assert_false(fio_exists(file_in(lean, "compact.hnsw")));
    assert_ok(b[1] = load_compact(lean, true, &e), &e);
    struct hnsw_ws *ws = hnsw_ws_new();
    for (uint32_t i = 0; i < b[0]->probes->n; i++) {
        struct hnsw_hit hit[2][10];
        const struct hnsw_query q = {.k = 10, .ef = 20, .plan = HNSW_PLAN_WALK};
        for (int j = 0; j < 2; j++) {
            assert_int_equal(b[j]->layout, HNSW_COMPACT);
            assert_int_equal(hnsw_search(b[j]->hnsw, b[0]->probes->p + i * b[0]->probes->d, &q, ws, hit[j], NULL), 10);
        }
        for (int j = 0; j < 10; j++) {
            assert_int_equal(hit[0][j].label, hit[1][j].label);
            assert_true(hit[0][j].score == hit[1][j].score);
        }
    }
    hnsw_ws_free(ws);
    bundle_free(b[0]);
    bundle_free(b[1]);
}

/* Well sealed, but of other vectors, another catalogue, in another layout. */
static void a_foreign_compact_index_is_refused(void **state)
{
    struct err e = {0};
    struct hnsw_err he = {0};
    const char *dir = fresh(state);
    swap_in(dir, "compact.hnsw");
    reseal(dir, false);
    want_compact_refused(dir, false, ERR_MISMATCH, "compact.hnsw: does not hold item");
    copy_file(file_in(dir, "index.hnsw"), file_in(dir, "compact.hnsw"));
    reseal(dir, false);
    want_compact_refused(dir, false, ERR_FORMAT, "compact.hnsw: an index in the plain layout, want the compact one");
    copy_file(file_in(good, "compact.hnsw"), file_in(dir, "index.hnsw"));
    reseal(dir, false);
    refused(dir, ERR_FORMAT, "index.hnsw: an index in the compact layout, want the plain one");

    dir = fresh(state); // labels that items have not
    struct bundle *b = bundle_load(dir, &private_mode, &e);
    assert_ok(b, &e);
    struct hnsw *h = hnsw_new(&(struct hnsw_params){.dim = b->manifest.d, .capacity = 50}, &he);
    for (uint64_t i = 0; i < 50; i++)
        assert_true(hnsw_add(h, b->emb + i * b->manifest.d, i == 7 ? 50 : i, &he));
    bundle_free(b);
    assert_true(hnsw_optimize(h, HNSW_COMPACT, 1, &he) && hnsw_save(h, file_in(dir, "compact.hnsw"), &he));
    hnsw_free(h);
    reseal(dir, false);
    want_compact_refused(dir, false, ERR_MISMATCH, "compact.hnsw: holds item 50, items.safetensors has 50");
}

// ---------------------------------------------------------------------------------------------------------- other places

static void an_old_manifest_does_not_cover_new_data(void **state)
{
    const char *dir = fresh(state);
    swap_in(dir, MANIFEST_NAME);
    refused(dir, ERR_MISMATCH, "items.pack: made for fingerprint");
}

static void a_bundle_in_the_wrong_place_is_refused(void **state)
{
    struct err e = {0};
    const char *wrong[] = {tmp_path(state, "m/2"), tmp_path(state, "n/1")};
    for (int i = 0; i < 2; i++) {
        copy_dir(good, wrong[i]);
        refused(wrong[i], ERR_FORMAT, "folders of bundles keep their names");
    }
    struct bundle *b = bundle_load_unplaced(wrong[0], NULL, &e);
    assert_ok(b, &e);
    bundle_free(b);
}

// -------------------------------------------------------------------------------------- whole files, false contents

static void change(const char *dir, void (*how)(struct manifest *))
{
    struct err e = {0};
    struct manifest m = {0};
    assert_ok(manifest_read(dir, &m, &e), &e);
    how(&m);
    assert_ok(manifest_write(dir, &m, &e), &e);
    manifest_fini(&m);
}

static void more_items(struct manifest *m)
{
    m->head.n_items++;
    m->head.probe_k = 51;
}

static void more_users(struct manifest *m)
{
    m->head.n_users++;
}

static void more_probes(struct manifest *m)
{
    m->n_probes++;
}

static void wider(struct manifest *m)
{
    m->head.d++;
}

static void two_tower(struct manifest *m)
{
    strcpy(m->head.kind, "two_tower");
}

static void stored(struct manifest *m)
{
    strcpy(m->head.encoder, "history_tower");
}

static void manifests_that_say_other_things_are_refused(void **state)
{
    static const struct {
        void (*how)(struct manifest *);
        enum err_code code;
        const char *want;
    } cases[] = {{more_items, ERR_MISMATCH, "items.pack: 50 rows, manifest.json says 51"},
                 {more_users, ERR_MISMATCH, "users.pack: 10 rows, manifest.json says 11"},
                 {more_probes, ERR_MISMATCH, "probes.pack: 10 rows, manifest.json says 11"},
                 {wider, ERR_MISMATCH, "index.hnsw: 16 dimensions"},
                 {two_tower, ERR_MISMATCH, "kind dat, manifest.json says two_tower"},
                 {stored, ERR_FORMAT, "encoder \"history_tower\", this version serves \"tower\" and \"stored\""}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *dir = fresh(state);
        change(dir, cases[i].how);
        refused(dir, cases[i].code, cases[i].want);
    }
}

/* Overwrite bytes of a pack's section and make the checksums of section, table and header right again. */
static void patch(const char *path, const char *section, size_t at, const void *bytes, size_t n_bytes)
{
    enum { ENTRY = 88, OFFSET = 64, BYTES = 72, HASH = 80 };
    size_t n;
    uint64_t table, offset, size, hash;
    char *data = get_file(path, &n), *entry;
    memcpy(&table, data + 16, 8);
    for (entry = data + table; strcmp(entry, section) != 0; entry += ENTRY)
        assert_true(entry < data + n);
    memcpy(&offset, entry + OFFSET, 8);
    memcpy(&size, entry + BYTES, 8);
    assert_true(at + n_bytes <= size);
    memcpy(data + offset + at, bytes, n_bytes);
    hash = hash64(data + offset, size);
    memcpy(entry + HASH, &hash, 8);
    hash = hash64(data + table, n - table);
    memcpy(data + 24, &hash, 8);
    hash = hash64(data, 56);
    memcpy(data + 56, &hash, 8);
    put_file(path, data, n);
    free(data);
}

static void packs_with_false_contents_are_refused(void **state)
{
    static const uint32_t far = 1000;
    static const float inf = INFINITY;
    static const struct {
        const char *file, *section;
        size_t at;
        const void *bytes;
        const char *want;
    } cases[] = {{"items.pack", "x", 4, &far, "items.pack: "},
                 {"items.pack", "category_of", 8, &far, "category_of: item 2 has category 1000, there are 4"},
                 {"items.pack", "attr.0.bytes", 3, "\xff\xff\xff", "items.pack: attr.0: row"},
                 {"users.pack", "x", 0, &far, "users.pack: "},
                 {"users.pack", "aug", 12, &inf, "users.pack: aug: value 3 is not finite"},
                 {"users.pack", "seen", 0, &far, "seen: user 0 has item 1000, there are 50"},
                 {"probes.pack", "x", 0, &far, "probes.pack: "},
                 {"probes.pack", "aug", 0, &inf, "probes.pack: aug: value 0 is not finite"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *dir = fresh(state);
        patch(file_in(dir, cases[i].file), cases[i].section, cases[i].at, cases[i].bytes, 4);
        reseal(dir, false);
        refused(dir, ERR_FORMAT, cases[i].want);
    }
}

/* Everything made to fit, fingerprints too: only the value itself is wrong. */
static void embeddings_that_are_no_numbers_are_refused(void **state)
{
    struct err e = {0};
    struct manifest m = {0};
    static const char *const packs[] = {"items.pack", "users.pack", "probes.pack"};
    const char *dir = fresh(state), *path = file_in(dir, "items.safetensors");
    const float nan = NAN;
    size_t n;
    char *data = get_file(path, &n);
    memcpy(data + n - sizeof(nan), &nan, sizeof(nan));
    put_file(path, data, n);
    free(data);
    reseal(dir, true);
    refused(dir, ERR_MISMATCH, "items.pack: made for fingerprint");
    assert_ok(manifest_read(dir, &m, &e), &e);
    for (int i = 0; i < 3; i++)
        patch(file_in(dir, packs[i]), "fingerprint", 0, m.head.fingerprint, 32);
    manifest_fini(&m);
    reseal(dir, false);
    refused(dir, ERR_FORMAT, "items.safetensors");
}

static void set_probes(const char *dir, void (*how)(struct probes *, uint32_t *top, float *p, float *score))
{
    struct err e = {0};
    struct bundle *b = bundle_load(dir, &(struct bundle_load_params){.skip_probes = true}, &e);
    assert_ok(b, &e);
    struct probes p = *b->probes;
    uint32_t *top = malloc(p.n * p.k * sizeof(*top));
    float *vec = malloc(p.n * p.d * sizeof(*vec)), *score = malloc(p.n * p.k * sizeof(*score));
    memcpy(top, p.top, p.n * p.k * sizeof(*top));
    memcpy(vec, p.p, p.n * p.d * sizeof(*vec));
    memcpy(score, p.score, p.n * p.k * sizeof(*score));
    p.top = top;
    p.p = vec;
    p.score = score;
    how(&p, top, vec, score);
    assert_ok(probes_save(file_in(dir, "probes.pack"), &p, b->model->schema->user.n_slots, b->manifest.fingerprint, &e),
              &e);
    bundle_free(b);
    free(top);
    free(vec);
    free(score);
    reseal(dir, false);
}

static void other_vector(struct probes *p, uint32_t *top, float *vec, float *score)
{
    (void)top, (void)score;
    vec[3 * p->d + 5] += 0.01f;
}

static void close_vector(struct probes *p, uint32_t *top, float *vec, float *score)
{
    (void)top, (void)score;
    vec[3 * p->d + 5] += 0.00005f;
}

static void nan_vector(struct probes *p, uint32_t *top, float *vec, float *score)
{
    (void)top, (void)score;
    vec[p->d] = NAN;
}

static void far_item(struct probes *p, uint32_t *top, float *vec, float *score)
{
    (void)vec, (void)score;
    top[p->k] = 50;
}

static void rising(struct probes *p, uint32_t *top, float *vec, float *score)
{
    (void)vec, (void)top;
    score[p->k - 1] = 2;
}

static void narrow(struct probes *p, uint32_t *top, float *vec, float *score)
{
    (void)vec, (void)top, (void)score;
    p->k--;
}

static void probes_must_be_met(void **state)
{
    struct err e = {0};
    static const struct {
        void (*how)(struct probes *, uint32_t *, float *, float *);
        enum err_code code;
        const char *want;
    } cases[] = {{other_vector, ERR_MISMATCH, "probes.pack: probe 3: component 5 of p_u"},
                 {nan_vector, ERR_FORMAT, "p: value 16 is not finite"},
                 {far_item, ERR_FORMAT, "top: probe 1 has item 50, there are 50"},
                 {rising, ERR_FORMAT, "values of probe 0 are not descending"},
                 {narrow, ERR_FORMAT, "section top is u32[49], want u32[50]"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *dir = fresh(state);
        set_probes(dir, cases[i].how);
        refused(dir, cases[i].code, cases[i].want);
    }
    const char *dir = fresh(state);
    set_probes(dir, close_vector);
    struct bundle *b = bundle_load(dir, NULL, &e);
    assert_ok(b, &e);
    bundle_free(b);
}

static void promise_all(struct manifest *m)
{
    m->head.probe_recall = 1;
}

/* A thin index does not find what the manifest says it does. */
static void recall_must_be_met(void **state)
{
    struct err e = {0};
    char dir[PATH_MAX];
    const struct publish_params thin = {.m = 2, .ef_construction = 2, .default_ef = 100};
    publish(tmp_path(state, "thin"),
            &(struct world_params){.kind = MODEL_DAT, .n_items = 4000, .n_users = 60, .seed = 5, .no_rare = true},
            &thin, dir);
    struct bundle *b = bundle_load(dir, NULL, &e);
    assert_ok(b, &e);
    if (b->manifest.probe_recall > 0.98)
        fail_msg("recall %.4f: the index is not thin enough for this test", b->manifest.probe_recall);
    bundle_free(b);
    change(dir, promise_all);
    refused(dir, ERR_FORMAT, "index.hnsw: recall@100 of the probes at ef 100 is");
    b = bundle_load(dir, &(struct bundle_load_params){.skip_probes = true}, &e);
    assert_ok(b, &e);
    bundle_free(b);
}

// ------------------------------------------------------------------------------------------------------------ memory

static void no_allocation_may_fail_silently(const struct bundle_load_params *p)
{
    for (size_t n = 1;; n++) {
        struct err e = {0};
        alloc_fail_at(n);
        struct bundle *b = bundle_load(good, p, &e);
        bool failed = alloc_failed();
        alloc_fail_at(0);
        bundle_free(b);
        if (!b && e.code != ERR_NOMEM)
            fail_msg("allocation %zu: %s \"%s\"", n, err_name(e.code), e.msg);
        if (b && !failed)
            break;
    }
}

static void lack_of_memory_is_an_error(void **state)
{
    (void)state;
    no_allocation_may_fail_silently(&private_mode);
    no_allocation_may_fail_silently(&shared_mode);
    no_allocation_may_fail_silently(&(struct bundle_load_params){.layout = HNSW_FAST, .threads = 2});
    no_allocation_may_fail_silently(&(struct bundle_load_params){.layout = HNSW_COMPACT});
}

struct seen {
    char phases[200];
    uint64_t done, total;
};

static void see(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct seen *s = ctx;
    size_t n = strlen(s->phases);
    snprintf(s->phases + n, sizeof(s->phases) - n, "%s ", phase);
    assert_true(done >= s->done && done <= total);
    s->done = done;
    s->total = total;
}

static void loading_tells_how_far_it_is(void **state)
{
    (void)state;
    struct seen s = {0};
    struct err e = {0};
    struct bundle *b = bundle_load(good, &(struct bundle_load_params){.progress = see, .progress_ctx = &s}, &e);
    assert_ok(b, &e);
    assert_string_equal(s.phases, "items index model embeddings users probes layout verify ");
    assert_int_equal(s.total, b->manifest.n_bytes);
    assert_true(s.done > s.total / 2);
    bundle_free(b);
}

static void versions_and_estimates(void **state)
{
    struct err e = {0};
    size_t n = 9;
    uint64_t bytes, *v = bundle_versions(tmp_path(state, "none"), &n, &e);
    assert_ok(v, &e);
    assert_int_equal(n, 0);
    free(v);
    static const char *const dirs[] = {"10", "9", "100", "01", "x", ".tmp-1", "0"};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
        assert_true(fio_mkdirs(tmp_path(state, dirs[i]), NULL));
    put_file(tmp_path(state, "7"), "", 0);
    v = bundle_versions(*state, &n, &e);
    assert_ok(v, &e);
    assert_int_equal(n, 3);
    assert_true(v[0] == 9 && v[1] == 10 && v[2] == 100);
    free(v);
    assert_err(bundle_versions(tmp_path(state, "7"), &n, &e), &e, ERR_IO, "Not a directory");
    assert_err(bundle_estimate(tmp_path(state, "9"), HNSW_PLAIN, &bytes, &e), &e, ERR_NOT_FOUND, MANIFEST_NAME);
    assert_true(bundle_estimate(good, HNSW_PLAIN, &bytes, &e));
}

/* The layout asked for is there, takes no more than the estimate says, and finds what the plain one finds. */
static void layouts_load_and_answer(void **state)
{
    struct err e = {0};
    struct hnsw_err he = {0};
    uint64_t bytes;
    size_t memory[BUNDLE_LAYOUTS];
    struct bundle *b[BUNDLE_LAYOUTS];
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[BUNDLE_LAYOUTS][20];
    (void)state;
    for (int l = 0; l < BUNDLE_LAYOUTS; l++) {
        const struct bundle_load_params p = {.layout = (enum hnsw_layout)l};
        assert_ok((b[l] = bundle_load(good, &p, &e)), &e);
        assert_int_equal(b[l]->layout, l);
        assert_ok(bundle_estimate(good, p.layout, &bytes, &e), &e);
        memory[l] = bundle_memory(b[l]);
        assert_true(memory[l] < bytes);
        assert_null(b[l]->model->item.block); // no use for it, and large
    }
    assert_true(memory[HNSW_FAST] - memory[HNSW_PLAIN] > (size_t)2 * 16 * (4 + b[0]->manifest.d) * b[0]->items->n);
    assert_true(memory[HNSW_COMPACT] < memory[HNSW_PLAIN]);
    for (uint32_t i = 0; i < b[0]->probes->n; i++)
        for (int l = 0; l < BUNDLE_LAYOUTS; l++) {
            assert_int_equal(hnsw_search(b[l]->hnsw, b[l]->probes->p + (size_t)i * b[l]->manifest.d,
                                         &(struct hnsw_query){.plan = HNSW_PLAN_WALK, .k = 20, .ef = 400}, ws, hit[l], &he),
                             20);
            assert_true(hit[0][19].score - hit[l][19].score < 1e-4f); // ef is above the number of items: exact
        }
    hnsw_ws_free(ws);
    for (int l = 0; l < BUNDLE_LAYOUTS; l++)
        bundle_free(b[l]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        T(good_bundles_load),
        T(private_copies_outlive_their_files),
        T(every_kernel_verifies),
        T(flipped_bits_are_refused),
        T(cut_and_extended_files_are_refused),
        T(missing_and_odd_entries_are_refused),
        T(files_of_another_bundle_are_refused),
        T(resealed_mixtures_are_refused),
        T(each_layout_reads_its_own_index),
        T(a_foreign_compact_index_is_refused),
        T(an_old_manifest_does_not_cover_new_data),
        T(a_bundle_in_the_wrong_place_is_refused),
        T(manifests_that_say_other_things_are_refused),
        T(packs_with_false_contents_are_refused),
        T(embeddings_that_are_no_numbers_are_refused),
        T(probes_must_be_met),
        T(recall_must_be_met),
        T(lack_of_memory_is_an_error),
        T(loading_tells_how_far_it_is),
        T(versions_and_estimates),
        T(layouts_load_and_answer),
    };
    return cmocka_run_group_tests(tests, setup_home, tmp_teardown);
}
