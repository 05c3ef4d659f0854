#include "train/textin.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/base/fio.h"

#define TEXT_BLOCK (256u << 10)

bool textin_open(struct textin *in, const char *path, struct err *err)
{
    *in = (struct textin){.line = 1};
    uint64_t size;
    if (!fio_size(path, &size, err)) // a regular file: neither folder nor FIFO
        return false;
    if (!(in->path = mem_dup(path, strlen(path), err)) || !(in->block = mem_array(TEXT_BLOCK, 1, err)))
        goto fail;
    if (!(in->gz = gzopen(path, "rbe"))) {
        err_errno(err, "%s", path);
        goto fail;
    }
    gzbuffer(in->gz, TEXT_BLOCK);
    if (textin_fill(in, err) == -2)
        goto fail;
    if (in->n >= 3 && memcmp(in->block, "\xef\xbb\xbf", 3) == 0)
        in->at = 3;
    return true;
fail:
    textin_close(in);
    return false;
}

void textin_close(struct textin *in)
{
    if (in->gz)
        gzclose(in->gz);
    free(in->path);
    free(in->block);
    buf_fini(&in->text);
    *in = (struct textin){0};
}

/* gzread returns what it has when a stream is cut; only gzerror tells at the end that it was. */
int textin_fill(struct textin *in, struct err *err)
{
    int got = gzread(in->gz, in->block, TEXT_BLOCK), code = Z_OK;
    in->at = 0;
    in->n = got > 0 ? (size_t)got : 0;
    if (got > 0)
        return 0;
    const char *why = gzerror(in->gz, &code);
    if (got == 0 && code != Z_BUF_ERROR)
        return -1;
    if (code == Z_ERRNO)
        err_errno(err, "%s:%llu: read", in->path, (unsigned long long)in->line);
    else
        err_set(err, ERR_IO, "%s:%llu: gzip stream is damaged or cut: %s", in->path, (unsigned long long)in->line,
                code == Z_BUF_ERROR ? "unexpected end of file" : why);
    return -2;
}

int textin_line(struct textin *in, struct str *line, uint64_t *number, struct err *err)
{
    int c;
    size_t n = 0;
    buf_reset(&in->text);
    *number = in->line;
    while ((c = textin_byte(in, err)) >= 0 && c != '\n') {
        char byte = (char)c;
        if (++n <= TEXT_LINE_MAX)
            buf_put(&in->text, &byte, 1);
    }
    if (c == -2)
        return -1;
    if (c == -1 && n == 0)
        return 0;
    if (in->text.failed) {
        err_set(err, ERR_NOMEM, "%s:%llu: out of memory", in->path, (unsigned long long)*number);
        return -1;
    }
    if (n > TEXT_LINE_MAX) {
        err_set(err, ERR_FORMAT, "%s:%llu: a line of %zu bytes, at most %u allowed", in->path,
                (unsigned long long)*number, n, TEXT_LINE_MAX);
        return -1;
    }
    if (n > 0 && in->text.data[n - 1] == '\r')
        n--;
    *line = (struct str){n ? in->text.data : "", n};
    return 1;
}
