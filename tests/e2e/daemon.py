"""A real duetd on port 0 over bundles of a made-up world, and a small HTTP client for it. Used by serve.py."""
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

BIN = os.environ["DUET_BIN_DIR"]
TESTS = os.path.join(os.path.dirname(BIN), "tests")


def fail(text):
    raise AssertionError(text)


def check(what, found, want):
    if found != want:
        fail(f"{what}: found {found!r}, want {want!r}")


def publish(repository, name, version, seed, kind="dat", *more):
    p = subprocess.run([os.path.join(TESTS, "world_bundle"), repository, name, str(version), str(seed), kind, *map(str, more)],
                       capture_output=True, text=True)
    check("world_bundle", (p.returncode, p.stderr), (0, ""))
    return p.stdout.strip()


def flip_bit(path, share=0.5):
    with open(path, "r+b") as f:
        f.seek(int(os.path.getsize(path) * share))
        byte = f.read(1)[0]
        f.seek(-1, 1)
        f.write(bytes([byte ^ 8]))


class Client:
    """One keep-alive connection, by TLS with a context; not for several threads."""

    def __init__(self, port, tls=None):
        self.port, self.tls, self.conn = port, tls, None

    def call(self, method, path, body=None, headers=None, raw=False):
        if self.conn is None:
            self.conn = (http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.tls) if self.tls else
                         http.client.HTTPConnection("127.0.0.1", self.port, timeout=60))
        data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        head = {"Content-Type": "application/json", **(headers or {})} if data is not None else headers or {}
        self.conn.request(method, path, data, head)
        r = self.conn.getresponse()
        text = r.read()
        if r.getheader("Connection", "").lower() == "close":
            self.close()
        return r.status, text if raw else json.loads(text), r.headers

    def get(self, path, **kw):
        return self.call("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.call("POST", path, body, **kw)

    def close(self):
        if self.conn:
            self.conn.close()
        self.conn = None


class Daemon:
    def __init__(self, work, models, experiments="[]", state=True, delay_ms=100, wait_ready=True, extra=(), launcher=(), pass_fds=(), data_tls=None, admin_tls=None):
        self.work, self.told = work, False
        self.config = os.path.join(work, "duetd.yaml")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write("data: {port: 0}\nadmin: {port: 0}\nload: {check_memory: false}\n"
                    f"drain: {{delay_ms: {delay_ms}, timeout_ms: 20000}}\nhttp: {{deadline_ms: 60000}}\nadmission: {{max_lag_ms: 0}}\n")
            if state:
                f.write(f"state: {{path: {work}/state.json}}\n")
            f.write("models:\n" + "".join(f"  - {m if m[0] == '{' else f'{{name: {m}, path: {work}/models/{m}}}'}\n" for m in models))
            f.write(f"experiments: {experiments}\n")
        ports = os.path.join(work, "ports.json")
        if os.path.exists(ports):
            os.remove(ports)
        self.log_path = os.path.join(work, "duetd.log")
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen([*launcher, os.path.join(BIN, "duetd"), "--config", self.config, "--ports-file", ports, *extra], pass_fds=pass_fds,
                                        stderr=self.log, stdout=self.log)
        self.until(lambda: os.path.exists(ports), "ports file")
        with open(ports, encoding="utf-8") as f:
            p = json.load(f)
        self.data_port, self.admin_port = p["data"], p["admin"]
        self.data, self.admin = Client(self.data_port, data_tls), Client(self.admin_port, admin_tls)
        if wait_ready:
            self.until(lambda: self.admin.get("/readyz", raw=True)[0] == 200, "readiness")

    def until(self, true, what, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            if self.process.poll() is not None:
                fail(f"duetd ended ({self.process.returncode}) while waiting for {what}\n{self.logged()[-3000:]}")
            if time.monotonic() > end:
                fail(f"no {what} after {seconds} s\n{self.logged()[-3000:]}")
            time.sleep(0.01)

    def logged(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def operate(self, model, what, version=None):
        body = None if version is None else {"version": version}
        return self.admin.post(f"/v1/admin/models/{model}:{what}?wait=true", body)

    def tell_to_stop(self):
        self.told = True  # a second signal would not wait for the drain
        self.process.send_signal(signal.SIGTERM)

    def stop(self, want=0):
        self.data.close()
        self.admin.close()
        if self.process.poll() is None and not self.told:
            self.tell_to_stop()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            fail(f"duetd did not stop\n{self.logged()[-3000:]}")
        self.log.close()
        if code != want:
            fail(f"duetd: exit {code}, want {want}\n{self.logged()[-3000:]}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.process.kill()
            self.process.wait()
            sys.stderr.write(self.logged()[-2000:])


def run(tests):
    """Run the functions, each in a folder of its own; names given as arguments pick some."""
    failed = 0
    for t in [t for t in tests if len(sys.argv) == 1 or t.__name__ in sys.argv[1:]]:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="duet-e2e-") as work:
            try:
                t(work)
                print(f"ok   {t.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
            except Exception as e:  # the next tests still run
                failed += 1
                print(f"FAIL {t.__name__}: {type(e).__name__}: {e}", flush=True)
    sys.exit(1 if failed else 0)
