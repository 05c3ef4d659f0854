#include "train/epoch_log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fio.h"

/* Is that a whole line of an epoch up to `last`? */
static bool of_epoch(const char *line, ssize_t n, uint32_t last)
{
    json_t *o = n > 0 && line[n - 1] == '\n' ? json_parse(line, (size_t)n, NULL) : NULL;
    json_int_t epoch = json_integer_value(json_object_get(o, "epoch"));
    json_decref(o);
    return epoch >= 1 && epoch <= last;
}

/* Bytes of the lines to be kept, from the first on. */
static long kept(FILE *f, uint32_t last)
{
    char *line = NULL;
    size_t size = 0;
    long at = 0;
    for (ssize_t n; (n = getline(&line, &size, f)) > 0 && of_epoch(line, n, last);)
        at += n;
    free(line);
    return at;
}

FILE *epoch_log_open(const char *dir, uint32_t epochs_done, struct err *err)
{
    char path[PATH_MAX];
    if (!fio_join(path, dir, "train.jsonl", err))
        return NULL;
    FILE *f = fopen(path, "a+");
    if (!f) {
        err_errno(err, "open %s", path);
        return NULL;
    }
    rewind(f);
    long at = kept(f, epochs_done);
    if (ftruncate(fileno(f), at) == 0 && fseek(f, 0, SEEK_END) == 0)
        return f;
    err_errno(err, "cut %s", path);
    fclose(f);
    return NULL;
}

void epoch_log_put(FILE *f, json_t *line)
{
    char *text = f && line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text) {
        fprintf(f, "%s\n", text);
        fflush(f);
    }
    free(text);
    json_decref(line);
}
