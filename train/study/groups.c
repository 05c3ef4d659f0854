#include "train/study/groups.h"

#include <stdlib.h>

#include "core/base/mem.h"

const char *group_name(enum group g)
{
    static const char *const names[] = {"head", "middle", "tail"};
    return names[g];
}

struct counted {
    uint32_t count, at;
};

static int more_first(const void *a, const void *b)
{
    const struct counted *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return x->at < y->at ? -1 : 1;
}

bool groups_by_count(const uint32_t *count, size_t n, uint8_t *out, struct err *err)
{
    struct counted *c = mem_array(n, sizeof(*c), err);
    if (!c)
        return false;
    for (size_t i = 0; i < n; i++)
        c[i] = (struct counted){count[i], (uint32_t)i};
    qsort(c, n, sizeof(*c), more_first);
    for (size_t i = 0; i < n; i++)
        out[c[i].at] = i * 10 < n ? GROUP_HEAD : i * 2 < n ? GROUP_MIDDLE : GROUP_TAIL;
    free(c);
    return true;
}

bool groups_of_items(const struct dataset *d, uint8_t *out, struct err *err)
{
    return groups_by_count(d->item_count, d->n_items, out, err);
}

bool groups_of_users(const struct dataset *d, uint8_t *out, struct err *err)
{
    uint32_t *count = mem_array(d->n_users, sizeof(*count), err);
    for (uint32_t u = 0; count && u < d->n_users; u++)
        count[u] = (uint32_t)(d->train.off[u + 1] - d->train.off[u]);
    bool ok = count && groups_by_count(count, d->n_users, out, err);
    free(count);
    return ok;
}
