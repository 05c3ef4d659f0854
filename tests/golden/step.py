#!/usr/bin/env python3
"""One training step of DAT in PyTorch, written from the equations: what tests/train/test_golden_step.c compares ours with.

    python3 tests/golden/step.py tests/golden          (Debian: python3-torch)

Writes step_literal.safetensors, step_duet.safetensors and step_two_tower.safetensors: the batch, every parameter before and
after one step of torch.optim.Adam, and the parts of the loss. Nothing here is shared with the C code; rows are spelled out
one by one where ours are gathered and deduplicated.
"""
import json
import struct
import sys

import torch
import torch.nn.functional as F

N_USERS, N_ITEMS, K = 6, 10, 4
WIDTHS = [8, 6, 5]
# Field: name, rows of the table, slots. The toy schema of tests/train/toy.c.
USER = [("uid", N_USERS + 1, 1), ("city", 5, 1), ("age", 5, 1)]
ITEM = [("iid", N_ITEMS + 1, 1), ("class", 5, 1), ("price", 6, 1), ("tags", 7, 3)]
EMPTY = 0xFFFFFFFF


class Tower(torch.nn.Module):
    """Equation (1): embeddings and a, three layers, L2 norm."""

    def __init__(self, fields, n_ids, d_aug, relu_out):
        super().__init__()
        self.fields, self.relu_out = fields, relu_out
        self.emb = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.randn(rows, K)) for name, rows, _ in fields})
        self.aug = torch.nn.Parameter(0.5 * torch.randn(n_ids, d_aug)) if d_aug else None
        sizes = [len(fields) * K + d_aug] + WIDTHS
        self.fc = torch.nn.ModuleList([torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        for layer in self.fc:  # lively enough that no loss stands where it would with equal outputs
            torch.nn.init.xavier_uniform_(layer.weight, gain=2.0)
            torch.nn.init.uniform_(layer.bias, -0.1, 0.3)

    def forward(self, x):
        parts, at = [], 0
        for name, _, slots in self.fields:
            rows = [r for r in x[at:at + slots] if r != EMPTY]
            parts.append(torch.stack([self.emb[name][r] for r in rows]).mean(0))
            at += slots
        if self.aug is not None:
            parts.append(self.aug[x[0]])
        h = torch.cat(parts)
        for i, layer in enumerate(self.fc):
            h = layer(h)
            if i + 1 < len(self.fc) or self.relu_out:
                h = F.relu(h)
        return h / h.norm() if h.norm() > 0 else h * 0


def encode():
    users = [[u + 1, 1 + u % 4, 1 + u % 4] for u in range(N_USERS)]
    items = []
    for i in range(N_ITEMS):
        tags = [1 + (i + q) % 6 if q <= i % 3 else EMPTY for q in range(3)]
        items.append([i + 1, 1 + i % 4, 1 + i % 5] + tags)
    return users, items


def covariance(rows):
    x = rows - rows.mean(0)
    return x.t() @ x / (len(rows) - 1)


def alignment(rows, categories, min_rows, weighted):
    """Equation (3) over the given rows."""
    groups = {}
    for row, c in zip(rows, categories):
        groups.setdefault(c, []).append(row)
    groups = {c: torch.stack(g) for c, g in groups.items() if len(g) >= min_rows}
    major = max(sorted(groups), key=lambda c: len(groups[c]))
    total = sum(len(g) for g in groups.values())
    loss = torch.zeros(())
    for c, g in groups.items():
        if c != major:
            term = ((covariance(groups[major]) - covariance(g)) ** 2).sum()
            loss = loss + term * (len(g) / total if weighted else 1.0)
    return loss


def losses(user, item, xu, xv, pos, neg, case):
    pu, pv = [user(x) for x in xu], [item(x) for x in xv]
    scale, dat = case["scale"], user.aug is not None
    main, rows, categories = torch.zeros(()), [], []
    if case["loss"] == "bce":
        t = len(pos) * (1 + len(neg[0]))
        for (u, v), ns in zip(pos, neg):
            main = main - torch.log(torch.sigmoid(scale * pu[u] @ pv[v]))
            for n in ns:
                main = main - torch.log(1 - torch.sigmoid(scale * pu[u] @ pv[n]))
            rows += [pv[v]] + [pv[n] for n in ns]
            categories += [1 + i % 4 for i in [v] + ns]
        main = main / t
    else:
        t = len(pos)
        for u, v in pos:
            main = main - F.log_softmax(torch.stack([scale * pu[u] @ q for q in pv]), 0)[v] / t
        rows, categories = pv, [1 + i % 4 for i in range(N_ITEMS)]
    if not dat:
        return main, main, torch.zeros(()), torch.zeros(()), torch.zeros(())
    mimic_u = sum(((user.aug[xu[u][0]] - pv[v].detach()) ** 2).sum() for u, v in pos) / t
    mimic_v = sum(((item.aug[xv[v][0]] - pu[u].detach()) ** 2).sum() for u, v in pos) / t
    cal = alignment(rows, categories, 2, case["cal_weighted"])
    total = main + 0.5 * mimic_u + 0.5 * mimic_v + case["lambda3"] * cal
    return total, main, mimic_u, mimic_v, cal


def named(user, item):
    """Parameters under the names of docs/formats.md."""
    out = []
    for side, t in (("user", user), ("item", item)):
        out += [(f"{side}.emb.{name}", t.emb[name]) for name, _, _ in t.fields]
        if t.aug is not None:
            out.append((f"{side}.aug", t.aug))
        for i, layer in enumerate(t.fc):
            out += [(f"{side}.fc.{i}.weight", layer.weight), (f"{side}.fc.{i}.bias", layer.bias)]
    return out


def save(path, tensors):
    header, body = {}, b""
    for name, dtype, shape, values in tensors:
        data = struct.pack("<%d%s" % (len(values), {"F32": "f", "F64": "d", "U32": "I"}[dtype]), *values)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)


def flat(prefix, params):
    return [(prefix + n, "F32", list(p.shape), p.detach().flatten().tolist()) for n, p in params]


def run(path, seed, case):
    torch.manual_seed(seed)
    d = WIDTHS[-1] if case["dat"] else 0
    user, item = Tower(USER, N_USERS + 1, d, case["relu_out"]), Tower(ITEM, N_ITEMS + 1, d, case["relu_out"])
    xu, xv = encode()
    pos = [(u, (3 * u + q * q) % N_ITEMS) for u in range(N_USERS) for q in range(2)]
    neg = [[int(n) for n in torch.randint(N_ITEMS, (4,))] for _ in pos] if case["loss"] == "bce" else [[] for _ in pos]
    params = named(user, item)
    tensors = flat("before.", params)
    optimiser = torch.optim.Adam([p for _, p in params], lr=0.01)
    parts = losses(user, item, xu, xv, pos, neg, case)
    parts[0].backward()
    tensors += [("grad." + n, "F32", list(p.shape), p.grad.flatten().tolist()) for n, p in params]
    optimiser.step()
    tensors += flat("after.", params)
    tensors.append(("loss", "F64", [5], [float(p) for p in parts]))
    tensors.append(("user_x", "U32", [N_USERS, 3], [r for x in xu for r in x]))
    tensors.append(("item_x", "U32", [N_ITEMS, 6], [r for x in xv for r in x]))
    tensors.append(("pos", "U32", [len(pos), 2], [i for p in pos for i in p]))
    if neg[0]:
        tensors.append(("neg", "U32", [len(pos), len(neg[0])], [i for n in neg for i in n]))
    save(path, tensors)
    print(path, [round(float(p), 6) for p in parts])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "."
    literal = {"dat": True, "loss": "bce", "relu_out": True, "scale": 1.0, "lambda3": 1.0, "cal_weighted": False}
    duet = {"dat": True, "loss": "softmax", "relu_out": False, "scale": 10.0, "lambda3": 0.1, "cal_weighted": True}
    run(folder + "/step_literal.safetensors", 3, literal)
    run(folder + "/step_duet.safetensors", 4, duet)
    run(folder + "/step_two_tower.safetensors", 5, {**duet, "dat": False})


if __name__ == "__main__":
    main()
