#!/usr/bin/env python3
"""Turns a PyTorch state dict into Duet's model.safetensors (docs/formats.md, "Model").

    python3 deploy/export_pytorch.py STATE.pt model.safetensors --kind dat --schema schema.json [--relu-out | --skip-aug] [--history-alpha A] [--rename OLD=NEW]...

STATE.pt is what torch.save(module.state_dict(), ..) writes. Names that it may use, for the side `user` (and the same for `item`):

    user.emb.<field>.weight  or  user.emb.<field>     nn.Embedding of each field of the schema; row 0 = unknown values
    user.aug.weight          or  user.aug             nn.Embedding of a_u by id row; row 0 is not used
    user.aug_segment[.weight]                         mean a_u of each segment; left out with one segment: the mean of rows 1 ..
    user.fc.<l>.weight, user.fc.<l>.bias              nn.Linear, in order; other layers of an nn.Sequential may lie between them
    logit_scale                                       factor of the inner product in training; left out: 1

--rename turns names that begin with OLD into the same with NEW, so other modules fit too: --rename query_tower.=user.
Needs PyTorch only to read STATE.pt; write_safetensors() alone needs nothing but Python.
"""
import argparse
import json
import re
import struct
import sys

ALIGN = 64  # where the data begin


def write_safetensors(path, tensors, metadata):
    """tensors: {name: (shape, little-endian float32 bytes)}, written in that order. metadata: {str: str}."""
    header, at = {"__metadata__": metadata}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for _, data in tensors.values():
            f.write(data)


def fields_with_tables(side):
    return [f for f in side["fields"] if f["kind"] != "display"]


def table_rows(field):
    if field["kind"] == "id":
        return field["rows"]
    if field["kind"] == "numeric":
        return len(field["bounds"]) + 2
    return len(field["values"]) + 1


def n_segments(side):
    return next((table_rows(f) for f in side["fields"] if f["name"] == side["segment"]), 1)


def id_rows(side):
    return next((table_rows(f) for f in side["fields"] if f["kind"] == "id"), 0)


def normal_names(state, renames):
    """Applies --rename, drops the .weight of embeddings, numbers the linear layers 0, 1, 2 .."""
    named = {}
    for name, tensor in state.items():
        for old, new in renames:
            if name.startswith(old):
                name = new + name[len(old):]
                break
        embedding = re.fullmatch(r"((?:user|item)\.(?:emb\..+|aug|aug_segment))\.weight", name)
        named[embedding.group(1) if embedding else name] = tensor
    for side in ("user", "item"):
        layer = re.compile(side + r"\.fc\.(\d+)\.(weight|bias)")
        numbers = sorted({int(m.group(1)) for m in map(layer.fullmatch, named) if m})
        named = {layer.sub(lambda m: f"{side}.fc.{numbers.index(int(m.group(1)))}.{m.group(2)}", name): tensor
                 for name, tensor in named.items()}
    return named


def take(named, name, shape=None):
    if name not in named:
        raise SystemExit(f"export: the state dict has no {name}; it has {', '.join(sorted(named))}. See --rename.")
    tensor = named.pop(name)
    if shape is not None and tuple(tensor.shape) != tuple(shape):
        raise SystemExit(f"export: {name} has shape {list(tensor.shape)}, the schema wants {list(shape)}")
    return tensor


def side_tensors(named, prefix, side, kind):
    """The tensors of one tower in the order of docs/formats.md."""
    out, k = {}, None
    for field in fields_with_tables(side):
        name = f"{prefix}.emb.{field['name']}"
        k = k or (named[name].shape[-1] if name in named else None)
        out[name] = take(named, name, (table_rows(field), k) if k else None)
    if kind == "dat":
        aug, segment = f"{prefix}.aug", f"{prefix}.aug_segment"
        if id_rows(side):
            out[aug] = take(named, aug)
        if segment not in named and n_segments(side) == 1 and aug in out:
            named[segment] = out[aug][1:].mean(dim=0, keepdim=True)
        out[segment] = take(named, segment)
    layer = 0
    while layer == 0 or f"{prefix}.fc.{layer}.weight" in named:
        for part in ("weight", "bias"):
            out[f"{prefix}.fc.{layer}.{part}"] = take(named, f"{prefix}.fc.{layer}.{part}")
        layer += 1
    return out


def export(state, path, schema, kind, relu_out, renames=(), skip_aug=False, history_alpha=1.0):
    """state: {name: torch tensor}; schema: the parsed schema.json; kind: dat or two_tower."""
    import torch

    named = normal_names(state, renames)
    tensors = {}
    for prefix in ("user", "item"):
        tensors.update(side_tensors(named, prefix, schema[prefix], kind))
    tensors["logit_scale"] = named.pop("logit_scale", torch.ones(1)).reshape(1)
    if named:
        raise SystemExit(f"export: no place in a model of kind {kind} for {', '.join(sorted(named))}")
    raw = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().to("cpu", torch.float32).contiguous()
        if not torch.isfinite(flat).all():
            raise SystemExit(f"export: {name} holds NaN or infinity")
        raw[name] = (tuple(flat.shape), flat.numpy().astype("<f4").tobytes())
    write_safetensors(path, raw, {"duet_format": "1", "kind": kind, "relu_out": "true" if relu_out else "false",
                                  "skip_aug": "true" if skip_aug else "false", "history_alpha": f"{history_alpha:.9g}"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", help="file written by torch.save(module.state_dict(), ..)")
    parser.add_argument("out", help="model.safetensors to write")
    parser.add_argument("--schema", required=True, help="schema.json that the model was trained with")
    parser.add_argument("--kind", required=True, choices=("dat", "two_tower"))
    parser.add_argument("--relu-out", action="store_true", help="ReLU after the last layer too")
    parser.add_argument("--skip-aug", action="store_true", help="the augmented vector is added to the last layer's outputs")
    parser.add_argument("--history-alpha", type=float, default=1.0, metavar="A",
                        help="a_u of a stranger with n items is n^-A times the sum of their vectors (default 1: the mean)")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        raise SystemExit("export: PyTorch is missing; on Debian: sh deploy/setup.sh golden") from None
    if any("=" not in r for r in args.rename):
        raise SystemExit("export: --rename wants OLD=NEW")
    state = torch.load(args.state, map_location="cpu", weights_only=True)
    with open(args.schema, encoding="utf-8") as f:
        schema = json.load(f)
    export(state, args.out, schema, args.kind, args.relu_out,
           [tuple(r.split("=", 1)) for r in args.rename], args.skip_aug, args.history_alpha)
    print(f"export: wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
