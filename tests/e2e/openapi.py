"""docs/openapi.json against a real duetd: every path and method of the daemon is documented and the other way round, every documented
status is reached, and every answer's body is checked by its schema. A member of an answer that the document does not know is an error too.

    python3 openapi.py [test ...]
"""
import hashlib
import json
import os
import re
import socket
import threading
import time

from daemon import Client, Daemon, check, fail, publish, run

SOURCE = os.environ["DUET_SOURCE_DIR"]
with open(os.path.join(SOURCE, "docs", "openapi.json"), encoding="utf-8") as file:
    DOC = json.load(file)

# Documented, and not reached here: loops that are stuck for half a minute, and a machine without memory. tests/server covers them.
NOT_REACHED = {("POST", "/v1/retrieve:batch", 503), ("GET", "/livez", 503), ("POST", "/v1/admin/models/{m}:reload", 507), ("POST", "/v1/admin/models/{m}:verify", 507)}

MAIN = "[{name: main, salt: s1, variants: [{name: a, model: dat, weight: 50}, {name: b, model: tt, weight: 50, ef: 90, k: 7}]}]"


# ------------------------------------------------------------------------------------------------ schemas


TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def resolve(x):
    while "$ref" in x:
        at = DOC
        for part in x["$ref"][2:].split("/"):
            at = at[part]
        x = at
    return x


def is_type(v, name):
    if name == "integer":
        return isinstance(v, int) and not isinstance(v, bool)
    if name == "number":
        return isinstance(v, (int, float)) and not isinstance(v, bool)
    return isinstance(v, TYPES[name])


def errors(v, schema, where, closed=True):
    """What is wrong with a value; the part of JSON Schema 2020-12 that docs/openapi.json uses."""
    schema = resolve(schema)
    unknown = set(schema) - {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum", "maximum", "minLength", "pattern",
                             "minItems", "maxItems", "oneOf", "description", "default"}
    if unknown:
        return [f"{where}: this test does not know the keywords {unknown}"]
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    if types and not any(is_type(v, t) for t in types):
        return [f"{where}: found {v!r:.80}, want {types}"]
    out = []
    if "enum" in schema and v not in schema["enum"] or "const" in schema and v != schema["const"]:
        out.append(f"{where}: found {v!r}, want {schema.get('enum', schema.get('const'))}")
    if isinstance(v, (int, float)) and not schema.get("minimum", v) <= v <= schema.get("maximum", v):
        out.append(f"{where}: {v} is out of range")
    if isinstance(v, str) and (len(v) < schema.get("minLength", 0) or not re.search(schema.get("pattern", ""), v)):
        out.append(f"{where}: {v!r} does not fit {schema}")
    if isinstance(v, list):
        if not schema.get("minItems", 0) <= len(v) <= schema.get("maxItems", len(v)):
            out.append(f"{where}: {len(v)} items")
        for i, one in enumerate(v):
            out += errors(one, schema.get("items", {}), f"{where}/{i}", closed)
    if isinstance(v, dict):
        out += object_errors(v, schema, where, closed)
    if "oneOf" in schema:
        fits = sum(not errors(v, one, where, closed and "properties" in resolve(one)) for one in schema["oneOf"])
        if fits != 1:
            out.append(f"{where}: {v!r:.80} fits {fits} of the alternatives")
    return out


def object_errors(v, schema, where, closed):
    out = [f"{where}: '{key}' is missing" for key in schema.get("required", []) if key not in v]
    more = schema.get("additionalProperties")
    for key, value in v.items():
        if key in schema.get("properties", {}):
            out += errors(value, schema["properties"][key], f"{where}/{key}", closed)
        elif isinstance(more, dict):
            out += errors(value, more, f"{where}/{key}", closed)
        elif more is False or (closed and schema.get("properties")):
            out.append(f"{where}: '{key}' is not documented")
    return out


# ------------------------------------------------------------------------------------------------ calls


reached = set()


def operation_of(method, path):
    for pattern, operations in DOC["paths"].items():
        if method.lower() in operations and re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/:]+", re.escape(pattern)), path.split("?")[0]):
            return pattern, operations[method.lower()]
    fail(f"{method} {path} is not documented")


def check_answer(method, path, status, headers, text):
    pattern, operation = operation_of(method, path)
    if str(status) not in operation["responses"]:
        fail(f"{method} {path}: status {status} is not documented: {text[:300]}")
    answer = resolve(operation["responses"][str(status)])
    kind = headers["Content-Type"].split(";")[0]
    if kind not in answer["content"]:
        fail(f"{method} {path} {status}: type {kind}, documented {list(answer['content'])}")
    if kind.endswith("json"):
        wrong = errors(json.loads(text), answer["content"][kind]["schema"], f"{method} {path} {status}")
        if wrong:
            fail("; ".join(wrong[:5]))
    if "problem" in kind and json.loads(text)["code"] not in answer["description"]:
        fail(f"{method} {path} {status}: code {json.loads(text)['code']} is not in '{answer['description']}'")
    reached.add((method, pattern, status))


def call(client, want, method, path, body=None, headers=None):
    pattern, operation = operation_of(method, path)
    if body is not None and want < 300 and "requestBody" in operation:  # what is taken is documented
        wrong = errors(body, operation["requestBody"]["content"]["application/json"]["schema"], f"{method} {path}", False)
        if wrong:
            fail(f"a request that works is not documented: {wrong}")
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}  # its answer is documented
    status, text, found = client.call(method, path, body, headers={**trace, **(headers or {})}, raw=True)
    check(f"{method} {path} {text[:300]}", status, want)
    check_answer(method, path, status, found, text)
    for name in resolve(operation["responses"][str(status)]).get("headers", {}):
        if name not in found and not (name == "Retry-After" and status == 409):
            fail(f"{method} {path} {status}: the documented header {name} is not there")
    return json.loads(text) if "json" in found["Content-Type"] else text


def raw(d, path, head, body):
    """A request whose body comes late, or not at all."""
    with socket.create_connection(("127.0.0.1", d.data_port)) as s:
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{head}\r\n\r\n".encode())
        time.sleep(0.1)
        s.sendall(body)
        data = b""
        while part := s.recv(65536):
            data += part
    first, text = data.split(b"\r\n\r\n", 1)
    headers = dict(line.split(": ", 1) for line in first.decode().split("\r\n")[1:])
    status = int(first.split()[1])
    check_answer("POST", path, status, headers, text.decode())
    return status


# ------------------------------------------------------------------------------------------------ tests


def queries(d):
    vector = [0.25] * 16
    for path, more in (("/v1/retrieve", {}), ("/v1/users:embed", {}), ("/v1/score", {"item_ids": ["i1", 2]}), ("/v1/search", {"vector": vector}), ("/v1/explain", {"item_id": "i1"})):
        users = [{}] if path == "/v1/search" else [{"user_id": "u1"}, {"user_id": "stranger"},
                                                   {"user_id": 17, "model": "dat", "features": {"city": "?", "likes": ["tea"]}, "history": ["i1"]}]
        for user in users:
            call(d.data, 200, "POST", path, {**user, **more})
        call(d.data, 400, "POST", path, "{")
        call(d.data, 400, "POST", path, {"user": 1})
        call(d.data, 400, "POST", path, {"user_id": {}})
        call(d.data, 400, "POST", path, more, {"X-Experiment-Override": "main=zz"})
        call(d.data, 404, "POST", path, {"model": "none", **more})
        check("too large", raw(d, path, f"Content-Length: {1 << 21}", b""), 413)
        call(d.data, 415, "POST", path, "{}", {"Content-Type": "text/plain"})
        bad = {"vector": [1]} if path == "/v1/search" else {"features": {"none": 1}}
        call(d.data, 422, "POST", path, {"model": "dat", **more, **bad})
        call(d.data, 503, "POST", path, {"model": "empty", **more})
        body = json.dumps(more).encode()
        check("late", raw(d, path, f"X-Request-Timeout-Ms: 1\r\nContent-Length: {len(body)}", body), 504)
    call(d.data, 200, "POST", "/v1/explain", {"user_id": "u1", "item_id": "i2", "k": 3, "exact": True, "exclude_ids": ["i2"], "exclude_seen": True, "min_score": 2})
    batch = "/v1/retrieve:batch"
    call(d.data, 200, "POST", batch, {"requests": [{"user_id": "u1", "k": 3, "max_per_category": 2, "categories": {"food": {"min": 1, "max": 2}}}, {"model": "none"}, {"model": "empty"}]})
    call(d.data, 400, "POST", batch, {"request": []})
    call(d.data, 400, "POST", batch, {"requests": []})
    call(d.data, 422, "POST", batch, {"requests": [{}] * 257})
    call(d.data, 415, "POST", batch, "{}", {"Content-Type": "text/plain"})
    check("too large", raw(d, batch, f"Content-Length: {1 << 21}", b""), 413)
    body = json.dumps({"requests": [{}]}).encode()
    check("late", raw(d, batch, f"X-Request-Timeout-Ms: 1\r\nContent-Length: {len(body)}", body), 504)
    similar = "/v1/items/i7/similar"
    call(d.data, 200, "GET", similar)
    call(d.data, 200, "GET", similar + "?k=3&ef=50&model=tt")
    call(d.data, 400, "GET", similar, None, {"X-Experiment-Override": "main=zz"})
    call(d.data, 404, "GET", "/v1/items/none/similar")
    call(d.data, 400, "GET", similar + "?k=0")
    call(d.data, 422, "GET", similar + "?k=10001")
    call(d.data, 503, "GET", similar + "?model=empty")
    everything = {"user_id": "u1", "model": "dat", "k": 3, "ef": 50, "exact": True, "exclude_ids": ["i1", 2], "exclude_seen": True, "min_score": -1,
                  "filter": {"and": [{"field": "category", "in": ["food", 7]}, {"not": {"or": [{"field": "price", "gte": 10, "lt": 50}, {"field": "tags", "not_in": ["a"]}]}}]}, "fields": ["title", "category"]}
    call(d.data, 200, "POST", "/v1/retrieve", {**everything, "format": "rows"})
    call(d.data, 200, "POST", "/v1/retrieve", {**everything, "format": "columns"})
    call(d.data, 200, "POST", "/v1/search", {**{k: v for k, v in everything.items() if k not in ("user_id", "exclude_seen")}, "vector": vector, "include_ids": ["i5"]})
    call(d.data, 422, "POST", "/v1/retrieve", {"k": 10001})
    for path, body in (("/v1/retrieve", {}), ("/v1/search", {"vector": vector})):
        status, _, headers = d.data.call("POST", path, json.dumps(body), headers={"Accept": "application/octet-stream"}, raw=True)
        check_answer("POST", path, status, headers, b"")


def lists(d):
    for client in (d.data, d.admin):
        call(client, 200, "GET", "/v1/models")
        for model in ("dat", "empty"):
            call(client, 200, "GET", f"/v1/models/{model}")
        call(client, 404, "GET", "/v1/models/none")
        call(client, 200, "GET", "/v1/models/dat/ready")
        call(client, 404, "GET", "/v1/models/none/ready")
        call(client, 503, "GET", "/v1/models/empty/ready")
        call(client, 200, "GET", "/v1/experiments:assign?user_id=u1")
        call(client, 200, "GET", "/v1/experiments:assign?user_id=u1", None, {"X-Experiment-Override": "main=b"})
        call(client, 400, "GET", "/v1/experiments:assign")
        call(client, 200, "GET", "/livez")
        call(client, 503, "GET", "/readyz?verbose")  # a model is missing
        check("served", call(client, 200, "GET", "/openapi.json"), DOC)
    call(d.admin, 200, "GET", "/metrics")


def idle(d):
    d.until(lambda: not any(m["busy"] for m in d.admin.get("/v1/admin/models")[1].get("models", [{"busy": True}])), "idle models")


def while_busy(d, path):
    """Ask while a large version is verified; it may be over too soon."""
    waiter = threading.Thread(target=lambda: Client(d.admin_port).post("/v1/admin/models/dat:verify?wait=true", {"version": 3}))
    waiter.start()
    status = 0
    while status != 409 and waiter.is_alive():
        status, text, headers = d.admin.call("POST", path, raw=True)
    if status == 409:
        check_answer("POST", path, status, headers, text)
    waiter.join()
    idle(d)


def operations(d):
    base = "/v1/admin/models/"
    for what in ("reload", "verify", "rollback"):
        body = None if what == "rollback" else {"version": 2 if what == "reload" else 1}
        call(d.admin, 200, "POST", f"{base}dat:{what}?wait=true", body)
        place = call(d.admin, 202, "POST", f"{base}tt:{what}", None if what == "rollback" else {}) if what != "rollback" else None
        idle(d)
        call(d.admin, 400, "POST", f"{base}dat:{what}", {"versoin": 1})
        call(d.admin, 404, "POST", f"{base}none:{what}")
        if place:
            call(d.admin, 200, "GET", f"/v1/admin/operations/{place['id']}")
            call(d.admin, 404, "POST", f"{base}dat:{what}?wait=true", {"version": 99})
            call(d.admin, 422, "POST", f"{base}dat:{what}?wait=true", {"version": 4})
    call(d.admin, 404, "POST", f"{base}tt:rollback?wait=true")
    call(d.admin, 202, "POST", f"{base}dat:rollback")
    idle(d)
    for what in ("reload", "verify", "rollback"):
        for _ in range(50):
            if ("POST", base + "{m}:" + what, 409) not in reached:
                while_busy(d, f"{base}dat:{what}")
    call(d.admin, 200, "GET", "/v1/admin/models")
    call(d.admin, 200, "GET", "/v1/admin/operations")
    call(d.admin, 404, "GET", "/v1/admin/operations/0-0")


def table(d):
    path = "/v1/admin/experiments"
    now = call(d.admin, 200, "GET", path)
    call(d.admin, 200, "PUT", path, now)
    call(d.admin, 200, "PUT", path, {"experiments": [{"name": "x", "variants": [{"name": "a", "weight": 100}]}]})
    call(d.admin, 400, "PUT", path, {"experimetns": []})
    call(d.admin, 400, "PUT", path, now, {"If-Match": "x"})
    call(d.admin, 412, "PUT", path, now, {"If-Match": '"99"'})
    call(d.admin, 422, "PUT", path, {"experiments": [{"name": "x", "variants": []}]})


def labels(d):
    path = "/v1/admin/labels"
    now = call(d.admin, 200, "GET", path)
    call(d.admin, 200, "PUT", path, now)
    call(d.admin, 200, "PUT", path, {"labels": {"dat@next": "dat"}})
    call(d.admin, 400, "PUT", path, {"label": {}})
    call(d.admin, 412, "PUT", path, now, {"If-Match": '"99"'})
    call(d.admin, 422, "PUT", path, {"labels": {"dat@next": "nothing"}})


def itself(d):
    call(d.admin, 200, "GET", "/v1/admin/config")
    call(d.admin, 200, "PUT", "/v1/admin/log-level", {"level": "info"})
    call(d.admin, 400, "PUT", "/v1/admin/log-level", {"level": "loud"})


def token_and_drain(work):
    with open(f"{work}/token", "w", encoding="utf-8") as f:
        f.write("0123456789abcdef\n")
    d = Daemon(work, ["dat", "tt"], state=False, delay_ms=1500, extra=("--set", f"admin.token_file={work}/token"))
    allowed = {"Authorization": "Bearer 0123456789abcdef"}
    for pattern, operations_ in DOC["paths"].items():
        for method, operation in operations_.items():
            if method != "servers" and {"token": []} in operation.get("security", []):
                call(d.admin, 401, method.upper(), pattern.replace("{m}", "dat").replace("{id}", "1-1"))
    call(d.admin, 409, "PUT", "/v1/admin/experiments", {"experiments": []}, allowed)
    call(d.admin, 409, "PUT", "/v1/admin/labels", {"labels": {}}, allowed)
    for path in ("/readyz", "/startupz"):
        call(d.admin, 200, "GET", path)
    call(d.admin, 202, "POST", "/v1/admin/drain", None, allowed)
    d.told = True
    d.stop()


def keys(work):
    with open(f"{work}/keys", "w", encoding="utf-8") as f:
        f.write(f"keys: [{{name: spent, sha256: '{hashlib.sha256(b'spent').hexdigest()}', requests_per_s: 0.001}}]\n")
    spent = {"X-Api-Key": "spent"}
    with Daemon(work, ["dat", "tt"], state=False, extra=("--set", f"data.keys_file={work}/keys")) as d:
        call(d.data, 200, "GET", "/v1/models", None, spent)
        for pattern, operations_ in DOC["paths"].items():
            for method, operation in operations_.items():
                path = pattern.replace("{m}", "dat").replace("{id}", "i1")
                if method != "servers" and {"key": []} in operation.get("security", []):
                    call(d.data, 401, method.upper(), path)
                    call(d.data, 429, method.upper(), path, None, spent)
                elif method != "servers" and "servers" not in operations_:  # the others need none
                    check(path, d.data.call(method.upper(), path, raw=True)[0], 200)


def starting(work):
    """A first load that takes its time, for its version is warmed up with as many requests as it may be."""
    with open(f"{work}/recorded", "w", encoding="utf-8") as f:
        f.write('{"model": "tt", "k": 300, "exact": true, "user_id": "u1"}\n' * 200000)
    with Daemon(work, ["tt"], wait_ready=False, extra=("--set", f"warm.path={work}/recorded", "--set", "warm.requests=1000000", "--set", "warm.max_ms=3000")) as d:
        call(d.admin, 503, "GET", "/startupz")


def document_and_daemon_agree(work):
    """A client that is made from docs/openapi.json does not fit the daemon."""
    for v in (1, 2, 4):
        publish(f"{work}/models", "dat", v, v)
    publish(f"{work}/models", "dat", 3, 3, "dat", 3000, 200)
    publish(f"{work}/models", "tt", 1, 101, "two_tower")
    os.makedirs(f"{work}/models/empty")
    with open(f"{work}/models/dat/4/users.pack", "r+b") as f:
        f.truncate(100)
    starting(work)
    with Daemon(work, ["dat", "tt", "empty"], MAIN, wait_ready=False) as d:
        call(d.admin, 503, "GET", "/readyz")
        idle(d)
        queries(d)
        lists(d)
        operations(d)
        table(d)
        labels(d)
        itself(d)
    token_and_drain(work)
    keys(work)
    want = {(m.upper(), p, int(s)) for p, o in DOC["paths"].items() for m in o if m != "servers" for s in o[m]["responses"]}
    check("documented, and not reached", want - reached, NOT_REACHED)


def every_route_is_documented(work):
    """A route of the daemon is not in docs/openapi.json, or one there is not the daemon's."""
    routes = set()
    for name in os.listdir(os.path.join(SOURCE, "server")):
        if name.endswith(".c"):
            with open(os.path.join(SOURCE, "server", name), encoding="utf-8") as f:
                text = f.read()
            routes |= set(re.findall(r'\.method = HTTP_(\w+),\s*\.pattern = "([^"]+)"', text))
            routes |= {("GET", path) for path in re.findall(r'\bHEALTH\("([^"]+)"', text)}
    check("routes", {(m.upper(), p) for p, o in DOC["paths"].items() for m in o if m != "servers"}, routes)


def the_document_is_sound(work):
    """References lead nowhere, parameters of paths are not declared, ids are not unique."""
    text = json.dumps(DOC)
    for target in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        resolve({"$ref": target})
    check("version", DOC["openapi"], "3.1.0")
    ids = [o[m]["operationId"] for o in DOC["paths"].values() for m in o if m != "servers"]
    check("operationIds", len(ids), len(set(ids)))
    for path, operations_ in DOC["paths"].items():
        for method, operation in operations_.items():
            if method != "servers":
                declared = {resolve(p)["name"] for p in operation.get("parameters", []) if resolve(p)["in"] == "path"}
                check(f"{method} {path}", declared, set(re.findall(r"\{(\w+)\}", path)))
    for kind in ("schemas", "parameters", "responses"):
        for name in DOC["components"][kind]:
            if f"#/components/{kind}/{name}\"" not in text:
                fail(f"components/{kind}/{name} is not used")


if __name__ == "__main__":
    run([the_document_is_sound, every_route_is_documented, document_and_daemon_agree])
