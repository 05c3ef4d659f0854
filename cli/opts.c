#include "cli/opts.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"

#define OPTS_MAX 128

static const char *dashes(const char *name)
{
    return strlen(name) == 1 ? "-" : "--";
}

// ---------------------------------------------------------------------------------------------------------- help

/* A default outside the range is a mark for "not given": the command decides, so there is none to print. */
static bool has_default(const struct opt *o)
{
    bool ranged = o->min < o->max;
    if (o->kind == OPT_UINT) {
        uint64_t v = *(const uint64_t *)o->out;
        return v != UINT64_MAX && (!ranged || ((double)v >= o->min && (double)v <= o->max));
    }
    double v = o->kind == OPT_NUM ? *(const double *)o->out : 0;
    return o->kind != OPT_NUM || (isfinite(v) && (!ranged || (v >= o->min && v <= o->max)));
}

static void print_default(const struct opt *o)
{
    if (!has_default(o))
        return;
    switch (o->kind) {
    case OPT_FLAG:
        if (*(const bool *)o->out)
            printf(" (default; --no-%s clears it)", o->name);
        break;
    case OPT_STR:
        if (*(const char *const *)o->out)
            printf(" (default %s)", *(const char *const *)o->out);
        break;
    case OPT_UINT:
        printf(" (default %llu)", (unsigned long long)*(const uint64_t *)o->out);
        break;
    case OPT_NUM:
        printf(" (default %g)", *(const double *)o->out);
        break;
    case OPT_LIST:
        printf(" (may be repeated)");
        break;
    }
}

static void print_help(const char *usage, const char *about, const struct opt *opts)
{
    printf("usage: %s\n%s%s", usage, about ? about : "", about ? "\n" : "");
    for (const struct opt *o = opts; o->name; o++) {
        char left[64];
        snprintf(left, sizeof(left), "%s%s%s%s", dashes(o->name), o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-26s %s", left, o->help ? o->help : "");
        print_default(o);
        printf("\n");
    }
}

// -------------------------------------------------------------------------------------------------------- values

static int bad(const char *name, const char *value, const char *want)
{
    fprintf(stderr, "duet: %s%s: found \"%s\", want %s\n", dashes(name), name, value, want);
    return 2;
}

static int set_value(const struct opt *o, const char *value)
{
    char want[96], *end = NULL;
    bool ranged = o->min < o->max;
    errno = 0;
    switch (o->kind) {
    case OPT_STR:
        *(const char **)o->out = value;
        return -1;
    case OPT_LIST: {
        struct opt_list *list = o->out;
        if (list->n == OPT_LIST_MAX)
            return bad(o->name, value, "at most 64 of them");
        list->v[list->n++] = value;
        return -1;
    }
    case OPT_UINT: {
        unsigned long long v = strtoull(value, &end, 10);
        snprintf(want, sizeof(want), ranged ? "a whole number from %.0f to %.0f" : "a whole number", o->min, o->max);
        if (errno || end == value || *end || value[0] < '0' || value[0] > '9' || (ranged && ((double)v < o->min || (double)v > o->max)))
            return bad(o->name, value, want);
        *(uint64_t *)o->out = v;
        return -1;
    }
    case OPT_NUM: {
        double v = strtod(value, &end);
        snprintf(want, sizeof(want), ranged ? "a number from %g to %g" : "a number", o->min, o->max);
        if (errno || end == value || *end || !isfinite(v) || (ranged && (v < o->min || v > o->max)))
            return bad(o->name, value, want);
        *(double *)o->out = v;
        return -1;
    }
    case OPT_FLAG:
        break;
    }
    return bad(o->name, value, "no value");
}

static const struct opt *find(const struct opt *opts, const char *name, size_t n)
{
    for (const struct opt *o = opts; o->name; o++)
        if (strlen(o->name) == n && memcmp(o->name, name, n) == 0)
            return o;
    return NULL;
}

static int unknown(const struct opt *opts, const char *arg, const char *name)
{
    const char *known[OPTS_MAX];
    size_t n = 0;
    for (const struct opt *o = opts; o->name && n < OPTS_MAX; o++)
        known[n++] = o->name;
    const char *near = ynode_nearest(name, known, n);
    if (near)
        fprintf(stderr, "duet: unknown option %s; did you mean %s%s?\n", arg, dashes(near), near);
    else
        fprintf(stderr, "duet: unknown option %s (--help lists them)\n", arg);
    return 2;
}

// ------------------------------------------------------------------------------------------------------- parsing

/* The option that `arg` is, and whether it is the --no- of a flag; NULL if there is none. */
static const struct opt *named(const struct opt *opts, const char *arg, bool *clears)
{
    const char *name = arg + 1 + (arg[1] == '-'), *eq = strchr(name, '=');
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    const struct opt *o = find(opts, name, n);
    *clears = false;
    if (o || eq || strncmp(name, "no-", 3) != 0)
        return o;
    o = find(opts, name + 3, n - 3);
    *clears = o && o->kind == OPT_FLAG;
    return *clears ? o : NULL;
}

int opts_parse(const char *usage, const char *about, const struct opt *opts, int argc, char **argv, struct opt_list *positional)
{
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            print_help(usage, about, opts);
            return 0;
        }
        if (arg[0] != '-' || arg[1] == '\0') {
            if (!positional || positional->n == OPT_LIST_MAX) {
                fprintf(stderr, "duet: unexpected argument \"%s\" (usage: %s)\n", arg, usage);
                return 2;
            }
            positional->v[positional->n++] = arg;
            continue;
        }
        const char *name = arg + 1 + (arg[1] == '-'), *eq = strchr(name, '=');
        bool clears;
        const struct opt *o = named(opts, arg, &clears);
        if (clears) {
            *(bool *)o->out = false;
            continue;
        }
        if (!o)
            return unknown(opts, arg, name);
        if (o->kind == OPT_FLAG && !eq) {
            *(bool *)o->out = true;
            continue;
        }
        if (!eq && ++i == argc) {
            fprintf(stderr, "duet: %s wants a value (%s)\n", arg, o->value ? o->value : "VALUE");
            return 2;
        }
        int rc = set_value(o, eq ? eq + 1 : argv[i]);
        if (rc >= 0)
            return rc;
    }
    return -1;
}

const char *opts_next(const struct opt *opts, int argc, char **argv, int *i)
{
    while (*i < argc) {
        const char *arg = argv[(*i)++];
        bool clears;
        const struct opt *o = arg[0] == '-' && arg[1] ? named(opts, arg, &clears) : NULL;
        if (!o)
            continue;
        *i += o->kind != OPT_FLAG && !strchr(arg, '='); // its value
        return o->name;
    }
    return NULL;
}
