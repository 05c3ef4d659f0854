"""A real duetd whose data listener asks for API keys.

    python3 keys.py [test ...]
"""
import hashlib
import os
import signal
import subprocess
import threading
import time

from daemon import BIN, Client, Daemon, check, fail, publish, run

KEYS = {"web": "k-web-0123456789", "batch": "k-batch-0123456789"}


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write_keys(work, *entries):
    """entries: (name, key, more)"""
    with open(f"{work}/keys.yaml", "w", encoding="utf-8") as f:
        f.write("keys:\n" + "".join(f"  - {{name: {n}, sha256: \"{digest(k)}\"{', ' + more if more else ''}}}\n" for n, k, more in entries))


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def ask(client, key=None, path="/v1/models"):
    status, _, headers = client.get(path, headers=bearer(key) if key else None)
    return status if status != 429 else (429, int(headers["Retry-After"]))


def metric(d, name, labels):
    for line in d.admin.get("/metrics", raw=True)[1].decode().splitlines():
        if line.startswith(f"{name}{{{labels}}} "):
            return float(line.rsplit(" ", 1)[1])
    return None


def requests_of(d, key, outcome):
    return metric(d, "duet_api_key_requests_total", f'key="{key}",outcome="{outcome}"')


def start(work, *entries):
    publish(f"{work}/models", "dat", 1, 1)
    write_keys(work, *entries)
    return Daemon(work, ["dat"], extra=("--set", f"data.keys_file={work}/keys.yaml"))


def hang_up(d, said):
    before = d.logged().count(said)
    d.process.send_signal(signal.SIGHUP)
    d.until(lambda: d.logged().count(said) > before, said)


# ------------------------------------------------------------------------------------------------ tests


def keys_are_asked_for(work):
    """Somebody without a key is answered, or somebody with one is not."""
    with start(work, *((n, k, "") for n, k in KEYS.items())) as d:
        body = {"user_id": "u1", "k": 3}
        for head in ({}, bearer("nobody"), bearer(""), bearer(KEYS["web"][:-1]), bearer(KEYS["web"] + "x"), bearer("x" * 5000), {"X-Api-Key": "nobody"},
                     {"X-Api-Key": digest(KEYS["web"])}, {"Authorization": "Basic " + KEYS["web"]}, {"Authorization": KEYS["web"]}):
            status, answer, headers = d.data.post("/v1/retrieve", body, headers=head)
            check(f"{head}", (status, answer["code"], headers["WWW-Authenticate"], headers["Content-Type"]),
                  (401, "unauthorized", 'Bearer realm="duet"', "application/problem+json"))
        for key in KEYS.values():
            for head in (bearer(key), {"Authorization": "bearer " + key}, {"X-Api-Key": key}):
                check(f"{head}", d.data.post("/v1/retrieve", body, headers=head)[0], 200)
        check("all paths", [ask(d.data, None, p) for p in ("/v1/models", "/v1/models/dat", "/v1/models/dat/ready", "/v1/items/i1/similar",
                                                           "/v1/experiments:assign?user_id=u1")], [401] * 5)
        for path in ("/livez", "/readyz", "/startupz", "/openapi.json"):
            check(path, d.data.get(path, raw=True)[0], 200)
        check("admin listener", ask(d.admin), 200)
        check("unknown path", ask(d.data, None, "/v1/none"), 404)
        check("counts", [requests_of(d, n, o) for n in KEYS for o in ("admitted", "over_quota")], [3, 0, 3, 0])
        # no text at all, or none behind Bearer, is none; http.client drops the blank behind an empty one
        refused = [metric(d, "duet_api_key_refused_total", f'reason="{r}"') for r in ("missing", "unknown")]
        check("refused", sum(refused), 15)
        if refused[0] < 8 or refused[1] < 6:
            fail(f"missing, unknown: {refused}")
    if any(k in d.logged() for k in KEYS.values()):
        fail("the log has a key")


def quotas_hold(work):
    """A client gets more than its quota, less, or another's."""
    with start(work, ("web", KEYS["web"], "requests_per_s: 4, burst: 3"), ("batch", KEYS["batch"], "requests_per_s: 100, burst: 10"),
               ("slow", "k-slow", "requests_per_s: 0.01"), ("free", "k-free", "")) as d:
        check("burst", [ask(d.data, KEYS["web"]) for _ in range(4)], [200, 200, 200, (429, 1)])
        check("the others", [ask(d.data, "k-free") for _ in range(20)] + [ask(d.data, KEYS["batch"])], [200] * 21)
        status, answer, headers = d.data.get("/v1/models", headers=bearer(KEYS["web"]))
        check("problem", (status, answer["code"], headers["Content-Type"]), (429, "quota_exceeded", "application/problem+json"))
        time.sleep(0.3)
        check("one comes back", ask(d.data, KEYS["web"]), 200)
        check("slow", ask(d.data, "k-slow"), 200)
        status, wait = ask(d.data, "k-slow")
        if status != 429 or not 95 <= wait <= 100:
            fail(f"Retry-After: {wait}")
        check("counts", (requests_of(d, "web", "admitted"), requests_of(d, "web", "over_quota")), (4, 2))

        counts, end, begun = [], time.monotonic() + 1.5, time.monotonic()

        def hammer():
            c, n = Client(d.data_port), 0
            while time.monotonic() < end:
                n += ask(c, KEYS["batch"]) == 200
            c.close()
            counts.append(n)
        threads = [threading.Thread(target=hammer) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        most = 10 + 100 * (time.monotonic() - begun) + 1
        if not 0.8 * 150 <= sum(counts) <= most:
            fail(f"{sum(counts)} of at most {most} in 1.5 s")


def keys_change_while_running(work):
    """A revoked key works on, a new one needs a restart, a bad file locks everybody out, or a reload fills the buckets."""
    with start(work, ("web", KEYS["web"], ""), ("old", "k-old", ""), ("slow", "k-slow", "requests_per_s: 0.01")) as d:
        check("before", [ask(d.data, k) for k in (KEYS["web"], "k-old", KEYS["batch"], "k-slow")], [200, 200, 401, 200])
        write_keys(work, ("web", KEYS["web"], ""), ("batch", KEYS["batch"], ""), ("slow", "k-slow", "requests_per_s: 0.01"))
        hang_up(d, '"config_read"')
        check("after", [ask(d.data, k) for k in (KEYS["web"], "k-old", KEYS["batch"])], [200, 401, 200])
        check("the bucket", ask(d.data, "k-slow")[0], 429)
        check("metrics", (requests_of(d, "web", "admitted"), requests_of(d, "old", "admitted"), requests_of(d, "batch", "admitted")), (2, None, 1))
        with open(f"{work}/keys.yaml", "w", encoding="utf-8") as f:
            f.write("keys: []\n")
        hang_up(d, '"config_refused"')
        check("a bad file", [ask(d.data, k) for k in (KEYS["web"], KEYS["batch"])], [200, 200])

        write_keys(work, ("web", KEYS["web"], ""))
        failures, done = [], threading.Event()

        def hammer():
            c = Client(d.data_port)
            while not done.is_set():
                status = ask(c, KEYS["web"])
                if status != 200:
                    failures.append(status)
            c.close()
        threads = [threading.Thread(target=hammer) for _ in range(4)]
        for t in threads:
            t.start()
        for i in range(20):
            write_keys(work, ("web", KEYS["web"], ""), (f"n{i}", f"k-{i}", ""))
            hang_up(d, '"config_read"')
        done.set()
        for t in threads:
            t.join()
        check("under reloads", failures, [])


def the_listener_opens_and_closes(work):
    """SIGHUP does not take data.keys_file from the configuration."""
    publish(f"{work}/models", "dat", 1, 1)
    write_keys(work, ("web", KEYS["web"], ""))
    with Daemon(work, ["dat"]) as d:
        with open(d.config, encoding="utf-8") as f:
            text = f.read()
        check("open", ask(d.data), 200)
        for keys_file, want in ((f", keys_file: {work}/keys.yaml", [401, 200]), ("", [200, 200])):
            with open(d.config, "w", encoding="utf-8") as f:
                f.write(text.replace("data: {port: 0", "data: {port: 0" + keys_file))
            hang_up(d, '"config_read"')
            check(keys_file, [ask(d.data), ask(d.data, KEYS["web"])], want)


def bad_files_are_refused(work):
    """A file that is wrong starts, or the message does not say what is, or shows a key."""
    path = f"{work}/keys.yaml"
    good = digest("a")
    for text, said in ((None, "keys.yaml"), ("", "want 'keys', a list of 1 to 1024"), ("keys: 1\n", "want 'keys', a list"), ("kyes: []\n", "did you mean 'keys'"),
                       ("keys: [x]\n", "want a mapping with name and sha256"), (f"keys: [{{sha256: '{good}'}}]\n", "name is missing"),
                       ("keys: [{name: a}]\n", "sha256 is missing"), ("keys: [{name: a, sha256: secret}]\n", "found 6 characters, want 64 hex digits"),
                       (f"keys: [{{name: a, sha256: '{'g' * 64}'}}]\n", "want 64 hex digits"), (f"keys: [{{name: 'a b', sha256: '{good}'}}]\n", "found \"a b\", want 1 to 64"),
                       (f"keys: [{{name: a, sha: '{good}'}}]\n", "unknown key 'sha'"), (f"keys: [{{name: a, sha256: '{good}', burst: 1}}]\n", "burst without requests_per_s"),
                       (f"keys: [{{name: a, sha256: '{good}', requests_per_s: 0}}]\n", "requests_per_s: found 0, want 0.001 to 1e+06"),
                       (f"keys: [{{name: a, sha256: '{good}', requests_per_s: 2, burst: 0}}]\n", "burst: found 0, want 1 to"),
                       (f"keys:\n- {{name: a, sha256: '{good}'}}\n- {{name: a, sha256: '{digest('b')}'}}\n", ":3:10: name: \"a\" is there already"),
                       (f"keys:\n- {{name: a, sha256: '{good}'}}\n- {{name: b, sha256: '{good.upper()}'}}\n", "that of \"a\" too")):
        if text is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        p = subprocess.run([os.path.join(BIN, "duetd"), "--check-config", "--set", f"data.keys_file={path}"], capture_output=True, text=True)
        if p.returncode != 1 or said not in p.stderr or "data.keys_file: " not in p.stderr or "secret" in p.stderr:
            fail(f"{text!r}: {p.returncode} {p.stderr!r}, want {said!r}")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"keys: [{{name: a, sha256: '{good}', requests_per_s: 2.5}}]\n")
    p = subprocess.run([os.path.join(BIN, "duetd"), "--check-config", "--set", f"data.keys_file={path}"], capture_output=True, text=True)
    check("good", (p.returncode, p.stderr), (0, ""))


if __name__ == "__main__":
    run([keys_are_asked_for, quotas_hold, keys_change_while_running, the_listener_opens_and_closes, bad_files_are_refused])
