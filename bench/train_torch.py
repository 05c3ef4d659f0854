#!/usr/bin/env python3
"""The peer of bench/train.sh: the paper's recipe and a full softmax in PyTorch as one would write them, with the sizes of `duet train`.

    bench/train_torch.py DATA [--recipe paper|plain] [--model dat|two_tower] [--adam dense|sparse] [--batches N] [--threads N]

DATA is a folder in the generic layout (docs/data.md) with gender, age, occupation, year, genres and category, as ml-1m's. Prints one JSON line:
training pairs a second of wall time and of CPU time over N batches after 20 that are not counted. Each step does what step.c does: negatives
drawn, both towers, losses (2) to (5), gradients, Adam. Reading the data and validation are not counted on either side."""
import argparse
import csv
import gzip
import json
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

K, D, WIDTHS, BINS, LR = 32, 32, (256, 128, 32), 14, {"paper": 1e-3, "plain": 3e-3}


def rows(folder, name):
    with gzip.open(f"{folder}/{name}.csv.gz", "rt", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def codes(values):
    """Each value's number, from 1 on: 0 is the unknown."""
    number = {v: i + 1 for i, v in enumerate(sorted(set(values)))}
    return torch.tensor([number[v] for v in values]), len(number) + 1


class Data:
    def __init__(self, folder):
        pairs = [(r["user_id"], r["item_id"]) for r in rows(folder, "interactions") if r["split"] == "train"]
        users = list(rows(folder, "users"))
        seen = {i for _, i in pairs}
        items = [r for r in rows(folder, "items") if r["item_id"] in seen]
        user = {r["user_id"]: i for i, r in enumerate(users)}
        item = {r["item_id"]: i for i, r in enumerate(items)}
        at = sorted((user[u], item[i]) for u, i in pairs)
        self.pairs = torch.tensor(at)
        self.user = [codes([r[c] for r in users]) for c in ("user_id", "gender", "age", "occupation")]
        year = np.array([int(r["year"] or 0) for r in items])
        bins = np.quantile(year, np.linspace(0, 1, BINS)[1:-1])
        self.item = [codes([r["item_id"] for r in items]), (torch.tensor(np.digitize(year, bins) + 1), BINS + 1),
                     codes([r["category"] for r in items])]
        split = [r["genres"].split("|") for r in items]
        number = {g: i + 1 for i, g in enumerate(sorted({g for s in split for g in s}))}
        self.genres = torch.zeros(len(items), max(map(len, split)), dtype=torch.long)
        for i, s in enumerate(split):
            self.genres[i, :len(s)] = torch.tensor([number[g] for g in s])
        self.n_genres = len(number) + 1
        self.category = self.item[2][0]
        self.off = torch.searchsorted(self.pairs[:, 0].contiguous(), torch.arange(len(users) + 1))


class Tower(nn.Module):
    def __init__(self, fields, augmented, relu_out, sparse, bag=None, n_bag=0):
        super().__init__()
        self.x, self.bag, self.relu_out = torch.stack([x for x, _ in fields], 1), bag, relu_out
        self.emb = nn.ModuleList(nn.Embedding(n, K, sparse=sparse) for _, n in fields)
        self.mean = nn.EmbeddingBag(n_bag, K, mode="mean", padding_idx=0, sparse=sparse) if n_bag else None
        self.aug = nn.Embedding(fields[0][1], D, sparse=sparse) if augmented else None
        for e in [*self.emb, self.mean, self.aug]:
            if e is not None:
                nn.init.normal_(e.weight, std=0.05)
        sizes = [K * (len(fields) + (n_bag > 0)) + D * augmented, *WIDTHS]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, i):
        """p and a of entities i."""
        x = self.x[i]
        z = [e(x[:, f]) for f, e in enumerate(self.emb)]
        if self.mean is not None:
            z.append(self.mean(self.bag[i]))
        a = self.aug(x[:, 0]) if self.aug is not None else None
        h = torch.cat(z if a is None else [*z, a], 1)
        for n, layer in enumerate(self.layers):
            h = layer(h)
            if n + 1 < len(self.layers) or self.relu_out:
                h = torch.relu(h)
        return F.normalize(h, dim=1), a


def alignment(p, category, least, weighted):
    """Equation (3), sorted by category so that each is one slice."""
    order = torch.argsort(category)
    numbers, counts = torch.unique_consecutive(category[order], return_counts=True)
    cov = []
    for rows_of in torch.split(p[order], counts.tolist()):
        if len(rows_of) >= least:
            x = rows_of - rows_of.mean(0)
            cov.append((len(rows_of), x.t() @ x / (len(rows_of) - 1)))
    if not cov:
        return p.sum() * 0
    total, (_, major) = sum(n for n, _ in cov), max(cov, key=lambda c: c[0])
    return sum((n / total if weighted else 1) * ((major - c) ** 2).sum() for n, c in cov)


class Trainer:
    def __init__(self, data, args):
        self.d, self.dat, self.paper = data, args.model == "dat", args.recipe == "paper"
        sparse = args.adam == "sparse"
        self.user = Tower(data.user, self.dat, self.paper, sparse)
        self.item = Tower(data.item, self.dat, self.paper, sparse, data.genres, data.n_genres)
        tables, dense = [], []
        for name, p in [*self.user.named_parameters(), *self.item.named_parameters()]:
            (dense if "layers" in name else tables).append(p)
        lr = LR[args.recipe]
        self.steps = [torch.optim.SparseAdam(tables, lr=lr), torch.optim.Adam(dense, lr=lr, foreach=True)] if sparse else \
            [torch.optim.Adam(tables + dense, lr=lr, foreach=True)]
        self.n_items = len(data.category)

    def apply(self, loss):
        for s in self.steps:
            s.zero_grad(set_to_none=True)
        loss.backward()
        for s in self.steps:
            s.step()

    def pairs(self, batch, negatives=4):
        """The text's batch: a pair and its random negatives, BCE on the cosine. Each distinct user and item goes through its tower once."""
        pos = self.d.pairs[batch]
        n = len(pos)
        rows_of = torch.cat([pos[:, 1], torch.randint(self.n_items, (n * negatives,))])
        users, at_u = torch.unique(pos[:, 0], return_inverse=True)
        items, at_v = torch.unique(rows_of, return_inverse=True)
        (pu, au), (pv, av) = self.user(users), self.item(items)
        u, v = pu[at_u], pv[at_v]
        s = torch.cat([(u * v[:n]).sum(1), (u[:, None] * v[n:].view(n, negatives, D)).sum(2).view(-1)])
        y = torch.cat([torch.ones(n), torch.zeros(n * negatives)])
        loss = F.binary_cross_entropy_with_logits(s, y)
        if self.dat:
            loss = loss + (0.5 * ((au[at_u] - v[:n].detach()) ** 2).sum() + 0.5 * ((av[at_v[:n]] - u.detach()) ** 2).sum()) / len(s)
            loss = loss + alignment(v, self.d.category[rows_of], 2, False)
        self.apply(loss)
        return n

    def users(self, batch):
        """Whole users, softmax over all items."""
        spans = [self.d.pairs[self.d.off[u]:self.d.off[u + 1], 1] for u in batch.tolist()]
        at_u = torch.repeat_interleave(torch.arange(len(spans)), torch.tensor([len(s) for s in spans]))
        at_v, n = torch.cat(spans), len(at_u)
        (pu, au), (pv, av) = self.user(batch), self.item(torch.arange(self.n_items))
        loss = -F.log_softmax(10 * (pu @ pv.t()), 1)[at_u, at_v].mean()
        if self.dat:
            u, v = pu.detach()[at_u], pv.detach()[at_v]
            loss = loss + (0.5 * ((au[at_u] - v) ** 2).sum() + 0.5 * ((av[at_v] - u) ** 2).sum()) / n
            loss = loss + 1e-3 * alignment(pv, self.d.category, 16, True)
        self.apply(loss)
        return n


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("data")
    p.add_argument("--recipe", choices=("paper", "plain"), default="paper")
    p.add_argument("--model", choices=("dat", "two_tower"), default="dat")
    p.add_argument("--adam", choices=("dense", "sparse"), default="dense")
    p.add_argument("--batches", type=int, default=200)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    t = Trainer(Data(args.data), args)
    size, n_all = (256, len(t.d.pairs)) if t.paper else (128, len(t.d.off) - 1)
    step, order, at, pairs, wall, cpu = t.pairs if t.paper else t.users, torch.randperm(n_all), 0, 0, 0, 0
    for b in range(args.batches + 20):
        if b == 20:
            pairs, wall, cpu = 0, time.perf_counter(), time.process_time()
        if at + size > n_all:
            order, at = torch.randperm(n_all), 0
        pairs += step(order[at:at + size])
        at += size
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"system": "torch " + torch.__version__, "pairs": pairs, "wall_s": wall, "cpu_s": cpu, "pairs_per_cpu_s": pairs / cpu,
                      "pairs_per_s": pairs / wall}))


if __name__ == "__main__":
    main()
