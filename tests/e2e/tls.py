"""A real duetd whose listeners speak TLS, and its clients; certificates by the openssl command.

    python3 tls.py [test ...]
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import certs
from certs import ca, cert, context, install
from daemon import BIN, check, fail, publish, run


def start(work, *more, **kw):
    """A daemon whose data listener speaks TLS."""
    return certs.start(work, *certs.keys(work, "tls"), *more, **kw)


def connect(d, c):
    return http.client.HTTPSConnection("127.0.0.1", d.data_port, timeout=20, context=c)


def ask(conn, body='{"user_id": "u1", "k": 3}'):
    conn.request("POST", "/v1/retrieve", body, {"Content-Type": "application/json"})
    r = conn.getresponse()
    r.read()
    return r.status


def refused(d, c):
    conn = connect(d, c)
    try:
        ask(conn)
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected, OSError):
        return True
    finally:
        conn.close()
    return False


def hang_up(d, said):
    before = d.logged().count(said)
    d.process.send_signal(signal.SIGHUP)
    d.until(lambda: d.logged().count(said) > before, said)


def expiries(d):
    """{listener: Unix time}"""
    text = d.admin.get("/metrics", raw=True)[1].decode()
    found = {k: float(v) for k, v in re.findall(r'^duet_tls_certificate_expires_timestamp_seconds{listener="(\w+)"} (\S+)$', text, re.M)}
    for at in found.values():
        if not 86400 < at - time.time() < 3 * 86400:
            fail(f"expires {at}")
    return found


# ------------------------------------------------------------------------------------------------ tests


def requests_are_encrypted(work):
    """The data listener does not speak TLS, or speaks something else too, or stalls."""
    ca(work, "ca")
    cert(work, "one", "ca")
    install(work, "one")
    with start(work) as d:
        conn = connect(d, context(work, "ca"))
        check("keep-alive", [ask(conn) for _ in range(20)], [200] * 20)
        check("version", conn.sock.version(), "TLSv1.3")
        check("a large body", ask(conn, '{"user_id": "u1", "k": 3' + " " * 200000 + "}"), 200)
        conn.putrequest("POST", "/v1/retrieve")
        conn.putheader("Content-Length", str(2 << 20))
        conn.endheaders()
        check("too large", conn.getresponse().status, 413)
        conn.close()
        old = context(work, "ca")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        conn = connect(d, old)
        check("TLS 1.2", (ask(conn), conn.sock.version()), (200, "TLSv1.2"))
        conn.close()
        with socket.create_connection(("127.0.0.1", d.data_port), timeout=20) as s:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: d\r\n\r\n")
            data = b""
            try:
                data = s.recv(1000)
            except ConnectionError:
                pass
            if b"HTTP" in data:
                fail(f"plain HTTP is answered: {data}")
        failures = []

        def hammer():
            try:
                conn = connect(d, context(work, "ca"))
                failures.extend(s for s in (ask(conn) for _ in range(50)) if s != 200)
                conn.close()
            except Exception as e:  # told below
                failures.append(e)
        threads = [threading.Thread(target=hammer) for _ in range(32)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check("32 connections", failures, [])
        check("expiries", list(expiries(d)), ["data"])


def silent_clients_are_cut(work):
    """A client that never begins the handshake, or stops in it, holds a connection, or the end of the daemon."""
    ca(work, "ca")
    cert(work, "one", "ca")
    install(work, "one")
    with start(work, "--set", "http.header_ms=500") as d:
        for first in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
            with socket.create_connection(("127.0.0.1", d.data_port), timeout=20) as s:
                s.sendall(first)
                begun = time.monotonic()
                try:
                    while s.recv(1000):
                        pass
                except ConnectionError:
                    pass
                if not 0.3 < time.monotonic() - begun < 5:
                    fail(f"{first}: cut after {time.monotonic() - begun} s")
    with start(work) as d, socket.create_connection(("127.0.0.1", d.data_port)) as s:
        s.sendall(b"\x16")
        begun = time.monotonic()
        d.stop()
        if time.monotonic() - begun > 10:
            fail(f"the end took {time.monotonic() - begun} s")


def certificates_change_while_running(work):
    """A renewed certificate needs a restart, cuts connections, or a bad one takes the good one's place."""
    ca(work, "ca")
    ca(work, "other")
    cert(work, "one", "ca")
    cert(work, "two", "other")
    install(work, "one")
    with start(work) as d:
        conn = connect(d, context(work, "ca"))
        check("before", (ask(conn), refused(d, context(work, "other"))), (200, True))
        install(work, "two")
        hang_up(d, '"config_read"')
        check("the open connection", ask(conn), 200)
        new = connect(d, context(work, "other"))
        check("after", (ask(new), refused(d, context(work, "ca"))), (200, True))
        new.close()
        shutil.copy(f"{work}/one.key", f"{work}/server.key")  # not the certificate's
        hang_up(d, '"config_refused"')
        new = connect(d, context(work, "other"))
        check("after a bad one", (ask(new), ask(conn)), (200, 200))
        new.close()
        for i in range(10):
            install(work, "one" if i % 2 else "two")
            hang_up(d, '"config_read"')
            one = connect(d, context(work, "ca" if i % 2 else "other"))
            check("again", (ask(one), ask(conn)), (200, 200))
            one.close()
        conn.close()


def clients_need_certificates(work):
    """Somebody without the right certificate is served, or somebody with it is not."""
    for name in ("ca", "clients", "strangers"):
        ca(work, name)
    cert(work, "one", "ca")
    install(work, "one")
    cert(work, "good", "clients", "clientAuth")
    cert(work, "foreign", "strangers", "clientAuth")
    cert(work, "server_only", "clients", "serverAuth")
    cert(work, "expired", "clients", "clientAuth", "-1")
    with start(work, "--set", f"tls.client_ca_file={work}/clients.pem") as d:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            def who(name):
                c = context(work, "ca", name)
                c.minimum_version = c.maximum_version = version
                return c
            conn = connect(d, who("good"))
            check("good", [ask(conn), ask(conn)], [200, 200])
            conn.close()
            for name in (None, "foreign", "server_only", "expired", "one"):
                if not refused(d, who(name)):
                    fail(f"{name} is served under {version}")
        check("admin listener", d.admin.get("/readyz", raw=True)[0], 200)
        shutil.copy(f"{work}/strangers.pem", f"{work}/clients.pem")
        hang_up(d, '"config_read"')
        conn = connect(d, context(work, "ca", "foreign"))
        check("another CA", (ask(conn), refused(d, context(work, "ca", "good"))), (200, True))
        conn.close()


def the_admin_listener_too(work):
    """Tokens and metrics go in the clear although admin_tls is set, the two listeners share certificates, or the probe cannot ask."""
    for name in ("ca", "other", "clients"):
        ca(work, name)
    cert(work, "one", "ca")
    cert(work, "two", "other")
    cert(work, "good", "clients", "clientAuth")
    cert(work, "both", "clients", "serverAuth,clientAuth")
    install(work, "one")
    token = "0123456789abcdef"
    with open(f"{work}/token", "w", encoding="utf-8") as f:
        f.write(token)
    keys = ("--set", f"admin_tls.cert_file={work}/server.pem", "--set", f"admin_tls.key_file={work}/server.key", "--set", f"admin.token_file={work}/token", "--set", "admin.address=0.0.0.0")
    with certs.start(work, *keys, admin_tls=context(work, "ca")) as d:
        check("data is plain", d.data.post("/v1/retrieve", {"user_id": "u1"})[0], 200)
        check("token", [d.admin.get("/v1/admin/models", headers=h)[0] for h in ({}, {"Authorization": f"Bearer {token}"})], [401, 200])
        check("version", d.admin.conn.sock.version(), "TLSv1.3")
        check("expiries", list(expiries(d)), ["admin"])
        with socket.create_connection(("127.0.0.1", d.admin_port), timeout=20) as s:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: d\r\n\r\n")
            try:
                check("plain HTTP", b"HTTP" in s.recv(1000), False)
            except ConnectionError:
                pass
        check("probe", [asked(work, d, what)[0] for what in ("livez", "readyz", "nothing")], [0, 0, 1])
        old = d.admin.get("/readyz", raw=True)[0], d.admin.conn.sock
        install(work, "two")
        hang_up(d, '"config_read"')
        check("the open connection", (d.admin.get("/readyz", raw=True)[0], d.admin.conn.sock is old[1]), (200, True))
        d.admin.close()
        d.admin.tls = context(work, "other")
        check("the new certificate", (d.admin.get("/readyz", raw=True)[0], asked(work, d, "livez")), (200, (0, "")))
        shutil.copy(f"{work}/one.key", f"{work}/server.key")  # not the certificate's
        hang_up(d, '"config_refused"')
        d.admin.close()
        check("after a bad one", d.admin.get("/readyz", raw=True)[0], 200)
    install(work, "one")
    keys = (*certs.keys(work, "admin_tls"), "--set", f"admin_tls.client_ca_file={work}/clients.pem")
    with certs.start(work, *keys, *certs.keys(work, "tls"), admin_tls=context(work, "ca", "good")) as d:
        check("client certificate", d.admin.get("/readyz", raw=True)[0], 200)
        check("both listeners", sorted(expiries(d)), ["admin", "data"])
        check("data asks for none", ask(connect(d, context(work, "ca"))), 200)
        for name in (None, "two"):
            conn = http.client.HTTPSConnection("127.0.0.1", d.admin_port, timeout=20, context=context(work, "ca", name))
            try:
                conn.request("GET", "/livez")
                fail(f"{name}: {conn.getresponse().status}")
            except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected, OSError):
                conn.close()
        mine = ("--probe-cert", f"{work}/good.pem", "--probe-key", f"{work}/good.key")
        check("probe, by a certificate of its own", asked(work, d, "readyz", *mine, client_ca="clients"), (0, ""))
        rc, said = asked(work, d, "readyz", client_ca="clients")
        check(f"probe without: {said}", (rc, "TLS" in said), (1, True))
        rc, said = asked(work, d, "readyz", "--probe-cert", f"{work}/none", "--probe-key", f"{work}/none", client_ca="clients")
        check(f"probe, no such file: {said}", (rc, f"{work}/none" in said), (1, True))
        check("half a pair", asked(work, d, "readyz", "--probe-cert", f"{work}/good.pem")[0], 2)
    install(work, "both")
    with certs.start(work, *certs.keys(work, "admin_tls", "clients"), admin_tls=context(work, "clients", "good")) as d:
        check("probe, by the listener's own", asked(work, d, "readyz", client_ca="clients"), (0, ""))


def asked(work, d, what, *more, client_ca=None):
    """duetd --probe: (exit status, what it said)."""
    p = subprocess.run([os.path.join(BIN, "duetd"), "--set", f"admin.port={d.admin_port}", *certs.keys(work, "admin_tls", client_ca), "--probe", what, *more],
                       capture_output=True, text=True, timeout=60)
    return p.returncode, p.stderr


def duet(*args):
    p = subprocess.run([os.path.join(BIN, "duet"), *map(str, args)], capture_output=True, text=True, timeout=120)
    return p.returncode, p.stdout, p.stderr


def commands_speak_tls(work):
    """duet cannot ask a daemon with TLS, shows no certificate, or trusts whoever answers."""
    for name in ("ca", "other", "clients"):
        ca(work, name)
    cert(work, "one", "ca", names="IP:127.0.0.1,DNS:localhost")
    cert(work, "elsewhere", "ca", names="DNS:elsewhere.example")
    cert(work, "good", "clients", "clientAuth")
    install(work, "one")
    for v in (1, 2):
        publish(f"{work}/models", "dat", v, v)
    with open(f"{work}/requests", "w", encoding="utf-8") as f:
        f.write("".join(f'{{"user_id": "u{u}", "k": 300}}\n' for u in range(20)))
    with open(f"{work}/users", "w", encoding="utf-8") as f:
        f.write("u1\nu2\n")
    commands = lambda d, host="127.0.0.1": {
        "query": ("query", "--url", f"https://{host}:{d.data_port}", "--user", "u1"),
        "load": ("bench", "load", "--url", f"https://{host}:{d.data_port}", "--requests", f"{work}/requests", "--connections", 4, "--seconds", 0.5, "--warmup", 0, "--json"),
        "swap": ("bench", "swap", "--url", f"https://{host}:{d.data_port}", "--admin", f"https://{host}:{d.admin_port}", "--model", "dat", "--users", f"{work}/users",
                 "--rounds", 1, "--rate", 50, "--connections", 2, "--limit", 1000, "-k", 5),
        "replay": ("replay", "--requests", f"{work}/requests", "--a", f"https://{host}:{d.data_port}", "--b", f"{work}/models/dat/2")}
    trust, mine = ("--ca", f"{work}/ca.pem"), ("--cert", f"{work}/good.pem", "--key", f"{work}/good.key")
    with start(work, *certs.keys(work, "admin_tls"), admin_tls=context(work, "ca")) as d:
        for host in ("127.0.0.1", "localhost"):
            for name, command in commands(d, host).items():
                check(f"{name} {host}", duet(*command, *trust)[::2], (0, ""))
        r = json.loads(duet(*commands(d)["load"], *trust)[1])
        if r["failed"] or r["answers"] < 20:
            fail(f"{r}")
        for name, command in commands(d).items():
            for what, more in (("the system's CAs", ()), ("another CA", ("--ca", f"{work}/other.pem")), ("no CA", ("--ca", f"{work}/users")), ("no file", ("--ca", f"{work}/none")),
                               ("half a pair", (*trust, "--key", f"{work}/good.key"))):
                rc, out, said = duet(*command, *more)
                if rc == 0 or not out + said:
                    fail(f"{name}, {what}: exit {rc} {out} {said}")
            check(f"{name} says why", "certificate" in "".join(duet(*command, "--ca", f"{work}/other.pem")[1:]), True)
        install(work, "elsewhere")
        hang_up(d, '"config_read"')
        for name, command in commands(d).items():
            rc, out, said = duet(*command, *trust)
            if rc == 0 or not out + said:
                fail(f"{name}, another name: exit {rc} {out} {said}")
    install(work, "one")
    with certs.start(work, *certs.keys(work, "tls", "clients"), *certs.keys(work, "admin_tls", "clients"), admin_tls=context(work, "ca", "good")) as d:
        with open(f"{work}/pair.pem", "w", encoding="utf-8") as f:
            for end in ("pem", "key"):
                with open(f"{work}/good.{end}", encoding="utf-8") as part:
                    f.write(part.read())
        for name, command in commands(d).items():
            check(name, duet(*command, *trust, *mine)[::2], (0, ""))
            check(f"{name}, both in a file", duet(*command, *trust, "--cert", f"{work}/pair.pem")[::2], (0, ""))
            rc, out, said = duet(*command, *trust)
            if rc == 0 or not out + said:
                fail(f"{name}, no certificate: exit {rc} {out} {said}")


def bad_files_are_refused(work):
    """Files that are wrong start, or the message does not say which and why."""
    ca(work, "ca")
    cert(work, "one", "ca")
    cert(work, "two", "ca")
    with open(f"{work}/text", "w", encoding="utf-8") as f:
        f.write("no PEM\n")
    names = {"cert_file": "one.pem", "key_file": "one.key"}
    cases = (({"cert_file": "one.pem"}, "tls.cert_file is set without tls.key_file"), ({"key_file": "one.key"}, "tls.key_file is set without tls.cert_file"),
                        ({"client_ca_file": "ca.pem"}, "tls.client_ca_file is set without tls.cert_file"), ({**names, "cert_file": "none"}, "tls.cert_file: "),
                        ({**names, "key_file": "none"}, "tls.key_file: "), ({**names, "cert_file": "text"}, "tls.cert_file: "), ({**names, "key_file": "text"}, "tls.key_file: "),
                        ({**names, "key_file": "two.key"}, "tls.cert_file, tls.key_file: "), ({**names, "client_ca_file": "text"}, "tls.client_ca_file: "),
                        ({**names, "client_ca_file": "none"}, "tls.client_ca_file: "), (names, None), ({**names, "client_ca_file": "ca.pem"}, None))
    for section, files, said in [(s, f, t and t.replace("tls.", s + ".")) for s in ("tls", "admin_tls") for f, t in cases]:
        sets = [x for k, v in files.items() for x in ("--set", f"{section}.{k}={work}/{v}")]
        p = subprocess.run([os.path.join(BIN, "duetd"), "--check-config", *sets], capture_output=True, text=True)
        if (said is None) != (p.returncode == 0) or (said or "") not in p.stderr:
            fail(f"{section} {files}: {p.returncode} {p.stderr!r}, want {said!r}")


if __name__ == "__main__":
    run([requests_are_encrypted, silent_clients_are_cut, certificates_change_while_running, clients_need_certificates, the_admin_listener_too, commands_speak_tls,
         bad_files_are_refused])
