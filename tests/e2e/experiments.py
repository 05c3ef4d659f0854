"""A real duetd under experiments: what is written down about them, and what is made of it.

    python3 experiments.py [test ...]
"""
import json
import os
import re
import signal
import time

from daemon import Daemon, check, fail, publish, run

MAIN = "[{name: main, salt: s1, variants: [{name: a, model: dat, weight: 50}, {name: b, model: tt, weight: 50, ef: 90}]}]"


def world(work):
    publish(f"{work}/models", "dat", 1, 1)
    publish(f"{work}/models", "tt", 3, 103, "two_tower")


def metric(d, name, labels=""):
    """A sample's value, None without one."""
    for line in d.admin.get("/metrics", raw=True)[1].decode().splitlines():
        if line.startswith(name + (f"{{{labels}}} " if labels else " ")):
            return float(line.rsplit(" ", 1)[1])
    return None


def lines_of(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


# ------------------------------------------------------------------------------------------------ exposure log


def exposures_are_written(work):
    """The exposure log lacks answers, or says of them what is not true."""
    world(work)
    path = f"{work}/exposures.jsonl"
    with Daemon(work, ["dat", "tt"], MAIN, extra=("--set", f"exposure.path={path}", "--set", "exposure.items=3")) as d:
        want = {}
        for u in range(40):
            answer = d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 5}, headers={"X-Request-Id": f"r{u}"})[1]
            want[f"r{u}"] = answer
        d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat"})  # no experiment is asked
        d.data.post("/v1/retrieve", {"user_id": "u1", "k": 0})  # no answer
        d.data.post("/v1/retrieve", {"k": 2}, headers={"X-Request-Id": "nobody", "X-Experiment-Override": "main=b"})
        d.until(lambda: len(lines_of(path)) >= 41, "41 lines")
        found = {line["request_id"]: line for line in lines_of(path)}
        check("lines", len(lines_of(path)), 41)
        for request, answer in want.items():
            line = found[request]
            for key in ("model", "version", "ef_used", "fallback", "returned"):
                check(f"{request} {key}", line[key], answer[key])
            check("variant", {line["experiment"]: line["variant"]}, answer["experiment"])
            check("items", line["items"], [i["id"] for i in answer["items"]][:3])
            check("override", line["override"], False)
            if not re.fullmatch("[0-9a-f]{16}", line["unit_hash"]) or abs(line["ts_ms"] / 1000 - time.time()) > 60:
                fail(f"{line}")
        check("units", len({line["unit_hash"] for line in found.values()}), 41)
        check("no unit", (found["nobody"]["unit_hash"], found["nobody"]["override"]), (None, True))
        check("metric", metric(d, "duet_exposure_lines_total", 'sink="file"'), 41)
        check("none is dropped", metric(d, "duet_exposure_dropped_total", 'reason="no_room"'), 0)
        os.rename(path, path + ".mine")
        d.process.send_signal(signal.SIGHUP)
        d.until(lambda: os.path.exists(path), "the new file")
        d.data.post("/v1/retrieve", {"user_id": "u1", "k": 5}, headers={"X-Request-Id": "later"})
    check("after SIGHUP, and at the end", ([line["request_id"] for line in lines_of(path)], len(lines_of(path + ".mine"))), (["later"], 41))
    if '"event":"exposure"' in d.logged():
        fail("exposures are in the daemon's log too")


def exposures_rotate(work):
    """The exposure log fills the disk, or sampling takes answers instead of users."""
    world(work)
    path = f"{work}/x"
    with Daemon(work, ["dat", "tt"], MAIN, extra=("--set", f"exposure.path={path}", "--set", "exposure.max_bytes=4096", "--set", "exposure.keep=2",
                                                  "--set", "exposure.sample=3")) as d:
        for n in range(300):
            d.data.post("/v1/retrieve", {"user_id": f"u{n % 30}", "k": 5})
        time.sleep(0.3)
    names = sorted(n for n in os.listdir(work) if n.startswith("x"))
    check("files", names, ["x", "x.1", "x.2"])
    sizes = [os.path.getsize(f"{work}/{n}") for n in names]
    if not all(0 < s <= 4096 for s in sizes):
        fail(f"sizes {sizes}")
    seen = {}
    for n in names:
        for line in lines_of(f"{work}/{n}"):
            seen[line["unit_hash"]] = seen.get(line["unit_hash"], 0) + 1
    if not 2 < len(seen) < 20 or max(seen.values()) - min(seen.values()) > 1:
        fail(f"sampled: {seen}")


if __name__ == "__main__":
    run([exposures_are_written, exposures_rotate])
