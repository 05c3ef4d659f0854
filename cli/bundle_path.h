/* bundle_path.h - bundles as people name them on a command line. */
#ifndef DUET_CLI_BUNDLE_PATH_H
#define DUET_CLI_BUNDLE_PATH_H

#include <limits.h>
#include <stdbool.h>

#include "core/base/err.h"

/* `path` itself if it holds a manifest; its newest version if it is a model's folder. ERR_NOT_FOUND for anything else. */
bool bundle_path(const char *path, char out[PATH_MAX], struct err *err);

#endif
