/* publish.h - writes a bundle: embeds all items through the item tower, builds the index, writes the files, checks them by
 * loading, and renames the folder into the repository.
 * At any kill there is the old version or the new one: .tmp-* folder, fsync of files and folder, rename, fsync of the parent. */
#ifndef DUET_PUBLISH_H
#define DUET_PUBLISH_H

#include "core/bundle.h"

struct publish_input {
    const struct model *model;     // with *.aug tables
    uint32_t n_users, n_items;
    struct strtab user_id, item_id;
    const uint32_t *user_x, *item_x;
    const struct item_attr *attr;  // [n_attrs]
    uint32_t n_attrs;
    struct strtab category;
    const uint32_t *item_category; // [n_items]
    const uint32_t *item_count;    // [n_items] popularity
    const uint64_t *seen_off;      // [n_users + 1] or NULL
    const uint32_t *seen;
    json_t *metrics;               // offline metrics for the manifest, borrowed, may be NULL
};

struct publish_params {
    const char *repository;        // folder; created if missing
    const char *name;              // model name
    uint64_t version;              // 0 = newest + 1; an existing one is ERR_STATE
    unsigned m, ef_construction;   // 0 = defaults 16, 200
    uint32_t default_ef;           // 0 = chosen: the smallest tried with probe recall@100 >= target_recall in every layout
    double target_recall;          // 0 = 0.99; with default_ef given: 0 = requests get default_ef whatever their k
    uint64_t seed;
    unsigned threads;              // of the index build
    uint32_t n_probes;             // 0 = 256 (fewer if there are fewer users)
    uint32_t n_calibrate;          // users that the curves of recall over ef are measured with; 0 = 500 (fewer if there are fewer)
    bool no_compact;               // no second form of the index: smaller, loads slower in the compact layout, older daemons read it
    const char *warmup;            // file of recorded requests that daemons answer before the version takes traffic; NULL: none, or the base's
    bool no_calibration;           // no curves: requests cannot ask for a recall
    void (*progress)(void *user, const char *stage, double share);
    void *progress_user;
};

/* The published version number goes to *version, its folder to dir[PATH_MAX] (may be NULL). */
bool bundle_publish(const struct publish_input *in, const struct publish_params *p, uint64_t *version, char *dir, struct err *err);

/* New users file (x, a_u, seen) for an existing bundle of the same fingerprint, as a new version that shares nothing by link:
 * all other files are copied. `in->model` must have the bundle's fingerprint: ERR_MISMATCH otherwise. */
bool bundle_publish_users(const struct publish_input *in, const struct publish_params *p, uint64_t *version, char *dir, struct err *err);

#endif
