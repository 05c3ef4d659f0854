/* Loading reads each file once, in an order that gives the most telling error first and needs the least memory:
 *
 *     manifest -> entries, place -> items.pack -> fingerprint -> schema -> index -> model -> embeddings
 *         -> users -> probes -> the index's layout
 *
 * The fingerprint covers the manifest's own hashes of model, embeddings and schema, and the item ids; so right after
 * items.pack it is known whether the parts belong together, before a damaged part is looked at from the inside. */
#include "core/bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/base/pace.h"
#include "core/bundle_priv.h"
#include "core/probes.h"
#include "core/safetensors.h"
#include "core/verified.h"
#include "core/warmup.h"

#define RECALL_TOLERANCE 0.01

static bool take(struct loader *l, enum manifest_file_id id, bool map, struct block *out)
{
    return verified_read(l->dirfd, manifest_file_name[id], &l->m.file[id], map && l->map, l->threads, &l->spare, out, l->err);
}

// ---------------------------------------------------------------------------------------------- packs of the bundle

static bool check_fingerprint(const struct loader *l, const struct pack *p, struct err *err)
{
    const char *found = pack_need(p, "fingerprint", PACK_U8, 32, 1, err);
    return found && (memcmp(found, l->m.head.fingerprint, 32) == 0 ||
                     err_set(err, ERR_MISMATCH,
                             "%s: made for fingerprint %.32s, the bundle is %s: of another model or publication",
                             pack_path(p), found, l->m.head.fingerprint));
}

/* A pack whose bytes are not those of the manifest but are whole in themselves was not damaged: it was put in from
 * elsewhere. */
static void blame_foreign(struct loader *l, enum manifest_file_id id, const char *kind)
{
    char path[PATH_MAX];
    struct err why = {0};
    struct pack *p =
        fio_join(path, l->dir, manifest_file_name[id], NULL) ? pack_open(path, kind, PACK_READ, true, NULL) : NULL;
    if (p && !check_fingerprint(l, p, &why) && why.code == ERR_MISMATCH && l->err)
        *l->err = why;
    pack_close(p);
}

static struct pack *take_pack(struct loader *l, enum manifest_file_id id, const char *kind, bool map)
{
    struct block block;
    if (!take(l, id, map, &block)) {
        if (!l->err || l->err->code == ERR_FORMAT)
            blame_foreign(l, id, kind);
        return NULL;
    }
    struct pack *p = pack_open_block(block.p, block.n, manifest_file_name[id], kind,
                                     block.mapped ? PACK_MAP : PACK_READ, false, l->err);
    if (p && check_fingerprint(l, p, l->err))
        return p;
    pack_close(p);
    return NULL;
}

/* Does the fingerprint follow from the parts? */
static bool check_parts(struct loader *l, const struct pack *items)
{
    struct strtab ids;
    struct hash128 hash;
    char found[33];
    if (!pack_get_strtab(items, "ids", &ids, l->err) || !items_ids_hash(&ids, &hash, l->err))
        return false;
    manifest_fingerprint(&l->m, hash, found);
    return strcmp(found, l->m.head.fingerprint) == 0 ||
           err_set(
               l->err, ERR_MISMATCH,
               "%s: fingerprint %s, but model, embeddings, schema and item ids make %s: they do not belong together",
               MANIFEST_NAME, l->m.head.fingerprint, found);
}

static bool count_is(const struct loader *l, const char *file, uint64_t found, uint64_t want)
{
    return found == want || err_set(l->err, ERR_MISMATCH, "%s: %llu rows, %s says %llu", file,
                                    (unsigned long long)found, MANIFEST_NAME, (unsigned long long)want);
}

// ------------------------------------------------------------------------------------------------------- the parts

static struct schema *load_schema(struct loader *l)
{
    struct block block;
    struct schema *s = NULL;
    if (!take(l, MF_SCHEMA, false, &block))
        return NULL;
    json_t *v = json_parse(block.p, block.n, l->err);
    if (!v || !(s = schema_from_json(v, l->err)))
        err_prefix(l->err, "%s", manifest_file_name[MF_SCHEMA]);
    json_decref(v);
    block_free(&block);
    return s;
}

static bool load_items(struct loader *l, struct pack *p, const struct schema *schema)
{
    return (l->b->items = items_from_pack(p, schema, l->err)) &&
           count_is(l, manifest_file_name[MF_ITEMS], l->b->items->n, l->m.head.n_items);
}

static bool load_model(struct loader *l, struct schema *schema)
{
    struct block block;
    const struct bundle_manifest *head = &l->m.head;
    const char *name = manifest_file_name[MF_MODEL];
    if (!take(l, MF_MODEL, false, &block)) {
        schema_free(schema);
        return false;
    }
    struct model *m = l->b->model = model_load_serving(block.p, block.n, name, schema, l->err);
    l->spare = block;
    if (!m)
        return false;
    if (m->user.d != head->d || m->item.d != head->d)
        return err_set(l->err, ERR_MISMATCH, "%s: towers of width %u and %u, %s wants %u", name, m->user.d, m->item.d,
                       MANIFEST_NAME, head->d);
    const char *encoder = m->stored ? "stored" : "tower";
    uint32_t n_interest = m->stored ? m->stored->n_interest : 1;
    if (strcmp(encoder, head->encoder) != 0 || n_interest != head->n_interest)
        return err_set(l->err, ERR_MISMATCH, "%s: encoder %s of %u vectors, %s says %s of %u", name, encoder,
                       n_interest, MANIFEST_NAME, head->encoder, head->n_interest);
    if (m->stored && m->stored->gram && m->stored->n_fold != head->n_items)
        return err_set(l->err, ERR_MISMATCH, "%s: folds in over %u items, there are %llu", name, m->stored->n_fold,
                       (unsigned long long)head->n_items);
    return strcmp(model_kind_name(m->kind), head->kind) == 0 ||
           err_set(l->err, ERR_MISMATCH, "%s: kind %s, %s says %s", name, model_kind_name(m->kind), MANIFEST_NAME,
                   head->kind);
}

static bool load_embeddings(struct loader *l)
{
    struct block block;
    struct bundle *b = l->b;
    const uint64_t shape[2] = {l->m.head.n_items, l->m.head.d};
    bool ok = take(l, MF_EMBEDDINGS, true, &block);
    block_free(&l->spare); // if it was of no use
    if (!ok)
        return false;
    b->emb_file = block.p;
    b->emb_bytes = block.n;
    b->emb_mapped = block.mapped;
    struct safetensors *s = safetensors_open_mem(block.p, block.n, manifest_file_name[MF_EMBEDDINGS], l->err);
    if (s && safetensors_count(s) != 1)
        err_set(l->err, ERR_FORMAT, "%s: %zu tensors, want embeddings alone", manifest_file_name[MF_EMBEDDINGS],
                safetensors_count(s));
    else if (s)
        b->emb = safetensors_view_f32(s, "embeddings", 2, shape, l->err);
    safetensors_close(s);
    return b->emb != NULL;
}

static bool load_users(struct loader *l)
{
    const char *name = manifest_file_name[MF_USERS];
    struct pack *p = take_pack(l, MF_USERS, "users", true);
    if (!p || !(l->b->users = users_from_pack(p, l->b->model->schema, l->b->items->n, l->err)))
        return false;
    const struct users *u = l->b->users;
    uint32_t d_aug = l->b->model->user.shape.d_aug;
    if (u->d_aug != d_aug && !(u->n == 0 && u->d_aug == 0))
        return err_set(l->err, ERR_MISMATCH, "%s: a_u of width %u, the model wants %u", name, u->d_aug, d_aug);
    uint32_t vec_cols = l->b->model->stored ? l->m.head.n_interest * l->m.head.d : 0;
    if (u->vec_cols != vec_cols && (u->vec_cols || u->n))
        return err_set(l->err, ERR_FORMAT, "%s: %u stored components a user, encoder %s of %u vectors wants %u", name,
                       u->vec_cols, l->m.head.encoder, l->m.head.n_interest, vec_cols);
    return count_is(l, name, u->n, l->m.head.n_users);
}

static bool load_probes(struct loader *l)
{
    struct bundle *b = l->b;
    struct pack *p = take_pack(l, MF_PROBES, "probes", false);
    if (!p)
        return false;
    if (!(b->probes = mem_array(1, sizeof(*b->probes), l->err))) {
        pack_close(p);
        return false;
    }
    return (probes_from_pack(b->probes, p, b->model, b->items->n, l->m.head.probe_k, l->err) ||
            err_prefix(l->err, "%s", manifest_file_name[MF_PROBES])) &&
           count_is(l, manifest_file_name[MF_PROBES], b->probes->n, l->m.n_probes);
}

/* Nothing depends on what they say: who answers them takes each line as it comes. */
static bool load_warmup(struct loader *l)
{
    struct block block;
    if (!manifest_has(&l->m, MF_WARMUP))
        return true;
    if (l->m.file[MF_WARMUP].bytes > WARMUP_BYTES_MAX)
        return err_set(l->err, ERR_LIMIT, "%s: %llu bytes, at most %zu allowed", manifest_file_name[MF_WARMUP],
                       (unsigned long long)l->m.file[MF_WARMUP].bytes, WARMUP_BYTES_MAX);
    if (!take(l, MF_WARMUP, false, &block))
        return false;
    l->b->warmup = block.p;
    l->b->warmup_n = block.n;
    return true;
}

static bool run_probes(struct loader *l)
{
    const struct bundle *b = l->b;
    const struct bundle_manifest *h = &l->m.head;
    float *p_u = mem_array((size_t)b->probes->n * h->d, sizeof(*p_u), l->err);
    double recall = -1;
    if (p_u && probes_embed(b->probes, b->model, b->users, p_u, l->err))
        recall = probes_recall(b->probes, p_u, b->hnsw, b->emb, h->probe_ef, l->err);
    free(p_u);
    if (recall < 0)
        return err_prefix(l->err, "%s", manifest_file_name[MF_PROBES]);
    return recall >= h->probe_recall - RECALL_TOLERANCE ||
           err_set(l->err, ERR_FORMAT, "%s: recall@%u of the probes at ef %u is %.4f here, %s promises %.4f",
                   manifest_file_name[bundle_index_file(&l->m, l->layout)], h->probe_k, h->probe_ef, recall, MANIFEST_NAME, h->probe_recall);
}

/* Mapped files: not cut while we were reading their contents. */
static bool check_sizes(struct loader *l)
{
    bool ok = true;
    for (int i = 0; ok && l->map && i < MANIFEST_FILES_MAX; i++)
        ok = !manifest_has(&l->m, (enum manifest_file_id)i) ||
             verified_size(l->dirfd, manifest_file_name[i], &l->m.file[i], l->err);
    return ok;
}

/* The form of the index that the layout does not need must be there in its size, and as it was published where the caller wants to know. */
static bool check_other_index(struct loader *l)
{
    enum manifest_file_id other = bundle_index_file(&l->m, l->layout) == MF_COMPACT ? MF_INDEX : MF_COMPACT;
    return !manifest_has(&l->m, other) ||
           (l->p && l->p->all_files ? verified_check : verified_size)(l->dirfd, manifest_file_name[other],
                                                                      &l->m.file[other], l->err);
}

// ------------------------------------------------------------------------------------------------------- the whole

/* Always true. `n` files in the order of loading are behind; no file follows the last of them. */
static bool at(const struct loader *l, const char *phase, int n)
{
    static const enum manifest_file_id order[] = {MF_ITEMS, MF_INDEX, MF_MODEL, MF_EMBEDDINGS, MF_USERS, MF_PROBES};
    uint64_t done = (n > 1 ? l->m.file[MF_COMPACT].bytes : 0) + (n > 5 ? l->m.file[MF_WARMUP].bytes : 0);
    for (int i = 0; i < n; i++)
        done += l->m.file[order[i]].bytes;
    if (l->p && l->p->progress)
        l->p->progress(l->p->progress_ctx, phase, done, l->m.head.n_bytes);
    return true;
}

static bool load_parts(struct loader *l)
{
    struct pack *p = at(l, "items", 0) ? take_pack(l, MF_ITEMS, "items", true) : NULL;
    struct schema *schema = p && check_parts(l, p) ? load_schema(l) : NULL;
    if (!schema) {
        pack_close(p);
        return false;
    }
    if (!load_items(l, p, schema) || !at(l, "index", 1) || !bundle_load_index(l)) {
        schema_free(schema);
        return false;
    }
    return at(l, "model", 2) && load_model(l, schema) && at(l, "embeddings", 3) && load_embeddings(l) && bundle_check_vectors(l) &&
           at(l, "users", 4) && load_users(l) && at(l, "probes", 5) && load_probes(l) && load_warmup(l);
}

static bool load(struct loader *l, bool placed, bool probe)
{
    if ((l->dirfd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return err_errno(l->err, "open");
    if (!manifest_read(l->dir, &l->m, l->err) || !manifest_check_entries(l->dir, &l->m, l->err) ||
        (placed && !manifest_check_place(l->dir, &l->m, l->err)))
        return false;
    if (strcmp(l->m.head.encoder, "tower") != 0 && strcmp(l->m.head.encoder, "stored") != 0)
        return err_set(l->err, ERR_FORMAT, "%s: encoder \"%s\", this version serves \"tower\" and \"stored\"",
                       MANIFEST_NAME, l->m.head.encoder);
    l->b->manifest = l->m.head;
    l->b->users_revision = l->m.users_revision;
    return load_parts(l) && at(l, "layout", 6) && bundle_make_layout(l) && check_other_index(l) && check_sizes(l) &&
           (!probe || (at(l, "verify", 6) && run_probes(l)));
}

static struct bundle *load_bundle(const char *dir, const struct bundle_load_params *p, bool placed, struct err *err)
{
    struct err own = {0};
    struct loader l = {.dir = dir,
                       .dirfd = -1,
                       .map = p && p->mode == BUNDLE_SHARED,
                       .layout = p ? p->layout : HNSW_PLAIN,
                       .threads = p && p->threads ? p->threads : 1,
                       .p = p,
                       .err = err ? err : &own};
    l.b = mem_array(1, sizeof(*l.b), l.err);
    bool ok = l.b && load(&l, placed, !p || !p->skip_probes);
    if (!ok) {
        err_prefix(l.err, "loading %s", dir);
        bundle_free(l.b);
        l.b = NULL;
    }
    block_free(&l.spare);
    manifest_fini(&l.m);
    if (l.dirfd >= 0)
        close(l.dirfd);
    return l.b;
}

struct bundle *bundle_load(const char *dir, const struct bundle_load_params *p, struct err *err)
{
    return load_bundle(dir, p, true, err);
}

struct bundle *bundle_load_unplaced(const char *dir, const struct bundle_load_params *p, struct err *err)
{
    return load_bundle(dir, p, false, err);
}

void bundle_free(struct bundle *b)
{
    if (!b)
        return;
    struct block emb = {.p = b->emb_file, .n = b->emb_bytes, .mapped = b->emb_mapped};
    block_free(&emb);
    if (b->probes)
        probes_fini(b->probes);
    free(b->probes);
    bundle_drop_warmup(b);
    hnsw_free(b->hnsw);
    users_free(b->users);
    items_free(b->items);
    model_free(b->model);
    free(b);
}

void bundle_drop_warmup(struct bundle *b)
{
    mem_block_free(b->warmup, b->warmup_n);
    b->warmup = NULL;
    b->warmup_n = 0;
}

static size_t tower_memory(const struct tower *t)
{
    return t->block_floats * sizeof(float);
}

size_t bundle_memory(const struct bundle *b)
{
    size_t vectors = b->model->stored ? stored_memory(b->model->stored) : 0;
    return sizeof(*b) + vectors + tower_memory(&b->model->user) + items_memory(b->items) + users_memory(b->users) +
           hnsw_bytes(b->hnsw) + b->emb_bytes + b->warmup_n + pack_bytes(b->probes->pack);
}

void bundle_warm(const struct bundle *b)
{
    volatile char sum = 0;
    for (size_t i = 0; i < b->emb_bytes; i += 4096, pace_step(i / 4096))
        sum = (char)(sum + ((const char *)b->emb_file)[i]);
    pack_touch(b->items->pack);
    pack_touch(b->users->pack);
    float *p_u = mem_array((size_t)b->probes->n * b->manifest.d, sizeof(*p_u), NULL);
    if (p_u && probes_embed(b->probes, b->model, b->users, p_u, NULL))
        probes_recall(b->probes, p_u, b->hnsw, b->emb, b->manifest.default_ef, NULL);
    free(p_u);
}

// ------------------------------------------------------------------------------------------- before anything is loaded

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t *bundle_versions(const char *model_dir, size_t *n, struct err *err)
{
    size_t cap = 16;
    uint64_t *out = mem_array(cap, sizeof(*out), err), version;
    *n = 0;
    if (!out)
        return NULL;
    DIR *d = opendir(model_dir);
    if (!d && errno == ENOENT)
        return out;
    bool ok = d || err_errno(err, "%s", model_dir);
    for (struct dirent *e; ok && (e = readdir(d));) {
        struct stat st;
        if (!manifest_version_parse(e->d_name, &version) || fstatat(dirfd(d), e->d_name, &st, 0) != 0 ||
            !S_ISDIR(st.st_mode))
            continue;
        if (*n == cap) {
            uint64_t *grown = mem_grow(out, cap *= 2, sizeof(*out), err);
            ok = grown != NULL;
            out = grown ? grown : out;
        }
        if (ok)
            out[(*n)++] = version;
    }
    if (d)
        closedir(d);
    if (!ok) {
        free(out);
        return NULL;
    }
    qsort(out, *n, sizeof(*out), ascending);
    return out;
}

/* What a layout takes beside the index as it is read, and for a while beside itself (hnsw.h); of files that are not read, less. */
static int64_t layout_estimate(const struct manifest *m, enum hnsw_layout layout)
{
    uint64_t code = (m->head.d + 3) / 4 * 4, block = (2 * (uint64_t)m->m + 15) / 16 * 16 * (4 + code);
    uint64_t n = m->head.n_items, seeds = (n < 8192 ? n + 2 * m->m : 8192) * (4 + code), more = 0;
    bool ready = bundle_index_file(m, layout) == MF_COMPACT;
    switch (layout) {
    case HNSW_PLAIN:
        break;
    case HNSW_FAST: // blocks, element numbers, seeds; codes, numbers and queue while blocks are filled
        more = n * ((block + 63) / 64 * 64 + 4) + seeds + n * (code + 9);
        break;
    case HNSW_COMPACT: // codes, links, labels, seeds; numbers, queue and a list to sort labels; from its file: the order of the labels alone
        more = (n < 1024 ? n : 1024) * 2 * m->head.d + n * 32;
        more += ready ? 0 : n * (2 * (uint64_t)m->head.d + 8 * (uint64_t)m->m + 12);
        break;
    }
    return (int64_t)more - (int64_t)m->file[ready ? MF_INDEX : MF_COMPACT].bytes;
}

bool bundle_estimate(const char *dir, enum hnsw_layout layout, uint64_t *bytes, struct err *err)
{
    struct manifest m = {0};
    bool ok = manifest_read(dir, &m, err) || err_prefix(err, "%s", dir);
    if (ok) {
        // Everything, and the tables that are built at load: up to 16 bytes a row of hash slots, 24 of rankings, groups
        // and short ids; facets are up to 4 times the offsets of the attributes' values, and 16 bytes an item while one
        // is made. The model's file is given back before the layout is made.
        *bytes = m.head.n_bytes + m.head.n_bytes / 16 + (uint64_t)layout_estimate(&m, layout) + 64 * m.head.n_items +
                 16 * m.head.n_users + 2 * m.file[MF_ITEMS].bytes;
    }
    manifest_fini(&m);
    return ok;
}
