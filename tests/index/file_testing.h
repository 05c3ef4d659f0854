/* file_testing.h - what the tests of index files share: damage of every kind. Include after index_testing.h. */
#ifndef FILE_TESTING_H
#define FILE_TESTING_H

#include <sys/stat.h>
#include <unistd.h>

#include "index/hnsw_io.h"

static char path[] = "/tmp/hnsw_file_XXXXXX"; // of this test program

static inline int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static inline int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static inline unsigned char *slurp(size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    *n = (size_t)st.st_size;
    unsigned char *p = malloc(*n);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static inline void refused(const unsigned char *bytes, size_t n, const char *what, size_t at)
{
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_load_mem(bytes, n, "bytes", &err);
    if (h)
        fail_msg("%s at %zu was loaded", what, at);
    assert_int_equal(err.code, HNSW_FORMAT);
    assert_true(strlen(err.msg) > 10);
}

/* Every prefix, and every single bit of all sections. */
static inline void every_flip_and_cut_refused(unsigned char *bytes, size_t n)
{
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *part = malloc(cut ? cut : 1); // its own size, so that the sanitizer sees a byte too far
        memcpy(part, bytes, cut);
        refused(part, cut, "cut", cut);
        free(part);
    }
    for (size_t bit = 0; bit < 8 * n; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        refused(bytes, n, "flipped bit", bit);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

/* Whoever damages a file on purpose computes the checksums too. */
static inline void seal(unsigned char *bytes, size_t n)
{
    struct hnsw_sum s;
    hnsw_sum_init(&s);
    hnsw_sum_add(&s, bytes, 120);
    uint64_t sum = hnsw_sum_end(&s);
    memcpy(bytes + 120, &sum, 8);
    hnsw_sum_init(&s);
    hnsw_sum_add(&s, bytes, n - 8);
    sum = hnsw_sum_end(&s);
    memcpy(bytes + n - 8, &sum, 8);
}

static inline size_t padded(size_t n)
{
    return (n + 63) / 64 * 64;
}

static inline void crafted(const unsigned char *sound, size_t n, size_t at, uint64_t value, size_t size)
{
    unsigned char *bytes = malloc(n);
    memcpy(bytes, sound, n);
    memcpy(bytes + at, &value, size);
    seal(bytes, n);
    refused(bytes, n, "crafted", at);
    free(bytes);
}

#endif
