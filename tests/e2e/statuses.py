"""Every status and code of the table in docs/api.md over real HTTP, the headers that go with them, and every method that a path does not have.

What breaks when it fails is said by each test.
    python3 statuses.py [test ...]
"""
import hashlib
import json
import os
import re
import shutil
import socket
import threading

from daemon import Client, Daemon, check, fail, flip_bit, publish, run

SOURCE = os.environ["DUET_SOURCE_DIR"]

# Not provoked here, by the test that does it: over HTTP too, but for the last.
ELSEWHERE = {"no_answer": "tests/server/test_http.c",  # a defect of ours: only a handler made for it has one
             "starting": "tests/server/test_app.c",  # lasts microseconds in a real daemon
             "overloaded": "tests/server/test_app.c",  # takes a handler of a known length
             "out_of_memory": "tests/server/test_hot_path.c",  # each allocation in turn
             "insufficient_memory": "tests/server/test_reload.c"}  # takes a machine that is almost full


def table():
    """{(status, code)} of docs/api.md."""
    out = set()
    with open(os.path.join(SOURCE, "docs", "api.md"), encoding="utf-8") as f:
        for statuses, codes in re.findall(r"^\| ([\d, ]+) \| ([^|]+) \| [^|]*\|$", f.read(), re.M):
            names = re.findall(r"`(\w+)`", codes)
            numbers = [int(s) for s in statuses.split(", ")]
            out |= set(zip(numbers, names)) if len(numbers) > 1 else {(numbers[0], name) for name in names or ["deadline_exceeded"]}
    return out


seen = set()


def raw(port, text):
    """One exchange of exactly these bytes: (status, headers, problem)."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(text)
        data = b""
        while part := s.recv(65536):
            data += part
    head, body = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), json.loads(body)


def note(what, status, headers, problem, want):
    check(f"{what}: {problem}", (status, problem.get("code")), want)
    check(what, headers["Content-Type"], "application/problem+json")
    check(f"{what}: id", headers["X-Request-Id"], problem["request_id"])
    check(f"{what}: status", problem["status"], status)
    if status in (429, 503) and not 1 <= int(headers["Retry-After"]) <= 3600:
        fail(f"{what}: Retry-After {headers['Retry-After']}")
    seen.add(want)


def provoke(client, status, code, method, path, body=None, headers=None):
    found, answer, head = client.call(method, path, body, headers=headers)
    note(f"{method} {path} {body}", found, head, answer, (status, code))


def bodies(d):
    retrieve = lambda status, code, body, headers=None: provoke(d.data, status, code, "POST", "/v1/retrieve", body, headers)
    retrieve(400, "malformed_json", "{")
    retrieve(400, "too_deep", {"filter": json.loads('{"not":' * 16 + '{"or":[]}' + "}" * 16)})
    retrieve(400, "unknown_field", {"kk": 1})
    retrieve(400, "duplicate_field", '{"k": 1, "k": 2}')
    retrieve(400, "wrong_type", {"k": "1"})
    retrieve(400, "invalid_value", {"k": 0})
    retrieve(400, "invalid_override", {}, {"X-Experiment-Override": "main=zz"})
    retrieve(404, "unknown_model", {"model": "dot"})
    retrieve(415, "unsupported_media_type", "{}", {"Content-Type": "text/plain"})
    retrieve(422, "limit_exceeded", {"k": 10001})
    retrieve(422, "unknown_feature", {"model": "dat", "features": {"shoe": 1}})
    retrieve(422, "unknown_attribute", {"fields": ["shoe"]})
    retrieve(422, "filter_unsupported", {"filter": {"field": "title", "lt": 1}})
    retrieve(422, "not_calibrated", {"model": "tt", "target_recall": 0.9})
    provoke(d.data, 422, "invalid_vector", "POST", "/v1/search", {"vector": [1]})
    retrieve(503, "model_not_ready", {"model": "empty"})
    provoke(d.data, 404, "unknown_item", "GET", "/v1/items/none/similar")
    provoke(d.data, 404, "unknown_route", "GET", "/v1/nothing")
    provoke(d.data, 405, "method_not_allowed", "GET", "/v1/retrieve")
    provoke(d.data, 400, "missing_parameter", "GET", "/v1/experiments:assign")


def protocol(d):
    post = b"POST /v1/retrieve HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
    for what, text, want in (("two lengths", post + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", (400, "bad_request")),
                             ("a large body", post + b"Content-Length: 2000000\r\n\r\n", (413, "body_too_large")),
                             ("a long target", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: d\r\n\r\n", (414, "uri_too_long")),
                             ("many headers", post + b"X: y\r\n" * 70 + b"\r\n", (431, "too_many_headers")),
                             ("an expectation", post + b"Expect: tea\r\nContent-Length: 2\r\n\r\n{}", (417, "expectation_failed")),
                             ("an old version", b"GET /livez HTTP/1.2\r\nHost: d\r\n\r\n", (505, "version_not_supported"))):
        status, headers, problem = raw(d.data_port, text)
        note(what, status, headers, problem, want)
        check(f"{what}: the connection", headers["Connection"], "close")
    status, headers, problem = raw(d.data_port, b"GET /v1/models HTTP/1.1\r\nHost: d\r\nX-Request-Timeout-Ms: soon\r\nConnection: close\r\n\r\n")
    check(f"a timeout of words: {problem}", status, 400)


def administration(d, work):
    base = "/v1/admin/models/"
    provoke(d.admin, 404, "unknown_version", "POST", f"{base}dat:verify?wait=true", {"version": 99})
    provoke(d.admin, 404, "no_previous_version", "POST", f"{base}tt:rollback?wait=true")
    provoke(d.admin, 404, "unknown_operation", "GET", "/v1/admin/operations/0-0")
    shutil.copy(f"{work}/models/dat/2/users.pack", f"{work}/models/dat/3/users.pack")
    provoke(d.admin, 409, "fingerprint_mismatch", "POST", f"{base}dat:reload?wait=true", {"version": 3})
    flip_bit(f"{work}/models/dat/2/model.safetensors")
    provoke(d.admin, 422, "bundle_invalid", "POST", f"{base}dat:reload?wait=true", {"version": 2})
    provoke(d.admin, 400, "invalid_header", "PUT", "/v1/admin/experiments", {"experiments": []}, {"If-Match": "x"})
    provoke(d.admin, 412, "revision_mismatch", "PUT", "/v1/admin/experiments", {"experiments": []}, {"If-Match": '"99"'})
    provoke(d.admin, 422, "invalid_experiments", "PUT", "/v1/admin/experiments", {"experiments": [{"name": "x", "variants": []}]})
    provoke(d.admin, 422, "invalid_labels", "PUT", "/v1/admin/labels", {"labels": {"x": "nothing"}})
    os.rename(f"{work}/models/tt", f"{work}/models/gone")
    with open(f"{work}/models/tt", "wb"):
        pass
    provoke(d.admin, 422, "repository_unreadable", "POST", f"{base}tt:reload?wait=true")
    # one of two operations at once
    found = []
    while (409, "operation_in_progress") not in seen:
        waiter = threading.Thread(target=lambda: found.append(Client(d.admin_port).post(f"{base}dat:verify?wait=true", {"version": 4})))
        waiter.start()
        while waiter.is_alive() and (409, "operation_in_progress") not in seen:
            status, answer, headers = d.admin.post(f"{base}dat:verify", {"version": 4})
            if status == 409:
                note("two at once", status, headers, answer, (409, "operation_in_progress"))
        waiter.join()


def under_load(work):
    """What a full queue, a spent deadline and a drain answer."""
    with Daemon(work, ["dat"], state=False, delay_ms=15000, extra=("--set", "workers.threads=1", "--set", "workers.queue=1", "--set", "workers.batch=0")) as d:
        batch = {"requests": [{"user_id": "u1", "k": 300, "exact": True}] * 200}
        want = {(503, "queue_full"), (504, "deadline_exceeded")}
        provoke(d.admin, 409, "state_read_only", "PUT", "/v1/admin/experiments", {"experiments": []})

        def post():
            client = Client(d.data_port)
            while not want <= seen:
                for headers in ({}, {"X-Request-Timeout-Ms": "1"}):
                    status, answer, head = client.post("/v1/retrieve:batch", batch, headers=headers)
                    if status != 200:
                        note("a batch", status, head, answer, (status, answer["code"]))

        threads = [threading.Thread(target=post) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        # a client whose answer waits for the worker while the daemon stops: SIGTERM, then a second one that does not wait
        slow = [threading.Thread(target=lambda: stopped(d.data_port, batch)) for _ in range(3)]
        d.tell_to_stop()
        d.until(lambda: d.admin.get("/readyz", raw=True)[0] == 503, "the drain")
        check("Connection", d.data.get("/v1/models")[2]["Connection"], "close")
        for t in slow:
            t.start()
        d.until(lambda: metric(d, "duet_workers_queue_length") == 1, "one that waits")
        d.process.terminate()
        for t in slow:
            t.join()
        check("exit", d.process.wait(60), 0)


def metric(d, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", d.admin.get("/metrics", raw=True)[1].decode(), re.M).group(1))


def stopped(port, batch):
    client = Client(port)
    while True:
        try:
            status, answer, headers = client.post("/v1/retrieve:batch", batch)
        except OSError:
            return
        if status == 503 and answer["code"] == "draining":
            note("while it stops", status, headers, answer, (503, "draining"))


def too_many(work):
    with Daemon(work, ["dat"], state=False, extra=("--set", "data.max_connections=16")) as d:
        others = [socket.create_connection(("127.0.0.1", d.data_port)) for _ in range(17)]
        d.until(lambda: metric(d, 'duet_http_connections{listener="data"}') >= 17, "connections")
        provoke(d.data, 503, "too_many_connections", "POST", "/v1/retrieve", {})
        check("health goes on", Client(d.data_port).get("/livez", raw=True)[0], 200)
        for one in others:
            one.close()


def keys(work):
    with open(f"{work}/keys", "w", encoding="utf-8") as f:
        f.write(f"keys: [{{name: spent, sha256: '{hashlib.sha256(b'spent').hexdigest()}', requests_per_s: 0.001}}]\n")
    with Daemon(work, ["dat"], state=False, extra=("--set", f"data.keys_file={work}/keys")) as d:
        provoke(d.data, 401, "unauthorized", "POST", "/v1/retrieve", {})
        check("first", d.data.post("/v1/retrieve", {}, headers={"X-Api-Key": "spent"})[0], 200)
        provoke(d.data, 429, "quota_exceeded", "POST", "/v1/retrieve", {}, {"X-Api-Key": "spent"})


def every_code_of_the_documents(work):
    """A code of docs/api.md has another status, is no problem document, lacks its headers, or does not occur."""
    for v in (1, 2, 3):
        publish(f"{work}/models", "dat", v, v)
    publish(f"{work}/models", "dat", 4, 4, "dat", 3000, 200)
    publish(f"{work}/models", "tt", 1, 101, "two_tower", 0, 0, "no_calibration")
    os.makedirs(f"{work}/models/empty")
    main = "[{name: main, salt: s1, variants: [{name: a, model: dat, weight: 50}, {name: b, model: tt, weight: 50}]}]"
    with Daemon(work, ["dat", "tt", "empty"], main, wait_ready=False) as d:
        d.until(lambda: not any(m["busy"] for m in d.admin.get("/v1/admin/models")[1].get("models", [{"busy": True}])), "idle models")
        bodies(d)
        protocol(d)
        administration(d, work)
    shutil.rmtree(f"{work}/models/dat/2")
    shutil.rmtree(f"{work}/models/dat/3")
    under_load(work)
    too_many(work)
    keys(work)
    want = table()
    if len(want) < 40:
        fail(f"the table of docs/api.md was not understood: {want}")
    for code, test in ELSEWHERE.items():
        with open(os.path.join(SOURCE, test), encoding="utf-8") as f:
            check(f"{test} has {code}", code in f.read(), True)
    check("in docs/api.md, and not provoked", want - seen, {(s, c) for s, c in want if c in ELSEWHERE})
    check("provoked, and not in docs/api.md", seen - want, set())


def query_parameters(work):
    """A query parameter that is there and cannot be read is taken for one that is not."""
    publish(f"{work}/models", "dat", 1, 1)
    with Daemon(work, ["dat"]) as d:
        similar, reload = "/v1/items/i7/similar", "/v1/admin/models/dat:reload"
        for client, method, path, name in ((d.data, "GET", f"{similar}?k=5&k=6", "k"), (d.data, "GET", f"{similar}?k=5&k=5", "k"), (d.data, "GET", f"{similar}?ef=%", "ef"),
                                           (d.data, "GET", f"{similar}?k={'9' * 24}", "k"), (d.data, "GET", f"{similar}?k={'9' * 23}", "k"), (d.data, "GET", f"{similar}?k={1 << 64}", "k"),
                                           (d.data, "GET", f"{similar}?k={'0' * 30}5", "k"), (d.data, "GET", f"{similar}?k=-1", "k"), (d.data, "GET", f"{similar}?k=", "k"), (d.data, "GET", f"{similar}?k=5x", "k"),
                                           (d.data, "GET", f"{similar}?k=+5", "k"), (d.data, "GET", f"{similar}?model=dat&model=tt", "model"), (d.data, "GET", f"{similar}?model={'x' * 65}", "model"),
                                           (d.data, "GET", f"{similar}?model=%0a", "model"), (d.admin, "POST", f"{reload}?wait=true&wait=true", "wait"), (d.admin, "POST", f"{reload}?wait=yes", "wait"),
                                           (d.admin, "POST", f"{reload}?wait={'true' * 9}", "wait")):
            status, answer, _ = client.call(method, path)
            if (status, answer["code"]) != (400, "invalid_value") or not answer["detail"].startswith(f"{name}: "):
                fail(f"{path}: {status} {answer}")
        for path, status in ((f"{similar}?k=10001", 422), (f"{similar}?k={(1 << 64) - 1}", 422), (f"{similar}?k=007", 200), (f"{similar}?other=1&other=2", 200)):
            check(path, d.data.get(path)[0], status)
        check("no operation was begun", d.admin.get("/v1/admin/operations")[1]["operations"][1:], [])
        check("a user twice", d.data.get("/v1/experiments:assign?user_id=u1&user_id=u2")[1]["code"], "missing_parameter")
        check("a probe", [d.admin.get(f"/livez?verbose{more}", raw=True)[0] for more in ("", "&verbose", "=%", "=" + "x" * 99)], [200] * 4)


def other_methods(work):
    """A path answers a method that it does not have, or does not say which ones it has."""
    publish(f"{work}/models", "dat", 1, 1)
    with open(os.path.join(SOURCE, "docs", "openapi.json"), encoding="utf-8") as f:
        paths = json.load(f)["paths"]
    with Daemon(work, ["dat"]) as d:
        for pattern, operations in paths.items():
            path = pattern.replace("{m}", "dat").replace("{id}", "i1")
            allowed = {m.upper() for m in operations if m != "servers"}
            for client in (d.data, d.admin):
                for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - allowed:
                    status, answer, headers = client.call(method, path)
                    if status == 404 and answer["code"] == "unknown_route":
                        continue  # a path of the other listener
                    check(f"{method} {path}", (status, answer["code"]), (405, "method_not_allowed"))
                    check(f"{method} {path}: Allow", {m for m in headers["Allow"].split(", ")} - {"HEAD"}, allowed)
            status = [c.call(next(iter({"GET", "POST", "PUT"} - allowed)), path)[0] for c in (d.data, d.admin)]
            check(f"{path} is on a listener", 405 in status, True)


def headers_of_answers(work):
    """A header that docs/api.md and design promise is not taken or not there."""
    publish(f"{work}/models", "dat", 1, 1)
    main = "[{name: main, salt: s1, variants: [{name: a, weight: 100}, {name: b, weight: 0, ef: 77}]}]"
    with Daemon(work, ["dat"], main) as d:
        requests = (("/v1/retrieve", {"user_id": "u1"}), ("/v1/search", {"vector": [0.5] * 16}), ("/v1/score", {"user_id": "u1", "item_ids": ["i1"]}),
                    ("/v1/retrieve:batch", {"requests": [{"user_id": "u1"}]}))
        for path, body in requests:
            status, answer, headers = d.data.post(path, body, headers={"X-Request-Id": "id-1.x"})
            check(path, (status, answer["request_id"], headers["X-Request-Id"], headers["Content-Type"]), (200, "id-1.x", "id-1.x", "application/json"))
            if not re.fullmatch(r"embed;dur=\d+\.\d{3}, search;dur=\d+\.\d{3}", headers["Server-Timing"] or ""):
                fail(f"{path}: Server-Timing {headers['Server-Timing']!r}")
        made = d.data.post("/v1/retrieve", {}, headers={"X-Request-Id": "not sane"})
        if not re.fullmatch(r"[0-9a-f]{16}", made[2]["X-Request-Id"]) or made[1]["request_id"] != made[2]["X-Request-Id"]:
            fail(f"an id made here: {made[2]['X-Request-Id']}")
        forced = d.data.post("/v1/retrieve", {"user_id": "u1"}, headers={"X-Experiment-Override": "main=b"})[1]
        check("override", (forced["experiment"], forced["ef_used"]), ({"main": "b"}, 100))  # ef is raised to k
        check("ETag", d.admin.get("/v1/admin/experiments")[2]["ETag"], '"%d"' % d.admin.get("/v1/admin/experiments")[1]["revision"])
        place = d.admin.post("/v1/admin/models/dat:verify", {"version": 1})
        check("Location", (place[0], place[2]["Location"]), (202, f"/v1/admin/operations/{place[1]['id']}"))


def what_is_no_http(work):
    """Bytes that are no HTTP are answered otherwise than docs/api.md says, or not at all."""
    publish(f"{work}/models", "dat", 1, 1)
    get, post = b"GET /livez HTTP/1.1\r\nHost: d\r\n", b"POST /v1/retrieve HTTP/1.1\r\nHost: d\r\n"
    with Daemon(work, ["dat"]) as d:
        for what, sent, status in (("no header", get + b"no header\r\n\r\n", 400), ("no number", post + b"Content-Length: -1\r\n\r\n", 400),
                                   ("a broken chunk", post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400), ("beyond 64 bits", post + b"Content-Length: 99999999999999999999999\r\n\r\n", 413),
                                   ("a long target", b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: d\r\n\r\n", 414), ("a long header", get + b"X: " + b"a" * 40000 + b"\r\n\r\n", 431),
                                   ("another version", b"GET /livez HTTP/3.0\r\nHost: d\r\n\r\n", 505)):
            with socket.create_connection(("127.0.0.1", d.data_port), timeout=20) as s:
                s.sendall(sent)
                found = b""
                try:
                    while (part := s.recv(65536)):
                        found += part
                except ConnectionError:  # it closes before it has read all
                    pass
            head, _, body = found.partition(b"\r\n\r\n")
            check(what, (head.split()[1], b"content-type" in head.lower(), body.rstrip().endswith(b"</html>")), (str(status).encode(), False, True))
        check("the daemon", d.data.get("/livez", raw=True)[0], 200)


if __name__ == "__main__":
    run([every_code_of_the_documents, query_parameters, other_methods, headers_of_answers, what_is_no_http])
