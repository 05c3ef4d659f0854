#include "cli/bundle_path.h"

#include <stdlib.h>

#include "core/base/fio.h"
#include "core/bundle.h"
#include "core/manifest.h"

bool bundle_path(const char *path, char out[PATH_MAX], struct err *err)
{
    char manifest[PATH_MAX];
    if (!fio_join(manifest, path, MANIFEST_NAME, err))
        return false;
    if (fio_exists(manifest))
        return snprintf(out, PATH_MAX, "%s", path) > 0;
    size_t n = 0;
    uint64_t *all = bundle_versions(path, &n, err), newest = n ? all[n - 1] : 0;
    free(all);
    if (!all)
        return false;
    if (n == 0)
        return err_set(err, ERR_NOT_FOUND, "%s holds neither a bundle (%s) nor versions of one", path, MANIFEST_NAME);
    char name[24];
    snprintf(name, sizeof(name), "%llu", (unsigned long long)newest);
    return fio_join(out, path, name, err);
}
