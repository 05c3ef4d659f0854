// data.cc - vectors: generated like a tower's output, generated hard, or out of a file.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "bench/ann/job.h"

namespace
{
const size_t DIM = GENERATED_DIM, HIDDEN = 128, CENTERS = 4096;

// A mixture of Gaussians in 128 dimensions through a random layer with ReLU to 32.
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

struct file {
    std::FILE *f;
    std::string path;
    explicit file(const std::string &p) : f(std::fopen(p.c_str(), "rb")), path(p)
    {
        if (!f)
            die("cannot open " + p);
    }
    ~file()
    {
        std::fclose(f);
    }
    void read(void *to, size_t bytes)
    {
        if (std::fread(to, 1, bytes, f) != bytes)
            die(path + " ends early");
    }
};

// The one tensor of a bundle's items.safetensors: "shape":[n,dim], F32. The header is JSON; what else it holds is not looked at.
void safetensors_head(file &in, size_t &n, size_t &dim)
{
    uint64_t bytes;
    in.read(&bytes, sizeof(bytes));
    if (bytes > (1u << 20))
        die(in.path + " is no safetensors file with one tensor");
    std::string head(bytes, '\0');
    in.read(&head[0], bytes);
    size_t at = head.find("\"shape\":");
    size_t end = 0;
    if (head.find("\"F32\"") == std::string::npos || at == std::string::npos ||
        std::sscanf(head.c_str() + at, "\"shape\": [ %zu , %zu ]", &n, &dim) != 2)
        die(in.path + " has no F32 tensor of two dimensions");
    at = head.find("\"data_offsets\":");
    if (at == std::string::npos || std::sscanf(head.c_str() + at, "\"data_offsets\": [ 0 , %zu ]", &end) != 1 ||
        end != n * dim * sizeof(float))
        die(in.path + ": the first tensor is not all there is");
}

bool ends(const std::string &s, const char *with)
{
    size_t n = std::strlen(with);
    return s.size() >= n && s.compare(s.size() - n, n, with) == 0;
}
} // namespace

void data_generate(const std::string &kind, size_t n, uint64_t seed, std::vector<float> &v)
{
    if (kind != "relu" && kind != "sphere")
        die("kind is '" + kind + "', want relu or sphere");
    std::mt19937_64 fixed(1), g(seed);
    tower t(fixed);
    std::discrete_distribution<int> pick(t.share.begin(), t.share.end());
    std::normal_distribution<float> normal;
    v.resize(n * DIM);
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
}

std::vector<float> data_read(const std::string &path, size_t rows, size_t &n, size_t &dim)
{
    file in(path);
    if (ends(path, ".safetensors")) {
        safetensors_head(in, n, dim);
    } else if (ends(path, ".fbin")) {
        uint32_t head[2];
        in.read(head, sizeof(head));
        n = head[0];
        dim = head[1];
    } else {
        die(path + " is neither .fbin nor .safetensors");
    }
    if (n == 0 || dim == 0 || dim > 4096)
        die(path + " says " + std::to_string(n) + " vectors of " + std::to_string(dim) + " dimensions");
    if (rows)
        n = std::min(n, rows);
    std::vector<float> v(n * dim);
    in.read(v.data(), v.size() * sizeof(float));
    return v;
}
