/* The manifest must vouch for itself: its last member is the hash of all bytes before it, so the file is cut at a fixed
 * distance from its end, hashed, and only then parsed. A flipped bit anywhere is either in front of the cut (hash
 * differs) or behind it (the tail is compared byte by byte). */
#include "core/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

#define FORMAT "duet-bundle"
#define FORMAT_VERSION 1
#define BYTES_MAX ((size_t)16 << 20)
#define TAIL_KEY "\"manifest_xxh3\": \""
#define TAIL_END "\"\n}\n"
#define TAIL_BYTES (sizeof(TAIL_KEY) - 1 + 32 + sizeof(TAIL_END) - 1)
#define FILE_BYTES_MAX ((uint64_t)1 << 50) // a sum of all cannot overflow
#define ROWS_MAX (UINT32_MAX / 4)          // what a string table holds
#define EF_MAX 1000000

const char *const manifest_file_name[MANIFEST_FILES_MAX] = {"schema.json", "model.safetensors", "items.pack",  "items.safetensors",
                                                            "index.hnsw",  "users.pack",        "probes.pack", "compact.hnsw",
                                                            "warmup.jsonl"};

// ---------------------------------------------------------------------------------------------------------- names

bool manifest_name_ok(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);
    return n >= 1 && n <= 64 && name[0] != '.' && strspn(name, allowed) == n;
}

bool manifest_version_parse(const char *text, uint64_t *version)
{
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 19 || text[n] != '\0' || text[0] == '0')
        return false;
    *version = strtoull(text, NULL, 10); // 19 digits fit
    return *version <= INT64_MAX;
}

void manifest_fingerprint(const struct manifest *m, struct hash128 item_ids, char out[33])
{
    char hex[4][33], text[4 * 33 + 32];
    hash128_hex(m->file[MF_MODEL].hash, hex[0]);
    hash128_hex(m->file[MF_EMBEDDINGS].hash, hex[1]);
    hash128_hex(m->file[MF_SCHEMA].hash, hex[2]);
    hash128_hex(item_ids, hex[3]);
    int n = snprintf(text, sizeof(text), "duet-fingerprint-1\n%s\n%s\n%s\n%s\n", hex[0], hex[1], hex[2], hex[3]);
    hash128_hex(hash128(text, (size_t)n), out);
}

// -------------------------------------------------------------------------------------------------------- reading

/* Text of the manifest whose own hash is right; its length goes to *n. For free(). */
static char *read_text(const char *dir, size_t *n, struct err *err)
{
    char path[PATH_MAX], hex[33];
    struct stat st;
    if (!fio_join(path, dir, MANIFEST_NAME, err))
        return NULL;
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        err_set(err, ERR_FORMAT, "%s: not a regular file", MANIFEST_NAME);
        return NULL;
    }
    char *text = fio_read_all(path, BYTES_MAX, n, err);
    if (!text)
        return NULL;
    size_t head = *n - TAIL_BYTES;
    if (*n < TAIL_BYTES || memcmp(text + head, TAIL_KEY, sizeof(TAIL_KEY) - 1) != 0 ||
        memcmp(text + *n - (sizeof(TAIL_END) - 1), TAIL_END, sizeof(TAIL_END) - 1) != 0) {
        err_set(err, ERR_FORMAT, "%s: %zu bytes that do not end with the member manifest_xxh3: cut or damaged",
                MANIFEST_NAME, *n);
    } else {
        hash128_hex(hash128(text, head), hex);
        if (memcmp(hex, text + head + sizeof(TAIL_KEY) - 1, 32) == 0)
            return text;
        err_set(err, ERR_FORMAT, "%s: checksum mismatch, found %s, the file says %.32s: it is damaged or was edited",
                MANIFEST_NAME, hex, text + head + sizeof(TAIL_KEY) - 1);
    }
    free(text);
    return NULL;
}

static bool need_u32(const json_t *o, const char *key, uint32_t min, uint32_t max, uint32_t *out, struct err *err)
{
    uint64_t v;
    if (!json_need_uint(o, key, max, &v, err))
        return false;
    if (v < min)
        return err_set(err, ERR_FORMAT, "\"%s\": found %llu, want %u to %u", key, (unsigned long long)v, min, max);
    *out = (uint32_t)v;
    return true;
}

static bool need_text(const json_t *o, const char *key, char *out, size_t size, struct err *err)
{
    const char *s = json_need_str(o, key, err);
    if (!s)
        return false;
    if (strlen(s) >= size)
        return err_set(err, ERR_FORMAT, "\"%s\": %zu bytes, at most %zu allowed", key, strlen(s), size - 1);
    memcpy(out, s, strlen(s) + 1);
    return true;
}

static bool need_word(const json_t *o, const char *key, const char *want, struct err *err)
{
    const char *s = json_need_str(o, key, err);
    return s &&
           (strcmp(s, want) == 0 || err_set(err, ERR_FORMAT, "\"%s\": found \"%.40s\", want \"%s\"", key, s, want));
}

static bool need_hash(const json_t *o, const char *key, struct hash128 *out, struct err *err)
{
    const char *s = json_need_str(o, key, err);
    return s &&
           (hash128_parse(s, out) || err_set(err, ERR_FORMAT, "\"%s\": found \"%.40s\", want 32 hex digits", key, s));
}

static bool read_chunks(const json_t *o, struct manifest_file *f, struct err *err)
{
    const char *s = json_need_str(o, "chunks", err);
    if (!s)
        return false;
    f->n_chunks = (size_t)((f->bytes + MANIFEST_CHUNK - 1) / MANIFEST_CHUNK);
    if (strlen(s) != f->n_chunks * 32)
        return err_set(err, ERR_FORMAT, "\"chunks\": %zu digits, %zu chunks want %zu", strlen(s), f->n_chunks,
                       f->n_chunks * 32);
    if (!(f->chunk = mem_array(f->n_chunks, sizeof(*f->chunk), err)))
        return false;
    for (size_t i = 0; i < f->n_chunks; i++) {
        char hex[33] = {0};
        memcpy(hex, s + 32 * i, 32);
        if (!hash128_parse(hex, &f->chunk[i]))
            return err_set(err, ERR_FORMAT, "\"chunks\": hash %zu is not 32 hex digits", i);
    }
    return true;
}

static bool read_files(const json_t *root, struct manifest *m, struct err *err)
{
    const json_t *files = json_need_object(root, "files", err);
    for (int i = 0; files && i < MANIFEST_FILES_MAX; i++) {
        struct manifest_file *f = &m->file[i];
        if (i >= MANIFEST_FILES && !json_object_get(files, manifest_file_name[i]))
            continue;
        const json_t *o = json_need_object(files, manifest_file_name[i], err);
        if (!o || !json_need_uint(o, "bytes", FILE_BYTES_MAX, &f->bytes, err) || !need_hash(o, "xxh3", &f->hash, err) ||
            !read_chunks(o, f, err))
            return err_prefix(err, "files: %s", manifest_file_name[i]);
        m->head.n_bytes += f->bytes;
    }
    return files != NULL;
}

static bool read_counts(const json_t *root, struct manifest *m, struct err *err)
{
    uint32_t items = 0, users = 0;
    const json_t *o = json_need_object(root, "counts", err);
    if (!o || !need_u32(o, "items", 1, ROWS_MAX, &items, err) || !need_u32(o, "users", 0, ROWS_MAX, &users, err) ||
        !need_u32(o, "probes", 0, ROWS_MAX, &m->n_probes, err) ||
        !json_need_uint(o, "users_revision", INT64_MAX, &m->users_revision, err))
        return err_prefix(err, "counts");
    m->head.n_items = items;
    m->head.n_users = users;
    return true;
}

static bool read_search(const json_t *root, struct manifest *m, struct err *err)
{
    struct bundle_manifest *h = &m->head;
    const json_t *o = json_need_object(root, "search", err);
    if (!o || !need_u32(o, "default_ef", 1, EF_MAX, &h->default_ef, err) ||
        !need_u32(o, "probe_ef", 1, EF_MAX, &h->probe_ef, err) || !need_u32(o, "probe_k", 1, 100, &h->probe_k, err) ||
        !json_need_num(o, "probe_recall", &h->probe_recall, err))
        return err_prefix(err, "search");
    uint64_t k = h->n_items < 100 ? h->n_items : 100;
    if (h->probe_k != k)
        return err_set(err, ERR_FORMAT, "search: \"probe_k\": found %u, want %llu", h->probe_k, (unsigned long long)k);
    if (json_object_get(o, "target_recall") && !json_need_num(o, "target_recall", &h->target_recall, err))
        return err_prefix(err, "search");
    if (h->target_recall < 0 || h->target_recall > 1)
        return err_set(err, ERR_FORMAT, "search: \"target_recall\": found %g, want 0 to 1", h->target_recall);
    if (h->probe_recall < 0 || h->probe_recall > 1)
        return err_set(err, ERR_FORMAT, "search: \"probe_recall\": found %g, want 0 to 1", h->probe_recall);
    return true;
}

/* Bundles of earlier versions have none. */
static bool read_calibration(const json_t *root, struct bundle_manifest *h, struct err *err)
{
    const json_t *o = json_object_get(root, "calibration");
    return !o || calibration_from_json(o, &h->calibration, err) || err_prefix(err, "calibration");
}

static bool read_encoder(const json_t *root, struct bundle_manifest *h, struct err *err)
{
    static const char *const legal[] = {"tower", "history_tower", "multi_interest", "stored"};
    if (!need_text(root, "encoder", h->encoder, sizeof(h->encoder), err) ||
        !need_u32(root, "n_interest", 1, 64, &h->n_interest, err) ||
        !need_u32(root, "d", 1, HNSW_DIM_MAX, &h->d, err) || !need_word(root, "metric", "ip", err))
        return false;
    for (size_t i = 0; i < sizeof(legal) / sizeof(legal[0]); i++)
        if (strcmp(h->encoder, legal[i]) == 0)
            return i != 0 || h->n_interest == 1 ||
                   err_set(err, ERR_FORMAT, "\"n_interest\": found %u, encoder tower wants 1", h->n_interest);
    return err_set(err, ERR_FORMAT, "\"encoder\": found \"%s\", want tower, history_tower, multi_interest or stored",
                   h->encoder);
}

static bool read_index(const json_t *root, struct manifest *m, struct err *err)
{
    const json_t *o = json_need_object(root, "index", err);
    return (o && need_u32(o, "m", 1, HNSW_M_MAX, &m->m, err) &&
            need_u32(o, "ef_construction", 1, EF_MAX, &m->ef_construction, err) &&
            json_need_uint(o, "seed", INT64_MAX, &m->seed, err)) ||
           err_prefix(err, "index");
}

static bool read_head(const json_t *root, struct bundle_manifest *h, struct err *err)
{
    uint64_t format;
    struct hash128 parsed;
    char by[128];
    if (!need_word(root, "format", FORMAT, err) || !json_need_uint(root, "format_version", INT64_MAX, &format, err))
        return false;
    if (format != FORMAT_VERSION)
        return err_set(err, ERR_FORMAT, "format version %llu, this program reads %d", (unsigned long long)format,
                       FORMAT_VERSION);
    if (!need_text(root, "model", h->model, sizeof(h->model), err) ||
        !json_need_uint(root, "version", INT64_MAX, &h->version, err) ||
        !need_text(root, "kind", h->kind, sizeof(h->kind), err) ||
        !need_text(root, "created", h->created, sizeof(h->created), err) ||
        !need_text(root, "created_by", by, sizeof(by), err) || !need_hash(root, "fingerprint", &parsed, err))
        return false;
    hash128_hex(parsed, h->fingerprint);
    if (!manifest_name_ok(h->model) || h->version == 0)
        return err_set(err, ERR_FORMAT, "model \"%s\" version %llu: no legal name and version", h->model,
                       (unsigned long long)h->version);
    return true;
}

bool manifest_read(const char *dir, struct manifest *m, struct err *err)
{
    size_t n = 0;
    char *text = read_text(dir, &n, err);
    json_t *root = text ? json_parse(text, n, err) : NULL;
    free(text);
    if (!root)
        return false;
    m->head.n_bytes = n;
    json_t *metrics = json_need_object(root, "metrics", err);
    bool ok = metrics && read_head(root, &m->head, err) && read_encoder(root, &m->head, err) &&
              read_counts(root, m, err) && read_index(root, m, err) && read_search(root, m, err) &&
              read_calibration(root, &m->head, err) && read_files(root, m, err);
    if (ok)
        m->metrics = json_incref(metrics);
    json_decref(root);
    return ok || err_prefix(err, "%s", MANIFEST_NAME);
}

bool manifest_has(const struct manifest *m, enum manifest_file_id id)
{
    return m->file[id].n_chunks > 0;
}

void manifest_fini(struct manifest *m)
{
    for (int i = 0; i < MANIFEST_FILES_MAX; i++)
        free(m->file[i].chunk);
    json_decref(m->metrics);
    *m = (struct manifest){0};
}

// ---------------------------------------------------------------------------------------------------------- place

/* The last two names of a path; false if it has fewer or ends with "." or "..". */
static bool last_two(const char *path, char model[PATH_MAX], char version[PATH_MAX])
{
    char *slash;
    snprintf(version, PATH_MAX, "%s", path);
    while ((slash = strrchr(version, '/')) && slash[1] == '\0' && slash > version)
        *slash = '\0';
    if (!slash)
        return false;
    *slash = '\0';
    snprintf(model, PATH_MAX, "%s", version);
    memmove(version, slash + 1, strlen(slash + 1) + 1);
    while ((slash = strrchr(model, '/')) && slash[1] == '\0' && slash > model)
        *slash = '\0';
    if (slash)
        memmove(model, slash + 1, strlen(slash + 1) + 1);
    return version[0] != '.' && model[0] != '.' && model[0] != '\0';
}

bool manifest_check_place(const char *dir, const struct manifest *m, struct err *err)
{
    char real[PATH_MAX], model[PATH_MAX], version[PATH_MAX], want[24];
    snprintf(want, sizeof(want), "%llu", (unsigned long long)m->head.version);
    bool found = last_two(dir, model, version);
    if (found && strcmp(model, m->head.model) == 0 && strcmp(version, want) == 0)
        return true;
    // A relative or linked path says little: what counts then is where it leads.
    if (!realpath(dir, real))
        return err_errno(err, "%s", dir);
    if (!last_two(real, model, version))
        model[0] = version[0] = '\0';
    return (strcmp(model, m->head.model) == 0 && strcmp(version, want) == 0) ||
           err_set(err, ERR_FORMAT,
                   "%s: says model %s version %s, but the folder is %.80s/%.40s; folders of bundles keep their names",
                   MANIFEST_NAME, m->head.model, want, model, version);
}

static bool known_entry(const struct manifest *m, const char *name)
{
    if (name[0] == '.' || strncmp(name, MANIFEST_NAME, sizeof(MANIFEST_NAME) - 1) == 0)
        return name[0] == '.' || name[sizeof(MANIFEST_NAME) - 1] == '\0' || name[sizeof(MANIFEST_NAME) - 1] == '.';
    for (int i = 0; i < MANIFEST_FILES_MAX; i++)
        if (strcmp(name, manifest_file_name[i]) == 0)
            return i < MANIFEST_FILES || manifest_has(m, (enum manifest_file_id)i);
    return false;
}

bool manifest_check_entries(const char *dir, const struct manifest *m, struct err *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(err, "%s", dir);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (!known_entry(m, e->d_name))
            ok = err_set(err, ERR_FORMAT, "%s: no part of a bundle; remove it", e->d_name);
    closedir(d);
    return ok;
}

// -------------------------------------------------------------------------------------------------------- writing

static bool hash_fd(int fd, struct manifest_file *f, struct err *err)
{
    struct hash_state *whole = hash_new();
    char *buf = mem_array(MANIFEST_CHUNK, 1, err);
    bool ok = whole && buf;
    for (size_t i = 0; ok && i < f->n_chunks; i++) {
        uint64_t at = (uint64_t)i * MANIFEST_CHUNK, left = f->bytes - at;
        size_t n = left < MANIFEST_CHUNK ? (size_t)left : MANIFEST_CHUNK;
        if (!(ok = fio_read_full(fd, buf, n, at, err)))
            break;
        f->chunk[i] = hash128(buf, n);
        hash_update(whole, buf, n);
    }
    if (!whole)
        err_set(err, ERR_NOMEM, "out of memory");
    else
        f->hash = hash_digest(whole);
    hash_free(whole);
    free(buf);
    return ok;
}

bool manifest_hash_file(struct manifest *m, const char *dir, enum manifest_file_id id, struct err *err)
{
    char path[PATH_MAX];
    struct manifest_file *f = &m->file[id];
    if (!fio_join(path, dir, manifest_file_name[id], err) || !fio_size(path, &f->bytes, err))
        return false;
    free(f->chunk);
    f->n_chunks = (size_t)((f->bytes + MANIFEST_CHUNK - 1) / MANIFEST_CHUNK);
    if (!(f->chunk = mem_array(f->n_chunks, sizeof(*f->chunk), err)))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "%s", path);
    bool ok = hash_fd(fd, f, err);
    close(fd);
    return ok || err_prefix(err, "%s", path);
}

static json_t *file_json(const struct manifest_file *f, struct err *err)
{
    char hex[33];
    hash128_hex(f->hash, hex);
    char *chunks = mem_array(f->n_chunks * 32 + 1, 1, err);
    if (!chunks)
        return NULL;
    for (size_t i = 0; i < f->n_chunks; i++)
        hash128_hex(f->chunk[i], chunks + 32 * i);
    json_t *o = json_pack("{s:I, s:s, s:s}", "bytes", (json_int_t)f->bytes, "xxh3", hex, "chunks", chunks);
    free(chunks);
    return o;
}

static json_t *files_json(const struct manifest *m, struct err *err)
{
    json_t *files = json_object();
    for (int i = 0; i < MANIFEST_FILES_MAX; i++)
        if ((i < MANIFEST_FILES || manifest_has(m, (enum manifest_file_id)i)) &&
            json_object_set_new(files, manifest_file_name[i], file_json(&m->file[i], err)) != 0) {
            json_decref(files);
            return NULL;
        }
    return files;
}

/* Everything but the last member. */
static json_t *to_json(const struct manifest *m, struct err *err)
{
    const struct bundle_manifest *h = &m->head;
    json_t *files = files_json(m, err), *metrics = m->metrics ? json_incref(m->metrics) : json_object();
    json_t *calibration = calibration_to_json(&h->calibration);
    json_t *root = json_pack(
        "{s:s, s:i, s:s, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:I},"
        " s:{s:I, s:I, s:I, s:f, s:f}, s:o, s:o, s:o}",
        "format", FORMAT, "format_version", FORMAT_VERSION, "model", h->model, "version", (json_int_t)h->version,
        "kind", h->kind, "created", h->created, "created_by", "duet " DUET_VERSION, "encoder", h->encoder, "n_interest",
        (json_int_t)h->n_interest, "d", (json_int_t)h->d, "metric", "ip", "fingerprint", h->fingerprint, //
        "counts", "items", (json_int_t)h->n_items, "users", (json_int_t)h->n_users, "probes", (json_int_t)m->n_probes,
        "users_revision", (json_int_t)m->users_revision, //
        "index", "m", (json_int_t)m->m, "ef_construction", (json_int_t)m->ef_construction, "seed",
        (json_int_t)m->seed, //
        "search", "default_ef", (json_int_t)h->default_ef, "probe_k", (json_int_t)h->probe_k, "probe_ef",
        (json_int_t)h->probe_ef, "probe_recall", h->probe_recall, "target_recall", h->target_recall, //
        "calibration", calibration, //
        "metrics", metrics, "files", files);
    if (!root)
        err_set(err, ERR_NOMEM, "%s: cannot be built (out of memory, or not UTF-8)", MANIFEST_NAME);
    return root;
}

bool manifest_write(const char *dir, const struct manifest *m, struct err *err)
{
    char path[PATH_MAX], hex[33];
    json_t *root = to_json(m, err);
    char *text = root ? json_text(root, err) : NULL;
    json_decref(root);
    if (!text)
        return false;
    struct buf b = {0};
    buf_put(&b, text, strlen(text) - 2); // without "\n}"
    buf_puts(&b, ",\n  ");
    hash128_hex(hash128(b.data ? b.data : "", b.len), hex);
    buf_printf(&b, TAIL_KEY "%s" TAIL_END, hex);
    free(text);
    bool ok = !b.failed || err_set(err, ERR_NOMEM, "out of memory");
    ok = ok &&
         (b.len <= BYTES_MAX ||
          err_set(err, ERR_LIMIT, "%s: %zu bytes, at most %zu allowed", MANIFEST_NAME, b.len, BYTES_MAX)) &&
         fio_join(path, dir, MANIFEST_NAME, err) && fio_write_atomic(path, b.data, b.len, err);
    buf_fini(&b);
    return ok;
}
