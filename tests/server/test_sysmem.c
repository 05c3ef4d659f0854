/* If this fails, a reload is refused although there is room, or the kernel kills the daemon in the middle of one. */
#include "tests/core/support.h"

#include "core/base/fio.h"
#include "server/sysmem.h"

static void put(void *const *state, const char *path, const char *text)
{
    char full[PATH_MAX], *slash;
    snprintf(full, sizeof(full), "%s%s", (const char *)*state, path);
    slash = strrchr(full, '/');
    *slash = '\0';
    assert_true(fio_mkdirs(full, NULL));
    *slash = '/';
    put_file(full, text, strlen(text));
}

static void the_smaller_of_machine_and_container(void **state)
{
    assert_true(sysmem_available(*state) == UINT64_MAX); // nothing is known
    put(state, "/proc/meminfo", "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n");
    assert_int_equal(sysmem_available(*state), 8000 * 1024);
    put(state, "/sys/fs/cgroup/memory.max", "max\n");
    put(state, "/sys/fs/cgroup/memory.current", "3000000\n");
    assert_int_equal(sysmem_available(*state), 8000 * 1024);
    put(state, "/sys/fs/cgroup/memory.max", "4000000\n");
    assert_int_equal(sysmem_available(*state), 1000000);
    put(state, "/sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 500000\nactive_file 7\n");
    assert_int_equal(sysmem_available(*state), 1500000);
    put(state, "/sys/fs/cgroup/memory.max", "1000000\n"); // lowered below what is used
    assert_int_equal(sysmem_available(*state), 0);
}

static void the_real_system_says_something(void **state)
{
    (void)state;
    assert_true(sysmem_available(NULL) > 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_smaller_of_machine_and_container, tmp_setup, tmp_teardown),
        cmocka_unit_test(the_real_system_says_something),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
