"""What `duet train --tensorboard DIR` writes, read by a reader of its own: TFRecord framing, CRC-32C, protobuf.

What breaks when it fails: TensorBoard shows nothing, or other numbers than train.jsonl.
"""
import glob
import json
import os
import struct
import subprocess
import sys
import tempfile

BIN = os.path.join(os.environ["DUET_BIN_DIR"], "duet")


def duet(*args):
    p = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=100)
    if p.returncode:
        sys.exit(f"duet {' '.join(args)}: exit {p.returncode}\n{p.stdout}\n{p.stderr}")


def crc_table():
    """CRC-32C by polynomial division of each byte, most significant bit first, reflected at both ends: not how the writer does it."""
    flip = lambda v, n: int(format(v, f"0{n}b")[::-1], 2)
    table = []
    for byte in range(256):
        v = flip(byte, 8) << 24
        for _ in range(8):
            v = (v << 1) ^ 0x11EDC6F41 if v & 0x80000000 else v << 1
        table.append(flip(v & 0xFFFFFFFF, 32))
    return table


TABLE = crc_table()


def masked(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = TABLE[(crc ^ b) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    with open(path, "rb") as f:
        data = f.read()
    at = 0
    while at < len(data):
        head = data[at:at + 8]
        n, = struct.unpack("<Q", head)
        body = data[at + 12:at + 12 + n]
        crcs = struct.unpack("<I", data[at + 8:at + 12]) + struct.unpack("<I", data[at + 12 + n:at + 16 + n])
        if crcs != (masked(head), masked(body)):
            sys.exit(f"{path}: a record at {at} has CRCs {crcs}, want {(masked(head), masked(body))}")
        yield body
        at += 16 + n


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def message(data):
    """{field: [value, ..]} of a protobuf message; numbers as ints or floats, the rest as bytes."""
    at, out = 0, {}
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 1:
            value, at = struct.unpack("<d", data[at:at + 8])[0], at + 8
        elif key & 7 == 5:
            value, at = struct.unpack("<f", data[at:at + 4])[0], at + 4
        elif key & 7 == 2:
            n, at = varint(data, at)
            value, at = data[at:at + n], at + n
        else:
            sys.exit(f"wire type {key & 7}")
        out.setdefault(key >> 3, []).append(value)
    return out


def scalars(path):
    """[(step, {tag: value})] of a file, whose first event is its version."""
    events = [message(r) for r in records(path)]
    if events[0].get(3) != [b"brain.Event:2"]:
        sys.exit(f"{path}: begins with {events[0]}")
    out = []
    for e in events[1:]:
        if not e[1][0] > 1.6e9:
            sys.exit(f"{path}: a time of {e[1]}")
        values = [message(v) for v in message(e[5][0])[1]]
        out.append((e[2][0], {v[1][0].decode(): v[2][0] for v in values}))
    return out


def check(found, line, dat):
    valid = line["validation"]
    want = {"loss/total": line["loss"], "validation/hr@50": valid["hr@50"], "validation/hr@100": valid["hr@100"],
            "validation/mrr": valid["mrr"], "pairs_per_s": line["pairs_per_s"]}
    if dat:
        want.update({"loss/main": line["main"], "loss/mimic_u": line["mimic_u"], "loss/mimic_v": line["mimic_v"],
                     "loss/cal": line["cal"], "logit_scale": line["logit_scale"]})
    elif "loss/cal" in found:
        sys.exit("a model without alignment has loss/cal")
    for tag, value in want.items():
        if abs(found[tag] - value) > 1e-6 * max(1, abs(value)):
            sys.exit(f"{tag} is {found[tag]}, train.jsonl has {value}")


def one(model):
    common = ["train", "--data", "city.duet", "--model", model, "--out", model, "--tensorboard", f"{model}.tb", "--patience", "0",
              "--quiet", "--threads", "1", "--widths", "8"]
    duet(*common, "--epochs", "2")
    first = glob.glob(f"{model}.tb/events.out.tfevents.*")
    duet(*common, "--epochs", "3", "--resume")
    files = sorted(glob.glob(f"{model}.tb/events.out.tfevents.*"), key=lambda f: (f not in first, f))
    found = [s for f in files for s in scalars(f)]
    with open(f"{model}/train.jsonl", encoding="utf-8") as f:
        log = [json.loads(line) for line in f]
    if (len(files), [step for step, _ in found], len(log)) != (2, [1, 2, 3], 3):
        sys.exit(f"{model}: {len(files)} files with steps {[s for s, _ in found]}, {len(log)} lines in train.jsonl")
    for (_, values), line in zip(found, log):
        check(values, line, model == "dat")


def main():
    if masked(b"123456789") != ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF:  # the check value of CRC-32C
        sys.exit("this reader's CRC-32C is wrong")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        duet("synth", "--out", "raw", "--users", "300", "--items", "200", "--interactions", "6000")
        duet("prepare", "--in", "raw", "--out", "city.duet")
        one("dat")
        one("wals")
    print("tensorboard: events of dat and wals as in train.jsonl, over a resumption")


main()
