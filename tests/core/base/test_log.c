/* If this fails, a log line can be forged by a value with a line feed in it, or collectors cannot parse what we write.
 */
#include "tests/core/support.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "core/base/json.h"
#include "core/base/log.h"

static struct log open_log(void **state, bool json)
{
    int fd = open(tmp_path(state, "log"), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600);
    assert_true(fd >= 0);
    return (struct log){.fd = fd, .json = json, .level = LOG_INFO};
}

static char *lines(void **state, struct log *log)
{
    size_t n;
    close(log->fd);
    return get_file(tmp_path(state, "log"), &n);
}

static void json_lines_parse(void **state)
{
    struct log log = open_log(state, true);
    log_event(&log, LOG_DEBUG, "hidden");
    log_event(&log, LOG_WARN, "reload", LOG_STR("s", "a\"\\\n\x7f\xc3\xa9z"), LOG_INT("i", -5), LOG_NUM("d", 1.5),
              LOG_NUM("nan", NAN), LOG_BOOL("b", true), LOG_STR("null", NULL));
    char *text = lines(state, &log);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    struct err e = {0};
    json_t *o = json_parse(text, strlen(text), &e);
    assert_ok(o, &e);
    assert_string_equal(json_string_value(json_object_get(o, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(o, "event")), "reload");
    assert_memory_equal(json_string_value(json_object_get(o, "s")), "a\"\\\n\x7f", 5);
    assert_int_equal(json_integer_value(json_object_get(o, "i")), -5);
    assert_true(json_is_null(json_object_get(o, "nan")));
    assert_true(json_is_true(json_object_get(o, "b")));
    assert_int_equal(strlen(json_string_value(json_object_get(o, "ts"))), strlen("2026-01-01T00:00:00.000Z"));
    json_decref(o);
    free(text);
}

static void text_lines_stay_one_line(void **state)
{
    struct log log = open_log(state, false);
    log_event(&log, LOG_INFO, "ready", LOG_STR("s", "two\nlevel=error"), LOG_INT("i", 7));
    char *text = lines(state, &log);
    assert_non_null(strstr(text, " level=info event=ready s=\"two\\u000alevel=error\" i=7\n"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    free(text);
}

/* Values are cut, not the line's end: even with more than fits it is one valid JSON object. */
static void huge_values_are_cut(void **state)
{
    struct log log = open_log(state, true);
    static char big[20000];
    memset(big, '\n', sizeof(big) - 1);
    log_event(&log, LOG_ERROR, "x", LOG_STR("a", big), LOG_INT("after", 1));
    char *text = lines(state, &log);
    struct err e = {0};
    json_t *o = json_parse(text, strlen(text), &e);
    assert_ok(o, &e);
    assert_int_equal(json_string_length(json_object_get(o, "a")), 1024);
    assert_int_equal(json_integer_value(json_object_get(o, "after")), 1);
    json_decref(o);
    free(text);
}

static void levels(void **state)
{
    (void)state;
    enum log_level l;
    assert_true(log_level_parse("error", &l));
    assert_int_equal(l, LOG_ERROR);
    assert_false(log_level_parse("loud", &l));
    assert_string_equal(log_level_name(LOG_DEBUG), "debug");
    assert_string_equal(log_level_name((enum log_level)9), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_lines_parse, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(text_lines_stay_one_line, tmp_setup, tmp_teardown),
        cmocka_unit_test_setup_teardown(huge_values_are_cut, tmp_setup, tmp_teardown),
        cmocka_unit_test(levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
