/* duet prepare: raw logs -> one dataset file, and a table of what is in it. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opts.h"
#include "train/dataset.h"
#include "train/prepare.h"

static const char usage[] = "duet prepare --in DIR --out FILE [options]";
static const char about[] =
    "Reads interactions, users and items from a folder (layouts: docs/data.md) and writes one dataset file.\n";

// ---------------------------------------------------------------------------------------------------------- summary

static void print_split(const char *name, const struct interactions *x, uint32_t n_users)
{
    uint32_t users = 0;
    for (uint32_t u = 0; u < n_users; u++)
        users += x->off[u + 1] > x->off[u];
    printf("  %-18s %12llu   of %u users\n", name, (unsigned long long)x->off[n_users], users);
}

static void print_side(const char *name, const struct schema_side *side)
{
    static const char *const kind[] = {"id", "categorical", "numeric", "multi", "display"};
    for (uint32_t i = 0; i < side->n_fields; i++) {
        const struct schema_field *f = &side->field[i];
        printf("  %-5s %-18s %-12s", name, f->name, kind[f->kind]);
        if (f->n_rows > 0)
            printf(" %8u rows", f->n_rows);
        if (f->n_slots > 1)
            printf(", up to %u values", f->n_slots);
        printf("%s%s\n", f->category ? ", the category" : "", (int)i == side->segment_field ? ", segment" : "");
    }
}

static uint32_t count_flags(const uint8_t *flag, uint32_t n)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < n; i++)
        set += flag[i];
    return set;
}

static void print_left_out(const char *why, uint64_t n)
{
    if (n > 0)
        printf("  %-18s %12llu   left out\n", why, (unsigned long long)n);
}

static void print_summary(const struct dataset *d, const struct prepare_report *r)
{
    uint64_t total =
        d->train.off[d->n_users] + d->valid.off[d->n_users] + d->test.off[d->n_users] + d->held.off[d->n_users];
    printf("layout %s, split %s\n", r->layout, r->split);
    printf("  %-18s %12u   of %u read\n", "users", d->n_users, r->users_read);
    printf("  %-18s %12u   of %u read\n", "items", d->n_items, r->items_read);
    printf("  %-18s %12llu   of %llu read\n", "interactions", (unsigned long long)total, (unsigned long long)r->n_read);
    print_left_out("value too small", r->n_low);
    print_left_out("pair repeated", r->n_repeated);
    print_left_out("outside k-core", r->n_thin);
    print_left_out("bad lines", r->n_bad);
    print_split("train", &d->train, d->n_users);
    print_split("valid", &d->valid, d->n_users);
    print_split("test", &d->test, d->n_users);
    if (d->held.off[d->n_users] > 0) {
        print_split("held out", &d->held, d->n_users);
        printf("  %-18s %12u   and %u items\n", "held-out users", count_flags(d->user_held_out, d->n_users),
               count_flags(d->item_held_out, d->n_items));
    }
    printf("fields\n");
    print_side("user", &d->schema->user);
    print_side("item", &d->schema->item);
    if (!schema_category(&d->schema->item))
        printf("  no item field is the category: nothing for category alignment and per-category metrics\n");
}

// ---------------------------------------------------------------------------------------------------------- command

static void note(void *user, const char *text)
{
    (void)user;
    fprintf(stderr, "prepare: %s\n", text);
}

static int run(struct prepare_params *p)
{
    struct err err = {0};
    struct prepare_report report;
    struct dataset *d = NULL;
    p->note = note;
    if (!prepare_run(p, &report, &err) || !(d = dataset_open(p->out, &err)))
        return cmd_fail("prepare", &err);
    print_summary(d, &report);
    printf("%s  %s\n", d->hash, p->out);
    dataset_close(d);
    return 0;
}

int cmd_prepare(int argc, char **argv)
{
    struct prepare_params p = {0};
    const char *split = "auto", *min_value = NULL;
    uint64_t seed = 1, k_core = 0, k_core_users = 0, k_core_items = 0, min_count = 1, days = 1;
    const struct opt opts[] = {
        {"in", OPT_STR, &p.in, "DIR", "folder of the raw logs", 0, 0},
        {"out", OPT_STR, &p.out, "FILE", "dataset file to write", 0, 0},
        {"layout", OPT_STR, &p.layout, "NAME",
         "generic, ml-1m, ml-100k, ml-latest, lightgcn or amazon; told by the files if not given", 0, 0},
        {"schema", OPT_STR, &p.schema, "FILE",
         "YAML file that names the features; derived from the columns if not given", 0, 0},
        {"split", OPT_STR, &split, "HOW", "auto, given, last, day or random", 0, 0},
        {"days", OPT_UINT, &days, "N", "with --split day: last N days = test, N before = validation", 1, 36500},
        {"min-value", OPT_STR, &min_value, "X", "smallest value of a positive interaction", 0, 0},
        {"k-core", OPT_UINT, &k_core, "N", "leave out users and items with fewer interactions, repeatedly", 0, 1e9},
        {"k-core-users", OPT_UINT, &k_core_users, "N", "the same for users only", 0, 1e9},
        {"k-core-items", OPT_UINT, &k_core_items, "N", "the same for items only", 0, 1e9},
        {"min-count", OPT_UINT, &min_count, "N", "values and ids seen less often share the out-of-vocabulary row", 1,
         1e9},
        {"hold-out", OPT_NUM, &p.log.hold_out, "SHARE", "share of users and of items withheld from training", 0, 0.9},
        {"all-items", OPT_FLAG, &p.all_items, NULL, "keep items without interactions in the catalogue", 0, 0},
        {"skip-bad", OPT_UINT, &p.skip_bad, "N", "tolerate up to N bad lines", 0, 1e15},
        {"seed", OPT_UINT, &seed, "N", "of everything random", 0, 0},
        {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!p.in || !p.out) {
        fprintf(stderr, "duet prepare: --in and --out are needed (usage: %s)\n", usage);
        return 2;
    }
    if (!split_parse(split, &p.log.how)) {
        fprintf(stderr, "duet prepare: --split: found \"%s\", want auto, given, last, day or random\n", split);
        return 2;
    }
    if (min_value && !raw_parse_number((struct str){min_value, strlen(min_value)}, &p.log.min_value)) {
        fprintf(stderr, "duet prepare: --min-value: found \"%s\", want a number\n", min_value);
        return 2;
    }
    p.log.has_min_value = min_value != NULL;
    p.log.k_core_user = (uint32_t)(k_core_users ? k_core_users : k_core);
    p.log.k_core_item = (uint32_t)(k_core_items ? k_core_items : k_core);
    p.log.days = (uint32_t)days;
    p.log.seed = seed;
    p.min_count = (uint32_t)min_count;
    return run(&p);
}
