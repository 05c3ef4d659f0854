// measure.cc - see measure.h.
#include <algorithm>
#include <cstdio>
#include <malloc.h>
#include <unordered_set>

#include "bench/ann/measure.h"

namespace
{
double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

// Of what was found: an item that scores as well as the k-th of the exact answer counts, once. Equal vectors are thus no miss.
double recall(const job &j, size_t k, size_t nq, const std::vector<uint32_t> &out, const std::vector<size_t> &n_out)
{
    size_t good = 0;
    for (size_t i = 0; i < nq; i++) {
        float least = j.score(i, j.truth[i * j.k_max + k - 1]);
        std::unordered_set<uint32_t> seen;
        for (size_t x = 0; x < n_out[i]; x++) {
            uint32_t item = out[i * k + x];
            good += item < j.n && seen.insert(item).second && j.score(i, item) >= least;
        }
    }
    return double(good) / double(nq * k);
}

size_t allocated()
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}
} // namespace

std::vector<opened> open_systems(const job &j)
{
    std::vector<std::string> want = split(j.o.s("systems"));
    std::vector<opened> out;
    for (const std::string &name : want)
        if (std::none_of(ENTRIES.begin(), ENTRIES.end(), [&](const entry &e) { return name == e.name; }))
            die("no system is called '" + name + "' (or it was not built in)");
    for (const entry &e : ENTRIES) {
        if (want.empty() ? !e.by_default : std::find(want.begin(), want.end(), e.name) == want.end())
            continue;
        size_t before = allocated();
        std::unique_ptr<sut> s = e.open(j);
        out.push_back({e.name, e.exact, std::move(s), double(allocated() - before) / double(j.n)});
    }
    return out;
}

std::vector<point> measure(const job &j, std::vector<opened> &systems, size_t k, size_t ef)
{
    struct series {
        std::vector<double> qps, p50, p99;
        std::vector<uint32_t> out;
        std::vector<size_t> n_out;
    };
    size_t nq = std::min(j.nq, std::max(size_t(300000) / k, size_t(1)));
    std::vector<series> all(systems.size());
    std::vector<double> us(nq);
    for (size_t r = 0; r < j.o.n("rounds"); r++) {
        for (size_t s = 0; s < systems.size(); s++) {
            series &x = all[s];
            x.out.resize(nq * k);
            x.n_out.resize(nq);
            double cpu = thread_cpu();
            for (size_t i = 0; i < nq; i++) {
                double t = wall();
                x.n_out[i] = systems[s].system->search(&j.query[i * j.dim], k, ef, &x.out[i * k]);
                us[i] = (wall() - t) * 1e6;
            }
            x.qps.push_back(double(nq) / (thread_cpu() - cpu));
            std::sort(us.begin(), us.end());
            x.p50.push_back(us[nq / 2]);
            x.p99.push_back(us[nq * 99 / 100]);
        }
    }
    std::vector<point> points;
    for (size_t s = 0; s < systems.size(); s++) {
        series &x = all[s];
        auto range = std::minmax_element(x.qps.begin(), x.qps.end());
        points.push_back({systems[s].name, k, ef, nq, recall(j, k, nq, x.out, x.n_out), median(x.qps), *range.first,
                          *range.second, median(x.p50), median(x.p99)});
    }
    return points;
}
