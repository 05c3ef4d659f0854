/* If this fails, fields end up in the wrong column, or a broken file is read as if it were whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "prepare_util.h"
#include "train/csv.h"

/* All records as text: fields in [], records separated by ;. Errors as !message. */
static const char *read_all(const char *name)
{
    static char text[8192];
    struct csv c;
    struct err err = {0};
    size_t n = 0;
    text[0] = '\0';
    if (!csv_open(&c, in_dir(name), ',', &err)) {
        snprintf(text, sizeof(text), "!%s", err.msg);
        return text;
    }
    for (int got; (got = csv_next(&c, &err)) != 0 && n < sizeof(text) - 600;) {
        if (got < 0) {
            n += (size_t)snprintf(text + n, sizeof(text) - n, "!%s;", strrchr(err.msg, '/') + 1);
            if (err.code != ERR_FORMAT)
                break;
            err = (struct err){0};
            continue;
        }
        for (uint32_t i = 0; i < c.n; i++) {
            struct str s = csv_field(&c, i);
            n += (size_t)snprintf(text + n, sizeof(text) - n, "[%.*s]", (int)s.n, s.p);
        }
        n += (size_t)snprintf(text + n, sizeof(text) - n, ";");
    }
    csv_close(&c);
    return text;
}

static const char *read_text(const char *text)
{
    write_text("a.csv", text);
    return read_all("a.csv");
}

static void follows_rfc_4180(void **state)
{
    (void)state;
    assert_string_equal(read_text("a,b\r\n1,2\r\n3,4\r\n"), "[1][2];[3][4];");
    assert_string_equal(read_text("a,b\n1,2\n3,4"), "[1][2];[3][4];"); // no line end at the end
    assert_string_equal(read_text("a,b\n\"1\",\"x \"\"y\"\" z\"\n"), "[1][x \"y\" z];");
    assert_string_equal(read_text("a,b\n\"1,5\",\"line\r\nbreak\"\n6,7\n"), "[1,5][line\r\nbreak];[6][7];");
    assert_string_equal(read_text("a,b\n,\n\"\",\"\"\n"), "[][];[][];");
    assert_string_equal(read_text("a,b\n\"\"\"\",x\n"), "[\"][x];");
    assert_string_equal(read_text("a,b\n 1 ,2\n"), "[ 1 ][2];"); // spaces are part of a field
}

static void takes_what_people_have(void **state)
{
    (void)state;
    assert_string_equal(read_text("\xef\xbb\xbf"
                                  "a,b\n1,2\n"),
                        "[1][2];"); // byte-order mark
    assert_string_equal(read_text("a,b\n\n1,2\n\r\n\n3,4\n\n"), "[1][2];[3][4];");
    assert_string_equal(read_text("\"a\",\"b\"\n1,2\n"), "[1][2];");
    assert_string_equal(read_text("a\n1\n"), "[1];");
}

static void names_what_is_broken_and_goes_on(void **state)
{
    (void)state;
    assert_string_equal(read_text("a,b\n1\n2,3\n"), "!a.csv:2: found 1 fields, want 2 as in the header;[2][3];");
    assert_string_equal(read_text("a,b\n1,2,3\n2,3\n"), "!a.csv:2: found 3 fields, want 2 as in the header;[2][3];");
    assert_non_null(strstr(read_text("a,b\n1,x\"y\n2,3\n"), "a.csv:2: field 2: a quote inside a field"));
    assert_non_null(strstr(read_text("a,b\n1,x\"y\n2,3\n"), ";[2][3];"));
    assert_non_null(strstr(read_text("a,b\n\"1\"x,2\n2,3\n"), "a.csv:2: field 1: text after the closing quote"));
    assert_non_null(strstr(read_text("a,b\n\"\"x,2\n2,3\n"), "text after the closing quote"));
    assert_non_null(strstr(read_text("a,b\n1,2\n\"3,4\n5,6\n"), "a.csv:3: field 1: a quoted field that does not end"));
    assert_non_null(strstr(read_text("a,b\n1,2\r3,4\n5,6\n"), "a carriage return that no line feed follows"));
    assert_non_null(strstr(read_text("a,b\n1,\xe9t\xe9\n5,6\n"), "a.csv:2: not UTF-8 text; convert"));
    assert_non_null(strstr(read_text("a,b\n1,\xe9t\xe9\n5,6\n"), ";[5][6];"));
}

/* A line in a quoted field counts: messages must point at the right one. */
static void counts_lines_inside_quotes(void **state)
{
    (void)state;
    assert_string_equal(read_text("a,b\n\"x\ny\nz\",1\n2\n"),
                        "[x\ny\nz][1];!a.csv:5: found 1 fields, want 2 as in the header;");
}

static void checks_the_header(void **state)
{
    (void)state;
    assert_non_null(strstr(read_text(""), "a.csv:1: empty file"));
    assert_non_null(strstr(read_text("a,,b\n"), "a.csv:1: column 2 has no name"));
    assert_non_null(strstr(read_text("a,b,a\n"), "columns 1 and 3 are both named \"a\""));
    assert_int_equal(read_all("missing.csv")[0], '!');
}

static void limits_records(void **state)
{
    (void)state;
    size_t n = (1 << 20) + 100;
    char *big = malloc(n + 16);
    assert_non_null(big);
    memcpy(big, "a,b\n1,", 6);
    memset(big + 6, 'x', n);
    memcpy(big + 6 + n, "\n5,6\n", 6);
    write_text("big.csv", big);
    assert_non_null(strstr(read_all("big.csv"), "big.csv:2: field 2: the record is longer than 1 MiB"));
    assert_non_null(strstr(read_all("big.csv"), ";[5][6];"));
    memset(big, ',', 2000);
    big[2000] = '\0';
    write_text("wide.csv", big);
    assert_non_null(strstr(read_all("wide.csv"), "more than 1024 fields"));
    free(big);
}

static void reads_gzip(void **state)
{
    (void)state;
    write_gz("z.csv.gz", "a,b\n1,\"x,y\"\n");
    assert_string_equal(read_all("z.csv.gz"), "[1][x,y];");
    assert_int_equal(rename(in_dir("z.csv.gz"), in_dir("z.csv")), 0); // told by content, not by name
    assert_string_equal(read_all("z.csv"), "[1][x,y];");
}

/* A download that stopped half way must not be read as a smaller data set. */
static void refuses_cut_gzip(void **state)
{
    (void)state;
    size_t n;
    char *text = malloc(400001);
    assert_non_null(text);
    memcpy(text, "aa,bb\n", 6);
    for (int i = 6; i < 400000; i++)
        text[i] = (char)(i % 7 == 0 ? ',' : i % 7 == 6 ? '\n' : 'a' + i % 1009 * 7919 % 26);
    text[400000] = '\0';
    write_gz("z.csv.gz", text);
    free(text);
    char *gz = fio_read_all(in_dir("z.csv.gz"), 1 << 20, &n, NULL);
    assert_non_null(gz);
    write_bytes("cut.csv.gz", gz, n - 20);
    gz[n / 2] = (char)(gz[n / 2] ^ 0x40);
    write_bytes("damaged.csv.gz", gz, n);
    free(gz);
    static const char *const names[] = {"cut.csv.gz", "damaged.csv.gz"};
    for (int i = 0; i < 2; i++) {
        struct csv c;
        struct err err = {0};
        int got = csv_open(&c, in_dir(names[i]), ',', &err) ? 1 : -1;
        while (got == 1 || (got < 0 && err.code == ERR_FORMAT)) {
            err = (struct err){0};
            got = csv_next(&c, &err);
        }
        assert_int_equal(got, -1);
        assert_int_equal(err.code, ERR_IO);
        assert_non_null(strstr(err.msg, "gzip stream is damaged or cut"));
        csv_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(follows_rfc_4180, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(takes_what_people_have, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(names_what_is_broken_and_goes_on, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(counts_lines_inside_quotes, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(checks_the_header, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(limits_records, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(reads_gzip, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(refuses_cut_gzip, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
