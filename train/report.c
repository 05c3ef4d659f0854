#include "train/report.h"

#include <string.h>

#define NAME_WIDTH 36

// --------------------------------------------------------------------------------------------------------- checks

static bool check_metrics(const json_t *m, const json_t *ks, struct err *err)
{
    double v;
    size_t i;
    json_t *k;
    json_array_foreach(ks, i, k)
    {
        char name[32];
        snprintf(name, sizeof(name), "hr@%lld", (long long)json_integer_value(k));
        if (!json_need_num(m, name, &v, err))
            return false;
    }
    return json_need_num(m, "n", &v, err) && json_need_num(m, "mrr", &v, err) && json_need_num(m, "mrr_x10", &v, err) &&
           json_need_num(m, "mrr_ceil10", &v, err);
}

static bool check_list(const json_t *system, const char *list, const char *name, const json_t *ks, struct err *err)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(system, list), i,
                       o) if (!json_need_str(o, name, err) ||
                              !check_metrics(o, ks, err)) return err_prefix(err, "%s[%zu]", list, i);
    return true;
}

static bool check_system(const json_t *s, const json_t *ks, struct err *err)
{
    const json_t *m = json_need_object(s, "metrics", err);
    return m && json_need_str(s, "name", err) && json_need_str(s, "kind", err) && json_need_str(s, "through", err) &&
           check_metrics(m, ks, err) && check_list(s, "categories", "category", ks, err) &&
           check_list(s, "cold_start", "view", ks, err);
}

bool report_check(const json_t *report, struct err *err)
{
    const char *format = json_need_str(report, "format", err);
    if (!format)
        return false;
    if (strcmp(format, "duet-evaluation") != 0)
        return err_set(err, ERR_FORMAT, "format \"%s\", want duet-evaluation", format);
    json_t *ks = json_need_array(report, "k", err), *systems = json_need_array(report, "systems", err), *s;
    size_t i;
    if (!ks || !systems || !json_need_str(report, "split", err) || !json_need_str(report, "protocol", err) ||
        !json_need_str(report, "dataset", err))
        return false;
    json_array_foreach(systems, i, s) if (!check_system(s, ks, err)) return err_prefix(err, "systems[%zu]", i);
    return true;
}

// ---------------------------------------------------------------------------------------------------------- table

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* The first column. Of a long path the end tells systems apart, so the beginning gives way. */
static void print_name(const char *name, FILE *to)
{
    size_t n = strlen(name);
    if (n <= NAME_WIDTH) {
        fprintf(to, "%-*s", NAME_WIDTH, name);
        return;
    }
    const char *end = name + n - (NAME_WIDTH - 2);
    while (((unsigned char)*end & 0xc0) == 0x80) // whole characters
        end++;
    fprintf(to, "..%-*s", NAME_WIDTH - 2, end);
}

static void print_head(const json_t *report, const char *first, FILE *to)
{
    size_t i;
    json_t *k;
    print_name(first, to);
    fprintf(to, " %7s", "n");
    json_array_foreach(json_object_get(report, "k"), i, k)
    {
        char name[32];
        snprintf(name, sizeof(name), "HR@%lld", (long long)json_integer_value(k));
        fprintf(to, " %7s", name);
    }
    fprintf(to, " %7s %7s %9s\n", "MRR", "MRRx10", "1/c(r/10)");
}

static void print_metrics(const json_t *report, const char *name, const json_t *m, FILE *to)
{
    size_t i;
    json_t *k;
    print_name(name, to);
    fprintf(to, " %7.0f", number_of(m, "n"));
    json_array_foreach(json_object_get(report, "k"), i, k)
    {
        char key[32];
        snprintf(key, sizeof(key), "hr@%lld", (long long)json_integer_value(k));
        fprintf(to, " %7.4f", number_of(m, key));
    }
    fprintf(to, " %7.4f %7.4f %9.4f\n", number_of(m, "mrr"), number_of(m, "mrr_x10"), number_of(m, "mrr_ceil10"));
}

static void print_groups(const json_t *report, const char *list, const char *name, const char *title, FILE *to)
{
    size_t i, q;
    json_t *s, *o;
    bool any = false;
    json_array_foreach(json_object_get(report, "systems"), i, s)
    {
        json_array_foreach(json_object_get(s, list), q, o)
        {
            char label[256];
            if (!any)
                fprintf(to, "\n%s\n", title);
            if (!any || q == 0)
                print_head(report, text_of(s, "name"), to);
            any = true;
            snprintf(label, sizeof(label), "  %s", text_of(o, name));
            print_metrics(report, label, o, to);
        }
    }
}

void report_print(const json_t *report, FILE *to)
{
    size_t i;
    json_t *s;
    fprintf(to, "%s, %s split: %.0f users, %.0f items\nprotocol: %s\n\n", text_of(report, "dataset"),
            text_of(report, "split"), number_of(report, "users"), number_of(report, "items"),
            text_of(report, "protocol"));
    print_head(report, "system", to);
    json_array_foreach(json_object_get(report, "systems"), i, s)
    {
        print_metrics(report, text_of(s, "name"), json_object_get(s, "metrics"), to);
        if (*text_of(s, "note"))
            fprintf(to, "  %s\n", text_of(s, "note"));
    }
    print_groups(report, "cold_start", "view", "cold start", to);
    print_groups(report, "categories", "category", "by category of the target item", to);
}

// ------------------------------------------------------------------------------------------------------------ CSV

static void csv_text(const char *s, FILE *to)
{
    if (!strpbrk(s, ",\"\r\n")) {
        fprintf(to, "%s,", s);
        return;
    }
    fputc('"', to);
    for (; *s; s++)
        fprintf(to, *s == '"' ? "\"\"" : "%c", *s);
    fputs("\",", to);
}

static void csv_row(const json_t *report, const json_t *s, const char *group, const json_t *m, FILE *to)
{
    size_t i;
    json_t *k;
    csv_text(text_of(s, "name"), to);
    csv_text(text_of(s, "kind"), to);
    csv_text(text_of(s, "through"), to);
    csv_text(group, to);
    fprintf(to, "%.0f", number_of(m, "n"));
    json_array_foreach(json_object_get(report, "k"), i, k)
    {
        char key[32];
        snprintf(key, sizeof(key), "hr@%lld", (long long)json_integer_value(k));
        fprintf(to, ",%.6f", number_of(m, key));
    }
    fprintf(to, ",%.6f,%.6f,%.6f\n", number_of(m, "mrr"), number_of(m, "mrr_x10"), number_of(m, "mrr_ceil10"));
}

void report_csv(const json_t *report, FILE *to)
{
    size_t i, q;
    json_t *k, *s, *o;
    fputs("system,kind,through,group,n", to);
    json_array_foreach(json_object_get(report, "k"), i, k) fprintf(to, ",hr@%lld", (long long)json_integer_value(k));
    fputs(",mrr,mrr_x10,mrr_ceil10\n", to);
    json_array_foreach(json_object_get(report, "systems"), i, s)
    {
        csv_row(report, s, "all", json_object_get(s, "metrics"), to);
        json_array_foreach(json_object_get(s, "cold_start"), q, o) csv_row(report, s, text_of(o, "view"), o, to);
        json_array_foreach(json_object_get(s, "categories"), q, o) csv_row(report, s, text_of(o, "category"), o, to);
    }
}
