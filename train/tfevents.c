#include "train/tfevents.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

// -------------------------------------------------------------------------------------------------------- framing

/* CRC-32C (Castagnoli, reflected), bit by bit: an epoch has a few hundred bytes. */
static uint32_t crc32c(const void *p, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= ((const unsigned char *)p)[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1)));
    }
    return ~crc;
}

/* As TFRecord stores it, so that the CRC of data that hold CRCs is none of them. */
static uint32_t masked_crc(const void *p, size_t n)
{
    uint32_t crc = crc32c(p, n);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static bool put_record(FILE *f, const struct buf *b, struct err *err)
{
    uint64_t n = b->len;
    uint32_t crc[2] = {masked_crc(&n, sizeof(n)), masked_crc(b->data, b->len)};
    if (b->failed)
        return err_set(err, ERR_NOMEM, "out of memory");
    bool ok = fwrite(&n, sizeof(n), 1, f) == 1 && fwrite(&crc[0], 4, 1, f) == 1 && fwrite(b->data, b->len, 1, f) == 1 &&
              fwrite(&crc[1], 4, 1, f) == 1 && fflush(f) == 0;
    return ok || err_errno(err, "write events");
}

// ------------------------------------------------------------------------------------------------------- protobuf

enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_varint(struct buf *b, uint64_t v)
{
    for (; v > 127; v >>= 7)
        buf_put(b, &(unsigned char){(unsigned char)(v | 128)}, 1);
    buf_put(b, &(unsigned char){(unsigned char)v}, 1);
}

static void put_key(struct buf *b, unsigned field, enum wire wire)
{
    put_varint(b, field << 3 | (unsigned)wire);
}

static void put_bytes(struct buf *b, unsigned field, const void *p, size_t n)
{
    put_key(b, field, BYTES);
    put_varint(b, n);
    buf_put(b, p, n);
}

static void put_time(struct buf *b, double wall_time)
{
    put_key(b, 1, FIXED64);
    buf_put(b, &wall_time, sizeof(wall_time));
}

/* Value, into the Summary that `b` is. */
static void put_scalar(struct buf *b, const struct tfscalar *s)
{
    struct buf value = {0};
    float x = (float)s->value;
    put_bytes(&value, 1, s->tag, strlen(s->tag));
    put_key(&value, 2, FIXED32);
    buf_put(&value, &x, sizeof(x));
    put_bytes(b, 1, value.data, value.len);
    b->failed |= value.failed;
    buf_fini(&value);
}

// --------------------------------------------------------------------------------------------------------- events

static bool put_version(FILE *f, double wall_time, struct err *err)
{
    static const char version[] = "brain.Event:2";
    struct buf event = {0};
    put_time(&event, wall_time);
    put_bytes(&event, 3, version, strlen(version));
    bool ok = put_record(f, &event, err);
    buf_fini(&event);
    return ok;
}

FILE *tfevents_open(const char *dir, double wall_time, struct err *err)
{
    char host[65] = "host", name[160], path[PATH_MAX];
    gethostname(host, sizeof(host) - 1);
    snprintf(name, sizeof(name), "events.out.tfevents.%.0f.%s.%ld", wall_time, host, (long)getpid());
    if (!fio_mkdirs(dir, err) || !fio_join(path, dir, name, err))
        return NULL;
    FILE *f = fopen(path, "wb");
    if (!f) {
        err_errno(err, "open %s", path);
    } else if (!put_version(f, wall_time, err)) {
        fclose(f);
        f = NULL;
    }
    return f;
}

bool tfevents_put(FILE *f, double wall_time, int64_t step, const struct tfscalar *scalar, size_t n, struct err *err)
{
    struct buf event = {0}, summary = {0};
    for (size_t i = 0; i < n; i++)
        put_scalar(&summary, &scalar[i]);
    put_time(&event, wall_time);
    put_key(&event, 2, VARINT);
    put_varint(&event, (uint64_t)step);
    put_bytes(&event, 5, summary.data, summary.len);
    event.failed |= summary.failed;
    bool ok = put_record(f, &event, err);
    buf_fini(&summary);
    buf_fini(&event);
    return ok;
}
