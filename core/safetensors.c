#include "core/safetensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/json.h"
#include "core/base/mem.h"
#include "core/base/pace.h"

#define PREFIX 8 // bytes of the header's length
#define DATA_ALIGN 64
#define META_KEY "__metadata__"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and read in place");

static const struct {
    const char *name;
    size_t size;
} dtypes[ST_N_DTYPES] = {
    [ST_BOOL] = {"BOOL", 1}, [ST_U8] = {"U8", 1},           [ST_I8] = {"I8", 1},   [ST_F8_E5M2] = {"F8_E5M2", 1},
    [ST_I16] = {"I16", 2},   [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_U16] = {"U16", 2}, [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2}, [ST_I32] = {"I32", 4},         [ST_U32] = {"U32", 4}, [ST_F32] = {"F32", 4},
    [ST_F64] = {"F64", 8},   [ST_I64] = {"I64", 8},         [ST_U64] = {"U64", 8},
};

const char *st_dtype_name(enum st_dtype t)
{
    return dtypes[t].name;
}

size_t st_dtype_size(enum st_dtype t)
{
    return dtypes[t].size;
}

/* n_bytes from type and shape; false on overflow. */
static bool set_bytes(struct st_tensor *t)
{
    uint64_t n = dtypes[t->dtype].size;
    bool zero = false;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        zero = zero || t->dim[i] == 0;
        if (__builtin_mul_overflow(n, t->dim[i] ? t->dim[i] : 1, &n))
            return false;
    }
    t->n_bytes = zero ? 0 : n;
    return true;
}

// ------------------------------------------------------------------------------------------------------- reading

struct safetensors {
    void *map; // NULL if the bytes are somebody else's
    size_t map_bytes;
    json_t *header; // owns the names
    const json_t *meta;
    struct st_tensor *tensor; // [n] by offset
    size_t n;
    char *name; // in messages
};

static bool parse_dtype(const char *word, enum st_dtype *out)
{
    for (int t = 0; t < ST_N_DTYPES; t++)
        if (strcmp(word, dtypes[t].name) == 0) {
            *out = (enum st_dtype)t;
            return true;
        }
    return false;
}

static bool read_size(const json_t *v, const char *what, uint64_t *out, struct err *err)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(err, ERR_FORMAT, "\"%s\": want non-negative integers", what);
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static bool read_shape(const json_t *o, struct st_tensor *t, struct err *err)
{
    json_t *shape = json_need_array(o, "shape", err);
    if (!shape)
        return false;
    if (json_array_size(shape) > ST_DIMS_MAX)
        return err_set(err, ERR_LIMIT, "%zu dimensions, at most %d allowed", json_array_size(shape), ST_DIMS_MAX);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (!read_size(json_array_get(shape, i), "shape", &t->dim[i], err))
            return false;
    return set_bytes(t) || err_set(err, ERR_FORMAT, "\"shape\": the number of bytes overflows");
}

/* One tensor's entry in the header. `size` bytes of data begin at `data`. */
static bool read_entry(const json_t *o, const char *data, uint64_t size, struct st_tensor *t, struct err *err)
{
    uint64_t begin = 0, end = 0;
    if (!json_is_object(o) || json_object_size(o) != 3)
        return err_set(err, ERR_FORMAT, "want an object of \"dtype\", \"shape\" and \"data_offsets\"");
    const char *dtype = json_need_str(o, "dtype", err);
    if (!dtype)
        return false;
    if (!parse_dtype(dtype, &t->dtype))
        return err_set(err, ERR_FORMAT, "\"dtype\": \"%.20s\" is not known, want F32 or another of the format's types",
                       dtype);
    if (!read_shape(o, t, err))
        return false;
    json_t *offsets = json_need_array(o, "data_offsets", err);
    if (!offsets)
        return false;
    if (json_array_size(offsets) != 2)
        return err_set(err, ERR_FORMAT, "\"data_offsets\": %zu numbers, want 2", json_array_size(offsets));
    if (!read_size(json_array_get(offsets, 0), "data_offsets", &begin, err) ||
        !read_size(json_array_get(offsets, 1), "data_offsets", &end, err))
        return false;
    if (begin > end || end > size)
        return err_set(err, ERR_FORMAT, "data from %llu to %llu, want a range within the %llu bytes there are",
                       (unsigned long long)begin, (unsigned long long)end, (unsigned long long)size);
    if (end - begin != t->n_bytes)
        return err_set(err, ERR_FORMAT, "%llu bytes of data, type and shape want %zu",
                       (unsigned long long)(end - begin), t->n_bytes);
    t->data = data + begin;
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const struct st_tensor *s = a, *t = b;
    if (s->data != t->data)
        return (const char *)s->data < (const char *)t->data ? -1 : 1;
    return s->n_bytes < t->n_bytes ? -1 : s->n_bytes > t->n_bytes; // empty tensors before the one that begins there too
}

/* Sorted by offset, each tensor must begin where the one before ends, and the last end with the data. */
static bool check_cover(const struct safetensors *s, const char *data, uint64_t size, struct err *err)
{
    const char *at = data;
    for (size_t i = 0; i < s->n; i++) {
        const struct st_tensor *t = &s->tensor[i];
        if ((const char *)t->data != at)
            return err_set(err, ERR_FORMAT,
                           "tensor \"%.80s\" begins at data offset %zu, want %zu: no holes, no overlaps", t->name,
                           (size_t)((const char *)t->data - data), (size_t)(at - data));
        at += t->n_bytes;
    }
    if ((uint64_t)(at - data) != size)
        return err_set(err, ERR_FORMAT, "tensors end at data offset %zu, the file's data at %llu", (size_t)(at - data),
                       (unsigned long long)size);
    return true;
}

static bool check_meta(const json_t *meta, struct err *err)
{
    const char *key;
    json_t *v;
    if (meta && !json_is_object(meta))
        return err_set(err, ERR_FORMAT, META_KEY ": want an object of strings");
    json_object_foreach((json_t *)(uintptr_t)meta, key, v) if (!json_is_string(v)) return err_set(
        err, ERR_FORMAT, META_KEY ": \"%.60s\" is not a string", key);
    return true;
}

static bool read_entries(struct safetensors *s, const char *data, uint64_t size, struct err *err)
{
    const char *key;
    json_t *v;
    s->tensor = mem_array(json_object_size(s->header), sizeof(*s->tensor), err);
    if (!s->tensor)
        return false;
    json_object_foreach(s->header, key, v)
    {
        if (strcmp(key, META_KEY) == 0)
            continue;
        struct st_tensor *t = &s->tensor[s->n++];
        t->name = key;
        if (strlen(key) > ST_NAME_MAX)
            return err_set(err, ERR_LIMIT, "tensor \"%.60s..\": name has %zu bytes, at most %d allowed", key,
                           strlen(key), ST_NAME_MAX);
        if (!read_entry(v, data, size, t, err))
            return err_prefix(err, "tensor \"%.80s\"", key);
    }
    if (s->n > 1)
        qsort(s->tensor, s->n, sizeof(*s->tensor), by_offset);
    return check_cover(s, data, size, err);
}

static bool read_header(struct safetensors *s, const char *bytes, size_t n, struct err *err)
{
    uint64_t len;
    if (n < PREFIX)
        return err_set(err, ERR_FORMAT, "%zu bytes, not even a header's length", n);
    memcpy(&len, bytes, sizeof(len));
    if (len > ST_HEADER_MAX || len > n - PREFIX)
        return err_set(err, ERR_FORMAT, "header of %llu bytes, want at most %zu (what the file has, up to 1 MiB)",
                       (unsigned long long)len, n - PREFIX < ST_HEADER_MAX ? n - PREFIX : ST_HEADER_MAX);
    if (len < 2 || bytes[PREFIX] != '{')
        return err_set(err, ERR_FORMAT, "header does not begin with {");
    s->header = json_parse(bytes + PREFIX, (size_t)len, err);
    if (!s->header)
        return err_prefix(err, "header");
    s->meta = json_object_get(s->header, META_KEY);
    return check_meta(s->meta, err) && read_entries(s, bytes + PREFIX + len, n - PREFIX - len, err);
}

struct safetensors *safetensors_open_mem(const void *bytes, size_t n, const char *name, struct err *err)
{
    struct safetensors *s = mem_array(1, sizeof(*s), err);
    if (!s)
        return NULL;
    if ((s->name = mem_dup(name, strlen(name), err)) && read_header(s, bytes, n, err))
        return s;
    err_prefix(err, "%s", name);
    safetensors_close(s);
    return NULL;
}

struct safetensors *safetensors_open(const char *path, struct err *err)
{
    size_t n;
    void *map = fio_map(path, &n, err);
    if (!map)
        return NULL;
    struct safetensors *s = safetensors_open_mem(map, n, path, err);
    if (!s) {
        fio_unmap(map, n);
        return NULL;
    }
    s->map = map;
    s->map_bytes = n;
    return s;
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    json_decref(s->header);
    free(s->tensor);
    free(s->name);
    fio_unmap(s->map, s->map_bytes);
    free(s);
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->n;
}

const struct st_tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    return &s->tensor[i];
}

const struct st_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->tensor[i].name, name) == 0)
            return &s->tensor[i];
    return NULL;
}

const char *safetensors_meta(const struct safetensors *s, const char *key)
{
    return json_string_value(json_object_get(s->meta, key));
}

// -------------------------------------------------------------------------------------------------------- values

/* An exponent of all ones is what NaN and infinity have in common. The loop has no early end, so that it is vectorised.
 */
static bool finite_block(const char *p, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + i * sizeof(v), sizeof(v));
        bad |= (v & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

bool st_all_finite(const void *p, size_t n)
{
    const char *at = p;
    const size_t step = 1 << 14;
    for (size_t i = 0; i < n; i += step) {
        if (!finite_block(at + i * sizeof(float), n - i < step ? n - i : step))
            return false;
        pace_point();
    }
    return true;
}

static void print_shape(char *out, size_t size, uint32_t n_dims, const uint64_t *dim)
{
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < n_dims && at < size; i++) {
        int n = snprintf(out + at, size - at, "[%llu]", (unsigned long long)dim[i]);
        at += n > 0 ? (size_t)n : 0;
    }
}

static bool check_tensor(const struct st_tensor *t, uint32_t n_dims, const uint64_t *dim, struct err *err)
{
    char found[192], wanted[192];
    if (t->dtype != ST_F32)
        return err_set(err, ERR_FORMAT, "type %s, want F32", dtypes[t->dtype].name);
    bool same = t->n_dims == n_dims;
    for (uint32_t i = 0; same && i < n_dims; i++)
        same = t->dim[i] == dim[i];
    if (!same) {
        print_shape(found, sizeof(found), t->n_dims, t->dim);
        print_shape(wanted, sizeof(wanted), n_dims, dim);
        return err_set(err, ERR_MISMATCH, "shape %s, want %s", found[0] ? found : "of a scalar",
                       wanted[0] ? wanted : "of a scalar");
    }
    return st_all_finite(t->data, t->n_bytes / sizeof(float)) || err_set(err, ERR_FORMAT, "holds NaN or infinity");
}

static const struct st_tensor *take_tensor(const struct safetensors *s, const char *name, uint32_t n_dims,
                                           const uint64_t *dim, struct err *err)
{
    const struct st_tensor *t = safetensors_find(s, name);
    if (!t)
        err_set(err, ERR_FORMAT, "tensor \"%s\" is missing", name);
    else if (check_tensor(t, n_dims, dim, err))
        return t;
    else
        err_prefix(err, "tensor \"%s\"", name);
    err_prefix(err, "%s", s->name);
    return NULL;
}

bool safetensors_read_f32(const struct safetensors *s, const char *name, uint32_t n_dims, const uint64_t *dim,
                          float *out, struct err *err)
{
    const struct st_tensor *t = take_tensor(s, name, n_dims, dim, err);
    if (t && out && t->n_bytes)
        memcpy(out, t->data, t->n_bytes);
    return t != NULL;
}

const float *safetensors_view_f32(const struct safetensors *s, const char *name, uint32_t n_dims, const uint64_t *dim,
                                  struct err *err)
{
    const struct st_tensor *t = take_tensor(s, name, n_dims, dim, err);
    if (!t)
        return NULL;
    if ((uintptr_t)t->data % _Alignof(float) != 0) {
        err_set(err, ERR_FORMAT,
                "%s: tensor \"%s\" does not begin at a multiple of 4 bytes; pad the header with spaces", s->name, name);
        return NULL;
    }
    return t->data;
}

// ------------------------------------------------------------------------------------------------------- writing

struct safetensors_writer {
    int fd;
    char *path;
    uint64_t want, put;    // bytes of data
    bool opened, finished; // opened and not finished: the file goes away with the writer
};

static json_t *entry_json(const struct st_tensor *t, uint64_t begin)
{
    json_t *shape = json_array();
    int bad = 0;
    for (uint32_t i = 0; i < t->n_dims; i++)
        bad |= json_array_append_new(shape, json_integer((json_int_t)t->dim[i]));
    json_t *o = json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtypes[t->dtype].name, "shape", shape, "data_offsets",
                          (json_int_t)begin, (json_int_t)(begin + t->n_bytes));
    if (bad) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *meta_json(const struct st_layout *layout)
{
    json_t *o = json_object();
    int bad = 0;
    for (size_t i = 0; i < layout->n_meta; i++)
        bad |= json_object_set_new(o, layout->meta[i].key, json_string(layout->meta[i].value));
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *header_json(const struct st_layout *layout, uint64_t *n_data, struct err *err)
{
    json_t *o = json_object();
    int bad = layout->n_meta ? json_object_set_new(o, META_KEY, meta_json(layout)) : 0;
    *n_data = 0;
    for (size_t i = 0; i < layout->n_tensors && !bad; i++) {
        struct st_tensor t = layout->tensor[i];
        if (t.n_dims > ST_DIMS_MAX || strlen(t.name) > ST_NAME_MAX || json_object_get(o, t.name) || !set_bytes(&t)) {
            err_set(err, ERR_ARG,
                    "tensor \"%.80s\": want distinct names of at most %d bytes, %d dimensions, sizes that fit", t.name,
                    ST_NAME_MAX, ST_DIMS_MAX);
            bad = 1;
            break;
        }
        bad = json_object_set_new(o, t.name, entry_json(&t, *n_data));
        *n_data += t.n_bytes;
    }
    if (!bad)
        return o;
    err_set(err, ERR_NOMEM, "safetensors header: out of memory, or a name that is not UTF-8");
    json_decref(o);
    return NULL;
}

/* Length, JSON, spaces up to where the data begin. */
static bool write_header(struct safetensors_writer *w, const json_t *header, struct err *err)
{
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text)
        return err_set(err, ERR_NOMEM, "safetensors header: out of memory");
    struct buf b = {0};
    size_t len = strlen(text), padded = (PREFIX + len + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN - PREFIX;
    uint64_t prefix = padded;
    buf_put(&b, &prefix, sizeof(prefix));
    buf_put(&b, text, len);
    for (; len < padded; len++)
        buf_puts(&b, " ");
    bool ok = padded <= ST_HEADER_MAX ||
              err_set(err, ERR_LIMIT, "safetensors header: %zu bytes, at most %zu allowed", padded, ST_HEADER_MAX);
    if (ok && b.failed)
        ok = err_set(err, ERR_NOMEM, "safetensors header: out of memory");
    ok = ok && fio_write_full(w->fd, b.data, b.len, err);
    buf_fini(&b);
    free(text);
    return ok;
}

struct safetensors_writer *safetensors_writer_new(const char *path, const struct st_layout *layout, struct err *err)
{
    struct safetensors_writer *w = mem_array(1, sizeof(*w), err);
    if (!w)
        return NULL;
    w->fd = -1;
    w->path = mem_dup(path, strlen(path), err);
    json_t *header = w->path ? header_json(layout, &w->want, err) : NULL;
    bool ok = header != NULL;
    if (ok && (w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
        ok = err_errno(err, "open");
    w->opened = w->fd >= 0;
    ok = ok && write_header(w, header, err);
    json_decref(header);
    if (ok)
        return w;
    err_prefix(err, "%s", path);
    safetensors_writer_free(w);
    return NULL;
}

bool safetensors_put(struct safetensors_writer *w, const void *data, size_t n_bytes, struct err *err)
{
    if (n_bytes > w->want - w->put)
        return err_set(err, ERR_ARG, "%s: %zu bytes of tensors too many", w->path,
                       (size_t)(n_bytes - (w->want - w->put)));
    if (!fio_write_full(w->fd, data, n_bytes, err))
        return err_prefix(err, "%s", w->path);
    w->put += n_bytes;
    return true;
}

bool safetensors_finish(struct safetensors_writer *w, struct err *err)
{
    if (w->put != w->want)
        return err_set(err, ERR_ARG, "%s: %llu bytes of tensors put, %llu announced", w->path,
                       (unsigned long long)w->put, (unsigned long long)w->want);
    if (fsync(w->fd) != 0)
        return err_errno(err, "%s: fsync", w->path);
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0)
        return err_errno(err, "%s: close", w->path);
    w->finished = true;
    return true;
}

void safetensors_writer_free(struct safetensors_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->opened && !w->finished)
        unlink(w->path);
    free(w->path);
    free(w);
}
