"""The whole line, as a user runs it: raw logs -> prepare -> train -> evaluate -> publish -> duetd -> an answered request.

What breaks when it fails: two parts no longer agree on a file, an option or a field, and the quickstart does not run.
Uses the programs in DUET_BIN_DIR, works in a temporary folder, binds port 0 only.
    python3 line.py [DATASET]     a folder of DUET_TEST_DATA (skipped, exit 77, without it); none: generated data
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BIN = os.environ["DUET_BIN_DIR"]
BASELINES = ("wals", "fm", "youtube_dnn", "mind")  # models without towers: bundles of stored vectors
MODELS = ("two_tower", "dat") + BASELINES


def duet(*args, ok=0):
    p = subprocess.run([os.path.join(BIN, "duet"), *args], capture_output=True, text=True)
    if p.returncode != ok:
        sys.exit(f"duet {' '.join(args)}: exit {p.returncode}, want {ok}\n{p.stdout}\n{p.stderr}")
    return p.stdout


def check(what, found, want):
    if found != want:
        sys.exit(f"{what}: found {found!r}, want {want!r}")


def call(url, body=None, method=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    head = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, method=method, headers=head)
    try:
        with urllib.request.urlopen(request, timeout=120) as r:
            return r.status, json.loads(r.read() or b"null"), r.headers
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read() or b"null"), e.headers


class Daemon:
    def __init__(self, work, models):
        self.ports_file = os.path.join(work, "ports.json")
        config = os.path.join(work, "duetd.yaml")
        with open(config, "w", encoding="utf-8") as f:
            f.write("data: {address: 127.0.0.1, port: 0}\nadmin: {address: 127.0.0.1, port: 0}\nmodels:\n")
            for name in models:
                f.write(f"  - {{name: {name}, path: {work}/models/{name}}}\n")
            f.write("experiments:\n  - name: main\n    salt: line\n    variants:\n")
            f.write("      - {name: control, model: two_tower, weight: 50}\n")
            f.write("      - {name: treatment, model: dat, weight: 50}\n")
        self.log = open(os.path.join(work, "duetd.log"), "wb")
        self.process = subprocess.Popen([os.path.join(BIN, "duetd"), "--config", config, "--ports-file", self.ports_file],
                                        stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.die("duetd ended early")
            if os.path.exists(self.ports_file):
                with open(self.ports_file, encoding="utf-8") as f:
                    ports = json.load(f)
                self.data = f"http://127.0.0.1:{ports['data']}"
                self.admin = f"http://127.0.0.1:{ports['admin']}"
                try:
                    with urllib.request.urlopen(self.data + "/readyz", timeout=5):
                        return
                except (urllib.error.URLError, ConnectionError):
                    pass
            time.sleep(0.05)
        self.die("duetd was not ready after 60 s")

    def die(self, why):
        self.process.kill()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            sys.exit(f"{why}\n{f.read()[-3000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.die("duetd did not stop within 60 s of SIGTERM")
        if code != 0:
            self.die(f"duetd: exit {code} after SIGTERM, want 0")


def flat(v):
    return [x for row in v for x in row] if v and isinstance(v[0], list) else v


def near(a, b):
    a, b = flat(a), flat(b)
    return len(a) == len(b) and all(abs(x - y) <= 1e-5 for x, y in zip(a, b))


def release(raw, work):
    data = os.path.join(work, "data.duet")
    duet("prepare", "--in", raw, "--out", data)
    for model in MODELS:
        duet("train", "--data", data, "--model", model, "--out", os.path.join(work, model), "--fast", "--epochs", "2")
    checkpoints = [x for model in MODELS for x in ("--checkpoint", os.path.join(work, model))]
    duet("evaluate", "--data", data, *checkpoints, "--yardsticks", "popularity,ease", "--json", os.path.join(work, "metrics.json"))
    with open(os.path.join(work, "metrics.json"), encoding="utf-8") as f:
        json.load(f)
    for model in MODELS:
        duet("publish", "--data", data, "--checkpoint", os.path.join(work, model), "--repository", os.path.join(work, "models"),
             "--name", model)
        duet("verify", os.path.join(work, "models", model, "1"))
    return data


def items_of(raw, user):
    """What the raw log says that the user has interacted with: ml-100k, or the generic layout that `duet synth` writes."""
    name, sep = ("u.data", "\t") if os.path.exists(os.path.join(raw, "u.data")) else ("interactions.csv", ",")
    with open(os.path.join(raw, name), encoding="utf-8") as f:
        found = {row[1] for row in (line.rstrip("\n").split(sep) for line in f) if row[0] == user}
    if len(found) < 3:
        sys.exit(f"user {user} has {len(found)} items in {raw}/{name}, want at least 3")
    return found


def answers(daemon, data, raw, work):
    user = duet("inspect", data, "--first-user").strip()
    body = {"user_id": user, "k": 100, "exclude_seen": True}
    status, answer, _ = call(daemon.data + "/v1/retrieve", body)
    check("status", status, 200)
    ids = [i["id"] for i in answer["items"]]
    check("items", len(ids), 100)
    check("distinct items", len(set(ids)), 100)
    check("fallback", answer["fallback"], None)
    scores = [i["score"] for i in answer["items"]]
    check("order", scores, sorted(scores, reverse=True))
    known = items_of(raw, user) & set(ids)
    if len(known) > 1: # the one is its test item, which was not seen in training
        sys.exit(f"exclude_seen: user {user} has seen {sorted(known)}")
    check("sticky", call(daemon.data + "/v1/retrieve", body)[1]["model"], answer["model"])

    # The vector in the request path is the one of the command line.
    for model in MODELS:
        bundle = os.path.join(work, "models", model, "1")
        offline = json.loads(duet("query", "--bundle", bundle, "--user", user, "--embed"))
        status, online, _ = call(daemon.data + "/v1/users:embed", {"user_id": user, "model": model})
        check("status", status, 200)
        if not near(online["p_u"], offline["p_u"]) or not near(online.get("a_u") or [], offline.get("a_u") or []):
            sys.exit(f"p_u of {model} differs: {online} {offline}")

    history = [i["id"] for i in answer["items"][:5]]
    for model in BASELINES:
        bundle = os.path.join(work, "models", model, "1")
        offline = json.loads(duet("query", "--bundle", bundle, "--user", user, "--k", "20", "--json"))
        status, online, _ = call(daemon.data + "/v1/retrieve", {"user_id": user, "model": model, "k": 20})
        check(model, (status, [i["id"] for i in online["items"]]), (200, [i["id"] for i in offline["items"]]))
        status, online, _ = call(daemon.data + "/v1/retrieve", {"user_id": "a stranger", "model": model, "k": 5, "history": history})
        check(f"stranger with a history, {model}", (status, online["fallback"], len(online["items"])), (200, "history", 5))
        nothing = {"user_id": user, "model": model, "k": 5, "filter": {"field": "category", "in": ["no such category"]}}
        status, online, _ = call(daemon.data + "/v1/retrieve", nothing)
        check(f"a filter that lets nothing through, {model}", (status, online["items"]), (200, []))

    status, answer, _ = call(daemon.data + "/v1/retrieve", {"user_id": "a stranger", "k": 5})
    check("stranger", (status, answer["fallback"], len(answer["items"])), (200, "popular", 5))
    status, answer, headers = call(daemon.data + "/v1/retrieve", {"user_id": user, "kk": 5})
    check("unknown field", status, 400)
    check("its type", headers["Content-Type"], "application/problem+json")
    if "kk" not in json.dumps(answer):
        sys.exit(f"the problem does not name the field: {answer}")


def flipped_bit_is_refused(daemon, data, work):
    duet("publish", "--data", data, "--checkpoint", os.path.join(work, "dat"), "--repository", os.path.join(work, "models"),
         "--name", "dat")
    victim = os.path.join(work, "models", "dat", "2", "items.safetensors")
    os.chmod(victim, 0o644)
    with open(victim, "r+b") as f:
        f.seek(-5, os.SEEK_END)
        byte = f.read(1)[0]
        f.seek(-5, os.SEEK_END)
        f.write(bytes([byte ^ 4]))
    reload = daemon.admin + "/v1/admin/models/dat:reload?wait=true"
    status, answer, _ = call(reload, {"version": 2}, method="POST")
    check("reload of a damaged bundle", status, 422)
    if "items.safetensors" not in json.dumps(answer):
        sys.exit(f"the refusal does not name the file: {answer}")
    status, answer, _ = call(daemon.data + "/v1/retrieve", {"user_id": "a stranger", "k": 5, "model": "dat"})
    check("the old version serves", (status, answer["version"]), (200, 1))
    shutil.rmtree(os.path.join(work, "models", "dat", "2"))
    duet("publish", "--data", data, "--checkpoint", os.path.join(work, "dat"), "--repository", os.path.join(work, "models"),
         "--name", "dat")
    check("reload of a sound one", call(reload, {}, method="POST")[0], 200)
    check("it serves", call(daemon.data + "/v1/retrieve", {"user_id": "a stranger", "k": 5, "model": "dat"})[1]["version"], 2)


def main():
    raw = None
    if len(sys.argv) > 1:
        raw = os.path.join(os.environ.get("DUET_TEST_DATA", ""), sys.argv[1])
        if not os.path.isdir(raw):
            print(f"line: no dataset {sys.argv[1]} in DUET_TEST_DATA: skipped")
            sys.exit(77)
    work = tempfile.mkdtemp(prefix="duet-line-")
    daemon = None
    try:
        if raw is None:
            raw = os.path.join(work, "raw")
            duet("synth", "--out", raw, "--users", "300", "--items", "400", "--interactions", "9000")
        data = release(raw, work)
        daemon = Daemon(work, MODELS)
        answers(daemon, data, raw, work)
        flipped_bit_is_refused(daemon, data, work)
        daemon.stop()
        daemon = None
    finally:
        if daemon:
            daemon.process.kill()
        shutil.rmtree(work, ignore_errors=True)
    print("line: from raw logs to an answered request: fine")


if __name__ == "__main__":
    main()
