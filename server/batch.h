/* batch.h - scratch of /v1/retrieve:batch, which a serve_state keeps (handle_batch.c). */
#ifndef DUET_SERVER_BATCH_H
#define DUET_SERVER_BATCH_H

struct batch;
void batch_free(struct batch *b); // NULL is fine

#endif
