/* config.c - defaults, then the file, then the environment, then flags; each later one wins. Whole or not at all. */
#include "config/config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/keys.h"
#include "config/lists.h"
#include "config/yaml.h"
#include "core/base/fio.h"

#define FILE_MAX ((size_t)1 << 20)
#define NAME_MAX_BYTES 128
#define SECTIONS_MAX 32

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < n_keys; i++)
        key_free(c, &keys[i]);
    lists_free(c);
    free(c->origin);
    free(c->file);
    free(c);
}

static struct config *with_defaults(const char *name, struct err *err)
{
    struct config *c = mem_array(1, sizeof(*c), err);
    if (!c)
        return NULL;
    if (!(c->file = mem_dup(name, strlen(name), err)) || !(c->origin = mem_array(n_keys, sizeof(*c->origin), err))) {
        config_free(c);
        return NULL;
    }
    for (size_t i = 0; i < n_keys; i++)
        if (!key_set(c, &keys[i], keys[i].def, err)) {
            config_free(c);
            return NULL;
        }
    return c;
}

// ----------------------------------------------------------------------------------------------------- YAML file

static bool unknown_key(const struct ynode *at, const char *name, const char *key, struct err *err)
{
    const char *near = key_nearest(key);
    if (near)
        return ynode_error(at, name, err, "unknown key %s; did you mean %s?", key, near);
    return ynode_error(at, name, err, "unknown key %s (duetd --sample-config lists all)", key);
}

static bool is_section(const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i < n_keys; i++)
        if (strncmp(keys[i].name, word, n) == 0 && keys[i].name[n] == '.')
            return true;
    return false;
}

static bool unknown_section(const struct ynode *at, const char *name, const char *word, struct err *err)
{
    static const char *const lists[] = {"models", "labels", "experiments"};
    char section[SECTIONS_MAX][NAME_MAX_BYTES];
    const char *known[SECTIONS_MAX + sizeof(lists) / sizeof(lists[0])];
    size_t n = 0;
    for (size_t i = 0; i < n_keys && n < SECTIONS_MAX; i++) { // keys of a section stand together
        size_t len = strcspn(keys[i].name, ".");
        if (n > 0 && strlen(section[n - 1]) == len && strncmp(section[n - 1], keys[i].name, len) == 0)
            continue;
        snprintf(section[n], sizeof(section[n]), "%.*s", (int)len, keys[i].name);
        known[n] = section[n];
        n++;
    }
    memcpy(known + n, lists, sizeof(lists));
    const char *near = ynode_nearest(word, known, n + sizeof(lists) / sizeof(lists[0]));
    if (near)
        return ynode_error(at, name, err, "unknown section %s; did you mean %s?", word, near);
    return ynode_error(at, name, err, "unknown section %s (duetd --sample-config lists all)", word);
}

static bool read_scalar(struct config *c, const struct ynode *key, const struct ynode *value, const char *section,
                        const char *name, struct err *err)
{
    char full[NAME_MAX_BYTES];
    struct err why = {0};
    snprintf(full, sizeof(full), "%s.%s", section, key->text);
    const struct key *k = key_find(full);
    if (!k)
        return unknown_key(key, name, full, err);
    if (value->kind != YNODE_SCALAR)
        return ynode_error(value, name, err, "%s: found a %s, want a single value", full,
                           value->kind == YNODE_MAP ? "mapping" : "list");
    if (!key_set(c, k, value->text, &why))
        return ynode_error(value, name, err, "%s: %s", full, why.msg);
    c->origin[k - keys] = (struct config_origin){CONFIG_FILE, value->line};
    return true;
}

static bool read_section(struct config *c, const struct ynode *key, const struct ynode *map, const char *name,
                         struct err *err)
{
    if (!is_section(key->text))
        return unknown_section(key, name, key->text, err);
    if (map->kind != YNODE_MAP) // "data:" with nothing below it is an empty scalar
        return (map->kind == YNODE_SCALAR && !map->text[0] && !map->quoted) ||
               ynode_error(map, name, err, "%s: want a mapping of keys", key->text);
    for (size_t i = 0; i < map->n; i++)
        if (!read_scalar(c, &map->key[i], &map->child[i], key->text, name, err))
            return false;
    return true;
}

static bool read_tree(struct config *c, const struct ynode *root, const char *name, struct err *err)
{
    if (root->kind != YNODE_MAP)
        return ynode_error(root, name, err, "want a mapping of sections");
    for (size_t i = 0; i < root->n; i++) {
        const struct ynode *key = &root->key[i], *value = &root->child[i];
        bool ok;
        if (strcmp(key->text, "models") == 0)
            ok = lists_read_models(c, value, name, err);
        else if (strcmp(key->text, "labels") == 0)
            ok = lists_read_labels(c, value, name, err);
        else if (strcmp(key->text, "experiments") == 0)
            ok = lists_read_experiments(c, value, name, err);
        else
            ok = read_section(c, key, value, name, err);
        if (!ok)
            return false;
    }
    return lists_check(c, name, err);
}

// --------------------------------------------------------------------------------------------- environment, flags

static bool set_by_name(struct config *c, const char *key, const char *value, enum config_source source, const char *where,
                        struct err *err)
{
    const struct key *k = key_find(key);
    const char *near = k ? NULL : key_nearest(key);
    struct err why = {0};
    if (!k && (strcmp(key, "models") == 0 || strcmp(key, "labels") == 0 || strcmp(key, "experiments") == 0))
        return err_set(err, ERR_ARG, "%s: %s can only be given in the file", where, key);
    if (!k)
        return err_set(err, ERR_ARG, "%s: unknown key %s%s%s%s", where, key,
                       near ? "; did you mean " : " (duetd --sample-config lists all)", near ? near : "",
                       near ? "?" : "");
    if (!key_set(c, k, value, &why))
        return err_set(err, ERR_ARG, "%s: %s: %s", where, key, why.msg);
    c->origin[k - keys] = (struct config_origin){source, 0};
    return true;
}

/* DUET__DATA__PORT=9000 is data.port. */
static bool read_environment(struct config *c, char *const *environ_, struct err *err)
{
    static const char prefix[] = "DUET__";
    for (; environ_ && *environ_; environ_++) {
        const char *var = *environ_, *eq = strchr(var, '=');
        char key[NAME_MAX_BYTES], where[NAME_MAX_BYTES + 16];
        size_t n = 0;
        if (strncmp(var, prefix, sizeof(prefix) - 1) != 0 || !eq)
            continue;
        for (const char *p = var + sizeof(prefix) - 1; p < eq && n + 1 < sizeof(key); p++) {
            bool dot = p[0] == '_' && p + 1 < eq && p[1] == '_';
            key[n++] = dot ? '.' : (char)tolower((unsigned char)*p);
            p += dot;
        }
        key[n] = '\0';
        snprintf(where, sizeof(where), "environment %.*s", (int)(eq - var), var);
        if (!set_by_name(c, key, eq + 1, CONFIG_ENVIRONMENT, where, err))
            return false;
    }
    return true;
}

static bool read_overrides(struct config *c, const struct config_override *set, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        const char *eq = strchr(set[i].text, '=');
        char key[NAME_MAX_BYTES];
        if (!eq || (size_t)(eq - set[i].text) >= sizeof(key))
            return err_set(err, ERR_ARG, "--set: found \"%.60s\", want section.key=value", set[i].text);
        snprintf(key, sizeof(key), "%.*s", (int)(eq - set[i].text), set[i].text);
        if (!set_by_name(c, key, eq + 1, CONFIG_FLAG, "--set", err))
            return false;
    }
    return true;
}

static bool check_whole(const struct config *c, struct err *err)
{
    if (c->drain.timeout_ms < c->drain.delay_ms)
        return err_set(err, ERR_ARG, "drain.timeout_ms is %llu, want at least drain.delay_ms (%llu)",
                       (unsigned long long)c->drain.timeout_ms, (unsigned long long)c->drain.delay_ms);
    if (c->data.port && c->data.port == c->admin.port && strcmp(c->data.address, c->admin.address) == 0)
        return err_set(err, ERR_ARG, "data and admin both want %s port %llu; give them different ports",
                       c->data.address, (unsigned long long)c->data.port);
    return true;
}

// --------------------------------------------------------------------------------------------------------- public

struct config *config_parse(const char *text, size_t n, const char *name, char *const *environ_,
                            const struct config_override *set, size_t n_set, struct err *err)
{
    struct ynode *root = ynode_parse(text, n, FILE_MAX, name, err);
    struct config *c = root ? with_defaults(name, err) : NULL;
    bool ok = c && read_tree(c, root, name, err) && read_environment(c, environ_, err) &&
              read_overrides(c, set, n_set, err) && check_whole(c, err);
    ynode_free(root);
    if (ok)
        return c;
    config_free(c);
    return NULL;
}

struct config *config_read(const char *path, char *const *environ_, const struct config_override *set, size_t n_set,
                           struct err *err)
{
    if (!path)
        return config_parse("", 0, "defaults", environ_, set, n_set, err);
    size_t n;
    char *text = fio_read_all(path, FILE_MAX, &n, err);
    if (!text)
        return NULL;
    struct config *c = config_parse(text, n, path, environ_, set, n_set, err);
    free(text);
    return c;
}

void config_frozen_changes(const struct config *now, const struct config *next, struct buf *out)
{
    for (size_t i = 0; i < n_keys; i++)
        if (!keys[i].live && !key_equal(now, next, &keys[i]))
            buf_printf(out, "%s%s", out->len ? ", " : "", keys[i].name);
    if (!out->data)
        buf_puts(out, "");
}

bool config_keep_frozen(struct config *next, const struct config *now, struct err *err)
{
    for (size_t i = 0; i < n_keys; i++) {
        if (keys[i].live || key_equal(next, now, &keys[i]))
            continue;
        struct buf text = {0};
        if (keys[i].kind == KEY_STR) // as it is, not quoted
            buf_puts(&text, *(char *const *)(const void *)((const char *)now + keys[i].offset));
        else
            key_text(now, &keys[i], &text);
        bool ok = !text.failed && key_set(next, &keys[i], text.data ? text.data : "", err);
        buf_fini(&text);
        if (!ok)
            return err_set(err, ERR_NOMEM, "out of memory");
        next->origin[i] = now->origin[i];
    }
    return true;
}
