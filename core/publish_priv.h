/* publish_priv.h - one publication at work: shared by publish.c (files and folder) and publish_probes.c (what is measured). */
#ifndef DUET_PUBLISH_PRIV_H
#define DUET_PUBLISH_PRIV_H

#include "core/manifest.h"
#include "core/probes.h"
#include "core/publish.h"
#include "core/staging.h"

#define PUBLISH_TARGET_RECALL 0.99

struct job {
    const struct publish_input *in;
    const struct publish_params *p;
    struct staging staging;
    struct manifest m;
    float *emb;            // [n_items][d], owned; NULL when publishing users alone
    const float *item_emb; // [n_items][d]
    struct hnsw *own_hnsw;
    const struct hnsw *hnsw;
    float *aug;           // [n_users][d_aug] a_u of every user
    struct probes probes; // arrays of ours:
    uint32_t *probe_x, *probe_row, *probe_top;
    float *probe_aug, *probe_p, *probe_score;
    float *query; // [n_query][d] of the calibration
    uint32_t n_query, fixed_ef; // fixed_ef: 0 = the smallest that suffices
    struct err *err;
};

void publish_report(const struct job *j, const char *stage, double share);
bool publish_path(const struct job *j, enum manifest_file_id id, char out[PATH_MAX]);
bool publish_hnsw_failed(const struct hnsw_err *e, struct err *err);

/* Draws and answers the probes, chooses the default ef where none is fixed, and writes the file. Needs hnsw in the plain layout, item_emb, aug. */
bool publish_probes(struct job *j);
/* What there is in each layout that may be served, into the manifest: the recall of the probes, which lowers what is promised or raises the
 * ef, and the curves. `h`, the index, ends in the compact layout. `target`: where the caller has not said one. */
bool publish_measure(struct job *j, struct hnsw *h, double target);

#endif
