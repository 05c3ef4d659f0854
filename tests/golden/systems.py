#!/usr/bin/env python3
"""Training steps in PyTorch of the recipe "duet" and of the systems that DAT is compared with, written from the papers: what
tests/train/test_golden_step.c and test_golden_systems.c compare ours with.

    /usr/bin/python3 tests/golden/systems.py tests/golden          (Debian: python3-torch)

step_closed: DAT with a_u in closed form, cut in time and weighed (docs/model.md). step_skip, step_sampled: its two-tower, the id's
embedding past the layers, with either softmax. step_fm, step_youtube_dnn, step_mind: two steps each. Users, items and the file are those of step.py. In double
precision; nothing here is shared with the C code, and gradients are PyTorch's.
"""
import math
import sys

import torch
import torch.nn.functional as F

from step import EMPTY, ITEM, N_ITEMS, N_USERS, USER, alignment, encode, save

WIDTHS = [7, 5]
D = WIDTHS[-1]
LR = 0.01
CATEGORY = [1 + i % 4 for i in range(N_ITEMS)]
# What came before, oldest first, and what is asked for. One user has no history.
HISTORY = [[], [3], [9, 1], [4, 0, 2, 7], [5, 8, 1, 6, 0], [2, 9, 3, 5, 1, 8, 4, 7]]
ASKED = [[2, 5], [0, 7], [4, 8], [9, 1], [2, 3], [0, 6]]


def table(rows, cols, std=0.5):
    return torch.nn.Parameter(std * torch.randn(rows, cols))


def field_values(fields, x):
    """(name, rows that are there) of each field of an encoded entity."""
    at = 0
    for name, _, slots in fields:
        yield name, [r for r in x[at:at + slots] if r != EMPTY]
        at += slots


class Tower(torch.nn.Module):
    """Equation (1) with a linear last layer. `past`: what is added to its outputs, "aug" or a field."""

    def __init__(self, fields, k, d_aug, past=None):
        super().__init__()
        self.fields, self.k, self.past = fields, k, past
        self.emb = torch.nn.ParameterDict({name: table(rows, k) for name, rows, _ in fields})
        sizes = [len(fields) * k + d_aug] + WIDTHS
        self.fc = torch.nn.ModuleList([torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        for layer in self.fc:
            torch.nn.init.xavier_uniform_(layer.weight, gain=1.5)
            torch.nn.init.uniform_(layer.bias, -0.1, 0.3)

    def forward(self, x, a=None):
        e = {name: torch.stack([self.emb[name][r] for r in rows]).mean(0) if rows else torch.zeros(self.k)
             for name, rows in field_values(self.fields, x)}
        h = torch.cat([e[name] for name, _, _ in self.fields] + ([] if a is None else [a]))
        for i, layer in enumerate(self.fc):
            h = layer(h) if i + 1 == len(self.fc) else F.relu(layer(h))
        if self.past:
            h = h + (a if self.past == "aug" else e[self.past])
        return h / h.norm()

    def named(self, side):
        out = [(f"{side}.emb.{name}", self.emb[name]) for name, _, _ in self.fields]
        for i, layer in enumerate(self.fc):
            out += [(f"{side}.fc.{i}.weight", layer.weight), (f"{side}.fc.{i}.bias", layer.bias)]
        return out


def flat(prefix, params):
    return [(prefix + n, "F32", list(p.shape), p.detach().flatten().tolist()) for n, p in params]


def train(path, params, decayed, loss_of, tensors, steps):
    """AdamW; loss and gradients are of the first step. loss_of() returns the total and its parts."""
    tensors += flat("before.", params)
    groups = [{"params": [p for n, p in params if n in decayed], "weight_decay": 0.3},
              {"params": [p for n, p in params if n not in decayed], "weight_decay": 0}]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=LR)
    for step in range(steps):
        optimiser.zero_grad()
        parts = loss_of()
        parts[0].backward()
        if step == 0:
            tensors.append(("loss", "F64", [len(parts)], [float(p) for p in parts]))
            for n, p in params:
                g = torch.zeros_like(p) if p.grad is None else p.grad
                tensors.append(("grad." + n, "F32", list(p.shape), g.flatten().tolist()))
        optimiser.step()
    tensors += flat("after.", params)
    save(path, tensors)
    print(path, [round(float(p), 6) for p in parts])


def inputs(*lists):
    xu, xv = encode()
    out = [("user_x", "U32", [N_USERS, 3], [r for x in xu for r in x]),
           ("item_x", "U32", [N_ITEMS, 6], [r for x in xv for r in x])]
    for name, rows in lists:
        pairs = [(u, v) for u, items in enumerate(rows) for v in items]
        out.append((name, "U32", [len(pairs), 2], [i for p in pairs for i in p]))
    return xu, xv, out


def cross_entropy(scores, v, hidden=()):
    """-log softmax of item v among those that are not hidden."""
    seen = [i for i in range(N_ITEMS) if i not in hidden]
    return -F.log_softmax(torch.stack([scores[i] for i in seen]), 0)[seen.index(v)]


# -------------------------------------------------------------------------------------------------------- recipe "duet"


def weight_index(newer):
    """0 to 3 newer items have a weight each, then two an octave."""
    if newer < 4:
        return newer
    octave = int(math.log2(newer))
    return 4 + 2 * (octave - 2) + (1 if newer >= 1.5 * 2 ** octave else 0)


def first_newer(index):
    return next(n for n in range(1 << 20) if weight_index(n) == index)


def closed(path, seed):
    """a_u = N^-1/2 sum of w p_v, N the sum of w^2; p = normalise(h_L + a); softmax without the history, a user's share for each
    positive; loss (2) of the items alone, for a_u holds its minimiser; (3). Its gradient goes through a_u into p_v and w."""
    torch.manual_seed(seed)
    xu, xv, tensors = inputs(("pos", ASKED), ("hist", HISTORY))
    empty_id = lambda x: [EMPTY] + x[1:]  # ids are not embedded beside a
    user, item = Tower(USER, 4, D, "aug"), Tower(ITEM, 4, D, "aug")
    a_v, unused = table(N_ITEMS + 1, D), table(N_USERS + 1, D, 0)
    theta = torch.nn.Parameter(torch.tensor([-0.5 * math.log(1 + first_newer(i)) for i in range(32)]))
    share = [0.04, 0.1, 0.07, 0.12, 0.05, 0.09]
    tensors.append(("share", "F32", [N_USERS], share))
    params = user.named("user") + item.named("item") + [("user.aug", unused), ("item.aug", a_v), ("theta", theta)]
    lambda2, lambda3 = 0.5, 0.1

    def losses():
        pv = [item(empty_id(x), a_v[x[0]]) for x in xv]
        main, mimic, pu = torch.zeros(()), torch.zeros(()), []
        for u, hist in enumerate(HISTORY):
            w = [torch.exp(theta[weight_index(len(hist) - 1 - i)]) for i in range(len(hist))]
            a = sum(wi * pv[v] for wi, v in zip(w, hist)) / torch.sqrt(sum(wi ** 2 for wi in w)) if hist else torch.zeros(D)
            pu.append(user(empty_id(xu[u]), a))
            for v in ASKED[u]:
                main = main + share[u] * cross_entropy([12 * pu[u] @ p for p in pv], v, hist)
                mimic = mimic + ((a_v[xv[v][0]] - pu[u].detach()) ** 2).sum() / (2 * N_USERS)
        cal = alignment(pv, CATEGORY, 2, True)
        return main + lambda2 * mimic + lambda3 * cal, main, torch.zeros(()), mimic, cal

    train(path, params, [], losses, tensors, 1)


def skip(path, seed, sampled):
    """A two-tower; `sampled`: an item that is in the batch by chance counts for all of its kind, logit - log q (Bengio, Senecal
    2008), a user's own are there for certain."""
    torch.manual_seed(seed)
    xu, xv, tensors = inputs(("pos", ASKED))
    user, item = Tower(USER, D, 0, "uid"), Tower(ITEM, D, 0, "iid")
    log_q = torch.log(0.1 + 0.8 * torch.rand(N_ITEMS))
    if sampled:
        tensors.append(("log_q", "F32", [N_ITEMS], log_q.tolist()))

    def losses():
        pu, pv = [user(x) for x in xu], [item(x) for x in xv]
        main = torch.zeros(())
        for u, asked in enumerate(ASKED):
            logits = [12 * pu[u] @ p - (log_q[i] if sampled and i not in asked else 0) for i, p in enumerate(pv)]
            main = main + sum(cross_entropy(logits, v) for v in asked) / (2 * N_USERS)
        return main, main, torch.zeros(()), torch.zeros(()), torch.zeros(())

    train(path, user.named("user") + item.named("item"), [], losses, tensors, 1)


# ------------------------------------------------------------------------------------------------------------ baselines


def fm(path, seed):
    """Rendle (2010), eq. (1), with every term: w_0, the weights of all features and the products of all pairs of them. The
    user's own terms get no gradient, for a softmax over items does not see them. A field of several values is one feature."""
    torch.manual_seed(seed)
    xu, xv, tensors = inputs(("pos", ASKED))
    factor = {side: {name: table(rows, D) for name, rows, _ in fields} for side, fields in (("user", USER), ("item", ITEM))}
    weight = {side: {name: table(rows, 1) for name, rows, _ in fields} for side, fields in (("user", USER), ("item", ITEM))}
    w0 = 0.7

    def features(side, fields, x):
        for name, rows in field_values(fields, x):
            yield (torch.stack([factor[side][name][r] for r in rows]).mean(0),
                   torch.stack([weight[side][name][r, 0] for r in rows]).mean(0))

    def score(x, y):
        f = list(features("user", USER, x)) + list(features("item", ITEM, y))
        pairs = sum(f[i][0] @ f[j][0] for j in range(len(f)) for i in range(j))
        return w0 + sum(w for _, w in f) + pairs

    def losses():
        loss = torch.zeros(())
        for u, asked in enumerate(ASKED):
            scores = [score(xu[u], y) for y in xv]
            for v in asked:
                loss = loss + cross_entropy(scores, v) / (2 * N_USERS)
        return (loss,)

    params = [(f"{side}.{name}", p) for side in factor for name, p in factor[side].items()]
    decayed = [n for n, _ in params]
    params += [(f"weight.{name}", p) for name, p in weight["item"].items()]
    train(path, params, decayed, losses, tensors, 2)


def squash(z):
    n2 = (z ** 2).sum()
    return n2 / (1 + n2) * z / torch.sqrt(n2)


def route(seen, s, start, used):
    """Li et al. (2019), algorithm 1: behaviour e_i to interest u_j by b_ij + u_j' S e_i, three times; the weights of the last
    sum are constants."""
    b = [[start[i][j] for j in range(used)] for i in range(len(seen))]
    for turn in range(3):
        w = [torch.softmax(torch.stack(row), 0).detach() for row in b]
        u = [squash(sum(w[i][j] * (s @ e) for i, e in enumerate(seen))) for j in range(used)]
        if turn < 2:
            b = [[b[i][j] + (u[j] @ (s @ e)).detach() for j in range(used)] for i, e in enumerate(seen)]
    return u


def history_net(path, seed, n_interest):
    """Covington et al. (2016): the mean of the history's vectors beside the user's features; with several interests MIND: a
    capsule for each, and a target counts for the nearest. Users are known by history and features, the id is row 0."""
    torch.manual_seed(seed)
    history = [h if h else [9] for h in HISTORY]  # without a history nobody is trained
    xu, xv, tensors = inputs(("pos", ASKED), ("hist", history))
    user, vectors = Tower(USER, 4, D), table(N_ITEMS, D)
    s = torch.nn.Parameter(torch.eye(D) + 0.3 * torch.randn(D, D))
    start = torch.randn(N_ITEMS, n_interest)
    params = user.named("user") + [("vectors", vectors)]
    if n_interest:
        params.append(("bilinear", s))
        tensors.append(("start", "F32", list(start.shape), start.flatten().tolist()))

    def losses():
        v_unit = [v / v.norm() for v in vectors]
        loss = torch.zeros(())
        for u, hist in enumerate(history):
            seen = [v_unit[i] for i in hist]
            used = max(1, min(n_interest, int(math.log2(len(hist)))))
            pooled = route(seen, s, [start[i] for i in hist], used) if n_interest else [sum(seen) / len(seen)]
            p = [user([0] + xu[u][1:], a) for a in pooled]
            for v in ASKED[u]:
                best = max(range(len(p)), key=lambda j: float(p[j] @ v_unit[v]))
                loss = loss + cross_entropy([8 * p[best] @ q for q in v_unit], v) / (2 * N_USERS)
        return (loss,)

    train(path, params, [], losses, tensors, 2)


def main():
    torch.set_default_dtype(torch.float64)
    folder = sys.argv[1] if len(sys.argv) > 1 else "."
    closed(folder + "/step_closed.safetensors", 11)
    skip(folder + "/step_skip.safetensors", 12, False)
    skip(folder + "/step_sampled.safetensors", 16, True)
    fm(folder + "/step_fm.safetensors", 13)
    history_net(folder + "/step_youtube_dnn.safetensors", 14, 0)
    history_net(folder + "/step_mind.safetensors", 15, 3)


main()
