/* opts.h - options of a subcommand as a table: parsing, ranges, defaults and --help come from it.
 * `--name value` and `--name=value`; flags take no value, and `--no-name` clears one whose default is true. Single-letter names
 * are written with one dash (-k 10). What is not an option is positional. An unknown option is an error naming the nearest one. */
#ifndef DUET_CLI_OPTS_H
#define DUET_CLI_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opt_kind { OPT_FLAG, OPT_STR, OPT_UINT, OPT_NUM, OPT_LIST };

#define OPT_LIST_MAX 64
struct opt_list {
    const char *v[OPT_LIST_MAX]; // borrowed from argv
    size_t n;
};

struct opt {
    const char *name; // without dashes; NULL ends the table
    enum opt_kind kind;
    void *out;         // bool *, const char **, uint64_t *, double *, struct opt_list *: holds the default before parsing; UINT64_MAX, NAN or one outside the range: none, help shows nothing
    const char *value; // placeholder in help ("FILE"); NULL for flags
    const char *help;
    double min, max;   // UINT, NUM: range if min < max
};

/* Returns -1 to go on, or the exit status to end with (0 after --help, 2 after an error, which is printed).
 *   usage: "duet publish --data FILE --checkpoint DIR ..." first line of help;  positional: NULL = none allowed */
int opts_parse(const char *usage, const char *about, const struct opt *opts, int argc, char **argv, struct opt_list *positional);

/* The options of a command line that opts_parse has taken, one by one: the name of the next from argv[*i] on, without dashes and without the no-
 * of a flag that it clears; NULL after the last. *i = 0 to begin with. */
const char *opts_next(const struct opt *opts, int argc, char **argv, int *i);

#endif
