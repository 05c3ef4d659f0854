// measure.h - systems taking turns over the queries.
#ifndef ANN_MEASURE_H
#define ANN_MEASURE_H

#include "bench/ann/systems.h"

// One system with one k and ef; medians over the rounds. qps: queries per second of CPU time. Latencies: wall time, microseconds.
struct point {
    std::string system;
    size_t k, ef, nq;
    double recall, qps, qps_min, qps_max, p50, p99;
};

struct opened {
    std::string name;
    bool exact;
    std::unique_ptr<sut> system;
    double bytes_per_item; // taken from malloc while it was opened, scratch included
};

std::vector<opened> open_systems(const job &j);

// Every system at one k and ef, in turns (A B C A B C ..), so that a busy neighbour disturbs all of them alike.
std::vector<point> measure(const job &j, std::vector<opened> &systems, size_t k, size_t ef);

#endif
