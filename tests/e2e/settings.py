"""Every key of the table in docs/operations.md: what is out of its range is refused by name, and what it says has an effect.

What breaks when it fails is said by each test.
    python3 settings.py [test ...]
"""
import http.client
import json
import os
import re
import socket
import subprocess
import time

from daemon import BIN, Client, Daemon, check, fail, publish, run

SOURCE = os.environ["DUET_SOURCE_DIR"]

# Keys whose effect is not shown here, by the test that shows it, which has the name.
ELSEWHERE = {
    "data.port": "e2e/daemon.py", "admin.port": "e2e/daemon.py", "data.keys_file": "e2e/keys.py", "admin.token_file": "server/test_app.c", "tls.cert_file": "e2e/tls.py",
    "tls.key_file": "e2e/tls.py", "tls.client_ca_file": "e2e/tls.py",
    "admin_tls.cert_file": "e2e/tls.py", "admin_tls.key_file": "e2e/tls.py", "admin_tls.client_ca_file": "e2e/tls.py", "state.path": "e2e/daemon.py", "workers.queue": "e2e/batch.py", "workers.batch": "e2e/statuses.py",
    "workers.exact_items": "e2e/batch.py", "admission.max_lag_ms": "server/test_app.c", "load.check_memory": "server/test_reload.c", "exposure.path": "e2e/experiments.py",
    "exposure.max_bytes": "e2e/experiments.py", "exposure.keep": "e2e/experiments.py", "exposure.sample": "e2e/experiments.py", "exposure.items": "e2e/experiments.py",
    "exposure.kafka_brokers": "e2e/experiments.py", "exposure.kafka_topic": "e2e/experiments.py", "exposure.kafka_config": "e2e/experiments.py",
    "slow_log.path": "e2e/records.py", "slow_log.threshold_ms": "e2e/records.py", "slow_log.sample": "e2e/records.py", "slow_log.max_bytes": "e2e/records.py", "slow_log.keep": "e2e/records.py", "record.path": "e2e/records.py",
    "record.sample": "e2e/records.py", "record.max_bytes": "e2e/records.py", "record.keep": "e2e/records.py", "warm.path": "e2e/records.py", "warm.requests": "e2e/records.py", "warm.max_ms": "e2e/records.py",
    "drain.delay_ms": "server/test_duetd.c", "drain.timeout_ms": "e2e/deploy.py", "log.level": "server/test_app.c"}
# Nothing to see but a load that takes longer or less long: their ranges alone are tested.
RANGE_ALONE = {"load.threads"}
# Text that cannot be. Of other texts any may be right.
BAD_TEXT = {"data.address": "nowhere", "admin.address": "256.1.1.1", "data.keys_file": "/none", "tls.cert_file": "/none", "tls.key_file": "/none", "tls.client_ca_file": "/none",
            "admin_tls.cert_file": "/none", "admin_tls.key_file": "/none", "admin_tls.client_ca_file": "/none", "exposure.kafka_brokers": "host:9092"}  # without a topic


def table():
    """[(key, default, range)]"""
    with open(os.path.join(SOURCE, "docs", "operations.md"), encoding="utf-8") as f:
        return re.findall(r"^\| `(\w+\.\w+)` \| `(.*?)` \| (.*?) \| \w+ \|", f.read(), re.M)


def wrong_values(key, span):
    if (m := re.fullmatch(r"([\d.]+) to ([\d.]+)", span)):
        low, high = m.groups()
        less = [] if float(low) == 0 else [str(int(float(low)) - 1) if "." not in low else "0.0"]
        return [*less, "-1", f"{float(high) + 1:.0f}", "many"]
    if span == "text":
        return [BAD_TEXT[key]] if key in BAD_TEXT else []
    return ["neither"]  # a list of words


def what_is_wrong_is_refused(work):
    """A daemon starts with a value that cannot be, or does not say which key is wrong."""
    config = f"{work}/duetd.yaml"
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"models: [{{name: dat, path: {work}/models/dat}}]\n")
    keys = table()
    if len(keys) < 50:
        fail(f"the table of docs/operations.md was not understood: {keys}")
    for key, default, span in keys:
        for value in wrong_values(key, span):
            p = subprocess.run([os.path.join(BIN, "duetd"), "--config", config, "--check-config", "--set", f"{key}={value}"], capture_output=True, text=True, timeout=60)
            if p.returncode == 0 or key not in p.stderr + p.stdout:
                fail(f"{key}={value}: exit {p.returncode} {p.stdout}{p.stderr}")
        p = subprocess.run([os.path.join(BIN, "duetd"), "--config", config, "--check-config", "--set", f"{key}={default.strip(chr(34))}"], capture_output=True, text=True, timeout=60)
        check(f"{key}, its default: {p.stderr}", p.returncode, 0)


def what_cannot_be_read_is_refused(work):
    """--check-config is content with a file that the start then refuses, says not which key names it, or makes or changes one."""
    publish(f"{work}/models", "dat", 1, 1)
    files = {"short": "0123456789abcde\n", "nul": "0123456789\0abcdef", "state": "{", "labels": json.dumps({"format": "duet-state", "format_version": 1, "revision": 1, "models": {}, "labels": {"x": "none"}, "experiments": None}),
             "fine": "0123456789abcdef\n", "empty": json.dumps({"format": "duet-state", "format_version": 1, "revision": 1, "models": {}, "labels": None, "experiments": None})}
    for name, text in files.items():
        with open(f"{work}/{name}", "w", encoding="utf-8") as f:
            f.write(text)
    os.makedirs(f"{work}/folder")
    os.mkfifo(f"{work}/fifo")
    config = f"{work}/duetd.yaml"
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"data: {{port: 0}}\nadmin: {{port: 0}}\nmodels: [{{name: dat, path: {work}/models/dat}}]\n")
    before = sorted(os.listdir(work))
    for key, bad, good in (("admin.token_file", ("none", "short", "nul", "folder"), ("fine",)), ("state.path", ("state", "labels", "folder"), ("none", "empty")),
                           *((f"{log}.path", ("folder", "none/x", "fifo"), ("new", "fine")) for log in ("exposure", "slow_log", "record"))):
        for name in (*bad, *good):
            settings = ("--config", config, "--set", f"{key}={work}/{name}")
            p = subprocess.run([os.path.join(BIN, "duetd"), *settings, "--check-config"], capture_output=True, text=True, timeout=60)
            check(f"{key}={name}: {p.stdout}{p.stderr}", (p.returncode, key in p.stderr), (1, True) if name in bad else (0, False))
            if name in bad:  # and so says the start
                p = subprocess.run([os.path.join(BIN, "duetd"), *settings], capture_output=True, text=True, timeout=60)
                check(f"{key}={name}, start: {p.stderr}", (p.returncode, key in p.stderr), (1, True))
    check("files", sorted(os.listdir(work)), before)
    with open(f"{work}/fine", encoding="utf-8") as f:
        check("a file that was there", f.read(), files["fine"])


shown = set()


def shows(*keys):
    shown.update(keys)


def sets(**values):
    """--set for each, section__key=value; these keys are what is shown."""
    names = [name.replace("__", ".") for name in values]
    shows(*names)
    return [part for name, value in zip(names, values.values()) for part in ("--set", f"{name}={value}")]


def limits(work):
    with Daemon(work, ["dat"], extra=sets(limits__body_bytes=4096, limits__header_bytes=32768, limits__json_depth=3, limits__k=5, limits__ef=7, limits__ids=2, limits__id_bytes=4, limits__history=2, limits__batch=2)) as d:
        ask = lambda path, body: d.data.post(path, body)
        for within, beyond, status, key in (({"k": 5}, {"k": 6}, 422, "limits.k"), ({"k": 1, "ef": 7}, {"k": 1, "ef": 8}, 422, "limits.ef"), ({"exclude_ids": [1, 2]}, {"exclude_ids": [1, 2, 3]}, 422, "limits.ids"),
                                            ({"user_id": "1234"}, {"user_id": "12345"}, 422, "limits.id_bytes"), ({"history": [1, 2]}, {"history": [1, 2, 3]}, 422, "limits.history"),
                                            ({"filter": {"field": "price", "in": []}}, {"filter": {"not": {"field": "price", "in": []}}}, 400, "limits.json_depth"),
                                            ({"model": "dat"}, {"model": "x" * 5000}, 413, "limits.body_bytes")):
            check(f"{within}", ask("/v1/retrieve", within)[0], 200)
            found, answer, _ = ask("/v1/retrieve", beyond)
            check(f"{key}: {answer}", (found, key in answer["detail"]), (status, True))
        check("headers", [d.data.get("/v1/models", headers={"X": "a" * n}, raw=True)[0] for n in (20000, 40000)], [200, 431])
        check("k without a word", ask("/v1/retrieve", {})[1]["k"], 5)
        check("a batch", [ask("/v1/retrieve:batch", {"requests": [{}] * n})[0] for n in (2, 3)], [200, 422])


def ends_after(port, text, least, most):
    """The connection is closed between so many seconds after these bytes."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        s.sendall(text)
        while s.recv(65536):
            pass
    took = time.monotonic() - begin
    if not least <= took <= most:
        fail(f"{text!r}: closed after {took:.2f} s, want {least} to {most}")


def halting(d):
    """The status of a request that takes a tenth of a second, or less where the daemon sees its parts at once."""
    with socket.create_connection(("127.0.0.1", d.data_port)) as s:
        s.sendall(b"POST /v1/retrieve HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.1)
        s.sendall(b"{}")
        return int(s.recv(65536).split()[1])


def deadlines(work):
    with Daemon(work, ["dat"], extra=sets(http__header_ms=200, http__body_ms=500, http__idle_ms=900)) as d:
        ends_after(d.data_port, b"POST /v1/retr", 0.1, 5)
        ends_after(d.data_port, b"POST /v1/retrieve HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\n{", 0.4, 5)
        ends_after(d.data_port, b"GET /livez HTTP/1.1\r\nHost: d\r\n\r\n", 0.8, 6)
    with Daemon(work, ["dat"], extra=sets(http__deadline_ms=20)) as d:
        d.until(lambda: halting(d) == 504, "a late answer")


def logs(work):
    for form, line in (("json", '"event":"request"'), ("text", "event=request")):
        with Daemon(work, ["dat"], extra=sets(log__format=form, log__sample=1)) as d:
            d.data.post("/v1/retrieve", {})
            d.until(lambda: line in d.logged(), f"{line} in the log")
        os.remove(f"{work}/duetd.log")
    with Daemon(work, ["dat"], extra=sets(log__slow_ms=50)) as d:
        d.until(lambda: halting(d) and "slow_request" in d.logged(), "a slow request in the log")


def threads_of(work, *more):
    with Daemon(work, ["dat"], extra=("--set", "data.threads=1", "--set", "admin.threads=1", "--set", "workers.threads=1", *more)) as d:
        return len(os.listdir(f"/proc/{d.process.pid}/task"))


def threads(work):
    few = threads_of(work)
    check("data", threads_of(work, *sets(data__threads=4)), few + 3)
    check("admin", threads_of(work, *sets(admin__threads=4)), few + 3)
    check("workers", threads_of(work, *sets(workers__threads=4)), few + 3)


def crowds(work):
    with Daemon(work, ["dat"], extra=sets(data__max_connections=16, admin__max_connections=16, admission__retry_after_s=100)) as d:
        check("few", d.data.post("/v1/retrieve", {})[0], 200)
        others = [socket.create_connection(("127.0.0.1", d.data_port)) for _ in range(16)]
        d.until(lambda: d.data.post("/v1/retrieve", {})[0] == 503, "a crowd")
        wait = int(d.data.post("/v1/retrieve", {})[2]["Retry-After"])
        if not 100 <= wait <= 200:
            fail(f"Retry-After {wait}")
        for one in others:
            one.close()
        d.admin.close()  # who administrates is not refused; a quarter and 64 above the limit the next one waits
        others = [socket.create_connection(("127.0.0.1", d.admin_port)) for _ in range(100)]
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", d.admin_port)) as s:
            s.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            s.settimeout(0.3)
            try:
                fail(f"answered among 100 connections: {s.recv(100)}")
            except TimeoutError:
                pass
            for one in others:
                one.close()
            s.settimeout(30)
            check("when they have gone", s.recv(100).split()[1], b"200")


def at_once(port, n, body):
    """The answers of 200 to n requests that become readable together."""
    text = json.dumps(body).encode()
    conns = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(n)]
    for c in conns:
        c.connect()
    for c in conns:
        c.request("POST", "/v1/retrieve:batch", text)
    answers = [(a.status, json.loads(a.read())) for a in (c.getresponse() for c in conns)]
    for c in conns:
        c.close()
    return [one for status, answer in answers if status == 200 for one in answer["results"]]


def strain(work):
    body = {"requests": [{"user_id": f"u{i}", "k": 10, "ef": 250} for i in range(8)]}
    common = {"data__threads": 1, "admission__max_lag_ms": 5}
    shadow = "[{name: main, salt: s, variants: [{name: a, model: dat, weight: 100}, {name: b, model: dat, weight: 0, ef: 60, shadow: true}]}]"
    with Daemon(work, ["dat"], shadow, extra=sets(**common, admission__ef_percent=20)) as d:
        check("calm", {(one["ef_used"], *one["degraded"]) for one in at_once(d.data_port, 1, body)}, {(250,)})
        answers, lowered = [{}] * 8, []

        def flood():
            answers.extend(at_once(d.data_port, 64, body))
            lowered[:] = [one for one in answers if one.get("degraded")]
            return any(one["ef_used"] == 50 for one in lowered)  # a fifth: refusing has begun, or is about to

        d.until(flood, "the least ef")
        check("flag", {(one["status"] if "status" in one else 200, *one["degraded"]) for one in lowered}, {(200, "ef_lowered:250")})
        if not all(50 <= one["ef_used"] < 250 and one["returned"] == 10 for one in lowered):
            fail(f"lowered: {lowered}")
        def counted(name):
            return sum(int(n) for n in re.findall(rf"^{name}{{.*}} (\d+)$", d.admin.get("/metrics", raw=True)[1].decode(), re.M))

        check("counted", counted("duet_retrieve_ef_lowered_total"), len(lowered))
        d.until(lambda: counted("duet_shadow_(?:compared|dropped)_total") == len(answers) - len(lowered), "comparisons of all others alone")
        item = d.data.post("/v1/explain", {"user_id": "u1", "item_id": "i1", "k": 10, "ef": 250})[1]
        check("an explanation", (item["ef_used"], item["degraded"]), (250, []))
    with Daemon(work, ["dat"], extra=sets(**common, admission__ef_percent=100)) as d:
        check("never", [one for _ in range(5) for one in at_once(d.data_port, 64, body) if one["degraded"]], [])


def addresses(work):
    with Daemon(work, ["dat"], wait_ready=False, extra=sets(data__address="127.0.0.2")) as d:
        with socket.create_connection(("127.0.0.2", d.data_port)) as s:
            s.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            check("livez", s.recv(100).split()[1], b"200")
        try:
            socket.create_connection(("127.0.0.1", d.data_port)).close()
            fail("it listens on another address too")
        except ConnectionRefusedError:
            pass
    with Daemon(work, ["dat"], wait_ready=False, extra=sets(admin__address="127.0.0.3")) as d:
        with socket.create_connection(("127.0.0.3", d.admin_port)) as s:
            s.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            check("livez", s.recv(100).split()[1], b"200")


def maps(work):
    for mode, mapped in (("private", False), ("shared", True)):
        with Daemon(work, ["dat"], extra=sets(load__mode=mode)) as d:
            with open(f"/proc/{d.process.pid}/maps", encoding="utf-8") as f:
                check(mode, "/models/dat/1/" in f.read(), mapped)


def polls(work):
    with Daemon(work, ["dat"], extra=sets(load__poll_seconds=1)) as d:
        publish(f"{work}/models", "dat", 2, 2)
        d.until(lambda: d.data.get("/v1/models/dat")[1]["version"] == 2, "the new version")


def what_is_said_has_an_effect(work):
    """A key of docs/operations.md changes nothing, or nobody has shown what it changes."""
    keys = {key for key, _, _ in table()}
    publish(f"{work}/models", "dat", 1, 1)
    for part in (limits, deadlines, logs, threads, crowds, strain, addresses, maps, polls):
        if part is not polls or "load.poll_seconds" in keys:
            part(work)
    for key, name in ELSEWHERE.items():
        with open(os.path.join(SOURCE, "tests", name), encoding="utf-8") as f:
            section, own = key.split(".")
            if not re.search(rf"{section}\.{own}|{section}: ?{{[^\n]*{own}: ", f.read()):
                fail(f"{name} does not have {key}")
    check("keys without a test", keys - shown - set(ELSEWHERE) - RANGE_ALONE, set())


if __name__ == "__main__":
    run([what_is_wrong_is_refused, what_cannot_be_read_is_refused, what_is_said_has_an_effect])
