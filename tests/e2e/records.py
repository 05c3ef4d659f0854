"""Requests that a real duetd writes down (slow_log.*, record.*), and what is made of them.

    python3 records.py [test ...]
"""
import json
import os
import signal
import subprocess

from daemon import BIN, Daemon, check, fail, publish, run


def settings(**keys):
    return [a for k, v in keys.items() for a in ("--set", f"{k.replace('__', '.')}={v}")]


def metric(d, name, labels):
    for line in d.admin.get("/metrics", raw=True)[1].decode().splitlines():
        if line.startswith(f"{name}{{{labels}}} "):
            return float(line.rsplit(" ", 1)[1])
    return None


def lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def recorded(d, log):
    return metric(d, "duet_recorded_requests_total", f'log="{log}",sink="file"')


def slow_requests_are_whole(work):
    """A slow request cannot be made again, for part of it is missing, or something else was written; or keys are given away."""
    publish(f"{work}/models", "dat", 3, 1)
    path = f"{work}/slow.jsonl"
    with Daemon(work, ["dat"], extra=settings(slow_log__path=path, slow_log__threshold_ms=0)) as d:
        long = {"user_id": "u1", "k": 5, "exclude_ids": [f"x{i}" for i in range(9000)]}
        pretty = json.dumps({"user_id": "stranger \"\n\u00fc", "k": 3}, indent=2, ensure_ascii=False).encode()
        sent = {"Accept": "application/json", "X-Request-Timeout-Ms": "5000", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        check("long", d.data.post("/v1/retrieve", long, headers={**sent, "X-Request-Id": "r1", "Authorization": "Bearer secret", "X-Api-Key": "secret"})[0], 200)
        check("pretty", d.data.post("/v1/retrieve", pretty)[0], 200)
        check("impossible", d.data.post("/v1/retrieve", {"user_id": "u1", "features": {"none": "x"}})[0], 422)
        check("malformed", d.data.post("/v1/retrieve", "{")[0], 400)
        check("elsewhere", d.data.post("/v1/users:embed", {"user_id": "u1"})[0], 200)
        d.until(lambda: recorded(d, "slow") == 3, "three lines")
    one, two, three = lines(path)
    check("body", (one["body"], one["body_bytes"]), (long, len(json.dumps(long))))
    check("its answer", [one[k] for k in ("why", "request_id", "path", "status", "model", "version", "fallback", "returned")],
          ["slow", "r1", "/v1/retrieve", 200, "dat", 3, None, 5])
    if not one["ms"] >= one["embed_ms"] + one["search_ms"] > 0 or one["ef_used"] < 5 or one["ts_ms"] < 1.6e12 or one["lag_ms"] < 0:
        fail(f"{ {k: v for k, v in one.items() if k != 'body'} }")
    check("headers", one["headers"], sent)
    check("line ends", (two["body"], two["body_bytes"], two["fallback"]), (json.loads(pretty), len(pretty), "popular"))
    check("refused", (three["status"], three["body"], "search_ms" in three), (422, {"user_id": "u1", "features": {"none": "x"}}, False))
    with open(path, encoding="utf-8") as f:
        if "secret" in f.read():
            fail("a key is in the file")
    check("mode", os.stat(path).st_mode & 0o7, 0)


def thresholds_and_samples(work):
    """Fast requests are taken for slow, or more is written than was asked for; SIGHUP does not change it."""
    publish(f"{work}/models", "dat", 1, 1)
    slow, some = f"{work}/slow.jsonl", f"{work}/some.jsonl"
    with Daemon(work, ["dat"], extra=settings(data__threads=1, slow_log__path=slow, slow_log__threshold_ms=600000, record__path=some, record__sample=10)) as d:
        for u in range(40):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 1})
        d.until(lambda: recorded(d, "sample") == 4, "one in ten")
        check("none is slow", (recorded(d, "slow"), os.path.getsize(slow)), (0, 0))
        check("which", [x["body"]["user_id"] for x in lines(some)], ["u0", "u10", "u20", "u30"])
        os.rename(some, some + ".old")
        d.process.send_signal(signal.SIGHUP)
        d.until(lambda: os.path.exists(some), "a new file")
        for u in range(10):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 1})
        d.until(lambda: recorded(d, "sample") == 5, "one more")
        check("in the new file", (len(lines(some)), lines(some)[0]["why"]), (1, "sample"))
    with Daemon(work, ["dat"], extra=settings(data__threads=1, slow_log__path=slow, slow_log__threshold_ms=0, slow_log__sample=3,
                                              slow_log__max_bytes=4096, slow_log__keep=2)) as d:
        for u in range(120):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 1})
        d.until(lambda: recorded(d, "slow") == 40, "one in three")
        check("nothing is lost", metric(d, "duet_recorded_requests_dropped_total", 'log="slow",reason="no_room"'), 0)
    check("rotated", sorted(f for f in os.listdir(work) if f.startswith("slow")), ["slow.jsonl", "slow.jsonl.1", "slow.jsonl.2"])
    p = subprocess.run([os.path.join(BIN, "duetd"), *settings(data__port=0, admin__port=0, record__path=f"{work}/none/x")], capture_output=True, text=True, timeout=60)
    both = subprocess.run([os.path.join(BIN, "duetd"), "--check-config", *settings(record__path=slow, slow_log__path=slow)], capture_output=True, text=True)
    check("one file for two", (both.returncode, "slow_log.path and record.path are both" in both.stderr), (1, True))
    check("no such folder", (p.returncode, "record.path" in p.stderr), (1, True))


def records_are_replayed(work):
    """duet replay cannot read what duetd has written."""
    for version in (1, 2):
        publish(f"{work}/models", "dat", version, 1)
    path = f"{work}/some.jsonl"
    with Daemon(work, ["dat"], extra=settings(record__path=path, record__sample=1)) as d:
        for u in range(30):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 7, "exact": u % 2 == 0})
        d.until(lambda: recorded(d, "sample") == 30, "all")
        p = subprocess.run([os.path.join(BIN, "duet"), "replay", "--requests", path, "--a", f"http://127.0.0.1:{d.data_port}", "--b", f"{work}/models/dat/1",
                            "--json"], capture_output=True, text=True, timeout=120)
        r = json.loads(p.stdout)
        check("replay", (p.returncode, r["requests"], r["skipped"], r["compared"], r["overlap"]), (0, 30, 0, 30, 1.0))


if __name__ == "__main__":
    run([slow_requests_are_whole, thresholds_and_samples, records_are_replayed])
