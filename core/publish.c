/* A publication writes everything into a staging folder, hashes what it wrote by reading it back, writes the manifest
 * last, loads the folder as a server would, and renames it. Nothing under the version's name is ever incomplete. */
#include "core/publish_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/safetensors.h"
#include "core/warmup.h"

#define BATCH 256
#define M_DEFAULT 16 // bench/results.md: hnswlib's usual setting
#define EF_CONSTRUCTION_DEFAULT 200

void publish_report(const struct job *j, const char *stage, double share)
{
    if (j->p->progress)
        j->p->progress(j->p->progress_user, stage, share);
}

bool publish_path(const struct job *j, enum manifest_file_id id, char out[PATH_MAX])
{
    return fio_join(out, j->staging.dir, manifest_file_name[id], j->err);
}

bool publish_hnsw_failed(const struct hnsw_err *e, struct err *err)
{
    return err_set(err, e->code == HNSW_NOMEM ? ERR_NOMEM : e->code == HNSW_IO ? ERR_IO : ERR_ARG, "index: %s", e->msg);
}

// ------------------------------------------------------------------------------------------------------- the parts

static bool write_model(struct job *j)
{
    char schema[PATH_MAX], model[PATH_MAX];
    return publish_path(j, MF_SCHEMA, schema) && schema_save(j->in->model->schema, schema, j->err) &&
           publish_path(j, MF_MODEL, model) && model_save(j->in->model, model, false, j->err) &&
           manifest_hash_file(&j->m, j->staging.dir, MF_SCHEMA, j->err) &&
           manifest_hash_file(&j->m, j->staging.dir, MF_MODEL, j->err);
}

/* Of a model without towers. */
static bool copy_items_vectors(struct job *j)
{
    const struct stored *s = j->in->model->stored;
    size_t n = (size_t)s->n_items * s->d;
    if (!(j->item_emb = j->emb = mem_array(n, sizeof(*j->emb), j->err)))
        return false;
    memcpy(j->emb, s->item, n * sizeof(*j->emb));
    publish_report(j, "embedding items", 1);
    return users_check_finite(j->emb, n, "item vectors", j->err);
}

static bool embed_items(struct job *j)
{
    const struct model *m = j->in->model;
    size_t d = m->item.d, n = j->in->n_items, n_slots = m->schema->item.n_slots;
    if (m->stored)
        return copy_items_vectors(j);
    struct tower_ws *ws = tower_ws_new(&m->item, BATCH, j->err);
    j->item_emb = j->emb = mem_array(n * d, sizeof(*j->emb), j->err);
    bool ok = ws && j->emb;
    for (size_t i = 0; ok && i < n; i += BATCH) {
        size_t batch = n - i < BATCH ? n - i : BATCH;
        tower_forward_own(&m->item, &m->schema->item, j->in->item_x ? j->in->item_x + i * n_slots : NULL, batch, ws,
                          j->emb + i * d);
        publish_report(j, "embedding items", (double)(i + batch) / (double)n);
    }
    tower_ws_free(ws);
    return ok && (users_check_finite(j->emb, n * d, "item embeddings", j->err) ||
                  err_prefix(j->err, "the item tower gives no numbers"));
}

static bool write_embeddings(struct job *j)
{
    char path[PATH_MAX];
    const struct st_tensor t = {
        .name = "embeddings", .dtype = ST_F32, .n_dims = 2, .dim = {j->in->n_items, j->in->model->item.d}};
    const struct st_layout layout = {.tensor = &t, .n_tensors = 1};
    if (!publish_path(j, MF_EMBEDDINGS, path))
        return false;
    struct safetensors_writer *w = safetensors_writer_new(path, &layout, j->err);
    bool ok = w && safetensors_put(w, j->emb, (size_t)t.dim[0] * t.dim[1] * sizeof(*j->emb), j->err) &&
              safetensors_finish(w, j->err);
    safetensors_writer_free(w);
    return ok && manifest_hash_file(&j->m, j->staging.dir, MF_EMBEDDINGS, j->err);
}

static void index_progress(void *user, size_t done, size_t n)
{
    publish_report(user, "building the index", (double)done / (double)n);
}

static bool build_index(struct job *j)
{
    char path[PATH_MAX];
    struct hnsw_err e = {0};
    const struct hnsw_params params = {.metric = HNSW_IP,
                                       .dim = j->in->model->item.d,
                                       .capacity = j->in->n_items,
                                       .m = j->m.m,
                                       .ef_construction = j->m.ef_construction,
                                       .seed = j->m.seed};
    unsigned threads = j->p->threads ? j->p->threads : 1;
    j->hnsw = j->own_hnsw = hnsw_new(&params, &e);
    if (!j->own_hnsw || !hnsw_add_batch(j->own_hnsw, j->emb, NULL, j->in->n_items, threads, index_progress, j, &e))
        return publish_hnsw_failed(&e, j->err);
    return publish_path(j, MF_INDEX, path) && (hnsw_save(j->own_hnsw, path, &e) || publish_hnsw_failed(&e, j->err));
}

/* Once more in the layout that daemons search, which `h` has, so that no load has to make it. */
static bool write_compact(struct job *j, const struct hnsw *h)
{
    char path[PATH_MAX];
    struct hnsw_err e = {0};
    if (j->p->no_compact)
        return true;
    return publish_path(j, MF_COMPACT, path) && (hnsw_save(h, path, &e) || publish_hnsw_failed(&e, j->err)) &&
           manifest_hash_file(&j->m, j->staging.dir, MF_COMPACT, j->err);
}

static bool make_fingerprint(struct job *j, char out[33])
{
    struct hash128 ids;
    if (!items_ids_hash(&j->in->item_id, &ids, j->err))
        return false;
    manifest_fingerprint(&j->m, ids, out);
    return true;
}

static bool write_items(struct job *j)
{
    char path[PATH_MAX];
    const struct publish_input *in = j->in;
    const struct items_columns c = {.n = in->n_items,
                                    .n_slots = in->model->schema->item.n_slots,
                                    .n_attrs = in->n_attrs,
                                    .ids = in->item_id,
                                    .category = in->category,
                                    .attr = in->attr,
                                    .x = in->item_x,
                                    .category_of = in->item_category,
                                    .popularity = in->item_count};
    return publish_path(j, MF_ITEMS, path) && items_save(path, &c, j->m.head.fingerprint, j->err);
}

static bool write_users(struct job *j)
{
    char path[PATH_MAX];
    const struct publish_input *in = j->in;
    const struct schema_side *side = &in->model->schema->user;
    const struct stored *s = in->model->stored;
    uint32_t d_aug = in->model->user.shape.d_aug;
    if (!(j->aug = mem_array((size_t)in->n_users * d_aug, sizeof(*j->aug), j->err)))
        return false;
    for (size_t u = 0; d_aug && u < in->n_users; u++)
        memcpy(j->aug + u * d_aug, tower_aug_of(&in->model->user, side, in->user_x + u * side->n_slots),
               d_aug * sizeof(*j->aug));
    const struct users_columns c = {.n = in->n_users,
                                    .n_slots = side->n_slots,
                                    .d_aug = d_aug,
                                    .ids = in->user_id,
                                    .x = in->user_x,
                                    .aug = j->aug,
                                    .vec = s ? s->user : NULL,
                                    .vec_cols = s ? s->n_interest * s->d : 0,
                                    .seen_off = in->seen_off,
                                    .seen = in->seen,
                                    .n_items = in->n_items};
    return publish_path(j, MF_USERS, path) && users_save(path, &c, j->m.head.fingerprint, j->err);
}

/* From the file of the parameters, or the version whose items are kept, where that has any. */
static bool write_warmup(struct job *j, const char *base_dir)
{
    char from[PATH_MAX], to[PATH_MAX];
    size_t n = 0;
    if (!j->p->warmup && !base_dir)
        return true;
    if (!publish_path(j, MF_WARMUP, to) || (!j->p->warmup && !fio_join(from, base_dir, manifest_file_name[MF_WARMUP], j->err)))
        return false;
    const char *path = j->p->warmup ? j->p->warmup : from;
    char *text = fio_read_all(path, WARMUP_BYTES_MAX, &n, j->err);
    bool ok = text && (warmup_check(text, n, j->err) || err_prefix(j->err, "%s", path)) && fio_write_atomic(to, text, n, j->err);
    free(text);
    return ok && manifest_hash_file(&j->m, j->staging.dir, MF_WARMUP, j->err);
}

// ------------------------------------------------------------------------------------------------------- the whole

static bool check_stored(const struct job *j)
{
    const struct stored *s = j->in->model->stored;
    if (!s->user || !s->item)
        return err_set(j->err, ERR_ARG,
                       "the model comes without its vectors (a bundle's file?); publishing wants a checkpoint");
    return (s->n_users == j->in->n_users && s->n_items == j->in->n_items) ||
           err_set(j->err, ERR_ARG, "the model has vectors of %u users and %u items, the data %u and %u", s->n_users,
                   s->n_items, j->in->n_users, j->in->n_items);
}

static bool check_input(const struct job *j)
{
    const struct publish_input *in = j->in;
    const struct model *m = in->model;
    const struct schema_side *u = &m->schema->user, *i = &m->schema->item;
    if (!manifest_name_ok(j->p->name))
        return err_set(j->err, ERR_ARG, "model name \"%.80s\": want 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front",
                       j->p->name);
    if (j->p->version > INT64_MAX || j->p->seed > INT64_MAX)
        return err_set(j->err, ERR_ARG, "version and seed: want less than 2^63");
    if (in->n_items == 0)
        return err_set(j->err, ERR_ARG, "no items: there is nothing to retrieve");
    if (in->item_id.n != in->n_items || in->user_id.n != in->n_users)
        return err_set(j->err, ERR_ARG, "%u item ids for %u items, %u user ids for %u users", in->item_id.n,
                       in->n_items, in->user_id.n, in->n_users);
    if ((m->user.shape.d_aug && u->id_field >= 0 && !m->user.aug) ||
        (m->item.shape.d_aug && i->id_field >= 0 && !m->item.aug))
        return err_set(j->err, ERR_ARG,
                       "the model comes without its a_u and a_v (a bundle's file?); publishing wants a checkpoint");
    if (m->stored && !check_stored(j))
        return false;
    return (u->n_slots == 0 || schema_check_x(u, in->user_x, in->n_users, j->err)) &&
           (i->n_slots == 0 || schema_check_x(i, in->item_x, in->n_items, j->err));
}

static void stamp(struct manifest *m)
{
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(m->head.created, sizeof(m->head.created), "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void fill_manifest(struct job *j)
{
    struct manifest *m = &j->m;
    struct bundle_manifest *h = &m->head;
    const struct model *model = j->in->model;
    snprintf(h->model, sizeof(h->model), "%s", j->p->name);
    snprintf(h->kind, sizeof(h->kind), "%s", model_kind_name(model->kind));
    snprintf(h->encoder, sizeof(h->encoder), model->stored ? "stored" : "tower");
    h->d = model->user.d;
    h->n_interest = model->stored ? model->stored->n_interest : 1;
    h->n_items = j->in->n_items;
    h->n_users = j->in->n_users;
    h->probe_k = j->in->n_items < 100 ? j->in->n_items : 100;
    m->users_revision = 1;
    m->m = j->p->m ? j->p->m : M_DEFAULT;
    m->ef_construction = j->p->ef_construction ? j->p->ef_construction : EF_CONSTRUCTION_DEFAULT;
    m->seed = j->p->seed;
    m->metrics = json_incref(j->in->metrics);
    stamp(m);
}

/* The version to publish as: the one asked for, or the newest + 1. */
static bool pick_version(const struct job *j, uint64_t *version)
{
    size_t n;
    uint64_t *all = bundle_versions(j->staging.parent, &n, j->err);
    if (!all)
        return false;
    *version = j->p->version ? j->p->version : n ? all[n - 1] + 1 : 1;
    bool taken = false;
    for (size_t i = 0; i < n; i++)
        taken |= all[i] == *version;
    free(all);
    if (*version > INT64_MAX)
        return err_set(j->err, ERR_LIMIT, "%s: no version after 2^63 - 1", j->staging.parent);
    return !taken || err_set(j->err, ERR_STATE, "%s/%llu exists already; published versions are never overwritten",
                             j->staging.parent, (unsigned long long)*version);
}

static bool self_check(struct job *j)
{
    publish_report(j, "checking", 0);
    for (int compact = 0; compact <= manifest_has(&j->m, MF_COMPACT); compact++) {
        const struct bundle_load_params how = {.layout = compact ? HNSW_COMPACT : HNSW_PLAIN, .skip_probes = compact};
        struct bundle *b = bundle_load_unplaced(j->staging.dir, &how, j->err);
        if (!b)
            return err_prefix(j->err, "self-check before publishing");
        bundle_free(b);
    }
    publish_report(j, "checking", 1);
    return true;
}

/* Hashes, manifest, self-check, rename. Somebody else may take the version meanwhile: then the next one is ours. */
static bool finish(struct job *j, uint64_t *version, char *dir)
{
    for (int i = 0; i < MANIFEST_FILES; i++)
        if (!manifest_hash_file(&j->m, j->staging.dir, (enum manifest_file_id)i, j->err))
            return false;
    bool checked = false;
    for (;;) {
        struct err e = {0};
        if (!pick_version(j, version))
            return false;
        j->m.head.version = *version;
        if (!manifest_write(j->staging.dir, &j->m, j->err) || (!checked && !self_check(j)))
            return false;
        checked = true;
        if (staging_commit(&j->staging, *version, &e))
            break;
        if (e.code != ERR_STATE || j->p->version)
            return err_set(j->err, e.code, "%s", e.msg);
    }
    char name[24];
    snprintf(name, sizeof(name), "%llu", (unsigned long long)*version);
    return !dir || fio_join(dir, j->staging.parent, name, j->err);
}

static bool begin(struct job *j, uint64_t *version)
{
    char parent[PATH_MAX];
    if (!check_input(j) || !fio_join(parent, j->p->repository, j->p->name, j->err) ||
        !staging_open(&j->staging, parent, j->err))
        return false;
    return fio_sync_dir(j->p->repository, j->err) && pick_version(j, version);
}

static void end(struct job *j)
{
    staging_close(&j->staging);
    free(j->emb);
    free(j->aug);
    free(j->probe_x);
    free(j->probe_row);
    free(j->probe_top);
    free(j->probe_aug);
    free(j->probe_p);
    free(j->probe_score);
    free(j->query);
    hnsw_free(j->own_hnsw);
    manifest_fini(&j->m);
}

bool bundle_publish(const struct publish_input *in, const struct publish_params *p, uint64_t *version, char *dir,
                    struct err *err)
{
    struct err own = {0};
    struct job j = {.in = in, .p = p, .fixed_ef = p->default_ef, .staging.fd = -1, .err = err ? err : &own};
    fill_manifest(&j);
    bool ok = begin(&j, version) && write_warmup(&j, NULL) && write_model(&j) && embed_items(&j) && write_embeddings(&j) &&
              make_fingerprint(&j, j.m.head.fingerprint) && build_index(&j) && write_items(&j) && write_users(&j) &&
              publish_probes(&j) && publish_measure(&j, j.own_hnsw, PUBLISH_TARGET_RECALL) && write_compact(&j, j.own_hnsw) &&
              finish(&j, version, dir);
    end(&j);
    return ok || err_prefix(j.err, "publishing %s", p->name);
}

// ----------------------------------------------------------------------------------------------------- users alone

static bool copy_file(const char *from, const char *to, struct err *err)
{
    size_t n;
    void *p = fio_map(from, &n, err);
    if (!p)
        return false;
    int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok = fd >= 0 || err_errno(err, "%s", to);
    ok = ok && fio_write_full(fd, p, n, err) && (fsync(fd) == 0 || err_errno(err, "fsync"));
    if (fd >= 0)
        close(fd);
    fio_unmap(p, n);
    return ok || err_prefix(err, "%s", to);
}

static bool copy_items(struct job *j, const char *base_dir)
{
    static const enum manifest_file_id ids[] = {MF_ITEMS, MF_EMBEDDINGS, MF_INDEX};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        char from[PATH_MAX], to[PATH_MAX];
        if (!fio_join(from, base_dir, manifest_file_name[ids[i]], j->err) || !publish_path(j, ids[i], to) ||
            !copy_file(from, to, j->err))
            return false;
    }
    return true;
}

/* Does the model of the input make the base's fingerprint, given the base's embeddings? Then its a_u and its user tower
 * fit them. */
static bool check_same(struct job *j, const struct manifest *base)
{
    char found[33];
    struct manifest_file *e = &j->m.file[MF_EMBEDDINGS];
    *e = base->file[MF_EMBEDDINGS];
    bool ok = make_fingerprint(j, found);
    *e = (struct manifest_file){0}; // was borrowed
    return ok && (strcmp(found, base->head.fingerprint) == 0 ||
                  err_set(j->err, ERR_MISMATCH,
                          "the model makes fingerprint %s, version %llu has %s: publish the whole, not users alone",
                          found, (unsigned long long)base->head.version, base->head.fingerprint));
}

/* The embeddings of a model without towers do not follow from its file: they must be the base's. */
static bool check_same_vectors(const struct job *j, const struct bundle *base)
{
    const struct stored *s = j->in->model->stored;
    return !s || memcmp(s->item, base->emb, (size_t)s->n_items * s->d * sizeof(*s->item)) == 0 ||
           err_set(j->err, ERR_MISMATCH,
                   "the model has item vectors other than version %llu: publish the whole, not users alone",
                   (unsigned long long)base->manifest.version);
}

static void take_over(struct job *j, const struct manifest *base)
{
    struct manifest *m = &j->m;
    memcpy(m->head.fingerprint, base->head.fingerprint, sizeof(m->head.fingerprint));
    m->users_revision = base->users_revision + 1;
    m->m = base->m;
    m->ef_construction = base->ef_construction;
    m->seed = base->seed;
    if (!j->fixed_ef)
        j->fixed_ef = base->head.default_ef;
    if (!m->metrics)
        m->metrics = json_incref(base->metrics);
}

static bool publish_users(struct job *j, const char *base_dir, uint64_t *version, char *dir)
{
    struct manifest base = {0};
    struct bundle *b = bundle_load(base_dir, NULL, j->err);
    bool ok = b && manifest_read(base_dir, &base, j->err) && write_model(j) && check_same(j, &base);
    if (ok) {
        take_over(j, &base);
        j->hnsw = b->hnsw;
        j->item_emb = b->emb;
        ok = check_same_vectors(j, b) && copy_items(j, base_dir) && write_warmup(j, manifest_has(&base, MF_WARMUP) ? base_dir : NULL) && write_users(j) &&
             publish_probes(j) && publish_measure(j, b->hnsw, base.head.target_recall) && write_compact(j, b->hnsw) && finish(j, version, dir);
    }
    bundle_free(b);
    manifest_fini(&base);
    return ok;
}

bool bundle_publish_users(const struct publish_input *in, const struct publish_params *p, uint64_t *version, char *dir,
                          struct err *err)
{
    struct err own = {0};
    struct job j = {.in = in, .p = p, .fixed_ef = p->default_ef, .staging.fd = -1, .err = err ? err : &own};
    fill_manifest(&j);
    char base_dir[PATH_MAX];
    size_t n = 0;
    bool ok = begin(&j, version);
    uint64_t *all = ok ? bundle_versions(j.staging.parent, &n, j.err) : NULL;
    if (all && n == 0)
        err_set(j.err, ERR_NOT_FOUND, "%s has no version whose items could be kept; publish the whole first",
                j.staging.parent);
    ok = all && n > 0;
    if (ok)
        snprintf(base_dir, sizeof(base_dir), "%.4000s/%llu", j.staging.parent, (unsigned long long)all[n - 1]);
    free(all);
    ok = ok && publish_users(&j, base_dir, version, dir);
    end(&j);
    return ok || err_prefix(j.err, "publishing users of %s", p->name);
}
