/* best.h - the k best of a stream of hits, kept as a heap in the caller's array with the worst on top. Ties go to the lower item.
 * Place:   retrieve.c's scans and its merging of several vectors' answers. */
#ifndef DUET_BEST_H
#define DUET_BEST_H

#include <stddef.h>

#include "core/retrieve.h"

/* One more hit to the n <= k in h[k]; returns the new n. */
size_t best_offer(struct retrieve_hit *h, size_t n, size_t k, struct retrieve_hit x);
void best_sort(struct retrieve_hit *h, size_t n); // any n hits, best first

#endif
