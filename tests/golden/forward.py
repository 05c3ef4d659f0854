#!/usr/bin/env python3
"""Golden files of the forward pass: what PyTorch says a DAT with every kind of field computes. tests/core/test_golden.c reads them.

    sh deploy/setup.sh golden && /usr/bin/python3 tests/golden/forward.py

Writes beside itself, from fixed seeds: forward.schema.json, forward_linear.safetensors, forward_relu.safetensors and forward_skip.safetensors (through
deploy/export_pytorch.py, so the import is tested too), and forward.cases.json: feature values as text, the rows that they
encode to, and p. Encoding and forward are written here from docs/formats.md and docs/model.md and share nothing with the C code.
"""
import json
import os
import sys

import torch
from torch import nn
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "deploy"))
import export_pytorch as exporter

K, D, WIDTHS = 6, 8, (24, 16, 8)
EMPTY = 0xFFFFFFFF
SCHEMA = {
    "format": "duet-schema", "format_version": 1,
    "user": {"segment": "city", "fields": [
        {"name": "uid", "kind": "id", "rows": 7},
        {"name": "nickname", "kind": "display"},
        {"name": "city", "kind": "categorical", "values": ["SH", "BJ", "上海"]},
        {"name": "age", "kind": "numeric", "bounds": [18, 25.5, 60]},
        {"name": "likes", "kind": "multi", "sep": "|", "slots": 3, "values": ["Drama", "Sci Fi", "War", "Noir"]}]},
    "item": {"segment": None, "fields": [
        {"name": "iid", "kind": "id", "rows": 5},
        {"name": "title", "kind": "display"},
        {"name": "class", "kind": "categorical", "category": True, "values": ["food", "hotel"]},
        {"name": "price", "kind": "numeric", "bounds": [10, 50]},
        {"name": "tags", "kind": "multi", "sep": ",", "slots": 4, "values": ["new", "hot", "near", "open"]}]},
}
USERS = [  # row of the id table, features
    (1, {"city": "SH", "age": "18", "likes": "Drama"}),
    (6, {"city": "BJ", "age": "17.99", "likes": "War|Drama|Noir", "nickname": "kit"}),
    (3, {"city": "上海", "age": "25.5", "likes": " Sci Fi | War "}),
    (0, {"city": "BJ", "age": "99", "likes": "Noir|Noir|Drama"}),      # unknown user: mean a_u of segment BJ
    (0, {"city": "Paris", "age": "n/a", "likes": ""}),                 # nothing known: segment 0
    (5, {"city": "SH", "age": "-3e1", "likes": "Opera|War|Drama|Noir"}),  # part unknown, one too many
]
ITEMS = [
    (1, {"class": "food", "price": "10", "tags": "new,hot,near,open"}),
    (4, {"class": "hotel", "price": "9.5", "tags": "hot", "title": "Grand"}),
    (0, {"class": "museum", "price": "", "tags": ",,"}),
    (2, {"class": "food", "price": "50", "tags": "open,new"}),
]


def encode_field(field, text):
    if field["kind"] == "numeric":
        try:
            value = float(text)
        except ValueError:
            return [0]
        return [1 + sum(b <= value for b in field["bounds"])]
    if field["kind"] == "categorical":
        return [field["values"].index(text) + 1 if text in field["values"] else 0]
    rows = []
    for value in (v.strip(" ") for v in text.split(field["sep"])):
        row = field["values"].index(value) + 1 if value in field["values"] else 0
        if value and row not in rows and len(rows) < field["slots"]:
            rows.append(row)
    rows = rows or [0]
    return rows + [EMPTY] * (field["slots"] - len(rows))


def encode(side, id_row, features):
    x = []
    for field in exporter.fields_with_tables(side):
        x += [id_row] if field["kind"] == "id" else encode_field(field, features.get(field["name"], ""))
    return x


class Tower(nn.Module):
    def __init__(self, side, relu_out, skip_aug):
        super().__init__()
        self.side, self.relu_out, self.skip_aug = side, relu_out, skip_aug
        self.emb = nn.ModuleDict({f["name"]: nn.Embedding(exporter.table_rows(f), K) for f in exporter.fields_with_tables(side)})
        self.aug = nn.Embedding(exporter.id_rows(side), D)
        self.aug_segment = nn.Parameter(torch.randn(exporter.n_segments(side), D))
        sizes = [K * len(self.emb) + D, *WIDTHS]
        self.fc = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, sizes[1:]))

    def forward(self, x):
        """x: one entity's rows. Returns p and the augmented vector used."""
        parts, at, segment, id_row = [], 0, 0, 0
        for field in exporter.fields_with_tables(self.side):
            n = field.get("slots", 1)
            rows = [r for r in x[at:at + n] if r != EMPTY]
            at += n
            parts.append(self.emb[field["name"]](torch.tensor(rows)).mean(dim=0))
            segment = rows[0] if field["name"] == self.side["segment"] else segment
            id_row = rows[0] if field["kind"] == "id" else id_row
        a = self.aug.weight[id_row] if id_row else self.aug_segment[segment]
        h = torch.cat([*parts, a])
        for i, layer in enumerate(self.fc):
            h = layer(h)
            if self.relu_out or i + 1 < len(self.fc):
                h = torch.relu(h)
        return F.normalize(h + a if self.skip_aug else h, dim=0), a


def numbers(tensor):
    return [float(f"{v:.9g}") for v in tensor.tolist()]


def write_json(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def main():
    write_json("forward.schema.json", SCHEMA)
    cases = {side: [{"id_row": i, "features": f, "x": encode(SCHEMA[side], i, f)} for i, f in entities]
             for side, entities in (("user", USERS), ("item", ITEMS))}
    for seed, name in ((3, "linear"), (4, "relu"), (5, "skip")):
        torch.manual_seed(seed)
        relu_out, skip_aug = name == "relu", name == "skip"
        model = nn.ModuleDict({side: Tower(SCHEMA[side], relu_out, skip_aug) for side in ("user", "item")})
        state = dict(model.state_dict(), logit_scale=torch.tensor(20.0))
        exporter.export(state, os.path.join(HERE, f"forward_{name}.safetensors"), SCHEMA, "dat", relu_out,
                        skip_aug=skip_aug, history_alpha=0.5 if skip_aug else 1.0)
        with torch.no_grad():
            for side in cases:
                for case in cases[side]:
                    p, a = model[side](case["x"])
                    case[f"p_{name}"], case[f"a_{name}"] = numbers(p), numbers(a)
                    assert p.abs().sum() > 0
    write_json("forward.cases.json", cases)


if __name__ == "__main__":
    main()
