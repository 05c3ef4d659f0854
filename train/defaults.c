#include "train/defaults.h"

#include "train/baseline.h"

bool defaults_of(const char *recipe, enum model_kind kind, struct recipe_data data, struct recipe *out)
{
    if (!model_kind_stored(kind))
        return recipe_named(recipe, kind, data, out);
    baseline_recipe(kind, data, out);
    return true;
}
