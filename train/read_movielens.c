/* The archives that GroupLens publishes: ml-1m (fields separated by "::"), ml-100k (tabs and bars), ml-latest and
 * ml-25m (CSV). The first two are Latin-1; a line that is valid UTF-8 already, because somebody converted the file, is
 * taken as it is. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/base/utf8.h"
#include "train/read.h"

#define FIELDS_MAX 32

/* Lines of fields, converted to UTF-8. */
struct fields {
    struct textin in;
    const char *sep;
    uint32_t want;   // fields of a line
    struct buf text; // the line in UTF-8
    struct str field[FIELDS_MAX];
    uint64_t line;
};

static bool line_error(const struct fields *f, struct err *err, const char *what, struct str found, const char *want)
{
    return err_set(err, ERR_FORMAT, "%s:%llu: %s is \"%.*s\", want %s", f->in.path, (unsigned long long)f->line, what,
                   (int)(found.n < 60 ? found.n : 60), found.p, want);
}

static void to_utf8(struct buf *out, struct str s)
{
    buf_reset(out);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        char two[2] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};
        if (c < 0x80)
            buf_put(out, &s.p[i], 1);
        else
            buf_put(out, two, 2);
    }
}

/* Cut the line at each separator. More than FIELDS_MAX fields are only counted. */
static uint32_t cut(struct fields *f, struct str s)
{
    uint32_t n = 0;
    size_t len = strlen(f->sep);
    for (;;) {
        const char *at = s.n >= len ? memmem(s.p, s.n, f->sep, len) : NULL;
        size_t width = at ? (size_t)(at - s.p) : s.n;
        if (n < FIELDS_MAX)
            f->field[n] = (struct str){s.p, width};
        n++;
        if (!at)
            return n;
        s.p += width + len;
        s.n -= width + len;
    }
}

/* Next line that is not blank: 1, 0 at the end, -1 after an error. */
static int next_line(struct fields *f, struct err *err)
{
    struct str s;
    int got;
    do {
        got = textin_line(&f->in, &s, &f->line, err);
    } while (got == 1 && s.n == 0);
    if (got <= 0)
        return got;
    if (!utf8_valid(s.p, s.n)) {
        to_utf8(&f->text, s);
        if (f->text.failed) {
            err_set(err, ERR_NOMEM, "%s: out of memory", f->in.path);
            return -1;
        }
        s = (struct str){f->text.data, f->text.len};
    }
    uint32_t n = cut(f, s);
    if (n == f->want)
        return 1;
    err_set(err, ERR_FORMAT, "%s:%llu: found %u fields, want %u separated by \"%s\"", f->in.path,
            (unsigned long long)f->line, n, f->want, f->sep[0] == '\t' ? "\\t" : f->sep);
    return -1;
}

typedef bool row_fn(const struct fields *f, struct raw *raw, struct err *err);

static bool read_lines(const char *dir, const char *name, const char *sep, uint32_t want, row_fn *row, struct raw *raw,
                       struct err *err)
{
    char path[PATH_MAX];
    struct fields f = {.sep = sep, .want = want};
    if (!read_find(dir, name, path))
        return err_set(err, ERR_NOT_FOUND, "%s: no %s or %s.gz", dir, name, name);
    if (!textin_open(&f.in, path, err))
        return false;
    bool ok = true;
    for (int got; ok && (got = next_line(&f, err)) != 0;)
        ok = (got > 0 && row(&f, raw, err)) || raw_skip(raw, err);
    buf_fini(&f.text);
    textin_close(&f.in);
    return ok;
}

/* The entity of field 0, which must be new. */
static bool new_row(const struct fields *f, struct raw_table *t, uint32_t *row, struct err *err)
{
    uint32_t known = t->ids.n;
    if (!raw_row(t, f->field[0], row, err))
        return err_prefix(err, "%s:%llu", f->in.path, (unsigned long long)f->line);
    return *row == known || line_error(f, err, t->what, f->field[0], "each id once");
}

static bool set_named(struct raw_table *t, uint32_t row, const char *name, struct str value, struct err *err)
{
    uint32_t col;
    return raw_column(t, name, &col, err) && raw_set(t, row, col, value, err);
}

/* user, item, rating, time: the log of ml-1m and ml-100k. */
static bool rating_row(const struct fields *f, struct raw *raw, struct err *err)
{
    struct raw_event e = {0};
    double value;
    if (!raw_parse_number(f->field[2], &value))
        return line_error(f, err, "rating", f->field[2], "a number");
    if (!raw_parse_time(f->field[3], &e.time))
        return line_error(f, err, "timestamp", f->field[3], "seconds since 1970");
    if (!raw_row(&raw->user, f->field[0], &e.user, err) || !raw_row(&raw->item, f->field[1], &e.item, err))
        return err_prefix(err, "%s:%llu", f->in.path, (unsigned long long)f->line);
    e.value = (float)value;
    return raw_event_add(raw, e, err);
}

// ----------------------------------------------------------------------------------------------------------- ml-1m

static bool ml_1m_user(const struct fields *f, struct raw *raw, struct err *err)
{
    static const char *const name[] = {NULL, "gender", "age", "occupation", "zip"};
    uint32_t row;
    bool ok = new_row(f, &raw->user, &row, err);
    for (size_t i = 1; ok && i < 5; i++)
        ok = set_named(&raw->user, row, name[i], f->field[i], err);
    return ok;
}

static bool ml_1m_movie(const struct fields *f, struct raw *raw, struct err *err)
{
    uint32_t row;
    return new_row(f, &raw->item, &row, err) && set_named(&raw->item, row, "title", f->field[1], err) &&
           set_named(&raw->item, row, "genres", f->field[2], err);
}

bool read_ml_1m(const char *dir, struct raw *raw, struct err *err)
{
    return read_lines(dir, "users.dat", "::", 5, ml_1m_user, raw, err) &&
           read_lines(dir, "movies.dat", "::", 3, ml_1m_movie, raw, err) &&
           read_lines(dir, "ratings.dat", "::", 4, rating_row, raw, err) && read_movie_columns(raw, err);
}

// --------------------------------------------------------------------------------------------------------- ml-100k

#define ML_100K_GENRES 19

static bool ml_100k_user(const struct fields *f, struct raw *raw, struct err *err)
{
    static const char *const name[] = {NULL, "age", "gender", "occupation", "zip"};
    uint32_t row;
    bool ok = new_row(f, &raw->user, &row, err);
    for (size_t i = 1; ok && i < 5; i++)
        ok = set_named(&raw->user, row, name[i], f->field[i], err);
    return ok;
}

/* The 19 flags in the order of u.genre, as one field of names; the first flag, "unknown", is no genre. */
static bool join_genres(const struct fields *f, struct buf *out, struct err *err)
{
    static const char *const genre[ML_100K_GENRES] = {"",          "Action",   "Adventure",   "Animation", "Children's",
                                                      "Comedy",    "Crime",    "Documentary", "Drama",     "Fantasy",
                                                      "Film-Noir", "Horror",   "Musical",     "Mystery",   "Romance",
                                                      "Sci-Fi",    "Thriller", "War",         "Western"};
    for (size_t i = 0; i < ML_100K_GENRES; i++) {
        struct str flag = f->field[5 + i];
        if (flag.n != 1 || (flag.p[0] != '0' && flag.p[0] != '1'))
            return line_error(f, err, "genre flag", flag, "0 or 1");
        if (flag.p[0] == '1' && i > 0) {
            buf_puts(out, out->len ? "|" : "");
            buf_puts(out, genre[i]);
        }
    }
    return !out->failed || err_set(err, ERR_NOMEM, "out of memory");
}

static bool ml_100k_item(const struct fields *f, struct raw *raw, struct err *err)
{
    struct buf genres = {0};
    struct str date = f->field[2]; // 01-Jan-1995, or nothing
    struct str year = date.n >= 4 ? (struct str){date.p + date.n - 4, 4} : (struct str){"", 0};
    uint32_t row;
    bool ok = join_genres(f, &genres, err) && new_row(f, &raw->item, &row, err) &&
              set_named(&raw->item, row, "title", f->field[1], err) && set_named(&raw->item, row, "year", year, err) &&
              set_named(&raw->item, row, "genres", (struct str){genres.data ? genres.data : "", genres.len}, err);
    buf_fini(&genres);
    return ok;
}

bool read_ml_100k(const char *dir, struct raw *raw, struct err *err)
{
    return read_lines(dir, "u.user", "|", 5, ml_100k_user, raw, err) &&
           read_lines(dir, "u.item", "|", 5 + ML_100K_GENRES, ml_100k_item, raw, err) &&
           read_lines(dir, "u.data", "\t", 4, rating_row, raw, err) && read_movie_columns(raw, err);
}

// ------------------------------------------------------------------------------------------------------- ml-latest

bool read_ml_latest(const char *dir, struct raw *raw, struct err *err)
{
    static const struct read_log_columns columns = {"userId", "movieId", "rating", "timestamp", NULL};
    char path[PATH_MAX];
    if (read_find(dir, "movies.csv", path) && !read_csv_table(path, "movieId", raw, &raw->item, err))
        return false;
    if (!read_find(dir, "ratings.csv", path))
        return err_set(err, ERR_NOT_FOUND, "%s: no ratings.csv or ratings.csv.gz", dir);
    return read_csv_log(path, &columns, raw, err) && read_movie_columns(raw, err);
}

// --------------------------------------------------------------------------------------- columns that titles hold

/* "Toy Story (1995)" -> "1995"; spaces may follow. Empty if there is none. */
static struct str year_of(struct str title)
{
    while (title.n > 0 && title.p[title.n - 1] == ' ')
        title.n--;
    struct str none = {"", 0};
    if (title.n < 6 || title.p[title.n - 1] != ')' || title.p[title.n - 6] != '(')
        return none;
    struct str year = {title.p + title.n - 5, 4};
    for (size_t i = 0; i < 4; i++)
        if (year.p[i] < '0' || year.p[i] > '9')
            return none;
    return year;
}

static struct str first_genre(struct str genres)
{
    const char *bar = memchr(genres.p, '|', genres.n);
    struct str first = {genres.p, bar ? (size_t)(bar - genres.p) : genres.n};
    if (first.n > 0 && first.p[0] == '(') // "(no genres listed)"
        first.n = 0;
    return first;
}

static bool derive(struct raw_table *t, const char *from, const char *to, struct str (*value)(struct str),
                   struct err *err)
{
    int src = raw_find_column(t, from);
    uint32_t dst;
    if (src < 0 || raw_find_column(t, to) >= 0)
        return true;
    if (!raw_column(t, to, &dst, err))
        return false;
    for (uint32_t row = 0; row < t->ids.n; row++)
        if (!raw_set(t, row, dst, value(raw_get(t, row, (uint32_t)src)), err))
            return false;
    return true;
}

bool read_movie_columns(struct raw *raw, struct err *err)
{
    return derive(&raw->item, "title", "year", year_of, err) &&
           derive(&raw->item, "genres", "category", first_genre, err);
}
