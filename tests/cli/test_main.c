/* If this fails, the commands that people type from the docs do not do, print or return what the docs say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "core/base/fio.h"

static char dir[] = "/tmp/duet-test-XXXXXX";
static char out[1 << 16]; // of the last command, both streams

/* Run "duet ARGS"; %s stands for the temporary folder. Returns the exit status. */
static int duet(const char *args)
{
    char command[2048], with_dir[1024];
    size_t n = 0;
    for (const char *at; (at = strstr(args, "%s")); args = at + 2)
        n += (size_t)snprintf(with_dir + n, sizeof(with_dir) - n, "%.*s%s", (int)(at - args), args, dir);
    snprintf(with_dir + n, sizeof(with_dir) - n, "%s", args);
    snprintf(command, sizeof(command), "'%s/duet' %s 2>&1", getenv("DUET_BIN_DIR"), with_dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t got = fread(out, 1, sizeof(out) - 1, p);
    out[got] = '\0';
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void prints(const char *part)
{
    if (!strstr(out, part))
        fail_msg("want \"%s\" in:\n%s", part, out);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir + sizeof(dir) - 7, "XXXXXX");
    return mkdtemp(dir) && getenv("DUET_BIN_DIR") ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return fio_remove_tree(dir, NULL) ? 0 : -1;
}

static void tells_its_commands(void **state)
{
    (void)state;
    assert_int_equal(duet("--help"), 0);
    prints("prepare");
    prints("synth");
    assert_int_equal(duet(""), 2);
    prints("usage: duet COMMAND");
    assert_int_equal(duet("--version"), 0);
    prints("duet " DUET_VERSION);
    assert_int_equal(duet("prepair"), 2);
    prints("unknown command \"prepair\"; did you mean prepare?");
    assert_int_equal(duet("prepare --help"), 0);
    prints("--in DIR");
    prints("--split HOW");
    prints("(default auto)");
    assert_int_equal(duet("train --help"), 0); // values that the recipe decides have no default of their own
    prints("--batch N");
    assert_null(strstr(out, "18446744073709551615"));
    assert_null(strstr(out, "default -1"));
}

static void goes_from_nothing_to_a_dataset(void **state)
{
    (void)state;
    assert_int_equal(duet("synth --out %s/raw --users 200 --items 300 --interactions 4000"), 0);
    prints("200 users, 300 items, 4000 interactions");
    assert_int_equal(duet("prepare --in %s/raw --out %s/data.duet --all-items"), 0);
    prints("layout generic (told by its files)");
    prints("split last");
    prints("users                       200   of 200 read");
    prints("items                       300   of 300 read");
    prints("train                      3600   of 200 users");
    prints("valid                       200   of 200 users");
    prints("test                        200   of 200 users");
    prints("category           categorical        11 rows, the category, segment");
    prints("/data.duet");
    assert_int_equal(duet("prepare --in %s/raw --out %s/data.duet --hold-out 0.1 --k-core 5 --split random --seed 3"),
                     0);
    prints("held-out users");
}

static void fails_with_one_line(void **state)
{
    (void)state;
    assert_int_equal(duet("prepare --in %s"), 2);
    prints("--in and --out are needed");
    assert_int_equal(duet("prepare --in %s/none --out %s/d"), 1);
    prints("duet prepare: ");
    prints("/none: no such folder");
    assert_int_equal(duet("prepare --in %s --out %s/d"), 1);
    prints("want the files of one of");
    assert_int_equal(duet("prepare --in %s --out %s/d --split tomorrow"), 2);
    prints("--split: found \"tomorrow\", want auto, given, last, day or random");
    assert_int_equal(duet("prepare --in %s --out %s/d --min-value high"), 2);
    prints("--min-value: found \"high\", want a number");
    assert_int_equal(duet("prepare --in %s --out %s/d --layuot generic"), 2);
    prints("unknown option --layuot; did you mean --layout?");
    assert_int_equal(duet("synth"), 2);
    prints("--out is needed");
    assert_int_equal(duet("synth --out %s/raw --users 100 --items 20 --interactions 1000"), 1);
    prints("duet synth: 1000 interactions, want 500 to 500");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_its_commands, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(goes_from_nothing_to_a_dataset, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(fails_with_one_line, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
