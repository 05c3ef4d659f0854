/* study.h - a study: rows of a table, each one or more configurations times seeds, run in the order in which they tell most.
 * Order:   1. every row's own configuration (the recipe's) with the first seed, row by row;
 *          2. the other points of every row's grid, with the first seed: its tuning, the same number of points for every row;
 *          3. seed by seed, every row at the point with the best validation HR@100.
 *          A run that stops early, by its budget or by a kill, has done a beginning of this list, and the next goes on from there.
 * Place:   rows.h says what a study is made of, table.h and figure.h what is made of it; cli/cmd_study.c is the command. */
#ifndef DUET_TRAIN_STUDY_STUDY_H
#define DUET_TRAIN_STUDY_STUDY_H

#include "train/study/cell.h"

#define STUDY_POINTS_MAX 8
#define STUDY_ROWS_MAX 64
#define STUDY_SEEDS_MAX 100

struct study_point {
    struct cell cell; // its seed is set when it is run
    char what[64];    // what makes it different from the recipe's own: "reg .03"; "" for that
};

struct study_row {
    char name[48];          // "dat, without CAL"
    struct study_point point[STUDY_POINTS_MAX];
    size_t n_points;
    bool one_seed;          // nothing random in it
    const char *series;     // plots over x: which line it belongs to
    double x;
    const char *skipped;    // why it is not run at all; NULL
};

enum study_figure {
    STUDY_ROWS,  // a line of dots for each row
    STUDY_LINES, // HR@100 over x, a line for each series
    STUDY_INDEX  // what the graph leaves of it over ef, a line for each row
};

struct study {
    char name[16], title[96];
    const char *about;      // what the rows mean: below the table
    const char *x_label, *y_label; // of lines
    enum study_figure figure;
    struct study_row row[STUDY_ROWS_MAX];
    size_t n_rows;
    size_t base;            // row that the others are tested against
    uint32_t n_seeds;       // 1 .. n_seeds
};

/* One thing to do. */
struct study_step {
    size_t row, point;
    uint32_t seed;
    bool chosen;            // point = the best of the grid, known once that is done
};

/* Steps in order, for free(); n_points > 1 rows have chosen steps. */
struct study_step *study_steps(const struct study *s, size_t *n, struct err *err);

/* The point with the best validation HR@100 among those done with seed 1, the first of equals; 0 where none is. *n_done (may be NULL):
 * how many are. */
size_t study_chosen(const struct study *s, const struct cell_place *p, size_t row, size_t *n_done);

/* The cell of a step; chosen points are looked up. */
struct cell study_cell(const struct study *s, const struct cell_place *p, const struct study_step *step);

struct study_run {
    double budget_s;        // begin nothing after that, but one run at least; 0 = no limit
    uint32_t threads;
    size_t n_done, n_all;   // out
    void (*begin)(void *user, const struct study_run *r, const struct study_row *row, const struct study_step *step); // may be NULL
    void *user;
};

/* Everything that is not done yet, until the budget is spent. */
bool study_go(const struct study *s, struct cell_place *p, struct study_run *r, struct err *err);

#endif
