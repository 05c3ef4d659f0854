"""The serving side of a real duetd: answers, faults, experiments, reload under load, drain.

What breaks when it fails is said by each test. Uses the programs in DUET_BIN_DIR and world_bundle; binds port 0 only.
    python3 serve.py [test ...]
"""
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import threading
import time

from daemon import TESTS, Client, Daemon, check, fail, flip_bit, publish, run

MAIN = "[{name: main, salt: s1, variants: [{name: a, model: dat, weight: 50}, {name: b, model: tt, weight: 50}]}]"
FILES = ["manifest.json", "schema.json", "model.safetensors", "items.pack", "items.safetensors", "compact.hnsw", "users.pack", "probes.pack"]


def world(work, dat=(1,), tt=(1,)):
    for v in dat:
        publish(f"{work}/models", "dat", v, v)
    for v in tt:
        publish(f"{work}/models", "tt", v, 100 + v, "two_tower")


# ------------------------------------------------------------------------------------------------ documentation


def same_shape(found, want, where):
    """Every member of `want` is in `found` and of its type; texts equal unless they hold "..", "a|b" lists kinds."""
    kinds = {"null": type(None), "..": str, "1": int}
    if isinstance(want, str) and "|" in want:
        if not isinstance(found, tuple(kinds[k] for k in want.split("|"))):
            fail(f"{where}: found {found!r}, want one of {want}")
    elif isinstance(want, dict):
        if not isinstance(found, dict):
            fail(f"{where}: found {found!r}, want an object")
        for key, value in want.items():
            if key not in found:
                fail(f"{where}: '{key}' is missing in {found!r}")
            same_shape(found[key], value, f"{where}/{key}")
    elif isinstance(want, list):
        if not isinstance(found, list) or len(found) < len(want):
            fail(f"{where}: found {found!r}, want a list of {len(want)} or more")
        for i, value in enumerate(want):
            same_shape(found[i], value, f"{where}/{i}")
    elif isinstance(want, bool) or want is None:
        check(where, found, want)
    elif isinstance(want, (int, float)):
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            fail(f"{where}: found {found!r}, want a number")
    elif want != ".." and found != want:
        fail(f"{where}: found {found!r}, want {want!r}")
    elif not isinstance(found, str):
        fail(f"{where}: found {found!r}, want text")


def examples():
    path = os.path.join(os.environ["DUET_SOURCE_DIR"], "docs", "api.md")
    with open(path, encoding="utf-8") as f:
        blocks = re.findall(r"```http\n(.*?)```", f.read(), re.S)
    for block in blocks:
        request, answer = block.split("\n\n", 1)
        line, _, body = request.partition("\n")
        method, path = line.split(" ")
        status, _, text = answer.partition("\n")
        yield method, path, body.strip() or None, int(status), json.loads(text)


def documented_examples(work):
    """docs/api.md shows what the daemon does not do."""
    world(work, dat=(1, 2), tt=(1,))
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        publish(f"{work}/models", "tt", 2, 102, "two_tower")
        n = 0
        for method, path, body, status, want in examples():
            client = d.admin if "/admin/" in path else d.data
            d.until(lambda: not any(m["busy"] for m in d.admin.get("/v1/admin/models")[1]["models"]), "idle models")
            found_status, found, headers = client.call(method, path, body)
            check(f"{method} {path} {found}", found_status, status)
            same_shape(found, want, f"{method} {path}")
            if status >= 400:
                check("type", headers["Content-Type"], "application/problem+json")
            n += 1
        if n < 18:
            fail(f"{n} examples found in docs/api.md")


# ------------------------------------------------------------------------------------------------ answers


def items(answer):
    return [(i["id"], i["score"]) for i in answer["items"]]


def retrieval(work):
    """Parameters of a request are not applied."""
    world(work)
    publish(f"{work}/models", "bare", 1, 9, "dat", 50, 10, "no_seen")
    with Daemon(work, ["dat", "tt", "bare"]) as d:
        def ask(**body):
            status, answer, _ = d.data.post("/v1/retrieve", body)
            check(f"{body}: {answer}", status, 200)
            check("returned", answer["returned"], len(answer["items"]))
            return answer

        full = ask(user_id="u1", k=300, exact=True)
        check("all", len(full["items"]), 300)
        check("first configured model without experiment", (full["model"], full["experiment"]), ("dat", {}))
        scores = [s for _, s in items(full)]
        check("order", scores, sorted(scores, reverse=True))
        check("graph = exact", items(ask(user_id="u1", k=20, ef=300)), items(full)[:20])
        check("default k", ask(user_id="u1")["k"], 100)
        check("integer id is text", ask(user_id=1)["fallback"], "popular")
        out = [i for i, _ in items(full)[:5]]
        check("exclude_ids", items(ask(user_id="u1", k=20, exact=True, exclude_ids=out)), items(full)[5:25])
        bound = full["items"][9]["score"]
        if any(s < bound - 1e-6 for _, s in items(ask(user_id="u1", k=300, min_score=bound))):
            fail("min_score")
        food = ask(user_id="u1", k=300, filter={"field": "category", "in": ["food"]}, fields=["class"])
        check("category", {i["attributes"]["class"] for i in food["items"]}, {"food"})
        none = ask(user_id="u1", k=5, filter={"field": "category", "in": ["zoo"]})
        check("no such category", (none["returned"], none["degraded"]), (0, ["unknown_filter_values:1"]))
        price = lambda item: item["attributes"]["price"]
        cheap = ask(user_id="u1", k=300, filter={"or": [{"field": "price", "lt": 100}, {"field": "price", "in": [""]}]}, fields=["price"])
        both = {price(i) is None or float(price(i)) < 100 for i in cheap["items"]}
        check("price", (both, len(cheap["items"]) > 23), ({True}, True))
        tags = ask(user_id="u1", k=300, filter={"not": {"field": "tags", "not_in": ["b"]}}, fields=["tags"])
        check("tags", {i["attributes"]["tags"] for i in tags["items"]}, {"a|b", "b|d"})
        unseen = ask(user_id="u1", k=300, exclude_seen=True)
        if not 0 < unseen["returned"] < 300:
            fail(f"exclude_seen returned {unseen['returned']}")
        check("no seen items in the bundle", ask(user_id="u1", model="bare", exclude_seen=True)["degraded"], ["seen_not_stored"])
        check("features matter", items(ask(user_id="u1", features={"city": "BJ"}, k=50)) == items(full)[:50], False)
        history = ask(user_id="x", history=["i3", "i4", "none"], k=5)
        check("history", (history["fallback"], history["degraded"]), ("history", ["unknown_history_ids:1"]))
        rows, columns = ask(user_id="u1", k=5, fields=["title"]), d.data.post(
            "/v1/retrieve", {"user_id": "u1", "k": 5, "fields": ["title"], "format": "columns"})[1]["columns"]
        check("columns", [(i["id"], i["score"], i["attributes"]["title"]) for i in rows["items"]],
              list(zip(columns["ids"], columns["scores"], columns["attributes"]["title"])))
        check("request id", d.data.post("/v1/retrieve", {}, headers={"X-Request-Id": "abc-1"})[1]["request_id"], "abc-1")


def recall(work):
    """target_recall is not reached, or searches further than it needs to."""
    publish(f"{work}/models", "thin", 1, 3, "dat", 5000, 400, "thin")
    publish(f"{work}/models", "bare", 1, 3, "dat", 300, 40, "no_calibration")
    with Daemon(work, ["thin", "bare"]) as d:
        def ask(**body):
            status, answer, _ = d.data.post("/v1/retrieve", body)
            check(f"{body}: {answer}", status, 200)
            return answer

        users, last = [f"u{u}" for u in range(0, 400, 2)], 0
        exact = {u: items(ask(user_id=u, k=30, exact=True)) for u in users}
        for target in (0.6, 0.8, 0.95, None):
            hits = 0
            for u in users:  # 100 of the 400 were measured with, drawn at random
                answer = ask(user_id=u, k=30, **({"target_recall": target} if target else {}))
                hits += sum(score >= exact[u][29][1] - 1e-5 for _, score in items(answer))
            reached = hits / (30 * len(users))
            print(f"     target {target}: ef {answer['ef_used']}, recall {reached:.4f}")
            if reached < (target or 0.99) - 0.02 or answer["ef_used"] < last:
                fail(f"target {target}: recall {reached} at ef {answer['ef_used']}")
            last = answer["ef_used"]
        all_of_them = ask(user_id="u1", k=30, target_recall=1)
        check("1 is exact", (all_of_them["ef_used"], items(all_of_them)), (None, items(ask(user_id="u1", k=30, exact=True))))
        status, answer, _ = d.data.post("/v1/retrieve", {"user_id": "u1", "model": "bare", "target_recall": 0.9})
        check("no curves", (status, answer["code"], answer["errors"][0]["pointer"]), (422, "not_calibrated", "/target_recall"))
        check("default without curves", d.data.post("/v1/retrieve", {"user_id": "u1", "model": "bare"})[0], 200)
        vector = d.data.post("/v1/users:embed", {"user_id": "u1"})[1]["p_u"]
        found = d.data.post("/v1/search", {"vector": vector, "k": 30, "target_recall": 0.95})[1]
        check("search", found["ef_used"], ask(user_id="u1", k=30, target_recall=0.95)["ef_used"])
        with open(d.config, encoding="utf-8") as f:
            text = f.read()
        with open(d.config, "w", encoding="utf-8") as f:
            f.write(text.replace("models/thin}", "models/thin, target_recall: 0.8, index_layout: plain}"))
        d.process.send_signal(signal.SIGHUP)
        layout = lambda: d.data.get("/v1/models/thin")[1]["index_layout"]
        d.until(lambda: layout() == "plain", "another layout")
        check("the operator's target", ask(user_id="u1", k=30)["ef_used"], ask(user_id="u1", k=30, target_recall=0.8)["ef_used"])


def unpack(data):
    """What docs/api.md says of binary answers."""
    magic, n, id_bytes, rest, zero = struct.unpack_from("<8s4I", data)
    check("head", (magic, zero, len(data)), (b"DUETHITS", 0, 24 + 8 * n + id_bytes + rest))
    scores, ends = struct.unpack_from(f"<{n}f", data, 24), (0,) + struct.unpack_from(f"<{n}I", data, 24 + 4 * n)
    ids = data[24 + 8 * n:24 + 8 * n + id_bytes]
    return [(ids[ends[i]:ends[i + 1]].decode(), scores[i]) for i in range(n)], json.loads(data[len(data) - rest:])


def vectors_and_items(work):
    """/v1/search, /v1/score, similar items or binary answers say something else than /v1/retrieve does."""
    world(work)
    with Daemon(work, ["dat", "tt"]) as d:
        def post(path, **body):
            status, answer, _ = d.data.post(path, body)
            check(f"{path} {body}: {answer}", status, 200)
            return answer

        full = post("/v1/retrieve", user_id="u1", k=300, exact=True)
        p_u = post("/v1/users:embed", user_id="u1")["p_u"]
        check("search", items(post("/v1/search", vector=p_u, k=300, exact=True)), items(full))
        check("search by graph", items(post("/v1/search", vector=p_u, k=20, ef=300)), items(full)[:20])
        some = [i for i, _ in items(full)][::7]
        check("include", items(post("/v1/retrieve", user_id="u1", include_ids=some[::-1] + ["none"])), items(full)[::7])
        check("include counted", post("/v1/search", vector=p_u, include_ids=["none"])["degraded"], ["unknown_include_ids:1"])
        check("include nothing", post("/v1/retrieve", user_id="u1", include_ids=[])["returned"], 0)
        scores = post("/v1/score", user_id="u1", item_ids=some + ["none"] + some[:1])
        check("score", items(scores), items(full)[::7] + [("none", None)] + items(full)[:1])
        check("unknown", scores["degraded"], ["unknown_item_ids:1"])
        popular = post("/v1/retrieve", user_id="stranger", k=5)
        check("popular", items(post("/v1/score", item_ids=[i for i, _ in items(popular)])), items(popular))
        for body, code in (({}, "invalid_value"), ({"vector": [1] * 15}, "invalid_vector"), ({"vector": []}, "invalid_vector"), ({"vector": ["1"]}, "wrong_type"),
                           ({"vector": [1e16] * 16}, "limit_exceeded"), ({"vector": [1] * 16, "user_id": 1}, "unknown_field")):
            check(f"{body}", d.data.post("/v1/search", body)[1]["code"], code)
        _, similar, _ = d.data.get("/v1/items/i7/similar?k=300&model=dat")
        check("all but itself", (similar["returned"], "i7" in dict(items(similar))), (299, False))
        v = post("/v1/search", vector=p_u, k=1)["items"][0]["id"]
        check("near", d.data.get(f"/v1/items/{v}/similar?k=1")[1]["items"][0]["score"] <= 1.00001, True)
        check("no item", d.data.get("/v1/items/none/similar")[1]["code"], "unknown_item")
        for query, want in (("k=0", "invalid_value"), ("k=x", "invalid_value"), ("k=", "invalid_value"), ("ef=-1", "invalid_value"), ("k=10001", "limit_exceeded"), ("ef=20001", "limit_exceeded")):
            check(query, d.data.get(f"/v1/items/i7/similar?{query}")[1]["code"], want)
        status, data, headers = d.data.post("/v1/retrieve", {"user_id": "u1", "k": 300, "exact": True}, headers={"Accept": "application/octet-stream"}, raw=True)
        check("binary", (status, headers["Content-Type"]), (200, "application/octet-stream"))
        hits, about = unpack(data)
        check("hits", [(i, float(f"{s:.7g}")) for i, s in hits], items(full))
        check("about", {k: about[k] for k in ("model", "k", "returned")}, {"model": "dat", "k": 300, "returned": 300})
        status, problem, _ = d.data.post("/v1/retrieve", {"fields": ["title"]}, headers={"Accept": "application/octet-stream"})
        check("fields", (status, problem["errors"][0]["pointer"]), (400, "/fields"))


def explanations(work):
    """/v1/explain contradicts /v1/retrieve."""
    world(work, tt=())
    with Daemon(work, ["dat"]) as d:
        def explain(**body):
            status, answer, _ = d.data.post("/v1/explain", {"user_id": "u1", "k": 10, **body})
            check(f"{body}: {answer}", status, 200)
            return answer

        full = items(d.data.post("/v1/retrieve", {"user_id": "u1", "k": 300, "exact": True})[1])
        for at in (0, 9, 10, 299):
            x = explain(item_id=full[at][0], exact=True)
            check("ranks", (x["rank"], x["exact_rank"], x["exact_rank_without_rules"]), (at + 1 if at < 10 else None, at + 1, at + 1))
            check("scores", (x["score"], x["kth_score"], x["dropped_by"], x["missed_by_graph"]), (full[at][1], full[9][1], [], False))
            check("gap", abs(x["gap"] - (full[at][1] - full[9][1])) < 1e-6, True)
        best = full[0][0]
        rules = {"exclude_ids": [best], "include_ids": ["i1" if best != "i1" else "i2"], "filter": {"or": []}, "min_score": 2}
        for name, value in rules.items():
            x = explain(item_id=best, **{name: value})
            check(name, (x["dropped_by"], x["rank"], x["exact_rank"], x["exact_rank_without_rules"]), ([name], None, None, 1))
        check("all rules", explain(item_id=best, **rules)["dropped_by"], list(rules))
        left = {i for i, _ in items(d.data.post("/v1/retrieve", {"user_id": "u1", "k": 300, "exclude_seen": True})[1])}
        seen = next(i for i, _ in full if i not in left)
        check("seen", explain(item_id=seen, exclude_seen=True)["dropped_by"], ["exclude_seen"])
        check("fewer than k", explain(item_id=best, include_ids=[best])["gap"], None)
        ranked = [(row["id"], row["attributes"]["category"]) for row in d.data.post("/v1/retrieve", {"user_id": "u1", "k": 300, "exact": True, "fields": ["category"]})[1]["items"]]
        top = ranked[0][1]
        second = [i for i, c in ranked if c == top][1]
        last = next(i for i, c in ranked[9:] if c not in (None, top))
        of_last = dict(ranked)[last]
        for bounds, item, want in (({"max_per_category": 1}, second, ["max_per_category"]), ({"categories": {top or "": {"max": 1}}}, second, ["categories"]),
                                   ({"max_per_category": 1, "categories": {top or "": {}}}, second, ["max_per_category"]), ({"max_per_category": 10}, second, []),
                                   ({"k": 1, "categories": {of_last: {"min": 1}}}, ranked[0][0], ["categories"])):
            x = explain(item_id=item, **bounds)
            check(f"{bounds}", (x["dropped_by"], x["rank"] is None), (want, bool(want)))
        check("unknown", explain(item_id=best, categories={"zoo": {"max": 1}})["degraded"], ["unknown_categories:1"])
        check("no item", d.data.post("/v1/explain", {"item_id": "none"})[1]["code"], "unknown_item")
        check("no item given", d.data.post("/v1/explain", {})[1]["code"], "invalid_value")
        missed = 0
        for i in range(40):
            answer = items(d.data.post("/v1/retrieve", {"user_id": f"u{i}", "k": 5, "ef": 5})[1])
            exact = items(d.data.post("/v1/retrieve", {"user_id": f"u{i}", "k": 5, "exact": True})[1])
            for item in {i for i, _ in exact} - {i for i, _ in answer}:
                x = explain(user_id=f"u{i}", k=5, ef=5, item_id=item)
                check("missed", (x["missed_by_graph"], x["ef_used"]), (True, 5))
                found = items(d.data.post("/v1/retrieve", {"user_id": f"u{i}", "k": 5, "ef": x["ef_needed"]})[1])
                check("found with that ef", item in dict(found), True)
                missed += 1
        print(f"     {missed} items missed at ef = 5")


def faults(work):
    """A faulty request is not refused by name, or ends the daemon."""
    world(work)
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        for body, status, code, pointer in [
                (b"", 400, "malformed_json", ""), (b"{", 400, "malformed_json", ""), (b'{"k":}', 400, "malformed_json", "/k"),
                (b'{"k":"5"}', 400, "wrong_type", "/k"), (b'{"k":5,"k":5}', 400, "duplicate_field", "/k"),
                (b'{"user":"1"}', 400, "unknown_field", "/user"), (b'{"k":20000}', 422, "limit_exceeded", "/k"),
                (b'{"model":"dta"}', 404, "unknown_model", "/model"), (b'{"features":{"town":"x"}}', 422, "unknown_feature", "/features/town"),
                (b'{"fields":["titel"]}', 422, "unknown_attribute", "/fields/0"),
                (b'{"filter":{"or":{}}}', 400, "wrong_type", "/filter/or"),
                (b'{"filter":{"not":{"field":"titel","in":[]}}}', 422, "unknown_attribute", "/filter/not/field"),
                (b'{"filter":{"field":"title","gt":1}}', 422, "filter_unsupported", "/filter"), (b"[" * 100000, 400, "wrong_type", ""),
                (b'{"features":{"city":' + b"[" * 30 + b"]" * 30 + b"}}", 400, "wrong_type", "/features/city/0"),
                (b'{"user_id":"\xff\xfe"}', 400, "malformed_json", "/user_id"), (b'{"user_id":"\\u0000"}', 400, "malformed_json", "/user_id")]:
            found, answer, headers = d.data.post("/v1/retrieve", body, headers={"X-Request-Id": "q7"})
            check(f"{body[:60]}: {answer}", (found, answer["code"], answer["errors"][0]["pointer"]), (status, code, pointer))
            check("type", headers["Content-Type"], "application/problem+json")
            check("id", answer["request_id"], "q7")
        for path, method, status, code in [("/v1/models/none", "GET", 404, "unknown_model"), ("/v1/models/none/ready", "GET", 404, "unknown_model"),
                                           ("/v1/experiments:assign", "GET", 400, "missing_parameter"),
                                           ("/v1/experiments:assign?user_id=%FF", "GET", 400, "missing_parameter"),
                                           ("/v1/admin/models", "GET", 404, "unknown_route"), ("/v1/retrieve", "GET", 405, "method_not_allowed")]:
            found, answer, _ = d.data.call(method, path)
            check(path, (found, answer["code"]), (status, code))
        check("media type", d.data.post("/v1/retrieve", "k=5", headers={"Content-Type": "application/x-www-form-urlencoded"})[0], 415)
        check("override", d.data.post("/v1/retrieve", {"user_id": "u1"}, headers={"X-Experiment-Override": "main=z"})[1]["code"], "invalid_override")
        check("raw bytes", d.data.post("/v1/retrieve", {"user_id": "u1"}, headers={"X-Experiment-Override": "m\xe4in=z"})[0], 400)
        for body, code in [('{"version":0}', "wrong_type"), ('{"versoin":1}', "unknown_field"), ("[]", "wrong_type"), ("{", "malformed_json")]:
            check(body, d.admin.post("/v1/admin/models/dat:reload", body)[1]["code"], code)
        check("model", d.admin.post("/v1/admin/models/none:reload")[1]["code"], "unknown_model")
        check("operation", d.admin.get("/v1/admin/operations/1-1")[1]["code"], "unknown_operation")
        check("level", d.admin.call("PUT", "/v1/admin/log-level", {"level": "loud"})[1]["code"], "invalid_value")


def limits_bound_defaults(work):
    """A limit that the operator lowered holds for explicit values only."""
    world(work)
    table = "[{name: main, salt: s1, variants: [{name: a, model: dat, k: 90, weight: 100}]}]"
    with Daemon(work, ["dat", "tt"], table, extra=("--set", "limits.k=50")) as d:
        for body in ({"user_id": "u1", "model": "tt"}, {"user_id": "u1"}, {"user_id": "u1", "k": 50}):
            check(f"{body}", d.data.post("/v1/retrieve", body)[1]["k"], 50)
        check("too many", d.data.post("/v1/retrieve", {"k": 51})[1]["code"], "limit_exceeded")


def embedding(work):
    """users:embed and the library disagree about p_u."""
    world(work)
    with Daemon(work, ["dat", "tt"]) as d:
        for model in ("dat", "tt"):
            for user in ("u1", "u9", "u33"):
                tool = [os.path.join(TESTS, "bundle_embed"), f"{work}/models/{model}/1", user]
                want = json.loads(subprocess.run(tool, capture_output=True, check=True).stdout)
                found = d.data.post("/v1/users:embed", {"user_id": user, "model": model})[1]
                for key in ("p_u", "a_u"):
                    a, b = found[key] or [], want[key] or []
                    if len(a) != len(b) or any(abs(x - y) > 1e-5 for x, y in zip(a, b)):
                        fail(f"{model} {user} {key}: {a} {b}")
        check("stranger", d.data.post("/v1/users:embed", {"user_id": "x"})[1]["p_u"], None)


# ------------------------------------------------------------------------------------------------ experiments


def variants(d, n=300):
    return {u: d.data.post("/v1/retrieve", {"user_id": f"u{u}", "k": 1})[1]["experiment"]["main"] for u in range(n)}


def experiments_stick(work):
    """Users change variants over a restart, or more of them than needed when weights change."""
    world(work)
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        before = variants(d)
        if not 0.35 < sum(v == "a" for v in before.values()) / len(before) < 0.65:
            fail(f"not half and half: {before}")
        answer = d.data.post("/v1/retrieve", {"user_id": "u5", "k": 1})[1]
        check("variant's model", answer["model"], {"a": "dat", "b": "tt"}[answer["experiment"]["main"]])
        for v, model in (("a", "dat"), ("b", "tt")):
            answer = d.data.post("/v1/retrieve", {"user_id": "u5", "k": 1}, headers={"X-Experiment-Override": f"main={v}"})[1]
            check("override", (answer["experiment"], answer["model"]), ({"main": v}, model))
        check("explicit model", d.data.post("/v1/retrieve", {"user_id": "u5", "model": "tt"})[1]["experiment"], {})
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        check("restart", variants(d), before)
        table = d.admin.get("/v1/admin/experiments")[1]
        body = {"experiments": [{"name": "main", "salt": "s1", "variants": [{"name": "a", "weight": 70, "model": "dat"},
                                                                          {"name": "b", "weight": 30, "model": "tt", "k": 2}]}]}
        check("wrong revision", d.admin.call("PUT", "/v1/admin/experiments", body, headers={"If-Match": "77"})[0], 412)
        status, changed, headers = d.admin.call("PUT", "/v1/admin/experiments", body, headers={"If-Match": f'"{table["revision"]}"'})
        check("change", (status, changed["revision"], headers["ETag"]), (200, table["revision"] + 1, f'"{table["revision"] + 1}"'))
        after = variants(d)
        if any(before[u] == "a" and after[u] == "b" for u in before):
            fail("a user left the variant that grew")
        check("k of the variant", {d.data.post("/v1/retrieve", {"user_id": f"u{u}"})[1]["k"] for u in after if after[u] == "b"}, {2})
        bad = {"experiments": [{"name": "m", "variants": [{"name": "a", "weight": 100, "model": "none"}]}]}
        check("no such model", d.admin.call("PUT", "/v1/admin/experiments", bad)[1]["code"], "invalid_experiments")
        check("its own answer", d.admin.call("PUT", "/v1/admin/experiments", changed)[0], 200)
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        check("restart after the change", variants(d), after)
    if '"event":"exposure"' not in d.logged() or '"variant":"a"' not in d.logged() or '"u5"' in d.logged():
        fail("exposures are not logged, or ids are")


# ------------------------------------------------------------------------------------------------ reload


class Load:
    """Client threads that compare each answer with what its version is known to answer."""

    def __init__(self, port, bodies, expected, threads=4):
        self.port, self.bodies, self.expected = port, bodies, expected
        self.stop, self.errors, self.n, self.versions = False, [], 0, set()
        self.threads = [threading.Thread(target=self.work, args=(i,)) for i in range(threads)]
        for t in self.threads:
            t.start()

    def work(self, i):
        client = Client(self.port)
        while not self.stop:
            body = self.bodies[i % len(self.bodies)]
            i += 1
            try:
                status, answer, _ = client.post("/v1/retrieve", body)
                if status != 200 or items(answer) != self.expected[answer["version"], json.dumps(body)]:
                    self.errors.append((status, answer))
                else:
                    self.versions.add(answer["version"])
            except (OSError, http.client.HTTPException) as e:
                self.errors.append(repr(e))
                client = Client(self.port)
            self.n += 1
        client.close()

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()
        if self.errors:
            fail(f"{len(self.errors)} of {self.n} answers failed: {self.errors[:3]}")


BODIES = [{"user_id": f"u{u}", "k": 20, "model": "dat"} for u in range(8)]


def learn(d, versions):
    expected = {}
    for v in versions:
        check("reload", d.operate("dat", "reload", v)[0], 200)
        for b in BODIES:
            answer = d.data.post("/v1/retrieve", b)[1]
            check("version", answer["version"], v)
            expected[v, json.dumps(b)] = items(answer)
    return expected


def reload_under_load(work):
    """A reload loses a request, or an answer mixes two versions; a bad version gets through."""
    world(work, dat=(1, 2, 3, 4))
    flip_bit(f"{work}/models/dat/3/users.pack")
    os.remove(f"{work}/models/dat/4/index.hnsw")
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        load = Load(d.data_port, BODIES, learn(d, (1, 2)))
        end, rounds = time.monotonic() + 4, 0
        while time.monotonic() < end or rounds < 3:
            for what, version, want in [("reload", 1, 200), ("reload", 3, 422), ("reload", 2, 200), ("reload", 4, 422), ("rollback", None, 200),
                                        ("verify", 2, 200), ("reload", 99, 404)]:
                status, answer, _ = d.operate("dat", what, version)
                check(f"{what} {version}: {answer}", status, want)
                if version == 3 and "users.pack" not in answer["detail"]:
                    fail(f"the file is not named: {answer}")
                check("ready", d.admin.get("/readyz", raw=True)[0], 200)
            rounds += 1
        load.end()
        check("versions seen", load.versions, {1, 2})
        if load.n < 50:
            fail(f"only {load.n} requests")
    if '"outcome":"bundle_invalid"' not in d.logged():
        fail("a failed reload is no event")


def flipped_bits(work):
    """A damaged bundle serves, or the message does not say which file."""
    world(work, dat=(1, 2))
    with Daemon(work, ["dat", "tt"]) as d:
        check("reload", d.operate("dat", "reload", 1)[0], 200)
        for name in FILES:
            path = f"{work}/models/dat/2/{name}"
            flip_bit(path)
            status, answer, _ = d.operate("dat", "reload", 2)
            check(f"{name}: {answer}", (status, answer["code"]), (422, "bundle_invalid"))
            if name not in answer["detail"]:
                fail(f"{name} is not named: {answer}")
            check("old version", d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat"})[1]["version"], 1)
            flip_bit(path)
        check("whole again", d.operate("dat", "reload", 2)[0], 200)
        metrics = d.admin.get("/metrics", raw=True)[1].decode()
        if 'duet_operations_total{model="dat",kind="reload",outcome="bundle_invalid"} 8' not in metrics:
            fail("failed reloads are not counted")


def broken_at_start(work):
    """A broken newest version keeps a daemon down, or nobody is told."""
    world(work, dat=(1, 2), tt=(1,))
    flip_bit(f"{work}/models/dat/2/model.safetensors")
    with Daemon(work, ["dat", "tt"]) as d:
        answer = d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat"})[1]
        check("fallback", (answer["version"], answer["degraded"]), (1, ["older_version"]))
        if "model.safetensors" not in d.data.get("/v1/models/dat")[1]["degraded"]:
            fail("the reason is not shown")
        publish(f"{work}/models", "dat", 3, 3)
        check("repaired", d.operate("dat", "reload")[0], 200)
        check("no more", d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat"})[1]["degraded"], [])


def nothing_to_serve(work):
    """Without a bundle the daemon is ready, or its admin side is not there to help."""
    publish(f"{work}/models", "dat", 1, 1)
    os.makedirs(f"{work}/models/tt")
    with Daemon(work, ["tt", "dat"], wait_ready=False) as d:
        d.until(lambda: d.data.post("/v1/retrieve", {"user_id": "u1"})[0] == 200, "a model to stand in for the first")
        check("of no model", d.data.post("/v1/retrieve", {"user_id": "u1"})[1]["degraded"], ["model_not_ready:tt"])
        check("a vector is one model's", d.data.post("/v1/search", {"vector": [1] * 16})[1]["code"], "model_not_ready")
    with Daemon(work, ["dat", "tt"], MAIN, wait_ready=False) as d:
        d.until(lambda: not any(m["busy"] for m in (d.admin.get("/v1/admin/models")[1].get("models") or [{"busy": True}])), "loading")
        check("not ready", d.admin.get("/readyz", raw=True)[0], 503)
        check("but started: a restart would bring nothing", d.admin.get("/startupz", raw=True)[0], 200)
        check("retrieve", d.data.post("/v1/retrieve", {"user_id": "u1", "model": "tt"})[1]["code"], "model_not_ready")
        check("ready", d.data.get("/v1/models/tt/ready")[0], 503)
        check("the other model", d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat"})[0], 200)
        of = {v: [u for u in (f"u{i}" for i in range(40)) if d.data.get(f"/v1/experiments:assign?user_id={u}")[1]["assignments"][0]["variant"] == v] for v in "ab"}
        for user, want in ((of["a"][0], ({"main": "a"}, [])), (of["b"][0], ({}, ["model_not_ready:tt"]))):
            body = {"user_id": user, "k": 3}
            status, answer, _ = d.data.post("/v1/retrieve", body)
            check(f"of {user}", (status, answer["model"], answer["returned"], answer["experiment"], answer["degraded"]), (200, "dat", 3, *want))
            part = d.data.post("/v1/retrieve:batch", {"requests": [body]})[1]["results"][0]
            check(f"of {user} in a batch", (part["model"], part["experiment"], part["degraded"]), ("dat", *want))
        table = d.admin.get("/v1/admin/experiments")[1]
        seen = {v["name"]: (v["requests"], v["error_share"]) for v in table["observed"][0]["variants"]}
        check("what the guardrails see", (seen["a"], seen["b"]), ((2, 0), (0, 0)))
        check("a table that is as it was", d.admin.call("PUT", "/v1/admin/experiments", table)[0], 200)
        more = table["experiments"] + [{"name": "more", "salt": "s2", "variants": [{"name": "x", "weight": 100, "ef": 50}]}]
        more[0]["variants"][0]["model"] = "tt"
        status, answer, _ = d.admin.call("PUT", "/v1/admin/experiments", {"experiments": more})
        check("one that sends others to what cannot answer", (status, answer["code"], answer["detail"]),
              (422, "invalid_experiments", "experiment 'main', variant 'a': model 'tt' has no version loaded"))
        publish(f"{work}/models", "tt", 1, 7, "two_tower")
        check("reload", d.operate("tt", "reload")[0], 200)
        for path in ("/readyz", "/startupz"):
            check(path, d.admin.get(path, raw=True)[0], 200)
        with open(d.config, encoding="utf-8") as f:
            text = f.read()
        with open(d.config, "w", encoding="utf-8") as f:
            f.write(text.replace("models:\n", f"models:\n  - {{name: later, path: {work}/models/none}}\n"))
        d.process.send_signal(signal.SIGHUP)
        d.until(lambda: b"model later: no version could be loaded" in d.admin.get("/readyz?verbose", raw=True)[1], "the model that comes later")
        for path in ("/readyz", "/startupz"):
            check(f"{path} with one model more", d.admin.get(path, raw=True)[0], 200)


def without_a_state_file(work):
    """What cannot be kept is promised."""
    world(work, dat=(1, 2))
    with Daemon(work, ["dat", "tt"], MAIN, state=False) as d:
        status, answer, _ = d.operate("dat", "rollback")
        check("rollback", (status, answer["version"], answer["pinned"], answer["persisted"]), (200, 1, True, False))
        table = d.admin.get("/v1/admin/experiments")[1]
        check("experiments", d.admin.call("PUT", "/v1/admin/experiments", table)[1]["code"], "state_read_only")
    with Daemon(work, ["dat", "tt"], MAIN, state=False) as d:
        check("restart", d.data.get("/v1/models/dat")[1]["version"], 2)


def operations_do_not_block(work):
    """A waiting reload stops the admin listener."""
    publish(f"{work}/models", "dat", 1, 1)
    publish(f"{work}/models", "dat", 2, 2, "dat", 1500, 100)
    with Daemon(work, ["dat"]) as d:
        # Ready comes with the swap, a moment before the first load's own operation ends.
        d.until(lambda: not d.admin.get("/v1/admin/models")[1]["models"][0]["busy"], "end of the first load")
        status, answer, headers = d.admin.post("/v1/admin/models/dat:reload", {"version": 1})
        check("202", status, 202)
        place = headers["Location"]
        d.until(lambda: d.admin.get(place)[1]["state"] == "succeeded", "end of the operation")
        results = []
        waiter = threading.Thread(target=lambda: results.append(Client(d.admin_port).post("/v1/admin/models/dat:verify?wait=true", {"version": 2})[0]))
        waiter.start()
        d.until(lambda: d.admin.get("/v1/admin/models")[1]["models"][0]["busy"] or results, "a busy model")
        while not results:
            check("listener", d.admin.get("/livez", raw=True)[0], 200)
            if not results and d.admin.get("/v1/admin/models")[1]["models"][0]["busy"]:
                status, answer, headers = d.admin.post("/v1/admin/models/dat:verify", {"version": 2})
                if status != 202: # 202: the first one had just ended
                    check("busy", (status, answer["code"], "Retry-After" in headers), (409, "operation_in_progress", True))
            time.sleep(0.005)
        waiter.join()
        check("waited", results, [200])


# ------------------------------------------------------------------------------------------------ end


def sighup(work):
    """A new configuration takes a restart, or half of it is taken."""
    world(work)
    publish(f"{work}/models", "new", 1, 44)
    with Daemon(work, ["dat", "tt"], MAIN) as d:
        with open(d.config, encoding="utf-8") as f:
            text = f.read()

        def write(new):
            with open(d.config, "w", encoding="utf-8") as f:
                f.write(new)
            d.process.send_signal(signal.SIGHUP)

        write(text.replace("models:\n", f"models:\n  - {{name: new, path: {work}/models/new}}\n").replace("weight: 50", "weight: 49", 1))
        d.until(lambda: "config_refused" in d.logged(), "refusal")
        check("nothing changed", len(d.data.get("/v1/models")[1]["models"]), 2)
        write(text.replace("models:\n", f"models:\n  - {{name: new, path: {work}/models/new}}\n").replace("model: tt", "model: new"))
        d.until(lambda: any(m["name"] == "new" and m["ready"] for m in d.data.get("/v1/models")[1]["models"]), "the new model")
        check("experiment", d.data.post("/v1/retrieve", {"user_id": "u1"}, headers={"X-Experiment-Override": "main=b"})[1]["model"], "new")
        check("kept", d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat"})[0], 200)
        write(text)
        d.until(lambda: len(d.data.get("/v1/models")[1]["models"]) == 2, "the old list")


def drain_under_load(work):
    """Stopping loses requests."""
    world(work)
    d = Daemon(work, ["dat", "tt"], MAIN, delay_ms=1500)
    expected = learn(d, (1,))
    load = Load(d.data_port, BODIES, expected)
    time.sleep(0.3)
    before = load.n
    d.tell_to_stop()
    d.until(lambda: d.admin.get("/readyz", raw=True)[0] == 503, "unreadiness")
    time.sleep(0.4)  # what a balancer needs to notice
    load.end()
    if load.n <= before:
        fail("nothing was served while draining")
    d.stop()


def drain_of_a_machine_that_stood_still(work):
    """The time for which a daemon could answer nobody counts as quiet."""
    world(work)
    d = Daemon(work, ["dat", "tt"], MAIN, delay_ms=300)
    d.tell_to_stop()
    d.until(lambda: d.admin.get("/readyz", raw=True)[0] == 503, "unreadiness")
    d.process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)  # longer than delay and quiet
    d.process.send_signal(signal.SIGCONT)
    for i in range(20):
        check("answer", d.data.post("/v1/retrieve", BODIES[i % len(BODIES)])[0], 200)
        time.sleep(0.01)
    d.stop()


def asked_to_drain(work):
    """The admin's drain is not SIGTERM's."""
    world(work)
    d = Daemon(work, ["dat", "tt"], MAIN)
    check("drain", d.admin.post("/v1/admin/drain")[0], 202)
    d.admin.close()
    d.told = True
    d.stop()


if __name__ == "__main__":
    run([documented_examples, retrieval, recall, vectors_and_items, explanations, faults, limits_bound_defaults, embedding, experiments_stick, reload_under_load, flipped_bits, broken_at_start, nothing_to_serve,
         without_a_state_file, operations_do_not_block, sighup, drain_under_load, drain_of_a_machine_that_stood_still, asked_to_drain])
