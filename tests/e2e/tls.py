"""A real duetd whose data listener speaks TLS; certificates by the openssl command.

    python3 tls.py [test ...]
"""
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

from daemon import BIN, Daemon, check, fail, publish, run

if not shutil.which("openssl"):
    print("skipped: openssl is not installed")
    sys.exit(77)


def openssl(*args):
    p = subprocess.run(["openssl", *args], capture_output=True, text=True)
    check("openssl", (p.returncode, p.stderr if p.returncode else ""), (0, ""))


def ca(work, name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", f"{work}/{name}.key", "-out", f"{work}/{name}.pem")


def cert(work, name, by, purpose="serverAuth", days="2"):
    """name.pem and name.key, signed by the CA `by`."""
    with open(f"{work}/{name}.ext", "w", encoding="utf-8") as f:
        f.write(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={purpose}\nbasicConstraints=CA:FALSE\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{work}/{name}.key", "-out", f"{work}/{name}.csr")
    openssl("x509", "-req", "-in", f"{work}/{name}.csr", "-CA", f"{work}/{by}.pem", "-CAkey", f"{work}/{by}.key", "-CAcreateserial", "-days", days,
            "-extfile", f"{work}/{name}.ext", "-out", f"{work}/{name}.pem")


def install(work, name):
    """What the daemon's keys name."""
    for end in ("pem", "key"):
        shutil.copy(f"{work}/{name}.{end}", f"{work}/server.{end}")


def start(work, *more):
    if not os.path.exists(f"{work}/models"):
        publish(f"{work}/models", "dat", 1, 1)
    return Daemon(work, ["dat"], extra=("--set", f"tls.cert_file={work}/server.pem", "--set", f"tls.key_file={work}/server.key", *more))


def context(work, trust, client=None):
    c = ssl.create_default_context(cafile=f"{work}/{trust}.pem")
    if client:
        c.load_cert_chain(f"{work}/{client}.pem", f"{work}/{client}.key")
    return c


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
        text = d.admin.get("/metrics", raw=True)[1].decode()
        at = float([line for line in text.splitlines() if line.startswith("duet_tls_certificate_expires")][0].split()[1])
        if not 86400 < at - time.time() < 3 * 86400:
            fail(f"expires {at}")


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


def bad_files_are_refused(work):
    """Files that are wrong start, or the message does not say which and why."""
    ca(work, "ca")
    cert(work, "one", "ca")
    cert(work, "two", "ca")
    with open(f"{work}/text", "w", encoding="utf-8") as f:
        f.write("no PEM\n")
    names = {"cert_file": "one.pem", "key_file": "one.key"}
    for files, said in (({"cert_file": "one.pem"}, "tls.cert_file is set without tls.key_file"), ({"key_file": "one.key"}, "tls.key_file is set without tls.cert_file"),
                        ({"client_ca_file": "ca.pem"}, "tls.client_ca_file is set without tls.cert_file"), ({**names, "cert_file": "none"}, "tls.cert_file: "),
                        ({**names, "key_file": "none"}, "tls.key_file: "), ({**names, "cert_file": "text"}, "tls.cert_file: "), ({**names, "key_file": "text"}, "tls.key_file: "),
                        ({**names, "key_file": "two.key"}, "tls.cert_file, tls.key_file: "), ({**names, "client_ca_file": "text"}, "tls.client_ca_file: "),
                        ({**names, "client_ca_file": "none"}, "tls.client_ca_file: "), (names, None), ({**names, "client_ca_file": "ca.pem"}, None)):
        sets = [x for k, v in files.items() for x in ("--set", f"tls.{k}={work}/{v}")]
        p = subprocess.run([os.path.join(BIN, "duetd"), "--check-config", *sets], capture_output=True, text=True)
        if (said is None) != (p.returncode == 0) or (said or "") not in p.stderr:
            fail(f"{files}: {p.returncode} {p.stderr!r}, want {said!r}")


if __name__ == "__main__":
    run([requests_are_encrypted, silent_clients_are_cut, certificates_change_while_running, clients_need_certificates, bad_files_are_refused])
