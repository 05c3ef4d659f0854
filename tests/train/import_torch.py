"""A two-tower and a DAT written and run in PyTorch, imported by `duet import`, evaluated and published: the same vectors.

What breaks when it fails: a model trained elsewhere answers other things here than there. Skipped (exit 77) without PyTorch; nothing else is
needed, the state dict is written by the few lines of docs/formats.md, "State dict of PyTorch", which are run as they stand there.
"""
import array
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

try:
    import torch
    from torch import nn
    import torch.nn.functional as F
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-B", *sys.argv])  # where Debian's python3-torch is
    print("skipped: no PyTorch (sh deploy/setup.sh golden installs it)")
    sys.exit(77)

BIN = os.path.join(os.environ["DUET_BIN_DIR"], "duet")
K, D, EMPTY = 6, 8, 0xFFFFFFFF


def duet(*args, ok=0):
    p = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=250)
    if p.returncode != ok:
        sys.exit(f"duet {' '.join(args)}: exit {p.returncode}, want {ok}\n{p.stdout}\n{p.stderr}")
    return p.stdout + p.stderr


def documented():
    """The code of docs/formats.md: defines save(state, path)."""
    with open(os.path.join(os.environ["DUET_SOURCE_DIR"], "docs", "formats.md"), encoding="utf-8") as f:
        code = re.search(r"## State dict of PyTorch\n.*?```python\n(.*?)```", f.read(), re.S).group(1)
    names = {}
    exec(code, names)
    return names["save"]


def pack(path):
    """Sections of one of our packs (docs/formats.md, "Pack") as arrays, {name: (columns, values)}."""
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack_from("<I", data, 12)
    at, = struct.unpack_from("<Q", data, 16)
    out = {}
    for i in range(n):
        name, kind, columns, _, offset, size, _ = struct.unpack_from("<48sIIQQQQ", data, at + 88 * i)
        values = array.array({1: "B", 2: "I", 3: "Q", 4: "q", 5: "f", 6: "d"}[kind])
        values.frombytes(data[offset:offset + size])
        out[name.rstrip(b"\0").decode()] = (columns, values)
    return out


def rows(section, dtype=torch.float32):
    columns, values = section
    return torch.tensor(list(values), dtype=dtype).reshape(-1, columns)


def tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack_from("<Q", data)
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            values = array.array("f", data[8 + n + a:8 + n + b])
            out[name] = torch.tensor(list(values)).reshape(t["shape"])
    return out


def table_rows(field):
    return (field["rows"] if field["kind"] == "id" else
            len(field["bounds"]) + 2 if field["kind"] == "numeric" else len(field["values"]) + 1)


class Tower(nn.Module):
    """Embeddings, z, layers, unit length, as somebody would write it who knows docs/model.md."""

    def __init__(self, side, dat, skip):
        super().__init__()
        self.fields, at = [], 0
        for f in (f for f in side["fields"] if f["kind"] != "display"):
            n = f.get("slots", 1)
            self.fields.append((f["name"], f["kind"], at, n))
            at += n
        self.emb = nn.ModuleDict({f["name"]: nn.Embedding(table_rows(f), K) for f in side["fields"] if f["kind"] != "display"})
        n_ids = next(table_rows(f) for f in side["fields"] if f["kind"] == "id")
        self.aug = nn.Embedding(n_ids, D) if dat else None
        self.skip = skip
        z = K * len(self.fields) + (D if dat else 0)
        self.fc = nn.Sequential(nn.Linear(z, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, D))

    def forward(self, x):
        parts, own = [], None
        for name, kind, at, n in self.fields:
            r = x[:, at:at + n]
            there = (r != EMPTY).float().unsqueeze(2)
            e = self.emb[name](torch.where(r == EMPTY, torch.zeros_like(r), r)) * there
            parts.append(e.sum(1) / there.sum(1))
            own = r[:, 0] if kind == "id" else own
        if self.aug is not None:
            parts.append(self.aug(own))
        h = self.fc(torch.cat(parts, 1))
        return F.normalize(h + parts[-1] if self.skip else h, dim=1), own


def check_close(what, found, want):
    worst = float((found - want).abs().max())
    if found.shape != want.shape or not worst <= 1e-5:
        sys.exit(f"{what}: {worst:.3g} apart ({list(found.shape)}, {list(want.shape)}), want at most 1e-5")


def one(kind, skip, save):
    data = pack("city.duet")
    schema = json.loads(bytes(data["schema"][1]))
    torch.manual_seed(7)
    net = nn.ModuleDict({f"{s}_tower": Tower(schema[s], kind == "dat", skip) for s in ("user", "item")}).eval()
    save(net.state_dict(), f"{kind}.safetensors")
    options = ["--data", "city.duet", "--state", f"{kind}.safetensors", "--rename", "user_tower.=user.", "--rename", "item_tower.=item."]
    said = duet("import", *options, "--out", "none", ok=2)
    if "--kind is needed" not in said:
        sys.exit(f"without --kind: {said}")
    duet("import", *options, "--out", kind, "--kind", kind, *(["--skip-aug"] if skip else []))
    report = duet("evaluate", "--data", "city.duet", "--checkpoint", kind)
    if kind not in report:
        sys.exit(f"evaluate: {report}")
    duet("publish", "--data", "city.duet", "--checkpoint", kind, "--repository", "models", "--name", kind, "--threads", "1")
    duet("verify", f"models/{kind}/1")
    with torch.no_grad():
        pv, own = net["item_tower"](rows(data["item.x"], torch.int64))
        known = own > 0  # others get the mean of their segment, which is not in the state dict
        found = tensors(f"models/{kind}/1/items.safetensors")["embeddings"]
        check_close(f"{kind}: items", found[known], pv[known])
        probes = pack(f"models/{kind}/1/probes.pack")
        pu, own = net["user_tower"](rows(probes["x"], torch.int64))
        known = own > 0
        check_close(f"{kind}: probes", rows(probes["p"])[known], pu[known])
        if int(known.sum()) < 100:
            sys.exit(f"only {int(known.sum())} probes are of known users")


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        duet("synth", "--out", "raw", "--users", "300", "--items", "200", "--interactions", "6000")
        duet("prepare", "--in", "raw", "--out", "city.duet")
        save = documented()
        one("two_tower", False, save)
        one("dat", True, save)
    print("import_torch: two_tower and dat: items and probes as in PyTorch")


main()
