/* publish_input.h - what is published: a dataset and a model that was trained on it, as core/publish.h wants them. */
#ifndef DUET_TRAIN_PUBLISH_INPUT_H
#define DUET_TRAIN_PUBLISH_INPUT_H

#include "core/publish.h"
#include "train/checkpoint.h"
#include "train/dataset.h"

struct publish_source {
    struct dataset *data;
    struct model *model;
    struct item_attr *attr;  // [n_attrs] views of the dataset's
    uint64_t *seen_off;      // [n_users + 1] what each user has interacted with: train, valid and held-out rows, not test
    uint32_t *seen;
    json_t *metrics;         // offline metrics; may be NULL
    char collapsed[400];     // why training gave the model up; "" normally
    struct publish_input in; // views of all that
};

struct publish_paths {
    const char *data;        // dataset file
    const char *checkpoint;  // folder with model.safetensors and schema.json, or NULL and:
    const char *from;        // model.safetensors trained elsewhere
    const char *schema;      // its schema.json; NULL = the dataset's
    bool other_data;         // take a dataset that is not the one of the checkpoint (same schema all the same)
};

/* ERR_MISMATCH where model and dataset do not belong together. Zeroed *s to begin with; fini after either outcome. */
bool publish_source_open(struct publish_source *s, const struct publish_paths *p, struct err *err);
void publish_source_fini(struct publish_source *s);

#endif
