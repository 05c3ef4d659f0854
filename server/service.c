/* service.c - what this daemon serves. */
#include "server/app.h"
#include "server/route.h"

static const struct route routes[] = {
    {.handler = NULL},
};

static bool ready(struct app *app, struct buf *why)
{
    buf_puts(why, app->config->n_models ? "no model is loaded" : "no models are configured");
    return false;
}

static bool started(struct app *app, struct buf *why)
{
    buf_puts(why, "");
    return app->config->n_models == 0;
}

const struct service duet_service = {.routes = routes, .ready = ready, .started = started};
