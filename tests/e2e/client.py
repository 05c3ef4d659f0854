"""`duet` as a client: query --url, bench load, bench swap, replay, doctor, against a real duetd and against servers that misbehave.

What breaks when it fails is said by each test.
    python3 client.py [test ...]
"""
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time

from daemon import BIN, Daemon, check, fail, publish, run


def duet(*args, want=0):
    p = subprocess.run([os.path.join(BIN, "duet"), *map(str, args)], capture_output=True, text=True, timeout=120)
    if p.returncode != want:
        fail(f"duet {' '.join(map(str, args))}: exit {p.returncode}, want {want}\n{p.stdout}{p.stderr}")
    return p.stdout + p.stderr


def world(work):
    publish(f"{work}/models", "dat", 1, 1)
    publish(f"{work}/models", "dat", 2, 2)
    publish(f"{work}/models", "tt", 1, 101, "two_tower")
    with open(f"{work}/users", "w", encoding="utf-8") as f:
        f.write("".join(f"u{u}\n" for u in range(40)))


def url(d, admin=False):
    return f"http://127.0.0.1:{d.admin_port if admin else d.data_port}"


# ------------------------------------------------------------------------------------------------ query


def api_keys(work):
    """A daemon that asks for keys cannot be asked."""
    world(work)
    with open(f"{work}/keys", "w", encoding="utf-8") as f:
        f.write(f"keys: [{{name: k, sha256: '{hashlib.sha256(b'open-sesame').hexdigest()}'}}]\n")
    with Daemon(work, ["dat"], extra=("--set", f"data.keys_file={work}/keys")) as d:
        query, bench = ["query", "--url", url(d), "--user", "u3"], ["bench", "load", "--url", url(d), "--users", f"{work}/users", "--connections", 2,
                                                                  "--rate", 50, "--seconds", 0.4, "--warmup", 0, "--json"]
        if "want an API key" not in duet(*query, want=1):
            fail("the cause is not told")
        check("bench load without", set(json.loads(duet(*bench, want=1))["failures"]["status"]), {"401"})
        try:
            os.environ["DUET_API_KEY"] = "open-sesame"
            duet(*query)
            check("bench load with", json.loads(duet(*bench))["failed"], 0)
            os.environ["DUET_API_KEY"] = "two\nlines"
            for command in (query, bench):
                if "DUET_API_KEY: want printable ASCII" not in duet(*command, want=1):
                    fail("a key that is no header is sent")
        finally:
            del os.environ["DUET_API_KEY"]


def query_by_url(work):
    """A daemon's candidates are shown differently from the same bundle's, or its problem is not told."""
    world(work)
    with Daemon(work, ["dat", "tt"]) as d:
        bundle = f"{work}/models/dat/2"
        for more in (["--user", "u3", "-k", 7], ["--user", "u3", "--exclude-seen", "--ef", 150], ["--user", "u3", "--exact"],
                     ["--user", "x", "--feature", "city=SH", "--feature", "likes=tea", "--feature", "likes=cats"], ["--user", "x", "--feature", "city=?"],
                     ["--user", "x", "--history", "i1,i2", "--exclude", "i5"], ["--user", "u3", "--category", "food,movie"], ["-k", 3]):
            local, remote = duet("query", "--bundle", bundle, *more), duet("query", "--url", url(d), "--model", "dat", *more)
            strip = lambda text: re.sub(r", [0-9]+ us\n", "\n", text, 1)
            if "--category" not in more:  # a bundle tells that it scanned, a daemon does not
                check(f"query {more}", strip(remote), strip(local))
            local, remote = (json.loads(duet("query", *where, *more, "--json"))
                             for where in (["--bundle", bundle], ["--url", url(d), "--model", "dat"]))
            for key in ("model", "version", "fallback", "unknown_features", "k", "returned", "items"):
                check(f"query --json {more} {key}", remote[key], local[key])
        check("embed", json.loads(duet("query", "--url", url(d), "--model", "dat", "--user", "u3", "--embed")),
              json.loads(duet("query", "--bundle", bundle, "--user", "u3", "--embed")))
        if "did you mean 'dat'" not in duet("query", "--url", url(d), "--model", "dta", want=1):
            fail("the daemon's words are lost")
    for where, said in ((["--url", url(d)], "onnect"), (["--url", "ftp://x"], "holds neither"), ([], "one of them"), (["--url", "http://x", "--bundle", "y"], "one of")):
        text = duet("query", *where, want=1 if where and len(where) == 2 else 2)
        if said not in text and "o such file" not in text:
            fail(f"query {where}: {text}")


# ------------------------------------------------------------------------------------------------ load


def load_on_a_daemon(work):
    """Requests that a load claims to have made were not made, or in the wrong way."""
    world(work)
    with Daemon(work, ["dat", "tt"]) as d:
        common = ["bench", "load", "--url", url(d), "--warmup", 0, "--json"]
        r = json.loads(duet(*common, "--users", f"{work}/users", "--seconds", 1, "-k", 5, "--connections", 8, "--pid", d.process.pid))
        check("closed", (r["loop"], r["failed"], r["failures"]["status"].keys()), ("closed", 0, {"200"}))
        metrics = d.admin.get("/metrics", raw=True)[1].decode()
        served = sum(float(x) for x in re.findall(r'^duet_http_request_duration_seconds_count\{[^}]*route="retrieve"[^}]*\} ([0-9.e+]+)', metrics, re.M))
        if r["answers"] < 50 or served != r["answers"] or r["latency_ms"]["n"] != r["answers"]:
            fail(f"{r['answers']} answers, the daemon counts {served}: {r}")
        if not r["latency_ms"]["p50"] <= r["latency_ms"]["p99"] <= r["latency_ms"]["max"] or r["answers_per_cpu_second"] <= 0:
            fail(f"{r}")
        r = json.loads(duet(*common, "--users", f"{work}/users", "--seconds", 2, "--rate", 200, "--connections", 300))
        if r["loop"] != "open" or abs(r["answers"] - 400) > 4 or r["failed"]:
            fail(f"open loop: {r}")
        r = json.loads(duet(*common, "--get", "/livez", "--seconds", 0.3))
        check("get", r["failed"], 0)
        with open(f"{work}/requests", "w", encoding="utf-8") as f:
            f.write('{"user_id": "u1", "k": 3}\n\n{"user_id": "u2", "kk": 3}\n')
        r = json.loads(duet(*common, "--requests", f"{work}/requests", "--seconds", 0.3, want=1))
        check("statuses", set(r["failures"]["status"]), {"200", "400"})
        text = duet("bench", "load", "--url", url(d), "--users", f"{work}/users", "--seconds", 0.3, "--warmup", 0.1, "--rate", 50)
        for part in ("open loop, 50 requests/s", "latency", "once sent", "p99.9", "status 200"):
            if part not in text:
                fail(f"'{part}' is not in {text}")
    for more, said in ((["--url", url(d)], "refused"), (["--url", "ftp://x"], "want http"), (["--url", "http://127.0.0.1:1", "--users", "a", "--data", "b"], "one of"),
                       (["--url", "http://127.0.0.1:1", "--users", "/nowhere"], "nowhere"), (["--url", "http://:80"], "want http")):
        if said not in duet("bench", "load", *more, want=1):
            fail(f"{more}: not told: {said}")
    duet("bench", "load", want=2)
    duet("bench", "lode", want=2)
    duet("bench", want=2)


class Fake:
    """A server in a thread: `answer(path, n)` gives bytes to send for the n-th request, or None to close."""

    def __init__(self, answer):
        self.answer, self.n, self.lock = answer, 0, threading.Lock()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        f = c.makefile("rb")
        try:
            while True:
                line = f.readline()
                if not line:
                    return
                length = 0
                while (head := f.readline()) not in (b"\r\n", b""):
                    if head.lower().startswith(b"content-length:"):
                        length = int(head.split(b":")[1])
                f.read(length)
                with self.lock:
                    self.n += 1
                    n = self.n
                out = self.answer(line.split()[1].decode(), n)
                if out is None:
                    return
                c.sendall(out)
        except OSError:
            pass
        finally:
            f.close()
            c.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def http(body, status=200, more=""):
    text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n{more}\r\n{text}".encode()


def load(u, *more, want=1):
    return json.loads(duet("bench", "load", "--url", u, "--warmup", 0, "--json", *more, want=want))


def omission_is_charged(work):
    """A stall of the server is hidden, since the client did not ask meanwhile."""
    def answer(_, n):
        if n == 20:
            time.sleep(0.6)
        return http("{}")
    with Fake(answer) as s:
        r = load(s.url, "--connections", 1, "--rate", 100, "--seconds", 1.5, want=0)
    if r["latency_ms"]["p90"] < 300 or r["service_ms"]["p90"] > 200 or r["answers"] < 145:
        fail(f"a third of the requests waited, but: {r}")
    with Fake(lambda *_: time.sleep(5)) as s:  # no connection ever gets free
        r = load(s.url, "--connections", 1, "--rate", 50, "--seconds", 1, "--timeout-ms", 5000)
    if r["failures"]["unsent"] < 40 or r["latency_ms"]["p50"] < 300:
        fail(f"requests that were never sent are not charged: {r}")


def failures_are_told_apart(work):
    """A failure is not counted, or as another."""
    with Fake(lambda _, n: None if n % 3 == 0 else http("{}")) as s:
        r = load(s.url, "--connections", 4, "--rate", 300, "--seconds", 0.5)
        if not 40 <= r["failures"]["closed"] <= 60:
            fail(f"closed: {r}")
    with Fake(lambda *_: b"SSH-2.0-what\r\n\r\n") as s:
        r = load(s.url, "--connections", 2, "--rate", 100, "--seconds", 0.3)
        check("protocol", (r["answers"], r["failures"]["protocol"]), (0, r["failed"]))
    with Fake(lambda _, n: time.sleep(0.4) or http("{}")) as s:
        r = load(s.url, "--connections", 2, "--seconds", 0.5, "--timeout-ms", 100)
        if r["failures"]["timeout"] < 4 or r["latency_ms"]["p50"] < 100:
            fail(f"timeout: {r}")
    with Fake(lambda *_: http("{}", 503, "Retry-After: 1\r\n")) as s:
        r = load(s.url, "--connections", 2, "--rate", 100, "--seconds", 0.3)
        check("503", (r["failures"]["status"].keys(), r["latency_ms"]["n"]), ({"503"}, 0))
    with Fake(lambda *_: http("{}", 200, "Connection: close\r\n")) as s:  # new connections are no failures
        check("close", load(s.url, "--connections", 2, "--rate", 100, "--seconds", 0.3, want=0)["failed"], 0)


# ------------------------------------------------------------------------------------------------ swap


def swap(work):
    """A reload that is felt passes, or one that is not fails."""
    world(work)
    with Daemon(work, ["dat", "tt"]) as d:
        args = ["bench", "swap", "--url", url(d), "--admin", url(d, True), "--users", f"{work}/users", "-k", 20, "--rounds", 2, "--pause", 0.3]
        r = json.loads(duet(*args, "--model", "dat", "--limit", 1000, "--json"))
        check("swap", (r["reloads"], r["failed"], r["mixed"], r["pass"], set(r["failures"]["status"])), (4, 0, 0, True, {"200"}))
        if r["compared"] < 100 or r["during_ms"]["n"] < 20 or r["between_ms"]["n"] < 100:
            fail(f"{r}")
        args[-3] = 1
        if "verdict      fail" not in duet(*args, "--model", "dat", "--limit", 0.0001, want=1):
            fail("no verdict")
        if "needs two versions" not in duet(*args, "--model", "tt", want=1):
            fail("one version is not told")
        if 'no model "none"' not in duet(*args, "--model", "none", want=1):
            fail("an unknown model is not told")


def mixed_answers_are_seen(work):
    """Answers that are made of two versions pass."""
    def answer(path, n):
        if path == "/v1/admin/models":
            return http({"models": [{"name": "m", "serving": {"version": 1}, "available": [1, 2]}]})
        if "reload" in path:
            time.sleep(0.1)
            return http({"version": 2})
        return http({"version": 1, "degraded": [], "items": [{"id": "a" if n % 50 else "b", "score": 1}]})
    with Fake(answer) as s:
        r = json.loads(duet("bench", "swap", "--url", s.url, "--admin", s.url, "--model", "m", "--rounds", 1, "--pause", 0.3, "--limit", 1000,
                            "--json", want=1))
    if r["mixed"] < 3 or r["pass"]:
        fail(f"{r}")


# ------------------------------------------------------------------------------------------------ replay


def replay(work):
    """Two versions are called alike when they are not, or a bundle and the daemon that serves it are called different."""
    world(work)
    with open(f"{work}/requests", "w", encoding="utf-8") as f:
        for u in range(20):
            f.write(json.dumps({"user_id": f"u{u}", "k": 20, "fields": ["title"]}) + "\n")
        f.write(json.dumps({"event": "slow", "path": "/v1/retrieve", "body": {"user_id": 7, "features": {"likes": ["tea", "cats"]}, "history": ["i1"]}}) + "\n")
        f.write(json.dumps({"body": json.dumps({"user_id": "u1", "filter": {"field": "category", "in": ["food"]}, "exclude_ids": ["i1"]})}) + "\n")
        f.write('{"path": "/v1/users:embed", "body": {}}\nno json\n')
    one, two = f"{work}/models/dat/1", f"{work}/models/dat/2"
    args = ["replay", "--requests", f"{work}/requests", "--json"]
    r = json.loads(duet(*args, "--a", two, "--b", two))
    check("itself", (r["requests"], r["skipped"], r["overlap"], r["rbo"], r["identical"], r["drift_max"]), (22, 2, 1.0, 1.0, 1.0, 0.0))
    r = json.loads(duet(*args, "--a", one, "--b", two, "-k", 10))
    if not r["overlap_min"] <= r["overlap"] < 0.6 or r["drift_max"] <= 0:
        fail(f"other weights: {r}")
    duet(*args, "--a", one, "--b", two, "--min-overlap", 0.99, want=1)
    with Daemon(work, ["dat", "tt"]) as d:
        with open(f"{work}/asked", "w", encoding="utf-8") as f:
            f.write("".join(json.dumps({**json.loads(line), "model": "dat"}) + "\n" for line in open(f"{work}/requests", encoding="utf-8") if line.startswith('{"user')))
        r = json.loads(duet("replay", "--requests", f"{work}/asked", "--a", url(d), "--b", two, "--json"))
        check("daemon and bundle", (r["compared"], r["identical"]), (20, 1.0))
        text = duet("replay", "--requests", f"{work}/asked", "--a", url(d), "--b", two, "--limit", 5)
        for part in ("5 requests, 5 compared", "overlap@k    mean 1.0000", "latency b"):
            if part not in text:
                fail(f"'{part}' is not in {text}")
        with open(f"{work}/bad", "w", encoding="utf-8") as f:
            f.write('{"user_id": "u1", "kk": 1}\n')
        if "did you mean 'k'" not in duet("replay", "--requests", f"{work}/bad", "--a", url(d), "--b", two, want=1):
            fail("the failure is not shown")
    if "no line holds a request" not in duet("replay", "--requests", f"{work}/users", "--a", one, "--b", two, want=1):
        fail("nothing to replay")


# ------------------------------------------------------------------------------------------------ doctor


def doctor(work):
    """A machine that cannot serve is called fit, or a fit one is not."""
    world(work)
    config = f"{work}/c.yaml"

    def look(ports="data: {port: 0}\nadmin: {port: 0}\n", more="", *args, want=0):
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"{ports}models: [{{name: dat, path: {work}/models/dat}}]\n{more}")
        return {f["subject"]: f for f in json.loads(duet("doctor", "--config", config, "--json", *args, want=want))}
    found = look()
    for subject in ("kernel", "CPU", "memory", "open files", "data port", "admin port", "OpenBLAS"):
        if found[subject]["grade"] == "bad":
            fail(f"{found[subject]}")
    root = f"{work}/root"
    for path, text in {"proc/sys/net/core/somaxconn": "128\n", "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n",
                       "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 1 kB\n", "proc/sys/vm/overcommit_memory": "2\n",
                       "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n", "sys/fs/cgroup/cpu.max": "50000 100000\n",
                       "proc/cpuinfo": "processor : 0\nflags : fpu sse4_2\n"}.items():
        os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
        with open(f"{root}/{path}", "w", encoding="utf-8") as f:
            f.write(text)
    found = look("data: {port: 0}\nadmin: {port: 0}\n", "", "--root", root, want=1)
    check("grades", {s: found[s]["grade"] for s in ("somaxconn", "huge pages", "memory", "overcommit", "clock", "CPU quota", "CPU")},
          {"somaxconn": "note", "huge pages": "note", "memory": "bad", "overcommit": "note", "clock": "note", "CPU quota": "note", "CPU": "note"})
    if any(f["grade"] != "ok" and not f["fix"] for f in found.values()):
        fail(f"no way out: {found}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = look(f"data: {{port: {port}}}\nadmin: {{port: 0}}\n", want=1)
        check("port", found["data port"]["grade"], "bad")
        if "data.port" not in found["data port"]["fix"]:
            fail(f"{found['data port']}")
    check("files", look("data: {port: 0, max_connections: 200000}\nadmin: {port: 0, max_connections: 200000}\n", want=1)["open files"]["grade"], "bad")
    os.rename(f"{work}/models/dat", f"{work}/models/gone")
    check("model", look(want=1)["model"]["grade"], "bad")
    if "-> " not in duet("doctor", "--config", config, want=1):
        fail("the fix is not printed")
    duet("doctor", "--config", "/nowhere", want=1)


if __name__ == "__main__":
    run([query_by_url, api_keys, load_on_a_daemon, omission_is_charged, failures_are_told_apart, swap, mixed_answers_are_seen, replay, doctor])
