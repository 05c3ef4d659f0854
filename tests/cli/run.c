#include "tests/cli/run.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/core/support.h"

static char *slurp(FILE *f)
{
    long n = ftell(f);
    char *text = calloc((size_t)n + 1, 1);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    fclose(f);
    return text;
}

static struct run run_words(int want, char *line)
{
    char *argv[64] = {"duet"}, program[PATH_MAX], *save = NULL;
    const char *bin = getenv("DUET_BIN_DIR");
    size_t n = 1;
    for (char *w = strtok_r(line, " ", &save); w && n < 63; w = strtok_r(NULL, " ", &save))
        argv[n++] = w;
    snprintf(program, sizeof(program), "%s/duet", bin ? bin : ".");
    FILE *out = tmpfile(), *err = tmpfile();
    assert_true(out && err);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(out), 1);
        dup2(fileno(err), 2);
        execv(program, argv);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    fseek(out, 0, SEEK_END);
    fseek(err, 0, SEEK_END);
    struct run r = {.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1, .out = slurp(out), .err = slurp(err)};
    if (r.status != want)
        fail_msg("duet %s ...: exit %d, want %d\n%s%s", argv[1] ? argv[1] : "", r.status, want, r.out, r.err);
    return r;
}

struct run duet(int want, const char *format, ...)
{
    char line[8192];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    return run_words(want, line);
}

void run_fini(struct run *r)
{
    free(r->out);
    free(r->err);
}

void duet_ok(const char *format, ...)
{
    char line[8192];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    struct run r = run_words(0, line);
    run_fini(&r);
}
