// main.cc - hnswlib-c against hnswlib and Faiss: recall, queries per second of CPU time, latency, build cost, memory; one run.
//
//   GLIBC_TUNABLES=glibc.malloc.hugetlb=1 bench_ann kind=relu n=1000000 k=10,100,1000 cache=DIR cpu=0 out=FILE
//
// Options: job.h. Prints a table of each k; `out` gets the same as JSON lines, of which bench_ann_report makes tables at equal recall
// and plots. ann.sh runs the whole suite. Figures: bench/results.md.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sched.h>

#include "bench/ann/measure.h"
#include "index/hnsw.h"

namespace
{
void pin(const std::string &to)
{
    if (to == "-1")
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(numbers(to).at(0), &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        die("there is no CPU " + to);
}

std::FILE *open_out(const std::string &path)
{
    if (path.empty())
        return nullptr;
    std::FILE *f = std::fopen(path.c_str(), "a");
    if (!f)
        die("cannot write " + path);
    return f;
}

void report_builds(const job &j, const std::vector<opened> &systems, std::FILE *f)
{
    std::printf("| system | build CPU s | build s | threads | layout CPU s | bytes per item |\n|---|---|---|---|---|---|\n");
    for (const opened &o : systems) {
        const sut &s = *o.system;
        std::printf("| %s | %.2f | %.2f | %u | %.2f | %.0f |\n", o.name.c_str(), s.built.cpu, s.built.wall, s.built.threads,
                    s.layout_cpu, o.bytes_per_item);
        if (f)
            std::fprintf(f,
                         "{\"type\":\"build\",\"data\":\"%s\",\"n\":%zu,\"dim\":%zu,\"system\":\"%s\",\"cpu_s\":%.3f,"
                         "\"wall_s\":%.3f,\"threads\":%u,\"layout_cpu_s\":%.3f,\"bytes_per_item\":%.1f}\n",
                         j.name.c_str(), j.n, j.dim, o.name.c_str(), s.built.cpu, s.built.wall, s.built.threads,
                         s.layout_cpu, o.bytes_per_item);
    }
}

void report_points(const job &j, const std::vector<point> &points, std::FILE *f)
{
    double load = 0;
    if (getloadavg(&load, 1) != 1)
        load = -1;
    for (const point &p : points) {
        double ratio = p.qps / points[0].qps;
        std::printf("| %zu | %s | %.4f | %.0f [%.0f..%.0f] | %.1f | %.1f | %.2f |\n", p.ef, p.system.c_str(), p.recall, p.qps,
                    p.qps_min, p.qps_max, p.p50, p.p99, ratio);
        if (f)
            std::fprintf(f,
                         "{\"type\":\"point\",\"data\":\"%s\",\"n\":%zu,\"dim\":%zu,\"k\":%zu,\"ef\":%zu,\"nq\":%zu,"
                         "\"system\":\"%s\",\"recall\":%.6f,\"qps\":%.1f,\"qps_min\":%.1f,\"qps_max\":%.1f,\"p50_us\":%.2f,"
                         "\"p99_us\":%.2f,\"ratio\":%.3f,\"load\":%.1f}\n",
                         j.name.c_str(), j.n, j.dim, p.k, p.ef, p.nq, p.system.c_str(), p.recall, p.qps, p.qps_min, p.qps_max,
                         p.p50, p.p99, ratio, load);
    }
    std::fflush(stdout);
}

// From where hnswlib's recall is far too low to where everyone's is as good as exact.
std::vector<size_t> ladder(size_t k, size_t n)
{
    std::vector<size_t> ef;
    for (double x : {1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0})
        if (double(k) * x < double(n))
            ef.push_back(size_t(double(k) * x));
    return ef.empty() ? std::vector<size_t>{k} : ef;
}
} // namespace

int main(int argc, char **argv)
{
    job j(argc, argv);
    pin(j.o.s("cpu"));
    std::vector<opened> systems = open_systems(j);
    if (systems.empty() || j.o.n("rounds") == 0)
        die("no systems or no rounds");
    std::FILE *f = open_out(j.o.s("out"));
    const char *tunables = std::getenv("GLIBC_TUNABLES");
    std::printf("data=%s n=%zu dim=%zu kernel=%s GLIBC_TUNABLES=%s\n", j.name.c_str(), j.n, j.dim, hnsw_kernel(),
                tunables ? tunables : "");
    report_builds(j, systems, f);
    for (size_t k : j.k) {
        std::printf("\n| ef | system | recall@%zu | queries / CPU s [min..max] | p50 us | p99 us | ratio |\n"
                    "|---|---|---|---|---|---|---|\n",
                    k);
        for (size_t ef : j.o.s("ef").empty() ? ladder(k, j.n) : numbers(j.o.s("ef"))) {
            std::vector<point> points = measure(j, systems, k, ef);
            report_points(j, points, f);
            if (j.o.s("ef").empty() &&
                std::all_of(points.begin(), points.end(), [](const point &p) { return p.recall >= 0.9995; }))
                break;
        }
    }
    if (f && std::fclose(f) != 0)
        die("cannot write " + j.o.s("out"));
    return 0;
}
