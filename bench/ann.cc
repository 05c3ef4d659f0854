// ann.cc - hnswlib-c against the real hnswlib: recall, queries per second of CPU time, latency, build cost, memory; one
// run, the systems taking turns (A B C A B C ...), so that a busy neighbour disturbs all of them alike.
//
//   bench_ann kind=relu n=1000000 nq=1000 k=100 ef=100,150,200,400 rounds=5 cache=DIR cpu=0
//
// kind relu is like a tower's output: a mixture of 4096 Gaussians in 128 dimensions through a random layer with ReLU to
// 32, unit length. kind sphere is Gaussian directions, the hard case. Graphs and truth are kept in cache (none: built
// anew). Figures: bench/results.md.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <random>
#include <sched.h>
#include <string>
#include <unistd.h>
#include <unordered_set>
#include <vector>

#include <hnswlib/hnswlib.h>

#include "index/hnsw.h"

namespace
{
const size_t DIM = 32, HIDDEN = 128, CENTERS = 4096;

double seconds(clockid_t clock)
{
    timespec t;
    clock_gettime(clock, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}
double cpu()
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

[[noreturn]] void die(const char *what, const char *why = "")
{
    std::fprintf(stderr, "ann: %s %s\n", what, why);
    std::exit(1);
}

struct options {
    std::map<std::string, std::string> kv{
        {"kind", "relu"},   {"n", "100000"},  {"nq", "1000"}, {"k", "100"}, {"ef", "100,150,200,400"},
        {"rounds", "5"},    {"cache", ""},    {"cpu", "-1"},  {"m", "16"},  {"efc", "200"},
        {"our_efc", "120"}, {"threads", "1"}, {"systems", ""}};
    std::string s(const char *key) const
    {
        return kv.at(key);
    }
    size_t n(const char *key) const
    {
        return std::stoul(kv.at(key));
    }
};

// ----------------------------------------------------------------------------------------------------------- data

struct tower {
    std::vector<float> weight, center;
    std::vector<double> share;
    explicit tower(std::mt19937_64 &g) : weight(HIDDEN * DIM), center(CENTERS * HIDDEN), share(CENTERS)
    {
        std::normal_distribution<float> normal;
        for (float &x : weight)
            x = normal(g) / std::sqrt(float(HIDDEN));
        for (float &x : center)
            x = normal(g);
        for (size_t i = 0; i < CENTERS; i++)
            share[i] = std::pow(double(i + 1), -0.5);
    }
    void row(std::mt19937_64 &g, std::discrete_distribution<int> &pick, float *out) const
    {
        std::normal_distribution<float> normal;
        float x[HIDDEN];
        const float *c = &center[size_t(pick(g)) * HIDDEN];
        for (size_t h = 0; h < HIDDEN; h++)
            x[h] = c[h] + 0.5f * normal(g);
        for (size_t j = 0; j < DIM; j++) {
            float a = 0.1f;
            for (size_t h = 0; h < HIDDEN; h++)
                a += weight[j * HIDDEN + h] * x[h];
            out[j] = std::max(a, 0.0f);
        }
    }
};

std::vector<float> generate(const std::string &kind, size_t n, uint64_t seed)
{
    std::mt19937_64 fixed(1), g(seed);
    tower t(fixed);
    std::discrete_distribution<int> pick(t.share.begin(), t.share.end());
    std::normal_distribution<float> normal;
    std::vector<float> v(n * DIM);
    for (size_t i = 0; i < n; i++) {
        float *p = &v[i * DIM], len;
        do {
            len = 0;
            if (kind == "sphere")
                std::generate(p, p + DIM, [&] { return normal(g); });
            else
                t.row(g, pick, p);
            for (size_t j = 0; j < DIM; j++)
                len += p[j] * p[j];
        } while (len < 1e-6f);
        for (size_t j = 0; j < DIM; j++)
            p[j] /= std::sqrt(len);
    }
    return v;
}

// -------------------------------------------------------------------------------------------------------- systems

struct job {
    options o;
    std::vector<float> base, query;
    std::vector<uint32_t> truth; // [nq][k]
    std::string cache(const std::string &what) const
    {
        if (o.s("cache").empty())
            return "";
        return o.s("cache") + "/" + o.s("kind") + "-" + o.s("n") + "-m" + o.s("m") + "-efc" + o.s("efc") + "." + what;
    }
};

bool there(const std::string &path)
{
    return !path.empty() && access(path.c_str(), R_OK) == 0;
}

struct theirs {
    hnswlib::InnerProductSpace space{DIM};
    hnswlib::HierarchicalNSW<float> *graph;
    explicit theirs(const job &j)
    {
        std::string path = j.cache("hnswlib");
        size_t n = j.o.n("n");
        if (there(path)) {
            graph = new hnswlib::HierarchicalNSW<float>(&space, path);
            return;
        }
        double t = cpu();
        graph = new hnswlib::HierarchicalNSW<float>(&space, n, j.o.n("m"), j.o.n("efc"), 1);
        for (size_t i = 0; i < n; i++)
            graph->addPoint(&j.base[i * DIM], i);
        std::printf("build hnswlib: %.1f CPU s\n", cpu() - t);
        std::fflush(stdout);
        if (!path.empty())
            graph->saveIndex(path);
    }
    size_t search(const float *q, size_t k, size_t ef, uint32_t *out)
    {
        graph->setEf(ef);
        auto queue = graph->searchKnn(q, k);
        size_t n = queue.size();
        for (size_t i = n; i-- > 0; queue.pop())
            out[i] = uint32_t(queue.top().second);
        return n;
    }
};

struct ours {
    hnsw *h;
    hnsw_ws *ws = hnsw_ws_new();
    std::vector<hnsw_hit> hit;
    hnsw_err err = {};
    explicit ours(hnsw *index) : h(index)
    {
        if (!h || !ws)
            die("no index");
    }
    static hnsw *build(const job &j)
    {
        hnsw_err err = {};
        std::string path = j.cache("our" + j.o.s("our_efc"));
        hnsw_params p = {};
        p.metric = HNSW_IP;
        p.dim = DIM;
        p.capacity = j.o.n("n");
        p.m = unsigned(j.o.n("m"));
        p.ef_construction = unsigned(j.o.n("our_efc"));
        hnsw *h = there(path) ? hnsw_load(path.c_str(), &err) : nullptr;
        if (h)
            return h;
        double t = cpu(), wall = seconds(CLOCK_MONOTONIC);
        h = hnsw_new(&p, &err);
        if (!h ||
            !hnsw_add_batch(h, j.base.data(), nullptr, p.capacity, unsigned(j.o.n("threads")), nullptr, nullptr, &err))
            die("build", err.msg);
        std::printf("build ours: %.1f CPU s, %.1f s, %s threads\n", cpu() - t, seconds(CLOCK_MONOTONIC) - wall,
                    j.o.s("threads").c_str());
        std::fflush(stdout);
        if (!path.empty() && !hnsw_save(h, path.c_str(), &err))
            die("save", err.msg);
        return h;
    }
    size_t search(const float *q, size_t k, size_t ef, uint32_t *out)
    {
        hnsw_query p = {};
        p.k = k;
        p.ef = ef;
        hit.resize(k);
        size_t n = hnsw_search(h, q, &p, ws, hit.data(), &err);
        for (size_t i = 0; i < n; i++)
            out[i] = uint32_t(hit[i].label);
        return n;
    }
};

std::vector<uint32_t> exact(const job &j, hnsw *h)
{
    size_t k = j.o.n("k"), nq = j.o.n("nq");
    std::string path = j.cache("truth-k" + j.o.s("k") + "-nq" + j.o.s("nq"));
    std::vector<uint32_t> out(nq * k);
    FILE *f = there(path) ? std::fopen(path.c_str(), "rb") : nullptr;
    if (f) {
        if (std::fread(out.data(), 4, out.size(), f) != out.size())
            die("short", path.c_str());
        std::fclose(f);
        return out;
    }
    ours o(h);
    o.hit.resize(k);
    hnsw_query p = {};
    p.k = k;
    for (size_t i = 0; i < nq; i++) {
        hnsw_search_exact(h, &j.query[i * DIM], &p, o.ws, o.hit.data(), &o.err);
        for (size_t x = 0; x < k; x++)
            out[i * k + x] = uint32_t(o.hit[x].label);
    }
    if (!path.empty() && (f = std::fopen(path.c_str(), "wb"))) {
        std::fwrite(out.data(), 4, out.size(), f);
        std::fclose(f);
    }
    return out;
}

// ------------------------------------------------------------------------------------------------------ measuring

struct system_under_test {
    std::string name;
    std::function<size_t(const float *, size_t, size_t, uint32_t *)> search;
};

struct point {
    double recall, qps, p50, p99;
};

double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

double pass(const job &j, const system_under_test &s, size_t ef, std::vector<uint32_t> &out, std::vector<double> &us)
{
    size_t k = j.o.n("k"), nq = j.o.n("nq");
    double t = cpu();
    for (size_t i = 0; i < nq; i++) {
        double one = seconds(CLOCK_MONOTONIC);
        s.search(&j.query[i * DIM], k, ef, &out[i * k]);
        us.push_back((seconds(CLOCK_MONOTONIC) - one) * 1e6);
    }
    return double(nq) / (cpu() - t);
}

double recall_of(const job &j, const std::vector<uint32_t> &out)
{
    size_t k = j.o.n("k"), nq = j.o.n("nq"), same = 0;
    for (size_t i = 0; i < nq; i++) {
        std::unordered_set<uint32_t> want(&j.truth[i * k], &j.truth[i * k] + k);
        for (size_t x = 0; x < k; x++)
            same += want.count(out[i * k + x]);
    }
    return double(same) / double(nq * k);
}

void measure(const job &j, std::vector<system_under_test> &systems)
{
    size_t rounds = j.o.n("rounds"), k = j.o.n("k"), nq = j.o.n("nq");
    std::string list = j.o.s("ef");
    std::printf("| ef | system | recall@%zu | queries / CPU s [min..max] | p50 us | p99 us | ratio "
                "|\n|---|---|---|---|---|---|---|\n",
                k);
    for (char *p = std::strtok(&list[0], ","); p; p = std::strtok(nullptr, ",")) {
        size_t ef = std::stoul(p);
        std::vector<std::vector<double>> qps(systems.size()), us(systems.size());
        std::vector<std::vector<uint32_t>> out(systems.size(), std::vector<uint32_t>(nq * k));
        for (size_t r = 0; r < rounds; r++)
            for (size_t s = 0; s < systems.size(); s++) {
                us[s].clear();
                qps[s].push_back(pass(j, systems[s], ef, out[s], us[s]));
            }
        for (size_t s = 0; s < systems.size(); s++) {
            std::sort(us[s].begin(), us[s].end());
            auto range = std::minmax_element(qps[s].begin(), qps[s].end());
            std::printf("| %zu | %s | %.4f | %.0f [%.0f..%.0f] | %.1f | %.1f | %.2f |\n", ef, systems[s].name.c_str(),
                        recall_of(j, out[s]), median(qps[s]), *range.first, *range.second, us[s][nq / 2],
                        us[s][nq * 99 / 100], median(qps[s]) / median(qps[0]));
        }
        std::fflush(stdout);
    }
}

void pin(int to)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(to, &set);
    if (to >= 0)
        sched_setaffinity(0, sizeof(set), &set);
}
} // namespace

int main(int argc, char **argv)
{
    job j;
    for (int i = 1; i < argc; i++) {
        std::string a = argv[i];
        size_t eq = a.find('=');
        if (eq == std::string::npos || !j.o.kv.count(a.substr(0, eq)))
            die("unknown option", argv[i]);
        j.o.kv[a.substr(0, eq)] = a.substr(eq + 1);
    }
    pin(std::stoi(j.o.s("cpu")));
    j.base = generate(j.o.s("kind"), j.o.n("n"), 2);
    j.query = generate(j.o.s("kind"), j.o.n("nq"), 3);
    std::printf("kind=%s n=%s dim=%zu kernel=%s\n", j.o.s("kind").c_str(), j.o.s("n").c_str(), DIM, hnsw_kernel());
    theirs t(j);
    ours own(ours::build(j));
    j.truth = exact(j, own.h);
    hnsw_err err = {};
    std::vector<system_under_test> systems;
    auto add = [&](const std::string &name, auto &x) {
        if (j.o.s("systems").empty() || ("," + j.o.s("systems") + ",").find("," + name + ",") != std::string::npos)
            systems.push_back(
                {name, [&x](const float *q, size_t k, size_t ef, uint32_t *out) { return x.search(q, k, ef, out); }});
    };
    std::string foreign = j.cache("hnswlib");
    hnsw *imported = there(foreign) ? hnsw_import(foreign.c_str(), HNSW_IP, DIM, &err) : own.h;
    ours same_graph(imported);
    hnsw *copy = there(j.cache("our" + j.o.s("our_efc"))) ? hnsw_load(j.cache("our" + j.o.s("our_efc")).c_str(), &err)
                                                          : ours::build(j);
    double t_pack = cpu();
    if (!copy || !hnsw_optimize(copy, HNSW_FAST, unsigned(j.o.n("threads")), &err))
        die("pack", err.msg);
    std::printf("pack: %.2f CPU s\n", cpu() - t_pack);
    ours packed(copy);
    std::printf("bytes per element: hnswlib %zu + %zu, ours %zu\n", t.graph->size_data_per_element_,
                sizeof(void *) + sizeof(int), hnsw_bytes(own.h) / j.o.n("n"));
    hnsw *small = hnsw_load(j.cache("our" + j.o.s("our_efc")).c_str(), &err);
    t_pack = cpu();
    if (!small || !hnsw_optimize(small, HNSW_COMPACT, unsigned(j.o.n("threads")), &err))
        die("compact", err.msg);
    std::printf("compact: %.2f CPU s, %.1f bytes\n", cpu() - t_pack, double(hnsw_bytes(small)) / double(j.o.n("n")));
    ours compacted(small);
    add("compact", compacted);
    add("hnswlib", t);
    add("ours", own);
    add("ours-packed", packed);
    if (imported != own.h)
        add("ours-on-its-graph", same_graph);
    measure(j, systems);
    return 0;
}
