#include "server/activate.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FD 3 // SD_LISTEN_FDS_START
#define FDS_MAX 16

static long number(const char *text)
{
    char *end = NULL;
    long v = text ? strtol(text, &end, 10) : 0;
    return end && end != text && !*end ? v : 0;
}

static bool is_tcp_listener(int fd)
{
    int domain = 0, type = 0, listens = 0;
    socklen_t n = sizeof(int);
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && (domain == AF_INET || domain == AF_INET6) &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens;
}

/* Programs that we might start must not inherit it, and event loops must never wait in accept. */
static bool prepare(int fd, struct err *err)
{
    int flags = fcntl(fd, F_GETFL);
    return (flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) ||
           err_errno(err, "passed socket %d", fd);
}

static bool take(struct activated *out, int fd, const char *name, size_t n, struct err *err)
{
    int *to = n == 4 && memcmp(name, "data", n) == 0 ? &out->data : n == 5 && memcmp(name, "admin", n) == 0 ? &out->admin : NULL;
    if (!to)
        return err_set(err, ERR_ARG, "passed socket %d is named \"%.*s\", want data or admin (FileDescriptorName=)", fd, (int)(n < 60 ? n : 60), name);
    if (*to >= 0)
        return err_set(err, ERR_ARG, "passed sockets %d and %d are both named %.*s: one address each", *to, fd, (int)n, name);
    if (!is_tcp_listener(fd))
        return err_set(err, ERR_ARG, "passed socket %d (%.*s) is no listening TCP socket (ListenStream=)", fd, (int)n, name);
    *to = fd;
    return prepare(fd, err);
}

bool activate_sockets(struct activated *out, struct err *err)
{
    const char *names = getenv("LISTEN_FDNAMES");
    long pid = number(getenv("LISTEN_PID")), n = number(getenv("LISTEN_FDS"));
    bool ok = true;
    *out = (struct activated){-1, -1};
    if (pid != (long)getpid() || n <= 0)
        return true; // another process's, which has left its variables to us
    if (n > FDS_MAX)
        return err_set(err, ERR_ARG, "%ld sockets were passed, want one or two", n);
    for (int i = 0; ok && i < n; i++) {
        size_t len = names ? strcspn(names, ":") : 0;
        ok = take(out, FIRST_FD + i, names ? names : "", len, err);
        names = names && names[len] ? names + len + 1 : NULL;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return ok;
}
