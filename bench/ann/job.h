// job.h - what one run of bench_ann is asked to do: options, data, the exact answers, the cache's file names.
#ifndef ANN_JOB_H
#define ANN_JOB_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

[[noreturn]] void die(const std::string &what);

double thread_cpu();  // CPU seconds of the calling thread
double process_cpu(); // of all threads
double wall();

struct options {
    std::map<std::string, std::string> kv{
        {"kind", "relu"},    // generated data: relu (like a tower's output) or sphere (the hard case), 32 dimensions
        {"data", ""},        // instead: a .fbin or .safetensors file of item vectors
        {"queries", ""},     // with data: the same of queries; none: items, drawn at random
        {"name", ""},        // of the data in results; "" = kind, or the file's name
        {"n", "100000"},     // items; with data: 0 = all of the file
        {"nq", "1000"},      // queries; at most 300,000 / k of them are asked for a k
        {"k", "100"},        // a list: each k is measured
        {"ef", ""},          // a list; "" = k times 1, 1.5, 2, 3, 4 .. until every system's recall is .9995
        {"rounds", "5"},     // of the systems taking turns
        {"systems", ""},     // a list of names (systems.cc); "" = all but the optional ones
        {"m", "16"},         // links
        {"efc", "200"},      // efConstruction of hnswlib and Faiss
        {"our_efc", "120"},  // of hnswlib-c
        {"threads", "1"},    // that build hnswlib-c
        {"cache", ""},       // folder of graphs and exact answers; "" = a new one, removed at the end
        {"cpu", "-1"},       // to be pinned to; -1 = any
        {"out", ""},         // results are appended to this file, one JSON object a line
    };
    explicit options(int argc, char **argv);
    const std::string &s(const char *key) const
    {
        return kv.at(key);
    }
    size_t n(const char *key) const; // exits if it is no number
};

std::vector<std::string> split(const std::string &list); // at commas
std::vector<size_t> numbers(const std::string &list);

struct job {
    options o;
    std::string name;               // of the data
    std::string key;                // of the data in cache names
    size_t n = 0, dim = 0, nq = 0;
    std::vector<size_t> k;
    size_t k_max = 0;
    std::vector<float> base, query; // [n][dim], [nq][dim]
    std::vector<uint32_t> truth;    // [nq][k_max], best first
    bool own_cache = false;         // made for this run, removed with it

    job(int argc, char **argv);
    ~job();
    std::string cache(const std::string &what) const; // file name
    float score(size_t query_row, uint32_t item) const;

  private:
    std::string folder;
    void find_truth();
};

bool there(const std::string &path);

// data.cc: fills base and query, n, dim, nq, name and key.
void data_generate(const std::string &kind, size_t n, uint64_t seed, std::vector<float> &v);
const size_t GENERATED_DIM = 32;
// A whole file of vectors; exits on a file that is not what its name says. `rows` = 0: all of them.
std::vector<float> data_read(const std::string &path, size_t rows, size_t &n, size_t &dim);

#endif
