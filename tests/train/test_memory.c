/* What `duet train` has in memory of its own over a dataset that is several times as large. If this fails, data that do
 * not fit into memory cannot be trained on: they are to be read through their mapping, whose pages the kernel takes
 * back when it wants them. Prints the figures of docs/training.md, "Memory": ctest --preset release -R train/memory -V
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/fio.h"
#include "core/base/mem.h"
#include "train/dataset.h"

#define USERS 10000u
#define ITEMS 2003u // prime: a user's items are multiples of its step
#define EACH 400u   // training items of a user
#define MIB ((size_t)1 << 20)

static char folder[] = "/tmp/duet-memory-XXXXXX", data[64];
static size_t data_bytes;

// -------------------------------------------------------------------------------------------------- the dataset

static struct schema_field *id_field(struct schema_side *s, const char *name, uint32_t rows)
{
    s->segment_field = -1;
    s->n_fields = 1;
    s->field = mem_array(1, sizeof(*s->field), NULL);
    s->field[0] = (struct schema_field){.kind = FIELD_ID, .n_rows = rows};
    snprintf(s->field[0].name, sizeof(s->field[0].name), "%s", name);
    return s->field;
}

static struct strtab name_all(struct strtab_builder *b, uint32_t n)
{
    char id[16];
    for (uint32_t i = 0; i < n; i++)
        assert_true(strtab_add(b, id, (size_t)snprintf(id, sizeof(id), "%u", i), NULL, NULL));
    return strtab_view(b);
}

static uint32_t *counting(uint32_t n)
{
    uint32_t *x = mem_array(n, sizeof(*x), NULL);
    for (uint32_t i = 0; i < n; i++)
        x[i] = i + 1;
    return x;
}

/* `each` items of every user, from its place `from` on; times ascend. */
static struct interactions split(uint32_t from, uint32_t each, uint32_t *count)
{
    uint64_t *off = mem_array(USERS + 1, sizeof(*off), NULL);
    uint32_t *item = mem_array((size_t)USERS * each, sizeof(*item), NULL);
    int64_t *time = mem_array((size_t)USERS * each, sizeof(*time), NULL);
    for (uint32_t u = 0; u < USERS; u++) {
        for (uint32_t i = 0; i < each; i++) {
            uint32_t v = (uint32_t)((uint64_t)(1 + u % (ITEMS - 1)) * (from + i + 1) % ITEMS);
            item[off[u] + i] = v;
            time[off[u] + i] = from + i;
            if (count)
                count[v]++;
        }
        off[u + 1] = off[u] + each;
    }
    return (struct interactions){off, item, time};
}

static void free_split(struct interactions *x)
{
    free((void *)(uintptr_t)x->off);
    free((void *)(uintptr_t)x->item);
    free((void *)(uintptr_t)x->time);
}

static int setup(void **state)
{
    (void)state;
    struct err err = {0};
    struct strtab_builder user_id = {0}, item_id = {0}, category = {0};
    struct dataset d = {.n_users = USERS, .n_items = ITEMS, .schema = mem_array(1, sizeof(*d.schema), NULL)};
    uint32_t *count = mem_array(ITEMS, sizeof(*count), NULL), *none = mem_array(ITEMS, sizeof(*none), NULL);
    uint8_t *held = mem_array(USERS + ITEMS, 1, NULL);
    uint64_t bytes;
    if (!mkdtemp(folder))
        return -1;
    snprintf(data, sizeof(data), "%s/data.duet", folder);
    id_field(&d.schema->user, "user_id", USERS + 1);
    id_field(&d.schema->item, "item_id", ITEMS + 1);
    assert_true(schema_seal(d.schema, &err) && strtab_add(&category, "", 0, NULL, NULL));
    d.user_id = name_all(&user_id, USERS);
    d.item_id = name_all(&item_id, ITEMS);
    d.category = strtab_view(&category);
    d.user_x = counting(USERS);
    d.item_x = counting(ITEMS);
    d.train = split(0, EACH, count);
    d.valid = split(EACH, 1, NULL);
    d.test = split(EACH + 1, 1, NULL);
    d.held = split(0, 0, NULL);
    d.item_category = none;
    d.item_count = count;
    d.user_held_out = d.item_held_out = held;
    if (!dataset_save(&d, "{}", data, &err) || !fio_size(data, &bytes, &err))
        fail_msg("%s", err.msg);
    data_bytes = (size_t)bytes;
    struct interactions *all[] = {&d.train, &d.valid, &d.test, &d.held};
    for (int i = 0; i < 4; i++)
        free_split(all[i]);
    free((void *)(uintptr_t)d.user_x);
    free((void *)(uintptr_t)d.item_x);
    free(count);
    free(none);
    free(held);
    strtab_builder_fini(&user_id);
    strtab_builder_fini(&item_id);
    strtab_builder_fini(&category);
    schema_free(d.schema);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fio_remove_tree(folder, NULL) ? 0 : -1;
}

// --------------------------------------------------------------------------------------------------- a run, watched

/* Of a living process, a field of /proc/PID/FILE in bytes; 0 once it is gone. */
static size_t field_of(pid_t pid, const char *file, const char *field)
{
    char path[64], line[256];
    size_t kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtoul(line + strlen(field), NULL, 10);
    if (f)
        fclose(f);
    return kib * 1024;
}

/* The most resident memory that is not of a file, while `duet train` does an epoch; looked at every millisecond. */
static size_t peak_of(const char *model, const char *options)
{
    size_t peak = 0, n = 0;
    int status;
    char program[PATH_MAX], line[512], *argv[32], *save = NULL;
    const char *bin = getenv("DUET_BIN_DIR");
    snprintf(program, sizeof(program), "%s/duet", bin ? bin : ".");
    snprintf(line, sizeof(line), "duet train --data %s --model %s --out %s/out --epochs 1 --quiet --threads 1 %s", data,
             model, folder, options);
    for (char *word = strtok_r(line, " ", &save); word && n < 31; word = strtok_r(NULL, " ", &save))
        argv[n++] = word;
    argv[n] = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execv(program, argv);
        _exit(127);
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        size_t now = field_of(pid, "status", "RssAnon:");
        peak = now > peak ? now : peak;
        usleep(1000);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    return peak;
}

#define OWN (16 * MIB) // program, libraries' buffers, parameters with Adam's moments (3 MB), a batch

static void the_dataset_stays_in_its_file(void **state)
{
    (void)state;
    static const struct {
        const char *model, *options;
        size_t each; // bytes of a training interaction that are kept after all
    } runs[] = {{"dat", "--window 400 --widths 16,8 --k 8", 0},
                {"two_tower", "--widths 16,8 --k 8", 0},
                {"two_tower", "--loss sampled --negatives 500 --widths 16,8 --k 8", 0},
                {"fm", "--widths 8", 0},
                {"youtube_dnn", "--window 400 --widths 8", 0},
                {"wals", "--widths 8", 4},
                {"two_tower", "--recipe paper --keep-going --batch 16384 --widths 16,8 --k 8", 8}};
    assert_true(data_bytes > 2 * OWN);
    for (size_t i = 0; i < sizeof(runs) / sizeof(*runs); i++) {
        size_t peak = peak_of(runs[i].model, runs[i].options), most = OWN + runs[i].each * USERS * EACH;
        printf("%-11s %-70s dataset %5.1f MB, own memory %5.1f MB\n", runs[i].model, runs[i].options,
               (double)data_bytes / 1e6, (double)peak / 1e6);
        fflush(stdout);
        if (peak == 0 || peak > most)
            fail_msg("%s %s: %zu bytes of memory of its own, want 1 to %zu", runs[i].model, runs[i].options, peak,
                     most);
    }
}

int main(void)
{
#ifdef DUET_SANITIZED
    return 77; // its own memory is no measure there
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dataset_stays_in_its_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
