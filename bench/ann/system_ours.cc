// system_ours.cc - hnswlib-c: one graph, built once and kept; each layout is made of a copy of it.
#include "bench/ann/systems.h"
#include "index/hnsw.h"

namespace
{
class ours final : public sut
{
    std::unique_ptr<hnsw, void (*)(hnsw *)> h{nullptr, hnsw_free};
    std::unique_ptr<hnsw_ws, void (*)(hnsw_ws *)> ws{hnsw_ws_new(), hnsw_ws_free};
    std::vector<hnsw_hit> hit;
    bool scan;
    hnsw_err err = {};

    void build(const job &j)
    {
        hnsw_params p = {};
        p.metric = HNSW_IP;
        p.dim = j.dim;
        p.capacity = j.n;
        p.m = unsigned(j.o.n("m"));
        p.ef_construction = unsigned(j.o.n("our_efc"));
        h.reset(hnsw_new(&p, &err));
        if (!h || !hnsw_add_batch(h.get(), j.base.data(), nullptr, j.n, unsigned(j.o.n("threads")), nullptr, nullptr, &err))
            die(std::string("hnswlib-c's build: ") + err.msg);
    }

  public:
    ours(const job &j, enum hnsw_layout layout, bool exact) : scan(exact)
    {
        built = load_or_build(
            j, "our" + j.o.s("our_efc"), unsigned(j.o.n("threads")),
            [&](const std::string &path) { h.reset(hnsw_load(path.c_str(), &err)); }, [&] { build(j); },
            [&](const std::string &path) {
                if (!hnsw_save(h.get(), path.c_str(), &err))
                    die(err.msg);
            });
        if (!h || !ws || hnsw_count(h.get()) != j.n || hnsw_dim(h.get()) != j.dim)
            die(std::string("hnswlib-c's cached index is broken or of other data: ") + err.msg);
        lay_out(layout);
    }
    // hnswlib's graph in the plain layout: what the search alone brings.
    explicit ours(const job &j) : scan(false)
    {
        std::string path = j.cache("hnswlib");
        h.reset(hnsw_import(path.c_str(), HNSW_IP, j.dim, &err));
        if (!h || !ws)
            die(std::string("imported, which comes after hnswlib: ") + err.msg);
    }
    void lay_out(enum hnsw_layout layout)
    {
        if (layout == HNSW_PLAIN)
            return;
        double t = process_cpu();
        if (!hnsw_optimize(h.get(), layout, 1, &err))
            die(std::string("hnsw_optimize: ") + err.msg);
        layout_cpu = process_cpu() - t;
    }
    size_t search(const float *q, size_t k, size_t ef, uint32_t *out) override
    {
        hnsw_query p = {};
        p.k = k;
        p.ef = ef;
        p.plan = HNSW_PLAN_WALK; // the graph is what is measured; `exact` shows where a scan is the better way
        hit.resize(k);
        size_t n = scan ? hnsw_search_exact(h.get(), q, &p, ws.get(), hit.data(), &err)
                        : hnsw_search(h.get(), q, &p, ws.get(), hit.data(), &err);
        if (err.code)
            die(std::string("hnsw_search: ") + err.msg);
        for (size_t i = 0; i < n; i++)
            out[i] = uint32_t(hit[i].label);
        return n;
    }
};

template <enum hnsw_layout LAYOUT> std::unique_ptr<sut> open_ours(const job &j)
{
    return std::unique_ptr<sut>(new ours(j, LAYOUT, false));
}

std::unique_ptr<sut> open_exact(const job &j)
{
    return std::unique_ptr<sut>(new ours(j, HNSW_FAST, true));
}

std::unique_ptr<sut> open_imported(const job &j)
{
    return std::unique_ptr<sut>(new ours(j));
}
} // namespace

// To add a system: a line here. The first is what the others' ratios refer to.
const std::vector<entry> ENTRIES = {
    {"hnswlib", true, false, open_hnswlib},
#ifdef ANN_FAISS
    {"faiss", true, false, open_faiss},
#endif
    {"plain", true, false, open_ours<HNSW_PLAIN>},
    {"fast", true, false, open_ours<HNSW_FAST>},
    {"compact", true, false, open_ours<HNSW_COMPACT>},
    {"exact", true, true, open_exact},
    {"imported", false, false, open_imported},
};
