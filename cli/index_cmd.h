/* index_cmd.h - the subcommands of `duet index`, and what they share. */
#ifndef DUET_CLI_INDEX_CMD_H
#define DUET_CLI_INDEX_CMD_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/histogram.h"
#include "core/base/err.h"
#include "index/hnsw.h"
#include "index/vecs.h"

int index_build(int argc, char **argv);
int index_search(int argc, char **argv);
int index_truth(int argc, char **argv);
int index_check(int argc, char **argv);
int index_info(int argc, char **argv);
int index_convert(int argc, char **argv);

/* "duet index COMMAND: why" and its usage; 2. */
int index_wrong(const char *command, const char *usage, const char *why);

/* The library's error as one of ours; false. */
bool index_err(const struct hnsw_err *e, struct err *err);

bool index_metric(const char *name, enum hnsw_metric *metric, struct err *err);

bool index_layout(const char *name, enum hnsw_layout *layout, struct err *err); // plain, fast or compact

// ---------------------------------------------------------------------------------------------------------- inputs

/* A file of ours tells its metric and dimensions; one of hnswlib's does not, so the user does. */
struct index_from {
    const char *metric;
    uint64_t dim; // 0 = not given
};
#define INDEX_FROM_OPTS(from)                                                                                          \
    {"metric", OPT_STR, &(from)->metric, "NAME", "of a file of hnswlib's: ip, cosine or l2", 0, 0},                    \
    {                                                                                                                  \
        "dim", OPT_UINT, &(from)->dim, "N", "of a file of hnswlib's: its dimensions", 1, HNSW_DIM_MAX                  \
    }

struct hnsw *index_load(const char *path, const struct index_from *from, struct err *err);

/* A file of vectors, at least one; wanted with `dim` dimensions unless that is 0. */
struct hnsw_vecs *index_vectors(const char *path, size_t dim, struct err *err);

/* n distinct ids out of .ibin, .ivecs (one in a row) or text (one in a line), for free(). */
uint64_t *index_ids_read(const char *path, size_t n, struct err *err);

// --------------------------------------------------------------------------------------------------------- outputs

/* Outputs are written to tmp and renamed, so that a path holds all of it or what was there. Begin proves that tmp can be written,
 * before hours of work; end renames it, or removes it if not `ok`. */
bool index_out_begin(char tmp[PATH_MAX], const char *path, struct err *err);
bool index_out_end(const char *tmp, const char *path, bool ok, struct err *err);

/* The forms of index_ids_read; ids above 2^32 - 1 fit text only. */
bool index_ids_write(const char *path, const uint64_t *id, size_t n, struct err *err);
/* First k ids of each query's hits [nq][k]: .ibin or .ivecs. */
bool index_hits_write(const char *path, const struct hnsw_hit *hit, size_t nq, size_t k, struct err *err);

// ------------------------------------------------------------------------------------------------------------- runs

struct index_run {
    const struct hnsw *h;
    const struct hnsw_vecs *query;
    struct hnsw_query p; // p.k: at most hnsw_count
    bool exact;
    bool together;       // then: queries share each pass over codes, where the index has any (hnsw_search_batch); no latency
    unsigned threads;
    const char *stage; // of the progress shown, NULL = none

    struct hnsw_hit *hit;     // [queries][k], made by index_run, for free()
    struct histogram latency; // ns
    double seconds;
};
bool index_run(struct index_run *r, struct err *err);

/* cores of this machine, 1 .. 64 */
unsigned index_cores(void);

#endif
