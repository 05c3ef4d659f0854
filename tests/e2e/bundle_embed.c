/* bundle_embed DIR USER - p_u and a_u of a stored user as the library computes them, as JSON. The truth for /v1/users:embed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/retrieve.h"

static void print(const char *name, const float *v, size_t n, const char *end)
{
    printf("\"%s\": [", name);
    for (size_t i = 0; i < n; i++)
        printf("%s%.9g", i ? ", " : "", (double)v[i]);
    printf("]%s", end);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct bundle *b = argc == 3 ? bundle_load(argv[1], &(struct bundle_load_params){.skip_probes = true}, &err) : NULL;
    struct retrieve_ws *ws = b ? retrieve_ws_new(b, &err) : NULL;
    if (!ws) {
        fprintf(stderr, "bundle_embed: %s\n", argc == 3 ? err.msg : "usage: bundle_embed DIR USER");
        return 1;
    }
    size_t d = b->manifest.d, d_aug = b->model->user.shape.d_aug;
    float *v = calloc(d + d_aug + 1, sizeof(float));
    struct retrieve_query q = {.user_id = {argv[2], strlen(argv[2])}, .k = 1};
    struct retrieve_result r = {0};
    bool ok = v && retrieve_embed(b, &q, ws, v, d_aug ? v + d : NULL, &r, &err);
    if (ok) {
        printf("{");
        print("p_u", v, d, ", ");
        print("a_u", v ? v + d : v, d_aug, "}\n");
    }
    free(v);
    retrieve_ws_free(ws);
    bundle_free(b);
    return ok ? 0 : 1;
}
