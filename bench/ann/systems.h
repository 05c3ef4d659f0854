// systems.h - what is measured: one entry per library and layout.
#ifndef ANN_SYSTEMS_H
#define ANN_SYSTEMS_H

#include <functional>
#include <memory>

#include "bench/ann/job.h"

// Of a build, CPU and wall seconds; kept beside the graph in the cache, so that a later run can tell them. cpu < 0: not known.
struct build_cost {
    double cpu = -1, wall = -1;
    unsigned threads = 1;
};

class sut
{
  public:
    build_cost built;
    double layout_cpu = -1; // CPU seconds from the built graph to this layout; -1 = there is no such step
    virtual ~sut() = default;
    // Best k into out, best first (their rows in the base); returns how many.
    virtual size_t search(const float *q, size_t k, size_t ef, uint32_t *out) = 0;
};

struct entry {
    const char *name;
    bool by_default; // measured when systems= names none
    bool exact;      // ef changes nothing: measured once a k
    std::unique_ptr<sut> (*open)(const job &j);
};

extern const std::vector<entry> ENTRIES;

// Loads what the cache has under `what`, or builds and keeps it.
build_cost load_or_build(const job &j, const std::string &what, unsigned threads,
                         const std::function<void(const std::string &)> &load, const std::function<void()> &build,
                         const std::function<void(const std::string &)> &save);

std::unique_ptr<sut> open_hnswlib(const job &j);
std::unique_ptr<sut> open_faiss(const job &j);

#endif
