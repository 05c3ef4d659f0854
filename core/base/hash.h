/* hash.h - the one user of libxxhash. XXH3 guards files against accidents and spreads keys; it is not cryptographic. */
#ifndef DUET_BASE_HASH_H
#define DUET_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t hi, lo;
};

uint64_t hash64(const void *p, size_t n);                      // XXH3-64, seed 0
uint64_t hash_xxh64(const void *p, size_t n);                  // XXH64, seed 0: the documented experiment hash
struct hash128 hash128(const void *p, size_t n);               // XXH3-128, seed 0
void hash128_hex(struct hash128 h, char out[33]);              // 32 lower-case hex digits, high half first
_Bool hash128_parse(const char *hex, struct hash128 *out);     // exactly 32 hex digits

/* Streaming XXH3-128. NULL from hash_new means out of memory; hash_free accepts NULL. */
struct hash_state;
struct hash_state *hash_new(void);
void hash_update(struct hash_state *s, const void *p, size_t n);
struct hash128 hash_digest(const struct hash_state *s);
void hash_free(struct hash_state *s);

#endif
