/* model.h - both towers with their schema: what training produces and publishing takes.
 * Files:   model.safetensors with the tensor names below (docs/formats.md); readable and writable by PyTorch users.
 *              user.emb.<field> [n_rows][k]   user.aug [n_ids][d_aug]   user.aug_segment [n_segments][d_aug]
 *              user.fc.<l>.weight [out][in]   user.fc.<l>.bias [out]    the same with item.*      logit_scale [1]
 *          Shapes are read off the tensors; metadata (strings) adds kind, relu_out, skip_aug, history_alpha. A bundle's file holds no *.aug: the users
 *          file has a_u per user, items are embedded already.
 * Threads: const once loaded. */
#ifndef DUET_MODEL_H
#define DUET_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"
#include "core/history.h"
#include "core/schema.h"
#include "core/stored.h"
#include "core/tower.h"

enum model_kind { MODEL_TWO_TOWER, MODEL_DAT, MODEL_WALS, MODEL_FM, MODEL_YOUTUBE_DNN, MODEL_MIND };

struct model {
    enum model_kind kind;
    struct schema *schema; // owned
    struct tower user, item; // without towers: zeroed but for d
    struct stored *stored;   // of the kinds from MODEL_WALS on, owned; NULL where there are towers
    float logit_scale;     // of training; scores served are plain inner products
    struct history_form history; // how items seen become a_u: strangers with a history get it, and with `--aug closed` every user did
};

const char *model_kind_name(enum model_kind kind);              // "two_tower", "dat", "wals", ...
bool model_kind_parse(const char *name, enum model_kind *out);
bool model_kind_stored(enum model_kind kind); // vectors instead of towers
#define MODEL_KINDS "dat, two_tower, wals, fm, youtube_dnn or mind"

/* Zeroed model; takes `schema` (frees it on failure too). ERR_ARG unless the towers have the same d, relu_out and skip_aug, and d_aug = d
 * on both sides (MODEL_DAT) or 0 (MODEL_TWO_TOWER). */
struct model *model_new(enum model_kind kind, struct schema *schema, const struct tower_params *user, const struct tower_params *item, struct err *err);
/* Of a kind without towers. Takes `schema` and `stored`. */
struct model *model_new_stored(enum model_kind kind, struct schema *schema, struct stored *stored, struct err *err);
void model_free(struct model *m); // NULL is fine

/* Tensors of the file checked against the schema: names, shapes, finite values. Takes `schema`, frees it on failure too.
 * with_aug: *.aug are required where d_aug > 0 (checkpoints); false: they are ignored (bundles). */
struct model *model_load(const char *path, struct schema *schema, bool with_aug, struct err *err);
/* The same over n bytes in memory, which are not kept; `name` is for messages. */
struct model *model_load_mem(const void *bytes, size_t n, const char *name, struct schema *schema, bool with_aug, struct err *err);
/* For answering requests: `aug` of both sides is ignored, and the item tower has its shape alone, for items are embedded already and
 * the table of their ids may be the largest part of the file. What is not kept is checked all the same. */
struct model *model_load_serving(const void *bytes, size_t n, const char *name, struct schema *schema, struct err *err);
/* with_aug: `aug` is written where the side has an id field and d_aug > 0. Writes straight to `path`; removed on failure. */
bool model_save(const struct model *m, const char *path, bool with_aug, struct err *err); // fsynced, not renamed

#endif
