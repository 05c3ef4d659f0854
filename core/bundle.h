/* bundle.h - what is published, loaded and swapped as one: <repository>/<model>/<version>/.
 * Format:  docs/formats.md, "bundle". Published means immutable.
 * Threads: built by one thread, then shared as const by any number. */
#ifndef DUET_BUNDLE_H
#define DUET_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/calibration.h"
#include "core/items.h"
#include "core/model.h"
#include "core/users.h"
#include "index/hnsw.h"

/* PRIVATE: read once into memory of our own; what happens to the files afterwards does not matter. SHARED: embeddings, items, users and
 * the index's elements (but for the compact layout) are mapped, for a folder that the operator vouches for: sizes and hashes are checked
 * by reading, so a file that is cut before or while that happens is a failed load; one that is cut later, while it is mapped, ends the
 * process by SIGBUS. */
enum bundle_load_mode { BUNDLE_PRIVATE, BUNDLE_SHARED };

struct bundle_manifest {
    char model[65];       // name, [A-Za-z0-9._-]{1,64}
    uint64_t version;     // >= 1, equals the folder's name
    char kind[32];        // "dat", "two_tower", "wals", ...
    char encoder[24];     // "tower", "stored" (other legal names are refused with ERR_FORMAT)
    char fingerprint[33];
    char created[32];     // RFC 3339
    uint32_t d, n_interest;
    uint64_t n_items, n_users, n_bytes; // n_bytes: all files together
    double probe_recall;  // recall@100 of the probes at `probe_ef` when published: the lowest of all layouts
    uint32_t probe_k, probe_ef, default_ef;
    double target_recall; // of requests that give neither ef nor a target; 0: they get default_ef
    struct calibration calibration;
};

struct bundle {
    struct bundle_manifest manifest;
    struct model *model;  // its item tower has no parameters: items are embedded already, and ids' tables are large
    struct items *items;
    struct users *users;
    struct hnsw *hnsw;    // label = item_idx
    enum hnsw_layout layout;
    const float *emb;     // [n_items][d] p_v, by item_idx
    size_t emb_bytes;     // of the file that holds them
    bool emb_mapped;
    void *emb_file;       // that file's bytes; `emb` points into them
    struct probes *probes;
    uint64_t users_revision;
    char *warmup;         // [warmup_n] recorded requests, one a line (warmup.h); NULL: none
    size_t warmup_n;
};

struct bundle_load_params {
    enum bundle_load_mode mode;
    bool skip_probes; // `duet inspect` only
    bool all_files;   // compare also those with the manifest that the layout does not need
    enum hnsw_layout layout;
    unsigned threads; // that read large files and make the layout; 0 = 1
    /* Called before each part: what comes now, and bytes of the bundle's files that are behind. May be NULL. */
    void (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void *progress_ctx;
};

/* Load and verify: manifest, sizes, chunk hashes, structures, finite values, fingerprints, then the probes (p_u within 1e-4,
 * recall no more than 0.01 below the manifest's). `dir` is the version's folder. NULL and an error naming the file, the
 * offset where one is known, what was found and what was wanted. ERR_MISMATCH for parts that do not belong together. */
struct bundle *bundle_load(const char *dir, const struct bundle_load_params *p, struct err *err);
void bundle_free(struct bundle *b); // NULL is fine
size_t bundle_memory(const struct bundle *b); // bytes it holds

void bundle_drop_warmup(struct bundle *b); // once they are answered, or will not be; by the one thread that has the bundle

/* Touch every page and run each probe once, so that the first request after a swap is not the slow one. */
void bundle_warm(const struct bundle *b);

/* The same for a folder that is not in its place yet: publish.c checks its work before the rename. */
struct bundle *bundle_load_unplaced(const char *dir, const struct bundle_load_params *p, struct err *err);

/* Versions under <repository>/<model>, ascending; *n = 0 if the folder is missing or empty. For free(). NULL on failure only. */
uint64_t *bundle_versions(const char *model_dir, size_t *n, struct err *err);

/* Bytes that loading `dir` will need at most, for a while, from the manifest alone: the free-memory check before a reload. */
bool bundle_estimate(const char *dir, enum hnsw_layout layout, uint64_t *bytes, struct err *err);

#endif
