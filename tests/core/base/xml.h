/* xml.h - is a text well-formed XML? Elements close in the order in which they open, attributes are quoted, & begins an entity. */
#ifndef DUET_TESTS_XML_H
#define DUET_TESTS_XML_H

static inline void assert_well_formed(const char *text)
{
    char open[32][32];
    size_t depth = 0, roots = 0;
    for (const char *p = text; *p;) {
        if (*p == '&' && strncmp(p, "&amp;", 5) != 0 && strncmp(p, "&lt;", 4) != 0 && strncmp(p, "&gt;", 4) != 0)
            fail_msg("a bare &: %.40s", p);
        if (*p++ != '<')
            continue;
        const char *begin = p, *end = strchr(p, '>');
        assert_non_null(end);
        assert_true(memchr(begin, '<', (size_t)(end - begin)) == NULL);
        size_t quotes = 0;
        for (const char *q = begin; q < end; q++)
            quotes += *q == '"';
        assert_int_equal(quotes % 2, 0);
        size_t n = strcspn(begin + (*begin == '/'), " />");
        assert_in_range(n, 1, sizeof(open[0]) - 1);
        if (*begin == '/') {
            assert_true(depth > 0 && strncmp(open[depth - 1], begin + 1, n) == 0 && !open[depth - 1][n]);
            depth--;
        } else if (end[-1] != '/') {
            assert_true(depth < 32);
            roots += depth == 0;
            snprintf(open[depth++], sizeof(open[0]), "%.*s", (int)n, begin);
        }
        p = end + 1;
    }
    assert_int_equal(depth, 0);
    assert_int_equal(roots, 1);
}

#endif
