/* manifest.h - manifest.json of a bundle: what it is, and size and hashes of every other file.
 * Format:  docs/formats.md, "manifest.json".
 * Place:   bundle.c reads it before anything else, publish.c writes it last.
 * Threads: const once read. */
#ifndef DUET_MANIFEST_H
#define DUET_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/bundle.h"

#define MANIFEST_NAME "manifest.json"
#define MANIFEST_CHUNK ((size_t)1 << 20) // each has a hash of its own

/* The other files of a bundle: those that each has, then those that it may lack. */
enum manifest_file_id {
    MF_SCHEMA,
    MF_MODEL,
    MF_ITEMS,
    MF_EMBEDDINGS,
    MF_INDEX,
    MF_USERS,
    MF_PROBES,
    MANIFEST_FILES,
    MF_COMPACT = MANIFEST_FILES,
    MF_WARMUP,
    MANIFEST_FILES_MAX
};
extern const char *const manifest_file_name[MANIFEST_FILES_MAX];

struct manifest_file {
    uint64_t bytes;
    struct hash128 hash;   // of the whole file
    struct hash128 *chunk; // [n_chunks], owned
    size_t n_chunks;       // bytes / MANIFEST_CHUNK, rounded up; 0: there is no such file
};

struct manifest {
    struct bundle_manifest head; // n_bytes: all files, the manifest too
    uint32_t n_probes;
    uint64_t users_revision;     // 1, plus 1 for each publication of users alone
    uint32_t m, ef_construction; // how the graph was built
    uint64_t seed;               // < 2^63
    json_t *metrics;             // object, owned; may be NULL when writing
    struct manifest_file file[MANIFEST_FILES_MAX];
};

/* Read <dir>/manifest.json: its own hash first, then every member's type and range. A zeroed *m to begin with; manifest_fini
 * after either outcome. Errors name the file and the member. */
bool manifest_read(const char *dir, struct manifest *m, struct err *err);
void manifest_fini(struct manifest *m); // accepts zeroed

/* Does the folder's place say the same name and version as the manifest, and does it hold only what the manifest tells of? */
bool manifest_check_place(const char *dir, const struct manifest *m, struct err *err);
bool manifest_check_entries(const char *dir, const struct manifest *m, struct err *err);

/* Sizes and hashes of <dir>'s file `id` into m->file[id]. */
bool manifest_has(const struct manifest *m, enum manifest_file_id id);
bool manifest_hash_file(struct manifest *m, const char *dir, enum manifest_file_id id, struct err *err);

/* fsynced; the folder is not. */
bool manifest_write(const char *dir, const struct manifest *m, struct err *err);

/* The fingerprint out of the hashes of model, embeddings and schema in m->file, and of the item ids (items_ids_hash). */
void manifest_fingerprint(const struct manifest *m, struct hash128 item_ids, char out[33]);

bool manifest_name_ok(const char *name);                          // of a model: [A-Za-z0-9._-]{1,64}, no dot in front
bool manifest_version_parse(const char *text, uint64_t *version); // 1 .. 2^63 - 1, no leading zeros

#endif
