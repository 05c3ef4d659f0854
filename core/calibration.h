/* calibration.h - how far the graph must be searched for a recall: curves of recall@k over ef, measured when a bundle is published with
 * users' vectors, kept in the manifest, and read by requests that name a target_recall instead of an ef.
 * Place:   publish.c measures (calibrate.c), manifest.c stores, retrieve.c asks.
 * Threads: const once read. */
#ifndef DUET_CALIBRATION_H
#define DUET_CALIBRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "index/hnsw.h"

/* The same ef finds slightly more or less in another layout of the index, so each has curves of its own. */
#define BUNDLE_LAYOUTS 3 // HNSW_PLAIN, HNSW_FAST, HNSW_COMPACT
const char *bundle_layout_name(enum hnsw_layout l); // "plain", "fast", "compact"
bool bundle_layout_parse(const char *name, enum hnsw_layout *out);

#define CALIBRATION_KS 5
#define CALIBRATION_POINTS 16

struct calibration_curve {
    enum hnsw_layout layout;
    uint32_t k, n;                       // n points, at least 1
    uint32_t ef[CALIBRATION_POINTS];     // ascending, >= k
    double recall[CALIBRATION_POINTS];   // mean recall@k of the queries, never falling
};

struct calibration {
    uint32_t n_queries;                  // they were measured with; 0 = there are none
    uint32_t n_curves;
    struct calibration_curve curve[BUNDLE_LAYOUTS * CALIBRATION_KS]; // by layout, then by k
};

/* The smallest ef that reaches `target` (0.5 to 1) at this k, by straight lines between points and between the curves' ks; above the
 * largest k in proportion to k. Recall bends downwards over ef, so lines promise less than there is. 1, and what no point reaches, is
 * for a scan of everything: CALIBRATION_EXACT. CALIBRATION_NONE: no curve for this layout. */
enum calibration_answer { CALIBRATION_NONE, CALIBRATION_EF, CALIBRATION_EXACT };
enum calibration_answer calibration_ef(const struct calibration *c, enum hnsw_layout layout, size_t k, double target, size_t *ef);

/* The manifest's member `calibration`. Curves of layouts that this version does not know are left out. */
json_t *calibration_to_json(const struct calibration *c); // NULL: out of memory
bool calibration_from_json(const json_t *o, struct calibration *out, struct err *err);

// ------------------------------------------------------------------------------------------------------ measuring

/* The vectors that searches are measured with, and what they should find. */
struct calibrate_truth {
    uint32_t n, d, n_k, k[CALIBRATION_KS];
    const float *q, *emb; // [n][d]; [n_items][d]; borrowed
    float *kth;     // [n][n_k] score of the k-th best item, owned
};

/* By scanning emb [n_items][d] for each query. Zeroed *t to begin with; fini after either outcome. */
bool calibrate_truth_init(struct calibrate_truth *t, const float *emb, uint32_t n_items, uint32_t d, const float *q, uint32_t n,
                          struct err *err);
void calibrate_truth_fini(struct calibrate_truth *t);

/* Adds the curves of the index as it is now, which is said to be of that layout. Hits are counted by exact scores. */
bool calibrate(const struct calibrate_truth *t, const struct hnsw *h, enum hnsw_layout layout, struct calibration *out, struct err *err);

#endif
