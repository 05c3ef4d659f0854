/* reload_health.c - what /readyz and /startupz tell of the models. */
#include <inttypes.h>

#include "server/reload_priv.h"

/* What there is of the configured models; the lock is held. */
struct census {
    size_t n, n_serving;
    const struct rmodel *missing, *untried; // the first without a version in service; the first that has not even failed; or NULL
};

static struct census count_models(const struct reloads *rl)
{
    struct census c = {0};
    for (size_t i = 0; i < rl->n_models; i++) {
        const struct rmodel *m = rl->model[i];
        if (m->gone)
            continue;
        c.n++;
        c.n_serving += m->cur != NULL;
        c.missing = c.missing || m->cur ? c.missing : m;
        c.untried = c.untried || m->cur || m->tried ? c.untried : m;
    }
    return c;
}

/* What was reached once is not lost by a model that the configuration gets later: one that loads, or cannot, must not take
 * the others out of service. The lock is held. */
void reload_note_progress(struct reloads *rl)
{
    struct census c = count_models(rl);
    if (c.n == 0) // nothing has been reached
        return;
    rl->was_started = rl->was_started || !c.untried;
    rl->was_ready = rl->was_ready || !c.missing;
}

static void explain(const struct reloads *rl, const struct census *c, struct buf *why)
{
    const struct rmodel *m = c->missing;
    if (c->n_serving == c->n)
        buf_printf(why, "%zu models in service", c->n);
    else
        buf_printf(why, "%zu of %zu models in service", c->n_serving, c->n);
    buf_printf(why, ", state revision %" PRIu64, state_revision(rl->p.state));
    if (m && m->tried && !m->busy)
        buf_printf(why, "; model %s: no version could be loaded: %s", m->name, m->last_error);
    else if (m)
        buf_printf(why, "; loading model %s", m->name);
}

bool reloads_ready(struct reloads *rl, struct buf *why)
{
    pthread_mutex_lock(&rl->lock);
    struct census c = count_models(rl);
    bool ready = !c.missing || (rl->was_ready && c.n_serving > 0);
    explain(rl, &c, why);
    pthread_mutex_unlock(&rl->lock);
    return ready;
}

bool reloads_started(struct reloads *rl, struct buf *why)
{
    pthread_mutex_lock(&rl->lock);
    struct census c = count_models(rl);
    bool started = rl->was_started || !c.untried;
    explain(rl, &c, why);
    pthread_mutex_unlock(&rl->lock);
    return started;
}
