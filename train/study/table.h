/* table.h - a study's table: Markdown for people, CSV for programs. Both are made of the results alone: the same results give the same
 * bytes, whatever was killed in between. What is missing is said. */
#ifndef DUET_TRAIN_STUDY_TABLE_H
#define DUET_TRAIN_STUDY_TABLE_H

#include <stdio.h>

#include "train/study/view.h"

/* data_name: how the dataset is called in the heading. */
bool table_markdown(const struct view *v, const char *data_name, FILE *to, struct err *err);

/* One row a system, seed and group: system,point,seed,group_kind,group,n,hr@50,hr@100,mrr,mrr_x10,mrr_ceil10,valid_hr@100,model_code.
 * Kinds: all, item_frequency, user_frequency, category. */
void table_csv(const struct view *v, FILE *to);

/* What a study of the index adds to the Markdown, and its plot's points: HR@100 through the graph divided by exact, over ef. */
void table_index(const struct view *v, FILE *to);
size_t table_index_points(const struct view_row *r, double *ef, double *kept, size_t max);

/* SVG; false where no row has a result, or writing failed. */
bool figure_svg(const struct view *v, const char *data_name, FILE *to);

#endif
