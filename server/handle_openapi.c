/* handle_openapi.c - GET /openapi.json: docs/openapi.json as it was when this was built. */
#include "server/handle_openapi.h"

/* The assembler copies the file's bytes; CMake gives its path and builds this again when it changes. */
__asm__(".pushsection .rodata\n"
        "duet_openapi_begin: .incbin \"" DUET_OPENAPI_FILE "\"\n"
        "duet_openapi_end: .byte 0\n"
        ".popsection\n");
extern const char duet_openapi_begin[], duet_openapi_end[];

static bool openapi(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)app, (void)r, (void)m;
    resp->status = 200;
    buf_put(&resp->body, duet_openapi_begin, (size_t)(duet_openapi_end - duet_openapi_begin));
    return true;
}

const struct route openapi_routes[] = {
    {.method = HTTP_GET,
     .pattern = "/openapi.json",
     .on = ROUTE_BOTH,
     .name = "openapi",
     .open = true,
     .while_starting = true,
     .handler = openapi},
    {.handler = NULL},
};
