#include "tests/train/golden_baselines.h"

#include <stdio.h>
#include <stdlib.h>

void golden_baselines_open(struct golden_baselines *g)
{
    char path[4096];
    struct err err = {0};
    size_t u, i;
    json_t *row, *v;
    *g = (struct golden_baselines){0};
    snprintf(path, sizeof(path), "%s/tests/golden/baselines.json", getenv("DUET_SOURCE_DIR"));
    if (!(g->json = json_read_file(path, 1 << 20, &err))) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    json_array_foreach(json_object_get(g->json, "seen"), u, row)
    {
        g->off[u + 1] = g->off[u];
        json_array_foreach(row, i, v) g->item[g->off[u + 1]++] = (uint32_t)json_integer_value(v);
    }
    g->d = (struct dataset){.n_users = (uint32_t)u,
                            .n_items = (uint32_t)json_integer_value(json_object_get(g->json, "n_items")),
                            .train = {g->off, g->item, NULL}};
}

void golden_baselines_close(struct golden_baselines *g)
{
    json_decref(g->json);
}

double golden_baselines_at(const struct golden_baselines *g, const char *matrix, size_t row, size_t col)
{
    return json_number_value(json_array_get(json_array_get(json_object_get(g->json, matrix), row), col));
}
