"""Certificates by the openssl command, for tests of TLS. Importing it skips the test where there is no such command."""
import os
import shutil
import ssl
import subprocess
import sys

from daemon import Daemon, check, publish

if not shutil.which("openssl"):
    print("skipped: openssl is not installed")
    sys.exit(77)


def openssl(*args):
    p = subprocess.run(["openssl", *args], capture_output=True, text=True)
    check("openssl", (p.returncode, p.stderr if p.returncode else ""), (0, ""))


def ca(work, name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", f"{work}/{name}.key", "-out", f"{work}/{name}.pem")


def cert(work, name, by, purpose="serverAuth", days="2", names="IP:127.0.0.1"):
    """name.pem and name.key, signed by the CA `by`."""
    with open(f"{work}/{name}.ext", "w", encoding="utf-8") as f:
        f.write(f"subjectAltName={names}\nextendedKeyUsage={purpose}\nbasicConstraints=CA:FALSE\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{work}/{name}.key", "-out", f"{work}/{name}.csr")
    openssl("x509", "-req", "-in", f"{work}/{name}.csr", "-CA", f"{work}/{by}.pem", "-CAkey", f"{work}/{by}.key", "-CAcreateserial", "-days", days,
            "-extfile", f"{work}/{name}.ext", "-out", f"{work}/{name}.pem")


def install(work, name):
    """What the daemon's keys name."""
    for end in ("pem", "key"):
        shutil.copy(f"{work}/{name}.{end}", f"{work}/server.{end}")


def keys(work, section, client_ca=None):
    """--set for a section of the configuration: tls or admin_tls."""
    more = ("--set", f"{section}.client_ca_file={work}/{client_ca}.pem") if client_ca else ()
    return ("--set", f"{section}.cert_file={work}/server.pem", "--set", f"{section}.key_file={work}/server.key", *more)


def context(work, trust, client=None):
    c = ssl.create_default_context(cafile=f"{work}/{trust}.pem")
    if client:
        c.load_cert_chain(f"{work}/{client}.pem", f"{work}/{client}.key")
    return c


def start(work, *more, **kw):
    """A daemon, with the model `dat`."""
    if not os.path.exists(f"{work}/models"):
        publish(f"{work}/models", "dat", 1, 1)
    return Daemon(work, ["dat"], extra=more, **kw)
