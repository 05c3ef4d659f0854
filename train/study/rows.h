/* rows.h - the studies: which rows each has, and the grids that systems are tuned over. */
#ifndef DUET_TRAIN_STUDY_ROWS_H
#define DUET_TRAIN_STUDY_ROWS_H

#include "train/study/study.h"

#define STUDY_GRID 4 // points of every grid, the recipe's own values included

#define STUDY_NAMES "compare, ablation, dimension, negatives, index or recipes"

struct study_options {
    const char *recipe;   // of the rows that do not say otherwise: "duet", "plain", "paper"
    uint32_t n_seeds;
    uint32_t n_points;    // 1 .. STUDY_GRID: 1 = nothing is tuned
    uint32_t epochs;      // at most; 0 = the recipes'
    const char *systems;  // comma-separated names of rows to keep; NULL = all
};

/* ERR_ARG names an unknown study, recipe or row. */
bool study_make(struct study *s, const char *name, const struct study_options *o, const struct dataset *d, struct err *err);

#endif
