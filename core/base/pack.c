/* A pack is written front to back in one pass:
 *
 *     header (64 bytes) | section | pad | section | pad | ... | table of sections
 *
 * The header is rewritten at the end, when the table's place is known, so a writer that dies leaves a header of zeros,
 * which no reader takes. The table stands last and the file must end with it: a cut or an appended file is refused. */
#include "core/base/pack.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/hash.h"
#include "core/base/mem.h"
#include "core/base/pace.h"

#define MAGIC "DUETPACK"
#define VERSION 1u
#define MAX_SECTIONS 4096u

struct header {
    char magic[8];
    uint32_t version;
    uint32_t n_sections;
    uint64_t table_offset;
    uint64_t table_hash; // XXH3-64 of the table
    char kind[24];       // NUL-padded
    uint64_t hash;       // XXH3-64 of the 56 bytes before
};

struct section {
    char name[48]; // NUL-terminated
    uint32_t type;
    uint32_t cols;
    uint64_t rows;
    uint64_t offset; // multiple of 64
    uint64_t bytes;
    uint64_t hash;
};

_Static_assert(sizeof(struct header) == 64, "header layout");
_Static_assert(sizeof(struct section) == 88, "section layout");

static size_t type_size(uint32_t type)
{
    static const size_t size[] = {0, 1, 4, 8, 8, 4, 8};
    return type < sizeof(size) / sizeof(size[0]) ? size[type] : 0;
}

static const char *type_name(uint32_t type)
{
    static const char *const name[] = {"?", "u8", "u32", "u64", "i64", "f32", "f64"};
    return type_size(type) ? name[type] : "?";
}

// ------------------------------------------------------------------------------------------------------- reading

struct pack {
    const char *base;
    size_t n_bytes;
    bool mapped;
    uint32_t n_sections;
    const struct section *section;
    char path[PATH_MAX];
};

static bool check_section(const struct pack *p, const struct section *s, uint64_t limit, bool verify, struct err *err)
{
    uint64_t bytes;
    if (!memchr(s->name, '\0', sizeof(s->name)))
        return err_set(err, ERR_FORMAT, "a section name is not terminated");
    if (!type_size(s->type) || s->cols == 0)
        return err_set(err, ERR_FORMAT, "section %s: type %u, %u columns", s->name, s->type, s->cols);
    if (__builtin_mul_overflow(s->rows, (uint64_t)s->cols * type_size(s->type), &bytes) || bytes != s->bytes)
        return err_set(err, ERR_FORMAT, "section %s: %llu bytes do not hold %llu x %u %s", s->name,
                       (unsigned long long)s->bytes, (unsigned long long)s->rows, s->cols, type_name(s->type));
    if (s->offset % 64 || s->offset < sizeof(struct header) || s->offset > limit || s->bytes > limit - s->offset)
        return err_set(err, ERR_FORMAT, "section %s: offset %llu and %llu bytes lie outside the file", s->name,
                       (unsigned long long)s->offset, (unsigned long long)s->bytes);
    if (verify && hash64(p->base + s->offset, (size_t)s->bytes) != s->hash)
        return err_set(err, ERR_FORMAT, "section %s at offset %llu: checksum mismatch, the file is damaged", s->name,
                       (unsigned long long)s->offset);
    return true;
}

static bool check_file(struct pack *p, const char *kind, bool verify, struct err *err)
{
    struct header h;
    if (p->n_bytes < sizeof(h))
        return err_set(err, ERR_FORMAT, "%zu bytes, too short for a header", p->n_bytes);
    memcpy(&h, p->base, sizeof(h));
    if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0)
        return err_set(err, ERR_FORMAT, "not a pack file (no %s at its start)", MAGIC);
    if (hash64(&h, offsetof(struct header, hash)) != h.hash)
        return err_set(err, ERR_FORMAT, "header checksum mismatch at offset 0, the file is damaged");
    if (h.version != VERSION)
        return err_set(err, ERR_FORMAT, "format version %u, this program reads %u", h.version, VERSION);
    if (strncmp(h.kind, kind, sizeof(h.kind)) != 0)
        return err_set(err, ERR_MISMATCH, "holds \"%.24s\", want \"%s\"", h.kind, kind);
    uint64_t table_bytes = (uint64_t)h.n_sections * sizeof(struct section);
    if (h.n_sections > MAX_SECTIONS || h.table_offset % 8 || h.table_offset < sizeof(h) ||
        h.table_offset > p->n_bytes || p->n_bytes - h.table_offset != table_bytes)
        return err_set(err, ERR_FORMAT, "%zu bytes, the header wants %llu: cut or extended", p->n_bytes,
                       (unsigned long long)(h.table_offset + table_bytes));
    p->section = (const struct section *)(const void *)(p->base + h.table_offset);
    p->n_sections = h.n_sections;
    if (hash64(p->section, (size_t)table_bytes) != h.table_hash)
        return err_set(err, ERR_FORMAT, "section table at offset %llu: checksum mismatch, the file is damaged",
                       (unsigned long long)h.table_offset);
    for (uint32_t i = 0; i < h.n_sections; i++)
        if (!check_section(p, &p->section[i], h.table_offset, verify, err))
            return false;
    return true;
}

static bool read_private(struct pack *p, struct err *err)
{
    uint64_t size;
    if (!fio_size(p->path, &size, err))
        return false;
    char *base = mem_block((size_t)size, err);
    if (!base)
        return false;
    p->base = base;
    p->n_bytes = (size_t)size;
    int fd = open(p->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "open");
    bool ok = fio_read_full(fd, base, p->n_bytes, 0, err);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return ok;
}

/* Checks a pack whose bytes are in place; closes it when they are not fit. */
static struct pack *checked(struct pack *p, bool read, const char *kind, bool verify, struct err *err)
{
    if (read && check_file(p, kind, verify, err))
        return p;
    if (err && !strstr(err->msg, p->path))
        err_prefix(err, "%s", p->path);
    pack_close(p);
    return NULL;
}

struct pack *pack_open(const char *path, const char *kind, enum pack_mode mode, bool verify, struct err *err)
{
    struct pack *p = mem_array(1, sizeof(*p), err);
    if (!p)
        return NULL;
    snprintf(p->path, sizeof(p->path), "%s", path);
    p->mapped = mode == PACK_MAP;
    bool ok = p->mapped ? (p->base = fio_map(path, &p->n_bytes, err)) != NULL : read_private(p, err);
    return checked(p, ok, kind, verify, err);
}

struct pack *pack_open_block(void *block, size_t n, const char *path, const char *kind, enum pack_mode mode, bool verify, struct err *err)
{
    struct pack *p = mem_array(1, sizeof(*p), err);
    if (!p) {
        if (mode == PACK_MAP)
            fio_unmap(block, n);
        else
            mem_block_free(block, n);
        return NULL;
    }
    snprintf(p->path, sizeof(p->path), "%s", path);
    p->mapped = mode == PACK_MAP;
    p->base = block;
    p->n_bytes = n;
    return checked(p, true, kind, verify, err);
}

void pack_close(struct pack *p)
{
    if (!p)
        return;
    if (p->mapped)
        fio_unmap((void *)(uintptr_t)p->base, p->n_bytes);
    else
        mem_block_free((void *)(uintptr_t)p->base, p->n_bytes);
    free(p);
}

size_t pack_bytes(const struct pack *p)
{
    return p->n_bytes;
}

const char *pack_path(const struct pack *p)
{
    return p->path;
}

void pack_touch(const struct pack *p)
{
    volatile char sum = 0;
    for (size_t i = 0; i < p->n_bytes; i += 4096, pace_step(i / 4096))
        sum = (char)(sum + p->base[i]);
}

static const struct section *find(const struct pack *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_sections; i++)
        if (strcmp(p->section[i].name, name) == 0)
            return &p->section[i];
    return NULL;
}

bool pack_has(const struct pack *p, const char *name)
{
    return find(p, name) != NULL;
}

uint32_t pack_cols(const struct pack *p, const char *name)
{
    const struct section *s = find(p, name);
    return s ? s->cols : 0;
}

const void *pack_get(const struct pack *p, const char *name, enum pack_type type, size_t cols, size_t *rows, struct err *err)
{
    const struct section *s = find(p, name);
    if (!s) {
        err_set(err, ERR_FORMAT, "%s: no section %s", p->path, name);
        return NULL;
    }
    if (s->type != (uint32_t)type || s->cols != cols) {
        err_set(err, ERR_FORMAT, "%s: section %s is %s[%u], want %s[%zu]", p->path, name, type_name(s->type), s->cols,
                type_name((uint32_t)type), cols);
        return NULL;
    }
    *rows = (size_t)s->rows;
    return p->base + s->offset;
}

const void *pack_need(const struct pack *p, const char *name, enum pack_type type, size_t cols, size_t rows, struct err *err)
{
    size_t found = 0;
    const void *data = pack_get(p, name, type, cols, &found, err);
    if (data && found != rows) {
        err_set(err, ERR_FORMAT, "%s: section %s has %zu rows, want %zu", p->path, name, found, rows);
        return NULL;
    }
    return data;
}

bool pack_get_strtab(const struct pack *p, const char *name, struct strtab *out, struct err *err)
{
    char part[64];
    size_t n_off = 0, n_bytes = 0;
    snprintf(part, sizeof(part), "%s.off", name);
    const uint64_t *off = pack_get(p, part, PACK_U64, 1, &n_off, err);
    if (!off)
        return false;
    snprintf(part, sizeof(part), "%s.bytes", name);
    const char *bytes = pack_get(p, part, PACK_U8, 1, &n_bytes, err);
    if (!bytes)
        return false;
    if (n_off == 0 || n_off - 1 >= UINT32_MAX / 4)
        return err_set(err, ERR_FORMAT, "%s: string table %s has %zu offsets", p->path, name, n_off);
    *out = (struct strtab){.n = (uint32_t)(n_off - 1), .off = off, .bytes = bytes};
    return strtab_check(out, n_bytes, err) || err_prefix(err, "%s: %s", p->path, name);
}

// ------------------------------------------------------------------------------------------------------- writing

struct pack_writer {
    int fd;
    bool finished;
    uint64_t at; // bytes written so far
    uint32_t n_sections, cap;
    struct section *section;
    char kind[24];
    char path[PATH_MAX];
};

struct pack_writer *pack_writer_new(const char *path, const char *kind, struct err *err)
{
    struct pack_writer *w = mem_array(1, sizeof(*w), err);
    if (!w)
        return NULL;
    snprintf(w->path, sizeof(w->path), "%s", path);
    snprintf(w->kind, sizeof(w->kind), "%s", kind);
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0) {
        err_errno(err, "%s", path);
        free(w);
        return NULL;
    }
    struct header zero = {0};
    if (!fio_write_full(w->fd, &zero, sizeof(zero), err)) {
        err_prefix(err, "%s", path);
        pack_writer_free(w);
        return NULL;
    }
    w->at = sizeof(zero);
    return w;
}

static bool pad_to(struct pack_writer *w, uint64_t align, struct err *err)
{
    static const char zeros[64];
    size_t gap = (size_t)((align - w->at % align) % align);
    w->at += gap;
    return fio_write_full(w->fd, zeros, gap, err);
}

bool pack_put(struct pack_writer *w, const char *name, enum pack_type type, size_t rows, size_t cols, const void *data, struct err *err)
{
    if (strlen(name) >= sizeof(w->section->name))
        return err_set(err, ERR_LIMIT, "%s: section name %s is too long", w->path, name);
    if (w->n_sections == MAX_SECTIONS)
        return err_set(err, ERR_LIMIT, "%s: more than %u sections", w->path, MAX_SECTIONS);
    for (uint32_t i = 0; i < w->n_sections; i++)
        if (strcmp(w->section[i].name, name) == 0)
            return err_set(err, ERR_ARG, "%s: section %s is there already", w->path, name);
    if (w->n_sections == w->cap) {
        uint32_t cap = w->cap ? w->cap * 2 : 32;
        struct section *grown = mem_grow(w->section, cap, sizeof(*grown), err);
        if (!grown)
            return false;
        w->section = grown;
        w->cap = cap;
    }
    if (!pad_to(w, 64, err))
        return err_prefix(err, "%s", w->path);
    struct section *s = &w->section[w->n_sections];
    *s = (struct section){.type = (uint32_t)type, .cols = (uint32_t)cols, .rows = rows, .offset = w->at};
    memcpy(s->name, name, strlen(name) + 1);
    s->bytes = (uint64_t)rows * cols * type_size((uint32_t)type);
    s->hash = hash64(data, (size_t)s->bytes);
    if (!fio_write_full(w->fd, data, (size_t)s->bytes, err))
        return err_prefix(err, "%s", w->path);
    w->at += s->bytes;
    w->n_sections++;
    return true;
}

bool pack_put_strtab(struct pack_writer *w, const char *name, const struct strtab *t, struct err *err)
{
    char part[64];
    snprintf(part, sizeof(part), "%s.off", name);
    if (!pack_put(w, part, PACK_U64, (size_t)t->n + 1, 1, t->off, err))
        return false;
    snprintf(part, sizeof(part), "%s.bytes", name);
    return pack_put(w, part, PACK_U8, (size_t)t->off[t->n], 1, t->bytes, err);
}

bool pack_writer_finish(struct pack_writer *w, struct err *err)
{
    if (!pad_to(w, 64, err))
        return err_prefix(err, "%s", w->path);
    size_t bytes = w->n_sections * sizeof(*w->section);
    struct header h = {.version = VERSION, .n_sections = w->n_sections, .table_offset = w->at};
    memcpy(h.magic, MAGIC, sizeof(h.magic));
    memcpy(h.kind, w->kind, sizeof(h.kind));
    h.table_hash = hash64(w->section, bytes);
    h.hash = hash64(&h, offsetof(struct header, hash));
    if (!fio_write_full(w->fd, w->section, bytes, err))
        return err_prefix(err, "%s", w->path);
    if (pwrite(w->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || fsync(w->fd) != 0)
        return err_errno(err, "%s: write", w->path);
    w->finished = true;
    return true;
}

void pack_writer_free(struct pack_writer *w)
{
    if (!w)
        return;
    close(w->fd);
    if (!w->finished)
        unlink(w->path);
    free(w->section);
    free(w);
}
