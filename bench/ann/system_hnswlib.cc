// system_hnswlib.cc - the real hnswlib, compiled for this machine, as its users do.
#include <hnswlib/hnswlib.h>

#include "bench/ann/systems.h"

namespace
{
class hnswlib_hnsw final : public sut
{
    hnswlib::InnerProductSpace space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph;

  public:
    explicit hnswlib_hnsw(const job &j) : space(j.dim)
    {
        built = load_or_build(
            j, "hnswlib", 1,
            [&](const std::string &path) { graph.reset(new hnswlib::HierarchicalNSW<float>(&space, path)); },
            [&] {
                graph.reset(new hnswlib::HierarchicalNSW<float>(&space, j.n, j.o.n("m"), j.o.n("efc"), 1));
                for (size_t i = 0; i < j.n; i++)
                    graph->addPoint(&j.base[i * j.dim], i);
            },
            [&](const std::string &path) { graph->saveIndex(path); });
        if (graph->cur_element_count != j.n || graph->data_size_ != j.dim * sizeof(float))
            die("hnswlib's cached index is of other data");
    }
    size_t search(const float *q, size_t k, size_t ef, uint32_t *out) override
    {
        graph->setEf(ef);
        auto queue = graph->searchKnn(q, k);
        size_t n = queue.size();
        for (size_t i = n; i-- > 0; queue.pop())
            out[i] = uint32_t(queue.top().second);
        return n;
    }
};
} // namespace

std::unique_ptr<sut> open_hnswlib(const job &j)
{
    return std::unique_ptr<sut>(new hnswlib_hnsw(j));
}
