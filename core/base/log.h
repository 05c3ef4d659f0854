/* log.h - one line per event: JSON, or key=value text on a terminal. Programs own a struct log and pass it down;
 * core, index, config and train never log.
 * Threads: log_event may be called from any thread; a line is written by one write(2). */
#ifndef DUET_BASE_LOG_H
#define DUET_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log {
    int fd;
    bool json;
    _Atomic int level; // lowest level written; may be changed while running
};

/* One field. Build with the LOG_* macros; `key` is a literal of ours, string values are escaped and cut at 1 KiB. */
struct log_field {
    const char *key;
    enum { LOG_F_STR, LOG_F_INT, LOG_F_NUM, LOG_F_BOOL } type;
    const char *s;
    int64_t i;
    double d;
};
#define LOG_STR(k, v) (struct log_field){.key = (k), .type = LOG_F_STR, .s = (v)}
#define LOG_INT(k, v) (struct log_field){.key = (k), .type = LOG_F_INT, .i = (int64_t)(v)}
#define LOG_NUM(k, v) (struct log_field){.key = (k), .type = LOG_F_NUM, .d = (v)}
#define LOG_BOOL(k, v) (struct log_field){.key = (k), .type = LOG_F_BOOL, .i = (v)}

/* log_event(log, LOG_INFO, "reload", LOG_STR("model", m), LOG_INT("version", v)); ts and level come by themselves. */
#define log_event(log, level, event, ...)                                                                              \
    log_write((log), (level), (event), (struct log_field[]){__VA_ARGS__ __VA_OPT__(,) {0}})
void log_write(struct log *l, enum log_level level, const char *event, const struct log_field *fields); // ends at key = NULL

bool log_level_parse(const char *name, enum log_level *out); // debug | info | warn | error
const char *log_level_name(enum log_level level);

#endif
