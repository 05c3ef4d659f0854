/* duet doctor: is this machine fit for duetd, and what is to be done if not? */
#include <stdio.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/doctor.h"
#include "cli/opts.h"
#include "core/base/json.h"

static const char usage[] = "duet doctor [--config FILE] [--json]";
static const char about[] = "FILE: the daemon's configuration; without it its defaults. Exit status 1 if something "
                            "must be fixed before duetd can serve.\n";

static const char *const grades[] = {[DOCTOR_OK] = "ok", [DOCTOR_NOTE] = "note", [DOCTOR_BAD] = "bad"};

static void print_text(const struct doctor_finding *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        printf("%-5s %-11s %s\n", grades[f[i].grade], f[i].subject, f[i].found);
        if (f[i].fix[0])
            printf("      %-11s -> %s\n", "", f[i].fix);
    }
}

static void print_json(const struct doctor_finding *f, unsigned n)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "grade", grades[f[i].grade], "subject",
                                              f[i].subject, "found", f[i].found, "fix", f[i].fix));
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

int cmd_doctor(int argc, char **argv)
{
    const char *path = NULL, *root = "";
    bool json = false;
    const struct opt opts[] = {
        {"config", OPT_STR, &path, "FILE", "the daemon's configuration", 0, 0},
        {"root", OPT_STR, &root, "DIR", "look at DIR/proc and DIR/sys instead", 0, 0},
        {"json", OPT_FLAG, &json, NULL, "print JSON", 0, 0},
        {0},
    };
    struct doctor_finding found[DOCTOR_FINDINGS_MAX];
    struct err err = {0};
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    struct config *c = config_read(path, environ, NULL, 0, &err);
    if (!c)
        return cmd_fail("doctor", &err);
    unsigned n = doctor_examine(c, root, found);
    config_free(c);
    (json ? print_json : print_text)(found, n);
    rc = 0;
    for (unsigned i = 0; i < n; i++)
        rc |= found[i].grade == DOCTOR_BAD;
    return rc;
}
