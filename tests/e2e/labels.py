"""Several versions of a model at once, labels, and polling, over a real duetd.

What breaks when it fails is said by each test.
    python3 labels.py [test ...]
"""
import os
import signal
import threading

from daemon import Client, Daemon, check, fail, flip_bit, publish, run

LABELS = '{"dat@stable": dat@1, "dat@canary": dat@2}'
MAIN = "[{name: main, salt: s1, variants: [{name: a, model: dat@stable, weight: 50}, {name: b, model: dat@canary, weight: 50}]}]"


def start(work, versions="[1, 2]", labels=LABELS, experiments="[]", **kw):
    """The daemon's experiments are written last, so labels go before them."""
    return Daemon(work, [f"{{name: dat, path: {work}/models/dat, versions: {versions}}}", "tt"], experiments + "\nlabels: " + labels, **kw)


def world(work, versions=(1, 2)):
    for v in versions:
        publish(f"{work}/models", "dat", v, v)
    publish(f"{work}/models", "tt", 1, 101, "two_tower")


def served(d, model=None, **kw):
    body = {"user_id": "u1"} | ({"model": model} if model else {})
    status, answer, _ = d.data.post("/v1/retrieve", body, **kw)
    return (answer["model"], answer["version"]) if status == 200 else (status, answer["code"])


def names(work):
    """A version, a label or the bare name leads to the wrong version, or to none."""
    world(work)
    with start(work) as d:
        for model, want in [("dat@1", ("dat@1", 1)), ("dat@2", ("dat@2", 2)), ("dat@stable", ("dat@1", 1)), ("dat@canary", ("dat@2", 2)),
                            ("dat", ("dat@2", 2)), (None, ("dat@2", 2)), ("tt", ("tt", 1)), ("dat@3", (404, "unknown_model"))]:
            check(f"model {model}", served(d, model), want)
        status, answer, _ = d.data.post("/v1/retrieve", {"user_id": "u1", "model": "dat@cannary"})
        if status != 404 or "did you mean 'dat@canary'" not in answer["detail"]:
            fail(f"found {answer}")
        check("assigned", d.data.get("/v1/experiments:assign?user_id=u1")[1]["model"], "dat@2")
        check("ready", d.data.get("/v1/models/dat@stable/ready")[1]["version"], 1)
        check("reload", d.operate("dat@1", "reload")[1]["code"], "unchanged")
        status, answer, _ = d.operate("dat@stable", "reload")
        if status != 404 or "is a label of model 'dat@1'" not in answer["detail"]:
            fail(f"found {answer}")
        answer = d.admin.get("/v1/admin/labels")[1]
        check("labels", (answer["labels"], answer["implied"], answer["source"]), ({"dat@stable": "dat@1", "dat@canary": "dat@2"}, {"dat": "dat@2"}, "config"))


def moving(work):
    """A label does not move, moves to what cannot answer, or a restart forgets it."""
    world(work)
    with start(work, experiments=MAIN) as d:
        put = lambda labels, **kw: d.admin.call("PUT", "/v1/admin/labels", {"labels": labels}, **kw)
        a = {"X-Experiment-Override": "main=a"}
        check("before", served(d, headers=a), ("dat@1", 1))
        check("assigned", d.data.get("/v1/experiments:assign?user_id=u1", headers=a)[1]["model"], "dat@1")
        revision = d.admin.get("/v1/admin/labels")[1]["revision"]
        status, answer, _ = put({"dat@stable": "dat@2", "dat@canary": "dat@2", "dat": "dat@1"}, headers={"If-Match": f'"{revision}"'})
        check("moved", (status, answer["source"]), (200, "state"))
        check("variant", served(d, headers=a), ("dat@2", 2))
        check("bare", served(d), ("dat@2", 2))  # both variants
        check("bare name", served(d, "dat"), ("dat@1", 1))
        check("stale", put({}, headers={"If-Match": f'"{revision}"'})[0], 422)  # what is wrong in itself comes first: variants need them
        both = {"dat@stable": "dat@1", "dat@canary": "dat@2"}
        check("somebody else's", put(both, headers={"If-Match": f'"{revision}"'})[0], 412)
        for labels, says in [({"dat@stable": "dat@9", "dat@canary": "dat@2"}, "dat@9"), ({"dat@stable": "dat@1"}, "dat@canary"),
                             ({"tt": "dat@1", **both}, '"tt" is the name of a model'), ({"x": 1, **both}, "name of a model"), ([], "no object"),
                             ({"x": "dat@stable", **both}, "no model"), ({"a/b": "dat@1", **both}, 'label "a/b"'), ({"a@b@c": "dat@1", **both}, "name@label"),
                             ({"": "dat@1", **both}, "name@label"), ({"x@": "dat@1", **both}, "name@label")]:
            status, answer, _ = put(labels)
            if (status, answer["code"]) != (422, "invalid_labels") or says not in answer["detail"]:
                fail(f"{labels}: found {status} {answer}")
        check("as it was", served(d, headers=a), ("dat@2", 2))
    with start(work, experiments=MAIN) as d:
        check("after a restart", (served(d, "dat@stable"), served(d, "dat")), (("dat@2", 2), ("dat@1", 1)))


def putting_back(work):
    """What GET gave cannot be put back without a change, and the configuration's next list is refused for it."""
    world(work, (1, 2, 3))
    with start(work) as d:
        get = lambda: d.admin.get("/v1/admin/labels")[1]
        put = lambda doc, **kw: d.admin.call("PUT", "/v1/admin/labels", doc, **kw)
        before = get()
        for headers in ({}, {"If-Match": f'"{before["revision"]}"'}):
            check("put back", put(before, headers=headers)[:2], (200, before))
        check("somebody else's", put(before, headers={"If-Match": f'"{before["revision"] + 1}"'})[0], 412)
        check("no event", '"labels_changed"' in d.logged(), False)
        with open(d.config, encoding="utf-8") as f:
            text = f.read()

        def write(versions):
            with open(d.config, "w", encoding="utf-8") as f:
                f.write(text.replace("[1, 2]", versions))
            d.process.send_signal(signal.SIGHUP)

        write("[1, 2, 3]")
        d.until(lambda: served(d, "dat") == ("dat@3", 3), "version 3 by the bare name")
        moved = {"dat@stable": "dat@2", "dat@canary": "dat@2"}
        check("moved", put({"labels": moved})[0], 200)
        after = get()
        check("after", (after["labels"], after["implied"], after["source"], after["revision"] > before["revision"]), (moved, {"dat": "dat@3"}, "state", True))
        check("put back, of the state file", put(after)[:2], (200, after))
        check("in another order", put({"labels": dict(reversed(list(moved.items())))})[1], after)
        write("[1, 2]")  # without the version that was implied
        d.until(lambda: served(d, "dat") == ("dat@2", 2), "version 2 by the bare name")
        check("explicit now", put({"labels": {**moved, "dat": "dat@2"}})[1]["implied"], {})
        check("and so kept", (get()["labels"], get()["implied"]), ({**moved, "dat": "dat@2"}, {}))
        check("one less", put({"labels": moved})[1]["implied"], {"dat": "dat@2"})


def what_is_not_written_is_not_served(work):
    """An error answer, and yet labels or experiments have changed."""
    world(work)
    with start(work) as d:
        os.mkdir(f"{work}/state.json")  # so that nothing can be renamed to it
        for path, doc, key in (("/v1/admin/labels", {"labels": {"dat@stable": "dat@2"}}, "labels"),
                               ("/v1/admin/experiments", {"experiments": [{"name": "x", "salt": "s", "variants": [{"name": "a", "model": "tt", "weight": 100}]}]}, "experiments")):
            before = d.admin.get(path)[1]
            status, answer, _ = d.admin.call("PUT", path, doc)
            check(f"{path}: {answer}", (status, answer["code"]), (409, "state_read_only"))
            check(path, d.admin.get(path)[1], before)
            check("served", (served(d), served(d, "dat@stable")), (("dat@2", 2), ("dat@1", 1)))
        os.rmdir(f"{work}/state.json")
        check("now", d.admin.call("PUT", "/v1/admin/labels", {"labels": {"dat@stable": "dat@2"}})[0], 200)
        check("served", served(d, "dat@stable"), ("dat@2", 2))


def not_loaded(work):
    """A label moves to a version that could not be loaded."""
    world(work)
    for name in ("dat/1", "dat/2"):
        flip_bit(f"{work}/models/{name}/users.pack")
    with start(work, wait_ready=False) as d:
        d.until(lambda: d.data.get("/v1/models/dat@2")[1].get("degraded"), "the failed load")
        status, answer, _ = d.admin.call("PUT", "/v1/admin/labels", {"labels": {"dat@stable": "dat@2"}})
        check(f"{answer}", (status, "has no version loaded" in answer["detail"]), (422, True))


def moving_under_load(work):
    """A request is lost, or finds no model, while labels move."""
    world(work)
    with start(work) as d:
        seen, wrong, end = set(), [], threading.Event()

        def ask():
            client = Client(d.data_port)
            while not end.is_set():
                status, answer, _ = client.post("/v1/retrieve", {"user_id": "u1", "model": "dat@stable"})
                (seen.add(answer["version"]) if status == 200 and answer["model"] == f"dat@{answer['version']}" else wrong.append(answer))
            client.close()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        for i in range(60):
            check("put", d.admin.call("PUT", "/v1/admin/labels", {"labels": {"dat@stable": f"dat@{1 + i % 2}"}})[0], 200)
        end.set()
        for t in threads:
            t.join()
        check("answers", (seen, wrong), ({1, 2}, []))


def a_new_list(work):
    """A changed list of versions takes a restart, or a label is left behind that names nothing."""
    world(work, (1, 2, 3))
    with start(work, labels="{}") as d:
        with open(d.config, encoding="utf-8") as f:
            text = f.read()

        def write(new):
            with open(d.config, "w", encoding="utf-8") as f:
                f.write(new)
            d.process.send_signal(signal.SIGHUP)

        write(text.replace("[1, 2]", "[2, 3]"))
        d.until(lambda: served(d, "dat@3") == ("dat@3", 3), "version 3")
        check("gone", served(d, "dat@1"), (404, "unknown_model"))
        check("bare", served(d), ("dat@3", 3))
        check("put", d.admin.call("PUT", "/v1/admin/labels", {"labels": {"dat": "dat@2"}})[0], 200)
        write(text.replace("[1, 2]", "[1, 3]"))
        d.until(lambda: "labels (state.path) do not fit" in d.logged(), "the refusal")
        check("as it was", (served(d), served(d, "dat@1")), (("dat@2", 2), (404, "unknown_model")))


def polling(work):
    """A published version is not looked for, or a broken one is tried for ever."""
    world(work, (1,))
    with Daemon(work, ["dat", "tt"], extra=("--set", "load.poll_seconds=1")) as d:
        publish(f"{work}/models", "dat", 2, 2)
        d.until(lambda: served(d, "dat") == ("dat", 2), "version 2")
        operations = d.admin.get("/v1/admin/operations")[1]["operations"]
        check("asked by", operations[0]["request_id"], "poll")


if __name__ == "__main__":
    run([names, moving, putting_back, what_is_not_written_is_not_served, not_loaded, moving_under_load, a_new_list, polling])
