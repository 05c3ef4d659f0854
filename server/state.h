/* state.h - what an operator has asked for and a restart must not forget: pinned versions, labels and the experiment table,
 * with a growing revision; and which versions were refused. One JSON file, `state.path` (docs/formats.md, "State"), written to a temporary file, synced
 * and renamed before the answer.
 * Place:   reload.c and handle_admin.c write it, the loader reads it at start. It overrides the configuration. Without
 *          a path everything works but nothing is kept: state_persistent tells, and answers say so.
 * Threads: one lock inside guards all fields; a write of the file happens under it. */
#ifndef DUET_SERVER_STATE_H
#define DUET_SERVER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "server/experiment.h"
#include "server/labels.h"
#include "server/quarantine.h"

struct state;

/* path "" or NULL: none. A missing file is revision 0; a damaged one is ERR_FORMAT: nothing is guessed about what was
 * wanted. */
struct state *state_open(const char *path, struct err *err);
void state_free(struct state *s); // NULL is fine

bool state_persistent(const struct state *s);
uint64_t state_revision(struct state *s);

/* The version a model is pinned to, 0 = not pinned here. */
uint64_t state_pin(struct state *s, const char *model);
/* The table set through the API, or NULL if none ever was: then the configuration's holds. Counted: unref it. */
struct experiment_table *state_experiments(struct state *s);

/* Versions of a model that were refused, into q[QUARANTINED_MAX]; how many. */
size_t state_quarantine(struct state *s, const char *model, struct quarantined *q);
/* In the place of those there are. No wish of anybody, so the revision stays. A file that cannot be written is ERR_STATE; they hold until the
 * restart all the same. */
bool state_set_quarantine(struct state *s, const char *model, const struct quarantined *q, size_t n, struct err *err);

/* Forget those of every other model. The file is written only if there were any. */
bool state_trim_quarantine(struct state *s, const char *const *model, size_t n, struct err *err);

/* The labels set through the API, or NULL if none ever were: then the configuration's hold. Counted. */
struct labels *state_labels(struct state *s);

#define STATE_ANY_REVISION UINT64_MAX

/* ERR_MISMATCH if `if_match` is another revision than the one now. */
bool state_check_revision(struct state *s, uint64_t if_match, struct err *err);

/* Change one thing. `if_match`: the revision the caller has seen, or STATE_ANY_REVISION: another one now is
 * ERR_MISMATCH. On success the new revision goes to *revision (may be NULL). A file that cannot be written is
 * ERR_STATE, and nothing has changed. */
bool state_set_pin(struct state *s, const char *model, uint64_t version, uint64_t if_match, uint64_t *revision,
                   struct err *err);
/* Keeps a count of its own of `t`; NULL: back to the configuration's. */
bool state_set_experiments(struct state *s, struct experiment_table *t, uint64_t if_match, uint64_t *revision,
                           struct err *err);

/* Keeps a count of its own of `l`; NULL: back to the configuration's. */
bool state_set_labels(struct state *s, struct labels *l, uint64_t if_match, uint64_t *revision, struct err *err);

#endif
