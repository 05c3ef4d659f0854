#include "train/study/index_cost.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "train/evaluate_bundle.h"
#include "train/publish_input.h"

static bool publish(const char *data_path, const char *checkpoint, char dir[PATH_MAX], struct err *err)
{
    char repository[PATH_MAX];
    struct publish_source s = {0};
    const struct publish_paths paths = {.data = data_path, .checkpoint = checkpoint};
    struct publish_params p = {.repository = repository, .name = "study", .seed = 1, .threads = 1};
    uint64_t version;
    bool ok = fio_join(repository, checkpoint, "repository", err) && publish_source_open(&s, &paths, err) &&
              bundle_publish(&s.in, &p, &version, dir, err);
    publish_source_fini(&s);
    return ok;
}

static void copy_number(const json_t *from, const char *key, json_t *to, const char *name)
{
    json_object_set(to, name, json_object_get(from, key));
}

static json_t *measure(struct evaluation *test, const struct bundle *b, uint32_t ef, bool served, struct err *err)
{
    const struct evaluate_bundle_params p = {.through_index = true, .ef = ef};
    json_t *all = evaluation_bundle(test, "study", b, &p, err);
    if (!all)
        return NULL;
    json_t *o = json_pack("{s:i,s:b}", "ef", (int)ef, "served", served);
    const json_t *graph = json_object_get(all, "metrics"), *exact = json_object_get(all, "exact_metrics");
    copy_number(graph, "hr@50", o, "hr@50");
    copy_number(graph, "hr@100", o, "hr@100");
    copy_number(exact, "hr@50", o, "exact_hr@50");
    copy_number(exact, "hr@100", o, "exact_hr@100");
    copy_number(all, "queries_per_s", o, "queries_per_s");
    json_decref(all);
    return o;
}

json_t *index_cost(struct evaluation *test, const char *data_path, const char *checkpoint, struct err *err)
{
    static const uint32_t efs[] = {100, 150, 200, 400};
    char dir[PATH_MAX];
    const struct bundle_load_params load = {.mode = BUNDLE_PRIVATE};
    struct bundle *b = publish(data_path, checkpoint, dir, err) ? bundle_load(dir, &load, err) : NULL;
    if (!b)
        return NULL;
    json_t *list = json_array(), *one = measure(test, b, b->manifest.default_ef, true, err);
    for (size_t i = 0; one && i < sizeof(efs) / sizeof(*efs); i++) {
        json_array_append_new(list, one);
        one = measure(test, b, efs[i], false, err);
    }
    bundle_free(b);
    if (one && json_array_append_new(list, one) == 0)
        return list;
    json_decref(list);
    return NULL;
}
