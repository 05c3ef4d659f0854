"""Requests that a real duetd writes down (slow_log.*, record.*), and what is made of them.

    python3 records.py [test ...]
"""
import json
import os
import shutil
import signal
import subprocess

from daemon import BIN, Daemon, check, fail, flip_bit, publish, run


def settings(keys):
    return [a for k, v in keys.items() for a in ("--set", f"{k}={v}")]


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
    with Daemon(work, ["dat"], extra=settings({"slow_log.path": path, "slow_log.threshold_ms": 0})) as d:
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
    check("trace", (one["trace_id"], one["parent_span_id"], len(one["span_id"]), "trace_id" in two), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 16, False))
    check("line ends", (two["body"], two["body_bytes"], two["fallback"]), (json.loads(pretty), len(pretty), "popular"))
    check("refused", (three["status"], three["body"], "search_ms" in three), (422, {"user_id": "u1", "features": {"none": "x"}}, False))
    with open(path, encoding="utf-8") as f:
        if "secret" in f.read():
            fail("a key is in the file")
    check("mode", os.stat(path).st_mode & 0o7, 0)


def batches_and_searches_too(work):
    """A batch or a search is not written down, or cannot be made again: by duet replay, or by a version that warms up."""
    for version in (1, 2):
        publish(f"{work}/models", "dat", version, 1)
    path = f"{work}/some.jsonl"
    batch = {"requests": [{"user_id": f"u{u}", "k": 4} for u in range(12)] + [{"kk": 1}, 7]}
    search = {"vector": [0.25, -0.5] * 8, "k": 5, "exact": True}
    with Daemon(work, ["dat"], extra=settings({"data.threads": 1, "slow_log.path": f"{work}/slow.jsonl", "slow_log.threshold_ms": 0, "record.path": path, "record.sample": 1,
                                              "warm.path": path, "workers.batch": 12})) as d:
        check("small", d.data.post("/v1/retrieve:batch", {"requests": batch["requests"][:3]}, headers={"X-Request-Id": "small"})[0], 200)
        check("by a worker", d.data.post("/v1/retrieve:batch", batch, headers={"X-Request-Id": "large"})[0], 200)
        check("search", d.data.post("/v1/search", search, headers={"X-Request-Id": "search"})[0], 200)
        check("an impossible search", d.data.post("/v1/search", {"vector": [1]})[0], 422)
        check("no batch", d.data.post("/v1/retrieve:batch", {"requests": []})[0], 400)
        d.until(lambda: (recorded(d, "sample"), recorded(d, "slow")) == (3, 4), "three and four lines")
        small, large, one = sorted(lines(path), key=lambda x: ["small", "large", "search"].index(x["request_id"]))
        check("small", (small["path"], small["status"], small["requests"], small["body"]), ("/v1/retrieve:batch", 200, 3, {"requests": batch["requests"][:3]}))
        check("large", (large["requests"], large["body"], large["body_bytes"]), (14, batch, len(json.dumps(batch))))
        if not large["ms"] >= large["search_ms"] > 0 or "model" in large or "fallback" in large:
            fail(f"{large}")
        check("search", [one[k] for k in ("path", "model", "version", "fallback", "returned", "ef_used", "body")], ["/v1/search", "dat", 2, None, 5, None, search])
        check("refused", [x["path"] for x in lines(f"{work}/slow.jsonl") if x["status"] == 422], ["/v1/search"])
        url = f"http://127.0.0.1:{d.data_port}"
        # the daemon writes down what is replayed on it: from a copy
        shutil.copy(path, f"{work}/copy.jsonl")
        r = json.loads(subprocess.run([os.path.join(BIN, "duet"), "replay", "--requests", f"{work}/copy.jsonl", "--a", url, "--b", f"{work}/models/dat/1", "--json"],
                                      capture_output=True, text=True, timeout=120).stdout)
        check("replay", (r["requests"], r["skipped"], r["compared"], r["overlap"], r["a"]["failed"]), (17, 0, 16, 1.0, 1))
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(x) + "\n" for x in (small, large, one))
    with Daemon(work, ["dat"], extra=settings({"warm.path": path})) as d:
        told = events(d, "warm_up")[-1]
        check("warmed up", (told["requests"], told["failed"]), (3 + 13 + 1, 1))
    with Daemon(work, ["dat"], extra=settings({"warm.path": path, "warm.requests": 5})) as d:
        check("no more than so many", events(d, "warm_up")[-1]["requests"], 5)


def thresholds_and_samples(work):
    """Fast requests are taken for slow, or more is written than was asked for; SIGHUP does not change it."""
    publish(f"{work}/models", "dat", 1, 1)
    slow, some = f"{work}/slow.jsonl", f"{work}/some.jsonl"
    with Daemon(work, ["dat"], extra=settings({"data.threads": 1, "slow_log.path": slow, "slow_log.threshold_ms": 600000, "record.path": some, "record.sample": 10})) as d:
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
    with Daemon(work, ["dat"], extra=settings({"data.threads": 1, "slow_log.path": slow, "slow_log.threshold_ms": 0, "slow_log.sample": 3,
                                              "slow_log.max_bytes": 4096, "slow_log.keep": 2,
                                               "record.path": f"{work}/all.jsonl", "record.sample": 1, "record.max_bytes": 4096, "record.keep": 1})) as d:
        for u in range(120):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 1})
        d.until(lambda: recorded(d, "slow") == 40, "one in three")
        check("nothing is lost", metric(d, "duet_recorded_requests_dropped_total", 'log="slow",reason="no_room"'), 0)
    check("rotated", sorted(f for f in os.listdir(work) if f.startswith("slow")), ["slow.jsonl", "slow.jsonl.1", "slow.jsonl.2"])
    check("rotated", sorted(f for f in os.listdir(work) if f.startswith("all")), ["all.jsonl", "all.jsonl.1"])
    p = subprocess.run([os.path.join(BIN, "duetd"), *settings({"data.port": 0, "admin.port": 0, "record.path": f"{work}/none/x"})], capture_output=True, text=True, timeout=60)
    both = subprocess.run([os.path.join(BIN, "duetd"), "--check-config", *settings({"record.path": slow, "slow_log.path": slow})], capture_output=True, text=True)
    check("one file for two", (both.returncode, "slow_log.path and record.path are both" in both.stderr), (1, True))
    check("no such folder", (p.returncode, "record.path" in p.stderr), (1, True))


def records_are_replayed(work):
    """duet replay cannot read what duetd has written."""
    for version in (1, 2):
        publish(f"{work}/models", "dat", version, 1)
    path = f"{work}/some.jsonl"
    with Daemon(work, ["dat"], extra=settings({"record.path": path, "record.sample": 1})) as d:
        for u in range(30):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 7, "exact": u % 2 == 0})
        d.until(lambda: recorded(d, "sample") == 30, "all")
        p = subprocess.run([os.path.join(BIN, "duet"), "replay", "--requests", path, "--a", f"http://127.0.0.1:{d.data_port}", "--b", f"{work}/models/dat/1",
                            "--json"], capture_output=True, text=True, timeout=120)
        r = json.loads(p.stdout)
        check("replay", (p.returncode, r["requests"], r["skipped"], r["compared"], r["overlap"]), (0, 30, 0, 30, 1.0))


def events(d, name):
    return [e for e in map(json.loads, d.logged().splitlines()) if e["event"] == name]


def new_versions_are_warmed_up(work):
    """A version takes traffic cold although requests were recorded, or is refused for what was recorded."""
    publish(f"{work}/models", "dat", 1, 1)
    publish(f"{work}/models", "tt", 1, 101, "two_tower")
    path = f"{work}/some.jsonl"
    keys = settings({"record.path": path, "record.sample": 1, "warm.path": path, "warm.requests": 25})
    with Daemon(work, ["dat", "tt"], extra=keys) as d:
        told = events(d, "warm_up")
        check("nothing recorded yet", [(e["level"], e["model"], e["requests"]) for e in told], [("warn", "dat", 0), ("warn", "tt", 0)])
        for u in range(30):
            check("recorded", d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 5})[0], 200)
        for u in range(4):
            d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 5, "model": "tt"})
        d.until(lambda: recorded(d, "sample") == 34, "all")
        with open(path, "a", encoding="utf-8") as f:  # of another schema, of another model, bare, and no request at all
            f.write('{"body":{"features":{"gone":"x"}}}\n{"model":"other","body":{"k":1}}\n{"user_id":"u1","k":2}\n\nnonsense\n{"body":null}\n')
        answers = metric(d, "duet_retrieve_answers_total", 'model="dat",fallback="none"')
        publish(f"{work}/models", "dat", 2, 2)
        check("verify", d.operate("dat", "verify", 2)[0], 200)
        check("reload", d.operate("dat", "reload", 2)[0], 200)
        told = events(d, "warm_up")[2:]
        check("warmed up", [(e["level"], e["model"], e["version"], e["requests"], e["failed"]) for e in told], [("info", "dat", 2, 25, 1)])
        if "gone" not in told[0]["cause"] or told[0]["ms"] > 2500:
            fail(f"{told}")
        order = [e["event"] for e in map(json.loads, d.logged().splitlines()) if e["event"] in ("warm_up", "reload")]
        check("before the swap", order[-2:], ["warm_up", "reload"])
        check("not counted", (metric(d, "duet_retrieve_answers_total", 'model="dat",fallback="none"'), recorded(d, "sample")), (answers, 34))
        check("rollback from memory", (d.operate("dat", "rollback")[0], len(events(d, "warm_up"))), (200, 3))
    with Daemon(work, ["dat", "tt"], extra=settings({"warm.path": f"{work}/none"})) as d:
        check("no file", [(e["level"], "none" in e["cause"]) for e in events(d, "warm_up")[-2:]], [("warn", True)] * 2)
        check("served", d.data.post("/v1/retrieve", {"user_id": "u1"})[0], 200)
    with Daemon(work, ["tt"], extra=settings({"warm.path": path})) as d:
        check("of its own", [(e["model"], e["requests"]) for e in events(d, "warm_up")[-1:]], [("tt", 6)])


def a_bundle_brings_its_own_requests(work):
    """What was published with a bundle is not answered before it takes traffic, or instead of what the daemon has recorded."""
    own, path = f"{work}/own.jsonl", f"{work}/recorded.jsonl"
    with open(own, "w", encoding="utf-8") as f:
        f.write('{"user_id":"u1","k":5}\n{"path":"/v1/retrieve","model":"dat","body":{"user_id":"u2","k":5}}\n{"body":null}\n{"body":{"k":5,"nonsense":1}}\n')
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"user_id":"u3","k":5}\n')
    publish(f"{work}/models", "dat", 1, 1)
    publish(f"{work}/models", "dat", 2, 2, "dat", 0, 0, f"warmup={own}")
    with Daemon(work, ["dat"]) as d:
        told = [(e["level"], e["version"], e["source"], e["requests"], e["failed"]) for e in events(d, "warm_up")]
        check("its own, without any configuration", told, [("info", 2, "bundle", 3, 1)])
        check("verified only", (d.operate("dat", "verify", 2)[0], len(events(d, "warm_up"))), (200, 1))
        check("none", (d.operate("dat", "reload", 1)[0], len(events(d, "warm_up"))), (200, 1))
    with Daemon(work, ["dat"], extra=settings({"warm.path": path})) as d:
        check("both, its own first", [(e["source"], e["requests"], e["failed"]) for e in events(d, "warm_up")], [("bundle", 3, 1), ("warm.path", 1, 0)])
    flip_bit(f"{work}/models/dat/2/warmup.jsonl")
    with Daemon(work, ["dat"]) as d:
        status, answer, _ = d.operate("dat", "reload", 2)
        check("damaged", (status, "warmup.jsonl" in answer["detail"]), (422, True))


def warming_up_is_bounded(work):
    """A load waits for as long as there are recorded requests."""
    publish(f"{work}/models", "dat", 1, 1)
    path = f"{work}/many.jsonl"
    line = json.dumps({"pad": "x" * 100000, "body": {"user_id": "u1", "k": 5}}) + "\n"
    with open(path, "w", encoding="utf-8") as f:
        f.write(line * ((20 << 20) // len(line)))
    with Daemon(work, ["dat"], extra=settings({"warm.path": path, "warm.requests": 1000000, "warm.max_ms": 600000})) as d:
        check("the end of the file", [(e["requests"], e["failed"]) for e in events(d, "warm_up")], [((16 << 20) // len(line), 0)])
    n = 600000  # in two seconds: far more than can be answered, and time enough for one on a machine that is busy
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"user_id":"u1","k":5}\n' * n)
    with Daemon(work, ["dat"], extra=settings({"warm.path": path, "warm.requests": 1000000, "warm.max_ms": 2000})) as d:
        e = events(d, "warm_up")[-1]
        if not 0 < e["requests"] < n:
            fail(f"{e}")


if __name__ == "__main__":
    run([slow_requests_are_whole, batches_and_searches_too, thresholds_and_samples, records_are_replayed, new_versions_are_warmed_up, a_bundle_brings_its_own_requests, warming_up_is_bounded])
