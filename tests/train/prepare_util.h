/* prepare_util.h - for tests of readers and of `duet prepare`: a temporary folder, files in it, and a run over it.
 * Include after cmocka.h. Everything is static inline: one header, no object to link. */
#ifndef DUET_TESTS_PREPARE_UTIL_H
#define DUET_TESTS_PREPARE_UTIL_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "core/base/fio.h"
#include "train/dataset.h"
#include "train/prepare.h"

static char dir[] = "/tmp/duet-test-XXXXXX"; // of this test program

static inline int make_dir(void **state)
{
    (void)state;
    strcpy(dir + sizeof(dir) - 7, "XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_dir(void **state)
{
    (void)state;
    return fio_remove_tree(dir, NULL) ? 0 : -1;
}

static inline const char *in_dir(const char *name)
{
    static char path[4][PATH_MAX];
    static unsigned at;
    char *p = path[at++ % 4];
    snprintf(p, PATH_MAX, "%s/%s", dir, name);
    return p;
}

static inline void write_bytes(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb"); // fio would fsync, a thousand times in some tests
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

static inline void write_gz(const char *name, const char *text)
{
    gzFile gz = gzopen(in_dir(name), "wb");
    assert_non_null(gz);
    assert_int_equal(gzwrite(gz, text, (unsigned)strlen(text)), strlen(text));
    assert_int_equal(gzclose(gz), Z_OK);
}

static inline struct prepare_params params(void)
{
    return (struct prepare_params){.in = dir, .out = in_dir("out.duet"), .log.seed = 1, .log.days = 1};
}

/* Prepare the folder and open what was written. */
static inline struct dataset *prepared_with(const struct prepare_params *p, struct prepare_report *report)
{
    struct err err = {0};
    struct prepare_report dummy;
    struct dataset *d = NULL;
    if (!prepare_run(p, report ? report : &dummy, &err) || !(d = dataset_open(p->out, &err)))
        fail_msg("%s", err.msg);
    return d;
}

static inline struct dataset *prepared(void)
{
    struct prepare_params p = params();
    return prepared_with(&p, NULL);
}

/* It must fail, with `part` in the message. */
static inline void refused_with(const struct prepare_params *p, const char *part)
{
    struct err err = {0};
    struct prepare_report report;
    if (prepare_run(p, &report, &err))
        fail_msg("accepted; want an error with \"%s\"", part);
    if (!strstr(err.msg, part))
        fail_msg("found \"%s\", want \"%s\" in it", err.msg, part);
}

static inline void refused(const char *part)
{
    struct prepare_params p = params();
    refused_with(&p, part);
}

static inline uint32_t find_id(const struct strtab *t, const char *id)
{
    for (uint32_t i = 0; i < t->n; i++) {
        struct str s = strtab_get(t, i);
        if (s.n == strlen(id) && memcmp(s.p, id, s.n) == 0)
            return i;
    }
    fail_msg("no id \"%s\"", id);
    return 0;
}

/* "a b c": a user's items of one split, as ids. */
static inline const char *items_of(const struct dataset *d, const struct interactions *x, const char *user)
{
    static char text[4096];
    uint32_t u = find_id(&d->user_id, user);
    size_t n = 0;
    text[0] = '\0';
    for (uint64_t i = x->off[u]; i < x->off[u + 1]; i++) {
        struct str s = strtab_get(&d->item_id, x->item[i]);
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.*s", n ? " " : "", (int)s.n, s.p);
    }
    return text;
}

static inline const char *attr_of(const struct dataset *d, const char *item, const char *name)
{
    static char text[4096];
    for (uint32_t i = 0; i < d->n_attrs; i++)
        if (strcmp(d->attr[i].name, name) == 0) {
            struct str s = strtab_get(&d->attr[i].values, find_id(&d->item_id, item));
            snprintf(text, sizeof(text), "%.*s", (int)s.n, s.p);
            return text;
        }
    fail_msg("no attribute \"%s\"", name);
    return NULL;
}

static inline const char *category_of(const struct dataset *d, const char *item)
{
    static char text[4096];
    struct str s = strtab_get(&d->category, d->item_category[find_id(&d->item_id, item)]);
    snprintf(text, sizeof(text), "%.*s", (int)s.n, s.p);
    return text;
}

static inline const struct schema_field *field_of(const struct schema_side *side, const char *name)
{
    const struct schema_field *f = schema_find(side, name, strlen(name));
    if (!f)
        fail_msg("no field \"%s\"", name);
    return f;
}

#endif
