/* view.h - a study's results as far as they are there, and the figures that tables and plots are made of. Nothing is trained here. */
#ifndef DUET_TRAIN_STUDY_VIEW_H
#define DUET_TRAIN_STUDY_VIEW_H

#include "train/study/groups.h"
#include "train/study/paired.h"
#include "train/study/study.h"

enum view_metric { VIEW_HR50, VIEW_HR100, VIEW_MRR, VIEW_MRR10, VIEW_METRICS };

/* Over a group of targets: mean over seeds, and the deviation of one seed (n - 1; NAN for a single one). */
struct view_summary {
    size_t n; // targets
    double mean[VIEW_METRICS], dev[VIEW_METRICS];
};

struct view_row {
    const struct study_row *def;
    size_t chosen, n_points;      // of the grid; points done
    double valid_hr100[STUDY_POINTS_MAX]; // of each point with seed 1; NAN: not done
    uint32_t seed[STUDY_SEEDS_MAX];
    struct cell_result *result;   // [n_seeds] those done, in the order of their seeds
    size_t n_seeds;
    struct view_summary all;
};

struct view {
    const struct study *study;
    const struct cell_place *place;
    struct view_row *row;         // [study->n_rows]
    size_t n_done, n_steps;       // of the study
    uint8_t *item_group, *user_group; // enum group by item, by user
    uint32_t *target_user;        // [targets]
    uint8_t *keep;                // [targets] scratch
};

bool view_init(struct view *v, const struct study *s, const struct cell_place *p, struct err *err);
void view_fini(struct view *v); // accepts zeroed

/* Targets with keep[i] != 0; NULL: those of items that training has seen. */
struct view_summary view_summary(const struct view *v, const struct view_row *row, const uint8_t *keep);

/* keep [targets] of a group: by the target's item, by its user, by its category. Items held out are in none. */
void view_keep_items(const struct view *v, enum group g, uint8_t *keep);
void view_keep_users(const struct view *v, enum group g, uint8_t *keep);
void view_keep_category(const struct view *v, uint32_t category, uint8_t *keep);

/* row minus base, each averaged over its own seeds, user by user. */
bool view_paired(const struct view *v, const struct view_row *row, const struct view_row *base, enum view_metric m, struct paired *out,
                 struct err *err);

#endif
