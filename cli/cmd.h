/* cmd.h - the subcommands of `duet`. Each gets the arguments after its name and returns the process's exit status:
 * 0 done, 1 it failed (one line on standard error says why), 2 wrong usage. Results go to standard output, progress to standard error. */
#ifndef DUET_CLI_CMD_H
#define DUET_CLI_CMD_H

#include "core/base/err.h"

int cmd_synth(int argc, char **argv);
int cmd_prepare(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_import(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_study(int argc, char **argv);
int cmd_publish(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_query(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_index(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

/* Print "duet COMMAND: message" and return 1. */
int cmd_fail(const char *command, const struct err *err);

#endif
