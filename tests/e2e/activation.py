"""A real duetd that takes the listening sockets which systemd would pass it.

    python3 activation.py [test ...]
"""
import http.client
import json
import os
import socket
import subprocess
import sys
import threading

from daemon import BIN, Daemon, check, fail, publish, run

# As systemd does it: the sockets are 3, 4, .., and LISTEN_PID is the program's own.
LAUNCHER = """
import os, sys
names, pid, fds, argv = sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3].split(",")], sys.argv[4:]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
    os.close(fd)
os.environ.update({"LISTEN_FDS": str(len(fds)), "LISTEN_PID": pid if pid != "own" else str(os.getpid())})
if names != "-":
    os.environ["LISTEN_FDNAMES"] = names
os.execv(argv[0], argv)
"""


def listening(address="127.0.0.1"):
    return socket.create_server((address, 0), backlog=128)


def launch(names, *sockets, pid="own"):
    fds = [s.fileno() for s in sockets]
    return {"launcher": (sys.executable, "-c", LAUNCHER, names, pid, ",".join(map(str, fds))), "pass_fds": fds}


def port(s):
    return s.getsockname()[1]


def passed_sockets_are_taken(work):
    """The daemon listens elsewhere, leaves loops without connections, or loses what comes between two of its lives."""
    publish(f"{work}/models", "dat", 1, 1)
    with listening() as data, listening() as admin:
        with Daemon(work, ["dat"], **launch("admin:data", admin, data), extra=("--set", "data.threads=3")) as d:
            check("ports", (d.data_port, d.admin_port), (port(data), port(admin)))
            statuses = []

            def hammer():
                conn = http.client.HTTPConnection("127.0.0.1", port(data), timeout=60)
                for _ in range(20):
                    conn.request("POST", "/v1/retrieve", '{"user_id": "u1", "k": 3}', {"Content-Type": "application/json"})
                    r = conn.getresponse()
                    r.read()
                    statuses.append(r.status)
                conn.close()
            threads = [threading.Thread(target=hammer) for _ in range(64)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            check("answers", (len(statuses), set(statuses)), (64 * 20, {200}))
            if '"passed":true' not in d.logged():
                fail("the log does not say so")
        waiting = http.client.HTTPConnection("127.0.0.1", port(data), timeout=60)
        waiting.request("POST", "/v1/retrieve", '{"user_id": "u1", "k": 3}', {"Content-Type": "application/json"})  # nobody is there
        with Daemon(work, ["dat"], **launch("data:admin", data, admin)):
            r = waiting.getresponse()
            status, body = r.status, r.read()
            if status == 503:  # it was quicker than the load
                check("starting", json.loads(body)["code"] in ("model_not_ready", "starting"), True)
            else:
                check("the one that waited", status, 200)
            waiting.close()
    with listening() as admin, Daemon(work, ["dat"], **launch("admin", admin)) as d:
        check("one of them", (d.admin_port, d.data_port != port(admin), d.data.post("/v1/retrieve", {"user_id": "u1"})[0]), (port(admin), True, 200))
    with listening() as data, Daemon(work, ["dat"], **launch("data", data, pid="1")) as d:
        check("somebody else's", d.data_port != port(data), True)


def what_cannot_be_used_is_refused(work):
    """A socket that is passed for nothing is ignored in silence, or an admin listener without a token is open to all."""
    def start(names, *sockets, more=()):
        l = launch(names, *sockets)
        p = subprocess.run([*l["launcher"], os.path.join(BIN, "duetd"), "--set", "data.port=0", "--set", "admin.port=0", *more], pass_fds=l["pass_fds"],
                           capture_output=True, text=True, timeout=60)
        check(f"{names}", p.returncode, 1)
        return p.stderr
    with listening() as a, listening() as b, listening("0.0.0.0") as wide, socket.socket(socket.AF_UNIX) as unix, socket.socket() as deaf:
        unix.bind(f"{work}/socket")
        unix.listen()
        deaf.bind(("127.0.0.1", 0))
        for names, sockets, said in (("data:other", (a, b), 'socket 4 is named "other", want data or admin'), ("-", (a,), 'socket 3 is named ""'),
                                     ("data:data", (a, b), "sockets 3 and 4 are both named data"), ("data", (unix,), "no listening TCP socket"),
                                     ("admin", (deaf,), "no listening TCP socket"), ("admin", (wide,), "set admin.token_file")):
            found = start(names, *sockets)
            if said not in found:
                fail(f"{names}: {found!r}, want {said!r}")


if __name__ == "__main__":
    run([passed_sockets_are_taken, what_cannot_be_used_is_refused])
