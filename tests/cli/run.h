/* run.h - the duet command as a user runs it: a process, its two outputs, its exit status. */
#ifndef DUET_TESTS_CLI_RUN_H
#define DUET_TESTS_CLI_RUN_H

struct run {
    int status;
    char *out, *err; // whole standard output and error
};

/* Runs $DUET_BIN_DIR/duet with the words of a format, cut at spaces; fails the test unless it exits with `want`. */
struct run duet(int want, const char *format, ...) __attribute__((format(printf, 2, 3)));
void run_fini(struct run *r);

/* The same where only success or failure matters. */
void duet_ok(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
