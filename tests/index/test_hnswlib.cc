// Breaks when our files or graphs part ways with the real hnswlib: files exchanged in both directions must answer the
// same, and a graph of ours must find as much as hnswlib's own on the same data.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <unistd.h>
#include <unordered_set>
#include <vector>

#include <hnswlib/hnswlib.h>

#include "index/hnsw.h"

namespace
{
const size_t N = 3000, NQ = 200, DIM = 16, K = 10, EF = 50;
char path[] = "/tmp/hnswlib_XXXXXX";

void check(bool ok, const char *what, const hnsw_err *err = nullptr)
{
    if (ok)
        return;
    std::fprintf(stderr, "failed: %s %s\n", what, err ? err->msg : "");
    unlink(path);
    std::exit(1);
}

std::vector<float> data(size_t n, unsigned seed)
{
    std::mt19937 g(seed);
    std::normal_distribution<float> normal;
    std::vector<float> v(n * DIM);
    for (float &x : v)
        x = normal(g);
    for (size_t i = 0; i < n; i++) {
        float len = 0;
        for (size_t j = 0; j < DIM; j++)
            len += v[i * DIM + j] * v[i * DIM + j];
        for (size_t j = 0; j < DIM; j++)
            v[i * DIM + j] /= std::sqrt(len);
    }
    return v;
}

struct theirs {
    hnswlib::InnerProductSpace ip{DIM};
    hnswlib::L2Space l2{DIM};
    hnswlib::HierarchicalNSW<float> *graph = nullptr;
    hnswlib::SpaceInterface<float> *space(hnsw_metric m)
    {
        return m == HNSW_L2 ? static_cast<hnswlib::SpaceInterface<float> *>(&l2) : &ip;
    }
    ~theirs()
    {
        delete graph;
    }
    std::vector<size_t> search(const float *q)
    {
        graph->setEf(EF);
        auto queue = graph->searchKnn(q, K);
        std::vector<size_t> out;
        for (; !queue.empty(); queue.pop())
            out.push_back(queue.top().second);
        std::reverse(out.begin(), out.end());
        return out;
    }
};

std::vector<size_t> search(const hnsw *h, const float *q, hnsw_ws *ws, bool exact)
{
    hnsw_query p = {};
    p.plan = HNSW_PLAN_WALK;
    p.k = K;
    p.ef = EF;
    hnsw_hit hit[K];
    hnsw_err err = {};
    size_t n = (exact ? hnsw_search_exact : hnsw_search)(h, q, &p, ws, hit, &err);
    check(err.code == HNSW_OK, "search", &err);
    std::vector<size_t> out;
    for (size_t i = 0; i < n; i++)
        out.push_back(hit[i].label);
    return out;
}

double agreement(const std::vector<std::vector<size_t>> &a, const std::vector<std::vector<size_t>> &b)
{
    size_t same = 0;
    for (size_t i = 0; i < a.size(); i++) {
        std::unordered_set<size_t> s(a[i].begin(), a[i].end());
        for (size_t x : b[i])
            same += s.count(x);
    }
    return double(same) / double(a.size() * K);
}

void exchange(hnsw_metric metric)
{
    std::vector<float> base = data(N, 1), query = data(NQ, 2);
    hnsw_ws *ws = hnsw_ws_new();
    hnsw_err err = {};
    theirs t;
    t.graph = new hnswlib::HierarchicalNSW<float>(t.space(metric), N, 16, 200, 5);
    for (size_t i = 0; i < N; i++)
        t.graph->addPoint(&base[i * DIM], 7 * i);
    for (size_t i = 0; i < N; i += 13)
        t.graph->markDelete(7 * i);

    hnsw_params params = {};
    params.metric = metric;
    params.dim = DIM;
    params.capacity = N;
    hnsw *ours = hnsw_new(&params, &err);
    check(ours != nullptr, "hnsw_new", &err);
    for (size_t i = 0; i < N; i++)
        check(hnsw_add(ours, &base[i * DIM], 7 * i, &err), "add", &err);
    for (size_t i = 0; i < N; i += 13)
        check(hnsw_remove(ours, 7 * i, &err), "remove", &err);

    // theirs -> ours
    t.graph->saveIndex(path);
    hnsw *imported = hnsw_import(path, metric, DIM, &err);
    check(imported != nullptr, "import", &err);
    check(hnsw_check(imported, nullptr, &err), "check of an imported graph", &err);
    check(hnsw_count(imported) == N - (N + 12) / 13, "count");
    // ours -> theirs
    check(hnsw_export(ours, path, &err), "export", &err);
    theirs back;
    back.graph = new hnswlib::HierarchicalNSW<float>(back.space(metric), path);
    // theirs -> ours -> theirs, and on from there
    check(hnsw_export(imported, path, &err), "export", &err);
    theirs round;
    round.graph = new hnswlib::HierarchicalNSW<float>(round.space(metric), path, false, N + 10);
    std::vector<float> more = data(1, 9);
    round.graph->addPoint(more.data(), 1000000);

    std::vector<std::vector<size_t>> truth, a, b, c, d;
    for (size_t i = 0; i < NQ; i++) {
        const float *q = &query[i * DIM];
        truth.push_back(search(ours, q, ws, true));
        a.push_back(t.search(q));
        b.push_back(search(imported, q, ws, false));
        c.push_back(search(ours, q, ws, false));
        d.push_back(back.search(q));
    }
    double same_import = agreement(a, b), same_export = agreement(c, d), theirs = agreement(truth, a),
           own = agreement(truth, c);
    std::printf("%s: recall theirs %.4f ours %.4f; same answers imported %.4f exported %.4f\n",
                hnsw_metric_name(metric), theirs, own, same_import, same_export);
    check(same_import > 0.995 && same_export > 0.995, "the same graph answers the same"); // ties and float order apart
    check(own > theirs - 0.005, "recall of our own graph against hnswlib's");
    hnsw_free(imported);
    hnsw_free(ours);
    hnsw_ws_free(ws);
}
} // namespace

int main()
{
    int fd = mkstemp(path);
    check(fd >= 0 && close(fd) == 0, "temporary file");
    exchange(HNSW_IP);
    exchange(HNSW_COSINE);
    exchange(HNSW_L2);
    unlink(path);
    return 0;
}
