/* example.c - 10,000 vectors into an index, and the five nearest of one. Built: docs in README.md beside this file. */
#include <stdio.h>
#include <stdlib.h>

#include <hnsw/hnsw.h>

enum { N = 10000, DIM = 32 };

int main(void)
{
    static float vec[N][DIM];
    struct hnsw_err err = {0};
    struct hnsw_hit hit[5];
    srand(1);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < DIM; j++)
            vec[i][j] = (float)rand() / (float)RAND_MAX - 0.5f;

    struct hnsw_params params = {.metric = HNSW_COSINE, .dim = DIM, .capacity = N};
    struct hnsw *index = hnsw_new(&params, &err);
    struct hnsw_ws *ws = hnsw_ws_new(); // one for each thread that searches
    if (!index || !ws || !hnsw_add_batch(index, vec[0], NULL, N, 2, NULL, NULL, &err) ||
        !hnsw_optimize(index, HNSW_FAST, 2, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    size_t n = hnsw_search(index, vec[42], &(struct hnsw_query){.k = 5, .ef = 100}, ws, hit, &err);
    for (size_t i = 0; i < n; i++)
        printf("%llu %.4f\n", (unsigned long long)hit[i].label, (double)hit[i].score);
    hnsw_ws_free(ws);
    hnsw_free(index);
}
