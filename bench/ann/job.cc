// job.cc - options, clocks, cache names, and the exact answers.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <random>
#include <unistd.h>

#include "bench/ann/job.h"

void die(const std::string &what)
{
    std::fprintf(stderr, "bench_ann: %s\n", what.c_str());
    std::exit(1);
}

namespace
{
double seconds(clockid_t clock)
{
    timespec t;
    clock_gettime(clock, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

uint32_t fnv1a(const std::vector<float> &v)
{
    uint32_t h = 2166136261u;
    const unsigned char *p = reinterpret_cast<const unsigned char *>(v.data());
    for (size_t i = 0; i < v.size() * sizeof(float); i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

float dot(const float *a, const float *b, size_t dim)
{
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (size_t j = 0; j < dim; j++)
        s += a[j] * b[j];
    return s;
}
} // namespace

double thread_cpu()
{
    return seconds(CLOCK_THREAD_CPUTIME_ID);
}

double process_cpu()
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

double wall()
{
    return seconds(CLOCK_MONOTONIC);
}

bool there(const std::string &path)
{
    return access(path.c_str(), R_OK) == 0;
}

std::vector<std::string> split(const std::string &list)
{
    std::vector<std::string> out;
    for (size_t at = 0; at < list.size();) {
        size_t end = std::min(list.find(',', at), list.size());
        out.push_back(list.substr(at, end - at));
        at = end + 1;
    }
    return out;
}

static size_t number(const std::string &s)
{
    size_t x = 0;
    if (s.empty() || s.size() > 12)
        die("'" + s + "' is no number");
    for (char c : s) {
        if (c < '0' || c > '9')
            die("'" + s + "' is no number");
        x = 10 * x + size_t(c - '0');
    }
    return x;
}

std::vector<size_t> numbers(const std::string &list)
{
    std::vector<size_t> out;
    for (const std::string &s : split(list))
        out.push_back(number(s));
    return out;
}

size_t options::n(const char *key) const
{
    return number(s(key));
}

options::options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        std::string a = argv[i];
        size_t eq = a.find('=');
        if (eq == std::string::npos || !kv.count(a.substr(0, eq))) {
            std::string known;
            for (const auto &x : kv)
                known += " " + x.first + "=";
            die("unknown option " + a + "; known:" + known);
        }
        kv[a.substr(0, eq)] = a.substr(eq + 1);
    }
}

static void draw_queries(job &j, size_t nq)
{
    std::vector<size_t> row(j.n);
    std::iota(row.begin(), row.end(), size_t(0));
    std::shuffle(row.begin(), row.end(), std::mt19937_64(3));
    row.resize(std::min(nq, j.n));
    for (size_t i : row)
        j.query.insert(j.query.end(), &j.base[i * j.dim], &j.base[i * j.dim] + j.dim);
}

job::job(int argc, char **argv) : o(argc, argv)
{
    if (o.s("data").empty()) {
        name = key = o.s("kind");
        n = o.n("n");
        nq = o.n("nq");
        dim = GENERATED_DIM;
        data_generate(name, n, 2, base);
        data_generate(name, nq, 3, query);
    } else {
        base = data_read(o.s("data"), o.n("n"), n, dim);
        if (o.s("queries").empty()) {
            draw_queries(*this, o.n("nq"));
        } else {
            size_t rows, d;
            query = data_read(o.s("queries"), o.n("nq"), rows, d);
            if (d != dim)
                die(o.s("queries") + " has " + std::to_string(d) + " dimensions, the data " + std::to_string(dim));
        }
        nq = query.size() / dim;
        name = o.s("data").substr(o.s("data").rfind('/') + 1);
        name = name.substr(0, name.rfind('.'));
        key = name + "-" + std::to_string(fnv1a(base)) + "-" + std::to_string(fnv1a(query));
    }
    if (!o.s("name").empty())
        name = o.s("name");
    k = numbers(o.s("k"));
    if (n == 0 || nq == 0 || k.empty())
        die("no items, no queries or no k");
    k_max = *std::max_element(k.begin(), k.end());
    if (*std::min_element(k.begin(), k.end()) == 0 || k_max > n)
        die("a k is 0 or more than the " + std::to_string(n) + " items");
    folder = o.s("cache");
    if (folder.empty()) {
        char made[] = "/tmp/bench_ann.XXXXXX";
        if (!mkdtemp(made))
            die("cannot make a folder in /tmp");
        folder = made;
        own_cache = true;
    }
    find_truth();
}

job::~job()
{
    if (own_cache && std::system(("rm -rf " + folder).c_str()) != 0)
        std::fprintf(stderr, "bench_ann: %s is left behind\n", folder.c_str());
}

std::string job::cache(const std::string &what) const
{
    return folder + "/" + key + "-" + std::to_string(n) + "-m" + o.s("m") + "-efc" + o.s("efc") + "." + what;
}

float job::score(size_t row, uint32_t item) const
{
    return dot(&query[row * dim], &base[size_t(item) * dim], dim);
}

// A plain loop of its own, so that no system under test says what is right. Queries go in blocks, so that the items are read
// from memory once a block.
void job::find_truth()
{
    truth.resize(nq * k_max);
    std::string path = cache("truth-k" + std::to_string(k_max) + "-nq" + std::to_string(nq));
    if (std::FILE *f = std::fopen(path.c_str(), "rb")) {
        if (std::fread(truth.data(), sizeof(uint32_t), truth.size(), f) != truth.size())
            die("short file: " + path);
        std::fclose(f);
        return;
    }
    const size_t BLOCK = 16, TILE = 4096;
    std::vector<float> s(BLOCK * n);
    std::vector<uint32_t> id(n);
    for (size_t q0 = 0; q0 < nq; q0 += BLOCK) {
        size_t q1 = std::min(q0 + BLOCK, nq);
        for (size_t i0 = 0; i0 < n; i0 += TILE)
            for (size_t q = q0; q < q1; q++)
                for (size_t i = i0; i < std::min(i0 + TILE, n); i++)
                    s[(q - q0) * n + i] = score(q, uint32_t(i));
        for (size_t q = q0; q < q1; q++) {
            const float *v = &s[(q - q0) * n];
            std::iota(id.begin(), id.end(), 0u);
            auto better = [v](uint32_t a, uint32_t b) { return v[a] != v[b] ? v[a] > v[b] : a < b; };
            std::nth_element(id.begin(), id.begin() + long(k_max - 1), id.end(), better);
            std::sort(id.begin(), id.begin() + long(k_max), better);
            std::copy_n(id.begin(), k_max, &truth[q * k_max]);
        }
    }
    std::FILE *f = std::fopen(path.c_str(), "wb");
    if (!f || std::fwrite(truth.data(), sizeof(uint32_t), truth.size(), f) != truth.size() || std::fclose(f) != 0)
        die("cannot write " + path);
}
