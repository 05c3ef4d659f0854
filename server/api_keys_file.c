/* api_keys_file.c - data.keys_file into a table. */
#include "server/api_keys_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"
#include "core/base/mem.h"

#define FILE_MAX (1u << 20)
#define RATE_LEAST 0.001 // requests a second
#define RATE_MOST 1e6
#define BURST_MOST 1000000u // of the slowest rate: 1e18 ns, which a uint64_t holds

static const char *const fields[] = {"name", "sha256", "requests_per_s", "burst"};
enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]) };

size_t api_key_find(const struct api_key_table *t, const char *name)
{
    size_t i = 0;
    while (i < t->n && strcmp(t->key[i].name, name) != 0)
        i++;
    return i;
}

static bool known_fields(const struct ynode *at, const char *path, const char *const *known, size_t n, struct err *err)
{
    for (size_t i = 0; i < at->n; i++) {
        size_t j = 0;
        while (j < n && strcmp(at->key[i].text, known[j]) != 0)
            j++;
        if (j < n)
            continue;
        const char *near = ynode_nearest(at->key[i].text, known, n);
        return ynode_error(&at->key[i], path, err, "unknown key '%s'%s%s%s", at->key[i].text,
                           near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_digest(const struct ynode *v, const char *path, struct digest *out, struct err *err)
{
    unsigned char byte[sizeof(*out)];
    const char *s = ynode_str(v, path, err);
    if (!s)
        return false;
    size_t n = strlen(s), i = 0;
    for (; n == 2 * sizeof(byte) && i < sizeof(byte); i++) {
        int high = hex_digit(s[2 * i]), low = hex_digit(s[2 * i + 1]);
        if (high < 0 || low < 0)
            break;
        byte[i] = (unsigned char)(high << 4 | low);
    }
    if (i < sizeof(byte)) // what stands there may be the key itself: it is not repeated
        return ynode_error(v, path, err, "sha256: found %zu characters, want 64 hex digits: the SHA-256 of the key", n);
    memcpy(out, byte, sizeof(byte));
    return true;
}

static bool read_quota(const struct ynode *at, const char *path, struct api_key *k, struct err *err)
{
    const struct ynode *rate = ynode_get(at, "requests_per_s"), *burst = ynode_get(at, "burst");
    double per_s;
    uint64_t most;
    if (!rate)
        return !burst || ynode_error(burst, path, err, "burst without requests_per_s");
    if (!ynode_double(rate, path, &per_s, err))
        return false;
    if (per_s < RATE_LEAST || per_s > RATE_MOST)
        return ynode_error(rate, path, err, "requests_per_s: found %g, want %g to %g", per_s, RATE_LEAST, RATE_MOST);
    most = per_s > 1 ? (uint64_t)ceil(per_s) : 1;
    if (burst && !ynode_uint(burst, path, &most, err))
        return false;
    if (most < 1 || most > BURST_MOST)
        return ynode_error(burst ? burst : rate, path, err, "burst: found %llu, want 1 to %u", (unsigned long long)most, BURST_MOST);
    k->step_ns = (uint64_t)(1e9 / per_s);
    k->slack_ns = (most - 1) * k->step_ns;
    return true;
}

static bool read_name(const struct ynode *v, const char *path, const struct api_key_table *t, char **out, struct err *err)
{
    const char *s = ynode_str(v, path, err);
    if (!s)
        return false;
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    if (s[n] || n < 1 || n > 64)
        return ynode_error(v, path, err, "name: found \"%.80s\", want 1 to 64 of A-Z a-z 0-9 . _ -", s);
    if (api_key_find(t, s) < t->n)
        return ynode_error(v, path, err, "name: \"%s\" is there already", s);
    *out = mem_dup(s, n, err);
    return *out != NULL;
}

static bool read_key(const struct ynode *at, const char *path, struct api_key_table *t, struct err *err)
{
    if (at->kind != YNODE_MAP)
        return ynode_error(at, path, err, "want a mapping with name and sha256");
    struct api_key *k = &t->key[t->n];
    const struct ynode *name = ynode_get(at, "name"), *sha256 = ynode_get(at, "sha256");
    if (!known_fields(at, path, fields, N_FIELDS, err))
        return false;
    if (!name || !sha256)
        return ynode_error(at, path, err, "%s is missing", name ? "sha256" : "name");
    if (!read_digest(sha256, path, &k->sha256, err) || !read_quota(at, path, k, err) ||
        !read_name(name, path, t, &k->name, err))
        return false;
    for (size_t i = 0; i < t->n; i++)
        if (memcmp(&t->key[i].sha256, &k->sha256, sizeof(k->sha256)) == 0)
            return ynode_error(sha256, path, err, "sha256: that of \"%s\" too", t->key[i].name);
    t->n++;
    return true;
}

static bool read_keys(const struct ynode *root, const char *path, struct api_key_table *t, struct err *err)
{
    static const char *const top[] = {"keys"};
    const struct ynode *list = ynode_get(root, "keys");
    if (root->kind == YNODE_MAP && !known_fields(root, path, top, 1, err))
        return false;
    if (!list || list->kind != YNODE_SEQ || list->n < 1 || list->n > API_KEYS_MAX)
        return ynode_error(list ? list : root, path, err, "want 'keys', a list of 1 to %d", API_KEYS_MAX);
    if (!(t->key = mem_array(list->n, sizeof(t->key[0]), err)))
        return false;
    for (size_t i = 0; i < list->n; i++)
        if (!read_key(&list->child[i], path, t, err)) {
            free(t->key[t->n].name); // the one that is not counted yet
            return false;
        }
    return true;
}

struct api_key_table *api_key_table_read(const char *path, struct err *err)
{
    struct api_key_table *t = mem_array(1, sizeof(*t), err);
    if (!t || !path[0])
        return t;
    struct ynode *root = ynode_read_file(path, FILE_MAX, err);
    bool ok = root && read_keys(root, path, t, err);
    ynode_free(root);
    if (ok)
        return t;
    err_prefix(err, "data.keys_file");
    api_key_table_free(t);
    return NULL;
}

void api_key_table_free(struct api_key_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->key[i].name);
    free(t->key);
    free(t);
}
