#include "core/verified.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "core/base/pace.h"

#define CHUNKS_TOGETHER 4 // below, threads would cost more than they bring
#define THREADS_MAX 16

static bool equal(struct hash128 a, struct hash128 b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

static bool check_stat(int fd, const char *name, const struct manifest_file *want, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_errno(err, "%s", name);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_FORMAT, "%s: not a regular file", name);
    return (uint64_t)st.st_size == want->bytes ||
           err_set(err, ERR_FORMAT, "%s: %lld bytes, %s wants %llu: cut, extended or of another bundle", name,
                   (long long)st.st_size, MANIFEST_NAME, (unsigned long long)want->bytes);
}

static int open_file(int dirfd, const char *name, const struct manifest_file *want, struct err *err)
{
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); // NONBLOCK: a FIFO must not hang us
    if (fd < 0) {
        if (errno == ELOOP)
            err_set(err, ERR_FORMAT, "%s: a link; the files of a bundle are regular files", name);
        else
            err_errno(err, "%s", name);
        return -1;
    }
    if (check_stat(fd, name, want, err))
        return fd;
    close(fd);
    return -1;
}

static bool mismatch(const char *name, const char *what, uint64_t offset, struct hash128 found, struct hash128 want,
                     struct err *err)
{
    char a[33], b[33];
    hash128_hex(found, a);
    hash128_hex(want, b);
    return err_set(
        err, ERR_FORMAT,
        "%s: checksum mismatch in %s (from offset %llu): found %s, %s wants %s: damaged, or of another bundle", name,
        what, (unsigned long long)offset, a, MANIFEST_NAME, b);
}

/* Read the whole file and compare; into `to` if there is one, else through a buffer of one chunk. */
static bool read_hashed(int fd, const char *name, const struct manifest_file *want, char *to, struct err *err)
{
    struct hash_state *whole = hash_new();
    char *buf = to ? NULL : mem_array(MANIFEST_CHUNK, 1, err);
    bool ok = whole && (to || buf);
    if (!whole)
        err_set(err, ERR_NOMEM, "out of memory");
    for (size_t i = 0; ok && i < want->n_chunks; i++) {
        uint64_t at = (uint64_t)i * MANIFEST_CHUNK, left = want->bytes - at;
        size_t n = left < MANIFEST_CHUNK ? (size_t)left : MANIFEST_CHUNK;
        char *p = to ? to + at : buf, what[32];
        if (!(ok = fio_read_full(fd, p, n, at, err) || err_prefix(err, "%s", name)))
            break;
        struct hash128 h = hash128(p, n);
        hash_update(whole, p, n);
        snprintf(what, sizeof(what), "chunk %zu", i);
        ok = equal(h, want->chunk[i]) || mismatch(name, what, at, h, want->chunk[i], err);
    }
    if (ok) {
        struct hash128 h = hash_digest(whole);
        ok = equal(h, want->hash) || mismatch(name, "the whole", 0, h, want->hash, err);
    }
    hash_free(whole);
    free(buf);
    return ok;
}

/* A file that several threads read, each the next chunk that nobody has begun: most of the work is the kernel's, which
 * copies and clears pages. */
struct together {
    int fd;
    const struct manifest_file *want;
    char *to;
    struct pace *pace; // of the thread that began, for the others
    atomic_size_t next;
    atomic_bool failed;
};

static void *read_some(void *arg)
{
    struct together *t = arg;
    size_t i;
    pace_point_of(t->pace);
    while (!atomic_load(&t->failed) && (i = atomic_fetch_add(&t->next, 1)) < t->want->n_chunks) {
        uint64_t at = (uint64_t)i * MANIFEST_CHUNK, left = t->want->bytes - at;
        size_t n = left < MANIFEST_CHUNK ? (size_t)left : MANIFEST_CHUNK;
        if (!fio_read_full(t->fd, t->to + at, n, at, NULL) || !equal(hash128(t->to + at, n), t->want->chunk[i]))
            atomic_store(&t->failed, true);
    }
    return NULL;
}

/* False: something is wrong, and reading once more in order will say what. */
static bool read_together(int fd, const struct manifest_file *want, char *to, unsigned threads)
{
    struct together t = {.fd = fd, .want = want, .to = to, .pace = pace_mine()};
    pthread_t helper[THREADS_MAX];
    unsigned n = 0;
    while (n + 1 < threads && n < THREADS_MAX && pthread_create(&helper[n], NULL, read_some, &t) == 0)
        n++;
    read_some(&t);
    while (n > 0)
        pthread_join(helper[--n], NULL);
    return !atomic_load(&t.failed) && equal(hash128(to, (size_t)want->bytes), want->hash);
}

/* At least n bytes, less than twice as many: then they are cut to n. */
static void *take_spare(struct block *spare, size_t n)
{
    if (!spare || spare->mapped || n < MEM_MAPPED_MIN || spare->n < n || spare->n / 2 > n)
        return NULL;
    void *p = spare->p;
    mem_block_cut(p, spare->n, n);
    *spare = (struct block){0};
    return p;
}

bool verified_read(int dirfd, const char *name, const struct manifest_file *want, bool map, unsigned threads, struct block *spare,
                   struct block *out, struct err *err)
{
    *out = (struct block){.n = (size_t)want->bytes, .mapped = map};
    if (want->bytes == 0)
        return err_set(err, ERR_FORMAT, "%s: empty file", name);
    int fd = open_file(dirfd, name, want, err);
    if (fd < 0)
        return false;
    bool ok = map || (out->p = take_spare(spare, out->n)) || (out->p = mem_block(out->n, err)) || err_prefix(err, "%s", name);
    bool large = !map && threads > 1 && want->n_chunks >= CHUNKS_TOGETHER;
    ok = ok && ((large && read_together(fd, want, out->p, threads)) || read_hashed(fd, name, want, out->p, err));
    if (ok && map) {
        void *p = mmap(NULL, out->n, PROT_READ, MAP_PRIVATE, fd, 0);
        out->p = p == MAP_FAILED ? NULL : p;
        ok = out->p || err_errno(err, "%s: mmap", name);
    }
    if (!map)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    if (!ok)
        block_free(out);
    return ok;
}

bool verified_check(int dirfd, const char *name, const struct manifest_file *want, struct err *err)
{
    int fd = want->bytes ? open_file(dirfd, name, want, err) : -1;
    bool ok = fd >= 0 ? read_hashed(fd, name, want, NULL, err) : err_set(err, ERR_FORMAT, "%s: empty file", name);
    if (fd >= 0)
        close(fd);
    return ok;
}

void block_free(struct block *b)
{
    if (b->p && b->mapped)
        fio_unmap(b->p, b->n);
    else
        mem_block_free(b->p, b->n);
    *b = (struct block){0};
}

bool verified_size(int dirfd, const char *name, const struct manifest_file *want, struct err *err)
{
    int fd = open_file(dirfd, name, want, err);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}
