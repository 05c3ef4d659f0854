/* handle_openapi.h - GET /openapi.json. */
#ifndef DUET_SERVER_HANDLE_OPENAPI_H
#define DUET_SERVER_HANDLE_OPENAPI_H

#include "server/route.h"

extern const struct route openapi_routes[];

#endif
