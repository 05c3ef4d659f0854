#include "server/sysmem.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"

static char *read_small(const char *root, const char *path)
{
    char full[PATH_MAX];
    size_t n;
    snprintf(full, sizeof(full), "%s%s", root ? root : "", path);
    FILE *f = fopen(full, "re"); // files of /proc have no size: fio_read_all cannot take them
    if (!f)
        return NULL;
    char *text = malloc(65536);
    if (text) {
        n = fread(text, 1, 65535, f);
        text[n] = '\0';
    }
    fclose(f);
    return text;
}

/* The number behind a key at the start of a line, or `missing`. */
static uint64_t value_of(const char *text, const char *key, uint64_t missing)
{
    size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, n) == 0 && (line[n] == ' ' || line[n] == ':'))
            return strtoull(line + n + 1 + strspn(line + n + 1, " \t"), NULL, 10);
    return missing;
}

static uint64_t machine_available(const char *root)
{
    char *text = read_small(root, "/proc/meminfo");
    uint64_t kib = text ? value_of(text, "MemAvailable", UINT64_MAX) : UINT64_MAX;
    free(text);
    return kib == UINT64_MAX ? UINT64_MAX : kib * 1024;
}

/* Control group v2, as a container sees its own: limit minus use, where file pages that can be dropped do not count as
 * used. */
static uint64_t group_available(const char *root)
{
    char *max = read_small(root, "/sys/fs/cgroup/memory.max"),
         *current = read_small(root, "/sys/fs/cgroup/memory.current");
    char *stat = read_small(root, "/sys/fs/cgroup/memory.stat");
    uint64_t result = UINT64_MAX;
    if (max && current && strncmp(max, "max", 3) != 0) {
        uint64_t limit = strtoull(max, NULL, 10), used = strtoull(current, NULL, 10);
        uint64_t cache = stat ? value_of(stat, "inactive_file", 0) : 0;
        used -= cache < used ? cache : used;
        result = limit > used ? limit - used : 0;
    }
    free(max);
    free(current);
    free(stat);
    return result;
}

uint64_t sysmem_available(const char *root)
{
    uint64_t a = machine_available(root), b = group_available(root);
    return a < b ? a : b;
}
