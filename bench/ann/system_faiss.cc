// system_faiss.cc - Faiss's IndexHNSWFlat, inner product, one query at a time.
// IndexHNSW::search allocates and clears a mark for every item in each call, which at 1M costs more than the search: here its inner
// part, HNSW::search, is called with marks that are kept (it moves on to fresh ones itself), as Faiss does within a batch. The scores are computed by a loop
// compiled for this machine, where Debian's library has the baseline's SSE: both are to Faiss's favour. The build is the library's.
#include <faiss/IndexHNSW.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/DistanceComputer.h>
#include <faiss/index_io.h>
#include <omp.h>

#include "bench/ann/systems.h"

namespace
{
// Faiss's HNSW looks for the smallest, so the score is negated.
struct negative_ip final : faiss::DistanceComputer {
    const float *base, *q = nullptr;
    size_t dim;
    negative_ip(const float *b, size_t d) : base(b), dim(d)
    {
    }
    void set_query(const float *x) override
    {
        q = x;
    }
    float dot(const float *a, const float *b) const
    {
        float s = 0;
#pragma omp simd reduction(+ : s)
        for (size_t j = 0; j < dim; j++)
            s += a[j] * b[j];
        return -s;
    }
    float operator()(idx_t i) override
    {
        return dot(q, base + size_t(i) * dim);
    }
    float symmetric_dis(idx_t i, idx_t j) override
    {
        return dot(base + size_t(i) * dim, base + size_t(j) * dim);
    }
};

class faiss_hnsw final : public sut
{
    std::unique_ptr<faiss::IndexHNSW> index;
    std::unique_ptr<negative_ip> distance;
    std::unique_ptr<faiss::VisitedTable> visited;
    std::vector<faiss::Index::idx_t> label;
    std::vector<float> score;

  public:
    explicit faiss_hnsw(const job &j)
    {
        omp_set_num_threads(1);
        built = load_or_build(
            j, "faiss", 1,
            [&](const std::string &path) {
                index.reset(dynamic_cast<faiss::IndexHNSW *>(faiss::read_index(path.c_str())));
                if (!index)
                    die(path + " holds no HNSW");
            },
            [&] {
                index.reset(new faiss::IndexHNSWFlat(int(j.dim), int(j.o.n("m")), faiss::METRIC_INNER_PRODUCT));
                index->hnsw.efConstruction = int(j.o.n("efc"));
                index->add(faiss::Index::idx_t(j.n), j.base.data());
            },
            [&](const std::string &path) { faiss::write_index(index.get(), path.c_str()); });
        const auto *flat = dynamic_cast<const faiss::IndexFlat *>(index->storage);
        if (!flat || size_t(index->ntotal) != j.n || size_t(index->d) != j.dim)
            die("Faiss's cached index is of other data");
        distance.reset(new negative_ip(flat->get_xb(), j.dim));
        visited.reset(new faiss::VisitedTable(int(j.n)));
    }
    size_t search(const float *q, size_t k, size_t ef, uint32_t *out) override
    {
        label.assign(k, -1);
        score.resize(k);
        index->hnsw.efSearch = int(ef);
        distance->set_query(q);
        faiss::maxheap_heapify(k, score.data(), label.data());
        index->hnsw.search(*distance, int(k), label.data(), score.data(), *visited);
        faiss::maxheap_reorder(k, score.data(), label.data());
        size_t n = 0;
        for (size_t i = 0; i < k && label[i] >= 0; i++)
            out[n++] = uint32_t(label[i]);
        return n;
    }
};
} // namespace

std::unique_ptr<sut> open_faiss(const job &j)
{
    return std::unique_ptr<sut>(new faiss_hnsw(j));
}
