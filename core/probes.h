/* probes.h - a few hundred stored users with the vector and the candidates that they must get: how a bundle proves, on the machine
 * that is to serve it, that model, embeddings and index work together. File probes.pack (docs/formats.md).
 * Threads: const once loaded. */
#ifndef DUET_PROBES_H
#define DUET_PROBES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/pack.h"
#include "core/model.h"
#include "core/users.h"
#include "index/hnsw.h"

#define PROBES_MAX 65536

struct probes {
    struct pack *pack;   // NULL where the arrays are somebody else's
    uint32_t n, k;       // rows, columns of top
    uint32_t d_aug, d;
    const uint32_t *x;   // [n][n_slots]; NULL if n_slots = 0
    const float *aug;    // [n][d_aug]; NULL if d_aug = 0
    const uint32_t *vec_row; // [n] models without towers: row of the users' vectors, taken as [n_users * n_interest][d]; else NULL
    const float *p;      // [n][d] expected p_u
    const uint32_t *top; // [n][k] exact best items, best first
    const float *score;  // [n][k]
};

/* Shapes against the model, ranges, finite values, descending scores. Takes p, on failure too. */
bool probes_from_pack(struct probes *out, struct pack *p, const struct model *m, uint32_t n_items, uint32_t k, struct err *err);
void probes_fini(struct probes *p); // accepts zeroed
bool probes_save(const char *path, const struct probes *p, uint32_t n_slots, const char *fingerprint, struct err *err); // fsynced

/* Recompute every p_u, one by one as requests do (of a model without towers: look it up in `users`); ERR_MISMATCH names the first that differs by more than 1e-4 in a component.
 *   p_u [n][d] receives what was computed, for probes_recall */
bool probes_embed(const struct probes *p, const struct model *m, const struct users *users, float *p_u, struct err *err);

/* Mean share of the exact top k that the graph finds with `ef`: a hit is an item whose exact score is within 1e-5 of the k-th,
 * since kernels differ in their last bits between processors. 1 without probes. Below 0: out of memory, `err` says so. */
double probes_recall(const struct probes *p, const float *p_u, const struct hnsw *h, const float *emb, uint32_t ef, struct err *err);

#endif
