/* err.h - how a fallible call says what went wrong.
 * Place: used by everything but index/, which has its own error of the same shape.
 * Rules: zeroed by the outermost caller, may be NULL everywhere. The first cause wins; each level up adds where it was.
 *        A message names the value found, the value wanted and the way out. It is UTF-8, whatever it repeats and wherever it is cut. */
#ifndef DUET_BASE_ERR_H
#define DUET_BASE_ERR_H

enum err_code {
    ERR_OK = 0,
    ERR_NOMEM,     // an allocation failed
    ERR_IO,        // the operating system refused: open, read, write, rename, ...
    ERR_FORMAT,    // a file's bytes are damaged or not what they claim to be
    ERR_ARG,       // the caller's or the user's input is wrong
    ERR_NOT_FOUND, // a named thing does not exist
    ERR_MISMATCH,  // two things, each fine, do not belong together
    ERR_LIMIT,     // a stated limit was passed
    ERR_STATE      // right call, wrong moment
};

struct err {
    enum err_code code;
    char msg[512];
};

/* Record a cause. Does nothing if `e` is NULL or already holds one. Returns false, so `return err_set(...)` reads well. */
_Bool err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same with ": strerror(errno)" appended, code ERR_IO (ERR_NOT_FOUND for ENOENT, ERR_NOMEM for ENOMEM). */
_Bool err_errno(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "where: " before the message. No effect while `e` holds no cause. Returns false. */
_Bool err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Short stable word for a code: "io", "format", ... */
const char *err_name(enum err_code code);

#endif
