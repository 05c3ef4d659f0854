/* sample.c - the key table as a file to start from and as a table to read. */
#include <string.h>

#include "config/keys.h"

static void comment(struct buf *out, const struct key *k)
{
    buf_printf(out, "  # %s", k->help);
    if (k->kind != KEY_STR) {
        buf_puts(out, "; ");
        key_range(k, out);
    }
    buf_puts(out, "\n");
}

void config_sample(struct buf *out)
{
    const char *section = "";
    size_t section_n = 0;
    buf_puts(out,
             "# duetd.yaml - every key of duetd with its default, as `duetd --sample-config` prints it.\n"
             "#\n"
             "# Any key may also be given as DUET__SECTION__KEY in the environment, which wins over this file, or as\n"
             "# --set section.key=value, which wins over both. `duetd --check-config` says whether all is well. SIGHUP "
             "reads the\n"
             "# file again, all or nothing; what it cannot change while running is named in the log.\n");
    for (size_t i = 0; i < n_keys; i++) {
        size_t n = strcspn(keys[i].name, ".");
        if (n != section_n || strncmp(section, keys[i].name, n) != 0)
            buf_printf(out, "\n%.*s:\n", (int)n, keys[i].name);
        section = keys[i].name;
        section_n = n;
        comment(out, &keys[i]);
        buf_printf(out, "  %s: ", keys[i].name + n + 1);
        if (keys[i].kind == KEY_STR)
            key_quote(out, keys[i].def);
        else
            buf_puts(out, keys[i].def);
        buf_puts(out, "\n");
    }
    buf_puts(
        out,
        "\n"
        "# What is served. `path` is the folder of a model's versions; `version` is `latest` (default) or a number; `versions: [3, 4]` serves\n"
        "# several at once, as mind@3 and mind@4;\n"
        "# `index_layout` is `fast`, `compact`, `plain` or `auto` (default: compact where memory allows, else plain); `target_recall` (0.5 to 1)\n"
        "# picks ef for requests that say nothing themselves; without it the bundle's own target does.\n"
        "models: []\n"
        "#  - {name: dat, path: /var/lib/duet/models/dat}\n"
        "#  - {name: two_tower, path: /var/lib/duet/models/two_tower, version: 7, index_layout: plain, target_recall: 0.98}\n"
        "#  - {name: mind, path: /var/lib/duet/models/mind, versions: [3, 4]}\n"
        "\n"
        "# Other names for models, which requests and variants may use and PUT /v1/admin/labels moves. The bare name of a model with several\n"
        "# versions means the last of them unless it stands here.\n"
        "labels: {}\n"
        "#  mind: mind@3\n"
        "#  mind@canary: mind@4\n"
        "\n"
        "# Who gets which model. Weights are percentages and sum to 100; `ef` and `k` override the request's "
        "defaults, `filter` holds beside its own.\n"
        "experiments: []\n"
        "#  - name: main\n"
        "#    salt: main-2024\n"
        "#    guardrails: {error_share: 0.02, p99_ms: 50, empty_share: 0.1, window_s: 60, min_requests: 200}\n"
        "#    variants:\n"
        "#      - {name: control, model: two_tower, weight: 50}\n"
        "#      - {name: treatment, model: dat, weight: 50, ef: 200}\n"
        "#      - {name: next, model: dat, weight: 0, ef: 400, shadow: true, share: 10}  # computed aside, compared, never shown\n");
}

void config_table(struct buf *out)
{
    buf_puts(out, "| key | default | range | while running | meaning |\n| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < n_keys; i++) {
        buf_printf(out, "| `%s` | `%s` | ", keys[i].name, keys[i].def[0] ? keys[i].def : "\"\"");
        key_range(&keys[i], out);
        buf_printf(out, " | %s | %s |\n", keys[i].live ? "SIGHUP" : "restart", keys[i].help);
    }
}
