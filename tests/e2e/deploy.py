"""What deploy/ holds, against the real programs: container, systemd, Kubernetes, Helm, Prometheus, Grafana, HAProxy.

Checks that want a tool (promtool, systemd-analyze, helm, kubectl, haproxy) are left out where it is not installed, and say so.
    python3 deploy.py [test ...]
"""
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

try:
    import yaml
except ImportError:  # another interpreter may have it: Debian's python3-yaml belongs to /usr/bin/python3
    import sys
    if sys.executable != "/usr/bin/python3" and subprocess.run(["/usr/bin/python3", "-c", "import yaml"], capture_output=True).returncode == 0:
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-B", *sys.argv])
    print("skipped: python3-yaml is not installed")
    sys.exit(77)

import certs
from daemon import BIN, TESTS, Daemon, check, fail, publish, run

SOURCE = os.environ["DUET_SOURCE_DIR"]
DEPLOY = os.path.join(SOURCE, "deploy")
DUETD = os.path.join(BIN, "duetd")


def read(*path):
    with open(os.path.join(DEPLOY, *path), encoding="utf-8") as f:
        return f.read()


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        print(f"     without {name}: not installed")
    return path


def succeeds(*args, **kw):
    p = subprocess.run(args, capture_output=True, text=True, timeout=120, **kw)
    if p.returncode != 0:
        fail(f"{' '.join(args)}: exit {p.returncode}\n{p.stdout}{p.stderr}")
    return p.stdout + p.stderr


def need(ok, what):
    if not ok:
        fail(what)


# ------------------------------------------------------------------------------------------------ container


def container(work):
    """An image would lack a library, a program, or the user that it runs as."""
    text = read("Dockerfile")
    root = f"{work}/root"
    succeeds("cmake", "--install", os.path.dirname(BIN), "--prefix", root)
    sanitized = "libasan" in succeeds("ldd", DUETD) or "libtsan" in succeeds("ldd", DUETD)
    group = set(re.search(r'^run="([^"]*)"', read("setup.sh"), re.M).group(1).split())
    for program in ("duetd", "duet"):
        need(f"/usr/local/bin/{program}" in text, f"{program} is not copied into the image")
        need("duet" in succeeds(f"{root}/bin/{program}", "--version"), "the installed program does not run")
        needed = re.findall(r"NEEDED\s+Shared library: \[([^\]]*)\]", succeeds("readelf", "-d", f"{root}/bin/{program}")) if shutil.which("readelf") else []
        for library in needed:
            if sanitized or not shutil.which("dpkg-query") or re.match(r"lib(c|m)\.so|ld-linux", library):
                continue
            path = re.search(rf"{re.escape(library)} => (\S+)", succeeds("ldd", f"{root}/bin/{program}")).group(1)
            found = subprocess.run(["dpkg-query", "-S", f"*/{library}"], capture_output=True, text=True).stdout
            owners = {line.split(":")[0] for line in found.splitlines()}
            if "libopenblas.so.0" in path or library.startswith("libopenblas"):
                owners.add("libopenblas0-pthread")  # through update-alternatives
            need(owners & group or owners & {"libgcc-s1", "libc6"}, f"{program} needs {library} of {owners}, which setup.sh's group run lacks: {group}")
    stages = text.split("\nFROM ")
    need(len(stages) == 3 and "USER 10001" in stages[2] and "setup.sh run" in stages[2], "the image's second stage")
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for name in source.split():
            need(os.path.exists(os.path.join(SOURCE, name)), f"COPY {name}: there is none")
    need(json.loads(re.search(r"HEALTHCHECK.*\n\s+CMD (\[.*\])", text).group(1))[3:] == ["--probe", "livez"], "HEALTHCHECK")


def probe(work):
    """A health check says the wrong thing, or needs curl."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    publish(f"{work}/models", "dat", 1, 1)

    def ask(what, want):
        p = subprocess.run([DUETD, "--set", f"admin.port={port}", "--set", "admin.address=0.0.0.0", "--probe", what], capture_output=True, text=True)
        check(f"probe {what}: {p.stderr}", p.returncode, want)
        return p.stderr
    need("refused" in ask("livez", 1), "nobody listens")
    d = Daemon(work, ["dat"], delay_ms=1500, extra=("--set", f"admin.port={port}"))
    for what in ("livez", "readyz", "startupz"):
        ask(what, 0)
    need("404" in ask("nothing", 1), "status")
    d.tell_to_stop()
    d.until(lambda: d.admin.get("/readyz", raw=True)[0] == 503, "drain")
    need("503" in ask("readyz", 1), "draining")
    ask("livez", 0)
    d.stop()


# ------------------------------------------------------------------------------------------------ systemd


def notifies(work):
    """systemd is not told that the service is up, alive or stopping."""
    publish(f"{work}/models", "dat", 1, 1)
    for address in (f"{work}/notify", "\0duet-test-%d" % os.getpid()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(address)
            s.settimeout(20)
            os.environ.update({"NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "400000"})
            try:
                d = Daemon(work, ["dat"], delay_ms=300)
            finally:
                del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
            first = s.recv(4096).decode()
            need(first.startswith("READY=1"), f"first: {first}")
            check("alive", s.recv(4096).decode(), "WATCHDOG=1")
            d.process.send_signal(signal.SIGHUP)
            seen = [s.recv(4096).decode() for _ in range(6)]
            need(any(m.startswith("RELOADING=1\nMONOTONIC_USEC=") for m in seen) and any(m.startswith("READY=1") for m in seen), f"reload: {seen}")
            need(seen.count("WATCHDOG=1") >= 2, f"{seen}")
            d.tell_to_stop()
            end = time.monotonic() + 10
            while not s.recv(4096).decode().startswith("STOPPING=1"):
                need(time.monotonic() < end, "no STOPPING")
            d.stop()


def unit(work):
    """The unit does not start what was built, or systemd does not understand it."""
    text = read("systemd", "duetd.service")
    stop = int(re.search(r"^TimeoutStopSec=(\d+)", text, re.M).group(1))
    longest = int(re.search(r"^  timeout_ms: (\d+)", read("duetd.yaml"), re.M).group(1)) / 1000
    need(stop > longest + 5, f"TimeoutStopSec {stop}, drain.timeout_ms {longest} s")
    need(all(call in text for call in ("setpriority", "sched_setattr", "prlimit64")), "calls that duetd makes are filtered")
    analyze = tool("systemd-analyze")
    if not analyze:
        return
    path = f"{work}/duetd.service"
    os.symlink(DUETD, f"{work}/duetd")  # neither path may hold spaces in a unit
    os.symlink(os.path.join(DEPLOY, "duetd.yaml"), f"{work}/duetd.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("/usr/local/bin/duetd", f"{work}/duetd").replace("/etc/duet/duetd.yaml", f"{work}/duetd.yaml"))
    said = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True).stderr
    ours = [line for line in said.splitlines() if "duetd.service" in line]
    check("systemd-analyze verify", ours, [])
    for name in ("data", "admin"):
        socket_text = read("systemd", f"duetd-{name}.socket")
        port = re.search(rf"^{name}:\n(?:  .*\n)*?  port: (\d+)", read("duetd.yaml"), re.M).group(1)
        for line in (f"FileDescriptorName={name}", f"ListenStream=127.0.0.1:{port}", "Service=duetd.service"):
            need(line in socket_text.splitlines(), f"duetd-{name}.socket: no {line}")
        with open(f"{work}/duetd-{name}.socket", "w", encoding="utf-8") as f:
            f.write(socket_text)
    sockets = [f"{work}/duetd-{name}.socket" for name in ("data", "admin")]
    said = subprocess.run([analyze, "verify", "--man=no", *sockets], capture_output=True, text=True).stderr
    check("systemd-analyze verify, sockets", [line for line in said.splitlines() if "duetd" in line], [])
    p = subprocess.run([analyze, "security", "--offline=yes", "--no-pager", path], capture_output=True, text=True)
    exposure = re.search(r"Overall exposure level for duetd.service: ([0-9.]+)", p.stdout)
    if p.returncode == 0 and exposure and float(exposure.group(1)) > 2.0:
        fail(f"exposure {exposure.group(1)}, want at most 2.0\n{p.stdout}")


# ------------------------------------------------------------------------------------------------ kubernetes


def manifests(text):
    return [m for m in yaml.safe_load_all(text) if m]


def of_kind(all_, kind):
    found = [m for m in all_ if m["kind"] == kind]
    need(found, f"no {kind}")
    return found


def check_config(work, text):
    path = f"{work}/configmap.yaml"
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    token = f"{work}/token"  # where the manifests mount it there is none here
    with open(token, "w", encoding="utf-8") as f:
        f.write("0123456789abcdef\n")
    succeeds(DUETD, "--config", path, "--check-config", "--set", f"admin.token_file={token}")
    return yaml.safe_load(text)


def check_cluster(work, all_):
    """What the API server would not find wrong, but a user would."""
    deployment, = of_kind(all_, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    container, = spec["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    config = check_config(work, of_kind(all_, "ConfigMap")[0]["data"]["duetd.yaml"])
    check("ports", ports, {"data": config["data"]["port"], "admin": config["admin"]["port"]})
    check("addresses", (config["data"]["address"], config["admin"]["address"]), ("0.0.0.0", "0.0.0.0"))
    for name, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        check(name, container[name]["httpGet"], {"path": path, "port": "admin"})
    drain = config["drain"]
    noticed = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    need(drain["delay_ms"] / 1000 >= 10 > noticed, "the drain is not longer than the removal from endpoints")
    need(spec["terminationGracePeriodSeconds"] * 1000 >= drain["timeout_ms"] + 5000 and drain["timeout_ms"] > drain["delay_ms"], "grace period")
    check("root", (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]), (True, 10001))
    check("container", container["securityContext"],
          {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    check("volumes", set(mounts.values()), {v["name"] for v in spec["volumes"]})
    for path in [m["path"] for m in config["models"]] + [config["state"]["path"], config["admin"]["token_file"]]:
        need(any(path.startswith(m + "/") for m in mounts), f"{path} is in no volume")
    names = {(m["kind"], m["metadata"]["name"]) for m in all_}
    for v in spec["volumes"]:
        for key, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            need(key not in v or (kind, v[key][name]) in names, f"{kind} of volume {v['name']} is not there")
    for m in all_:
        selector = m.get("spec", {}).get("selector") or m.get("spec", {}).get("podSelector") or {}
        selector = selector.get("matchLabels", selector) if m["kind"] != "PersistentVolumeClaim" else {}
        need(all(labels.get(k) == v for k, v in selector.items()), f"{m['kind']} {m['metadata']['name']} selects no pod")
        if m["kind"] == "Service":
            need(all(p["targetPort"] in ports for p in m["spec"]["ports"]), "target ports")
    autoscaler, = of_kind(all_, "HorizontalPodAutoscaler")
    check("autoscaler", autoscaler["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"])
    need(autoscaler["spec"]["minReplicas"] >= 2 and "maxUnavailable" in of_kind(all_, "PodDisruptionBudget")[0]["spec"], "one replica is none")
    of_kind(all_, "NetworkPolicy")


def kubernetes(work):
    """Manifests that a cluster takes, and that then do not serve."""
    folder = os.path.join(DEPLOY, "kubernetes")
    listed = yaml.safe_load(read("kubernetes", "kustomization.yaml"))["resources"]
    check("kustomization", sorted(listed), sorted(f for f in os.listdir(folder) if f not in ("kustomization.yaml",)))
    check_cluster(work, [m for f in listed for m in manifests(read("kubernetes", f))])
    kubectl = tool("kubectl")
    if kubectl:
        check_cluster(work, manifests(succeeds(kubectl, "kustomize", folder)))


def chart(work):
    """The chart renders to something else than the manifests."""
    folder = os.path.join(DEPLOY, "helm", "duet")
    values = yaml.safe_load(read("helm", "duet", "values.yaml"))
    for name in set(re.findall(r"\.Values\.([A-Za-z.]+)", "".join(read("helm", "duet", "templates", f) for f in os.listdir(f"{folder}/templates")))):
        at = values
        for part in name.split("."):
            need(part in at, f".Values.{name} is in no values.yaml")
            at = at[part]
    check_config(work, yaml.safe_dump(values["config"]))
    helm = tool("helm")
    if not helm:
        return
    token = ("--set", "admin.token=0123456789abcdef")
    succeeds(helm, "lint", folder, *token)
    check_cluster(work, [m for m in manifests(succeeds(helm, "template", "x", folder, *token))])
    rendered = succeeds(helm, "template", "x", folder, *token, "--set", "autoscaling.inFlight=8,config.drain.timeout_ms=90000,config.limits.body_bytes=1048576")
    need("duet_http_requests_in_flight" in rendered and "terminationGracePeriodSeconds: 100" in rendered, "values are not applied")
    need(subprocess.run([helm, "template", "x", folder], capture_output=True).returncode != 0, "no token is no error")


# ------------------------------------------------------------------------------------------------ watching


def live_metrics(work):
    publish(f"{work}/models", "dat", 1, 1)
    certs.ca(work, "ca")
    certs.cert(work, "one", "ca")
    certs.install(work, "one")
    with open(f"{work}/keys", "w", encoding="utf-8") as f:
        f.write(f"keys: [{{name: k, sha256: '{hashlib.sha256(b'key').hexdigest()}'}}]\n")
    with Daemon(work, ["dat"], "[{name: main, salt: s, variants: [{name: a, model: dat, weight: 100}, {name: s, model: dat, weight: 0, shadow: true}]}]",
                admin_tls=certs.context(work, "ca"),
                extra=(*certs.keys(work, "admin_tls"), "--set", f"data.keys_file={work}/keys", "--set", f"exposure.path={work}/exposures", "--set", f"slow_log.path={work}/slow")) as d:
        for user in ("u1", "stranger"):
            check("retrieve", d.data.post("/v1/retrieve", {"user_id": user}, headers={"X-Api-Key": "key"})[0], 200)
        metrics = lambda: d.admin.get("/metrics", raw=True)[1].decode()
        d.until(lambda: "duet_shadow_score_drift{" in metrics(), "a comparison")
        text = metrics()
    labels = {}
    for name, inside in re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ", text, re.M):
        labels.setdefault(name, set()).update(re.findall(r'([a-z_]+)="', inside))
    return text, labels


def check_expression(where, text, labels, recorded=()):
    """Every metric that an expression names is exported, with the labels that it is selected and summed by."""
    found = re.findall(r"\b((?:duet|process)_[a-z0-9_]+)(?:\{([^}]*)\})?", text)
    for name, inside in found:
        need(name in labels, f"{where}: the daemon has no metric {name}")
        for label in re.findall(r"([a-z_]+)\s*[!=]~?", inside):
            need(label in labels[name] | {"instance", "job"}, f"{where}: {name} has no label {label}")
    known = set().union(*(labels[name] for name, _ in found)) | {"instance", "job", "version"} | {"route", "code"}
    for by in re.findall(r"\bby \(([^)]*)\)", text):
        for label in re.split(r",\s*", by):
            need(label in known, f"{where}: nothing has a label {label}")
    need(found or any(r in text for r in recorded) or "up{" in text, f"{where}: no metric of ours")


def dashboard(work):
    """A panel shows a metric that the daemon does not have."""
    text, labels = live_metrics(work)
    board = json.loads(read("grafana", "duet.json"))
    panels = [p for p in board["panels"] if p["type"] != "row"]
    for p in panels:
        for t in p["targets"]:
            check_expression(p["title"], t["expr"], labels)
    for v in board["templating"]["list"]:
        if v["type"] == "query":
            check_expression(v["name"], v["query"]["query"].replace("label_values", ""), labels)
    check("panels' ids", len({p["id"] for p in board["panels"]}), len(board["panels"]))
    shown = "".join(t["expr"] for p in panels for t in p["targets"])
    families = set(re.findall(r"^# TYPE (duet_\w+)", text, re.M)) - {"duet_build_info"}
    check("metrics without a panel", sorted(f for f in families if f not in shown), [])
    with open(os.path.join(SOURCE, "docs", "operations.md"), encoding="utf-8") as f:
        listed = set(re.findall(r"`(duet_\w+)`", "".join(line for line in f if line.startswith("| `duet_"))))
    check("metrics that operations.md does not list", sorted(families - listed), [])


def alerts(work):
    """A rule is wrong, or never fires since its metric is called otherwise."""
    text, labels = live_metrics(work)
    rules = [r for g in yaml.safe_load(read("prometheus", "rules.yml"))["groups"] for r in g["rules"]]
    recorded = [r["record"] for r in rules if "record" in r]
    for r in rules:
        check_expression(r.get("alert") or r["record"], r["expr"], labels, recorded)
        need("record" in r or (r["annotations"]["summary"] and r["labels"]["severity"] in ("page", "ticket")), f"{r}")
    promtool = tool("promtool")
    if not promtool:
        return
    folder = os.path.join(DEPLOY, "prometheus")
    succeeds(promtool, "check", "config", f"{folder}/prometheus.yml")
    succeeds(promtool, "check", "rules", f"{folder}/rules.yml")
    succeeds(promtool, "test", "rules", f"{folder}/rules_test.yml")
    p = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    check("promtool check metrics", (p.returncode, p.stderr), (0, ""))


def proxy(work):
    """The example for HAProxy is refused by it."""
    haproxy = tool("haproxy")
    if haproxy:
        succeeds(haproxy, "-c", "-f", os.path.join(DEPLOY, "haproxy", "haproxy.cfg"))


def proxy_hides_a_restart(work):
    """Requests through the proxy are lost while one of two replicas is stopped and started again."""
    haproxy = tool("haproxy")
    if not haproxy:
        return
    publish(f"{work}/models", "dat", 1, 1)
    os.makedirs(f"{work}/b")
    os.symlink(f"{work}/models", f"{work}/b/models")
    a, b = Daemon(work, ["dat"], delay_ms=3500), Daemon(f"{work}/b", ["dat"], delay_ms=3500)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    text = read("haproxy", "haproxy.cfg").replace("bind :8000", f"bind 127.0.0.1:{port}").replace("check port 8081 ", "check ")
    text = text.replace("server a 127.0.0.1:8080", f"server a 127.0.0.1:{a.data_port} port {a.admin_port}")
    text = text.replace("server b 127.0.0.2:8080", f"server b 127.0.0.1:{b.data_port} port {b.admin_port}")
    with open(f"{work}/haproxy.cfg", "w", encoding="utf-8") as f:
        f.write(text)
    p = subprocess.Popen([haproxy, "-db", "-f", f"{work}/haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.5)
        load = subprocess.Popen([os.path.join(BIN, "duet"), "bench", "load", "--url", f"http://127.0.0.1:{port}", "--rate", "200", "--connections", "8",
                                 "--seconds", "7", "--warmup", "0", "-k", "5", "--json"], stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        a.stop()
        r = json.loads(load.communicate(timeout=60)[0])
        need(r["failed"] == 0 and r["answers"] > 1000, f"{r}")
    finally:
        p.terminate()
        p.wait(20)
    b.stop()


if __name__ == "__main__":
    run([container, probe, notifies, unit, kubernetes, chart, dashboard, alerts, proxy, proxy_hides_a_restart])
