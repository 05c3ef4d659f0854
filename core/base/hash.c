#include "core/base/hash.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

uint64_t hash64(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

uint64_t hash_xxh64(const void *p, size_t n)
{
    return XXH64(p, n, 0);
}

struct hash128 hash128(const void *p, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(p, n);
    return (struct hash128){.hi = h.high64, .lo = h.low64};
}

void hash128_hex(struct hash128 h, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
}

_Bool hash128_parse(const char *hex, struct hash128 *out)
{
    uint64_t part[2] = {0, 0};
    if (strlen(hex) != 32)
        return 0;
    for (int i = 0; i < 32; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, hex[i]);
        if (!at)
            return 0;
        part[i / 16] = part[i / 16] << 4 | (uint64_t)(at - digits);
    }
    *out = (struct hash128){.hi = part[0], .lo = part[1]};
    return 1;
}

struct hash_state *hash_new(void)
{
    XXH3_state_t *s = XXH3_createState();
    if (s)
        XXH3_128bits_reset(s);
    return (struct hash_state *)s;
}

void hash_update(struct hash_state *s, const void *p, size_t n)
{
    XXH3_128bits_update((XXH3_state_t *)s, p, n);
}

struct hash128 hash_digest(const struct hash_state *s)
{
    XXH128_hash_t h = XXH3_128bits_digest((const XXH3_state_t *)s);
    return (struct hash128){.hi = h.high64, .lo = h.low64};
}

void hash_free(struct hash_state *s)
{
    XXH3_freeState((XXH3_state_t *)s);
}
