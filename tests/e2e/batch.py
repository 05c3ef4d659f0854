"""Batches, bounds by category and the workers of a real duetd.

What breaks when it fails is said by each test.
    python3 batch.py [test ...]
"""
import json
import random
import threading

from daemon import Client, Daemon, check, fail, publish, run
from serve import MAIN, items, world


def ask(d, **body):
    status, answer, _ = d.data.post("/v1/retrieve", body)
    check(f"{body}: {answer}", status, 200)
    return answer


def bounded(full, k, each, rules):
    """The definition: the minima set aside, then the best others that maxima let in. full: (id, score, category), best first."""
    most = lambda c: rules.get(c, {}).get("max", each)
    taken, chosen = {}, set()
    for i, _, c in full:
        if taken.get(c, 0) < rules.get(c, {}).get("min", 0):
            chosen.add(i)
            taken[c] = taken.get(c, 0) + 1
    for i, _, c in full:
        if len(chosen) < k and i not in chosen and taken.get(c, 0) < most(c):
            chosen.add(i)
            taken[c] = taken.get(c, 0) + 1
    return [(i, s) for i, s, _ in full if i in chosen]


def bounds_by_category(work):
    """Answers are not those of the definition, for any bounds, with filters and exclusions, walked or scanned."""
    world(work)
    rng = random.Random(7)
    with Daemon(work, ["dat", "tt"]) as d:
        names = sorted({i["attributes"]["category"] or "" for i in ask(d, user_id="u1", k=300, fields=["category"])["items"]})
        for n in range(200):
            body = {"user_id": rng.choice(["u1", "u7", "nobody"])}
            if rng.random() < 0.3:
                body["exclude_ids"] = [f"i{rng.randrange(300)}" for _ in range(40)]
            if rng.random() < 0.3:
                body["include_ids"] = [f"i{rng.randrange(300)}" for _ in range(120)]
            if rng.random() < 0.3:
                body["filter"] = {"field": "price", "lt": 150}
            full = [(i["id"], i["score"], i["attributes"]["category"] or "") for i in ask(d, **body, k=300, exact=True, fields=["category"])["items"]]
            k, each, rules = rng.choice([1, 5, 20, 60]), rng.choice([None, 1, 3, 10]), {}
            left = k
            for c in rng.sample(names, rng.randrange(min(4, len(names)) + 1)):
                most = rng.randrange(k + 1)
                least = rng.randrange(min(left, most) + 1)
                left -= least
                rules[c] = {"min": least, "max": most}
            more = {**({"max_per_category": each} if each else {}), **({"categories": rules} if rules or n % 2 else {})}
            how = {"exact": True} if n % 2 else {"ef": 300}
            want = bounded(full, k, each or k, rules)
            for _ in range(2):
                check(f"{body} {k} {more}", items(ask(d, **body, **more, **how, k=k)), want)
            status, batch, _ = d.data.post("/v1/retrieve:batch", {"requests": [{**body, **more, **how, "k": k}]})
            check("in a batch", [i for i, _ in items(batch["results"][0])], [i for i, _ in want])
        for unknown in ({"user_id": "u1", "categories": {"zoo": {"max": 1}, "food": {"max": 3}, "Food": {"min": 1}}},):
            check("unknown", ask(d, **unknown)["degraded"], ["unknown_categories:2"])
            check("unknown in a batch", d.data.post("/v1/retrieve:batch", {"requests": [unknown]})[1]["results"][0]["degraded"], ["unknown_categories:2"])
            check("the others hold", items(ask(d, **unknown, k=30)), items(ask(d, user_id="u1", categories={"food": {"max": 3}}, k=30)))
        for bad, pointer in (({"k": 3, "categories": {"food": {"min": 4}}}, "/categories"), ({"max_per_category": 2, "categories": {"food": {"min": 3}}}, "/categories"),
                             ({"categories": {"food": {"mim": 3}}}, "/categories/food/mim"), ({"categories": {"food": {"min": -3}}}, "/categories/food/min")):
            status, answer, _ = d.data.post("/v1/retrieve", {"user_id": "u1", **bad})
            check(f"{bad}: {answer}", (status, answer["errors"][0]["pointer"]), (400, pointer))


def batches(work):
    """An entry's answer is not that of the same request alone, or an error of one touches others."""
    world(work)
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        good = [{"user_id": f"u{i % 45}", "k": 1 + i % 9, "exclude_ids": [f"i{i}"], "fields": ["title"], "ef": 300} for i in range(256)]
        good[3] = {"user_id": "x", "history": ["i3", "i4"], "k": 4}
        good[5] = {"user_id": "y", "features": {"city": "SH"}, "k": 4, "format": "columns"}
        bad = {7: ({"kk": 1}, 400), 70: ("no object", 400), 71: ({"model": "none"}, 404), 200: ({"k": 0}, 400), 201: ({"model": "dat", "features": {"none": 1}}, 422)}
        for n in (1, 8, 9, 64, 65, 256):
            requests = [bad[i][0] if i in bad else good[i] for i in range(n)]
            status, answer, headers = d.data.post("/v1/retrieve:batch", {"requests": requests})
            check("status", (status, len(answer["results"])), (200, n))
            for i, found in enumerate(answer["results"]):
                if i in bad:
                    check(f"{i} {found}", found["status"], bad[i][1])
                    continue
                one = ask(d, **requests[i])
                for key in ("model", "version", "experiment", "fallback", "degraded", "k", "ef_used", "returned"):
                    check(f"{i} {key}", found[key], one[key])
                rows = lambda a: items(a) if "items" in a else list(zip(a["columns"]["ids"], a["columns"]["scores"]))
                for (a, s), (b, t) in zip(rows(found), rows(one)):
                    if abs(s - t) > 1e-5 or (a != b and abs(s - t) > 1e-6):
                        fail(f"{i}: {a} {s}, alone {b} {t}")
        check("too many", d.data.post("/v1/retrieve:batch", {"requests": [{}] * 257})[0], 422)
        check("none", d.data.post("/v1/retrieve:batch", {"requests": []})[1]["code"], "invalid_value")
        check("missing", d.data.post("/v1/retrieve:batch", {})[0], 400)
        check("twice", d.data.post("/v1/retrieve:batch", '{"requests": [{}], "requests": [{}]}')[1]["code"], "duplicate_field")
        exposed = d.logged().count('"event":"exposure"')
        d.data.post("/v1/retrieve:batch", {"requests": [{"user_id": f"u{i}"} for i in range(20)]})
        check("exposures", d.logged().count('"event":"exposure"') - exposed, 20)


def a_full_queue(work):
    """More waits for the workers than may, a late request is computed, or a stop loses those that wait."""
    publish(f"{work}/models", "dat", 1, 1, "dat", 20000, 100)
    with Daemon(work, ["dat"], extra=("--set", "workers.threads=1", "--set", "workers.queue=2", "--set", "workers.exact_items=100")) as d:
        found, lock = [], threading.Lock()
        want = {(200, None), (503, "queue_full"), (504, "deadline_exceeded")}

        def kinds():
            with lock:
                return {(s, c) for s, c, _ in found}

        def ask_many(path, body, headers):
            client = Client(d.data_port)
            for n in range(500):
                if n >= 10 and kinds() == want:  # a request whose time is up while it waits takes some luck
                    return
                status, answer, head = client.post(path, body, headers=headers)
                with lock:
                    found.append((status, answer.get("code"), head["Retry-After"]))

        explain = ("/v1/explain", {"user_id": "u1", "item_id": "i3"})
        exact = ("/v1/retrieve", {"user_id": "u1", "k": 10, "exact": True})
        threads = [threading.Thread(target=ask_many, args=(*(explain if i % 2 else exact), {"X-Request-Timeout-Ms": "1"} if i % 4 == 3 else {})) for i in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check("kinds", kinds(), want)
        if any(not r for s, _, r in found if s == 503):
            fail("no Retry-After")
        text = d.admin.get("/metrics", raw=True)[1].decode()
        for line in ("duet_workers_queue_length 0", 'duet_requests_refused_total{reason="queue_full"} %d' % sum(s == 503 for s, _, _ in found)):
            if line not in text:
                fail(f"no {line} in /metrics")


if __name__ == "__main__":
    run([bounds_by_category, batches, a_full_queue])
