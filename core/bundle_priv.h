/* bundle_priv.h - one load at work: shared by bundle.c (order and parts) and bundle_index.c (the index). */
#ifndef DUET_BUNDLE_PRIV_H
#define DUET_BUNDLE_PRIV_H

#include "core/manifest.h"
#include "core/verified.h"

struct loader {
    const char *dir;
    int dirfd;
    bool map;
    enum hnsw_layout layout;
    const struct bundle_load_params *p; // the caller's, or NULL
    unsigned threads;
    struct manifest m;
    struct block spare; // of the last file that is done with, for one that is kept
    struct bundle *b;
    struct err *err;
};

/* The file that the wanted layout is read from. */
enum manifest_file_id bundle_index_file(const struct manifest *m, enum hnsw_layout layout);

bool bundle_load_index(struct loader *l);    // into b->hnsw; n_items and d as the manifest says
bool bundle_check_vectors(struct loader *l); // against b->emb
bool bundle_make_layout(struct loader *l);   // unless it was read

#endif
