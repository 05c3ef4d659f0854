/* parallel.h - one loop shared by several threads.
 * Place: work over all elements of an index whose parts do not depend on each other. */
#ifndef HNSW_PARALLEL_H
#define HNSW_PARALLEL_H

#include <stddef.h>

#define HNSW_THREADS_MAX 256
#define HNSW_PART 4096 // elements that a thread takes at a time

typedef void hnsw_part_fn(void *ctx, size_t from, size_t to); // the part [from, to) of the loop

/* fn over [0, n) in parts of `step`, by up to `threads` threads (0 = 1), the caller among them; returns when all is
 * done. Which thread does which part is left to chance. A thread that cannot be started leaves its parts to the others.
 */
void hnsw_parallel(unsigned threads, size_t n, size_t step, hnsw_part_fn *fn, void *ctx);

#endif
