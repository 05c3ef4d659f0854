/* train_fit.h - which options of `duet train` mean something to which model. */
#ifndef DUET_CLI_TRAIN_FIT_H
#define DUET_CLI_TRAIN_FIT_H

#include "cli/opts.h"
#include "core/model.h"

/* ERR_ARG names the first option on the command line that `kind` has no use for, and the models that have; opts_parse has found all
 * options right. */
bool train_options_fit(enum model_kind kind, const struct opt *opts, int argc, char **argv, struct err *err);

#endif
