"""What Duet is measured against: the same bundle behind FastAPI, a NumPy tower and the real hnswlib, as one would write it in Python.

    python3 bench/peer_fastapi.py BUNDLE --port 9000 [--ef 64] [--index FILE]

The fast choices are made for it: uvicorn without access log, one process, NumPy on one thread, hnswlib compiled here with -O3
-march=native (Debian's wheel is built for any x86-64), answers by json.dumps of plain lists, no pydantic model. Debian's packages:
python3-fastapi python3-uvicorn python3-numpy libhnswlib-dev g++. POST /v1/retrieve {"user_id", "k", "ef"}; as nothing else runs at the
same time here, a request's ef may be the index's, which hnswlib has one of. --index keeps hnswlib's index from run to run: a million items take minutes to build.
"""
import argparse
import ctypes
import json
import os
import struct
import subprocess
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

BINDING = r"""
#include <hnswlib/hnswlib.h>
#include <thread>
#include <vector>
typedef hnswlib::HierarchicalNSW<float> Index;
extern "C" void *index_new(size_t d, size_t n, const float *v, size_t threads)
{
    Index *x = new Index(new hnswlib::InnerProductSpace(d), n, 16, 200);
    std::vector<std::thread> t;
    x->addPoint(v, 0);
    for (size_t k = 0; k < threads; k++)
        t.emplace_back([=] {
            for (size_t i = 1 + k; i < n; i += threads)
                x->addPoint(v + i * d, i);
        });
    for (auto &one : t)
        one.join();
    return x;
}
extern "C" void *index_load(size_t d, const char *path)
{
    return new Index(new hnswlib::InnerProductSpace(d), path);
}
extern "C" void index_save(void *index, const char *path)
{
    ((Index *)index)->saveIndex(path);
}
extern "C" void index_set_ef(void *index, size_t ef)
{
    ((Index *)index)->setEf(ef);
}
extern "C" size_t index_search(void *index, const float *q, size_t k, unsigned *id, float *score)
{
    auto found = ((Index *)index)->searchKnn(q, k);
    size_t n = found.size();
    for (size_t i = n; i-- > 0; found.pop()) {
        id[i] = (unsigned)found.top().second;
        score[i] = 1 - found.top().first;
    }
    return n;
}
"""


def compile_binding():
    folder = tempfile.mkdtemp(prefix="peer-")
    with open(f"{folder}/b.cc", "w", encoding="utf-8") as f:
        f.write(BINDING)
    subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC", "-o", f"{folder}/b.so", f"{folder}/b.cc", "-lpthread"], check=True)
    b = ctypes.CDLL(f"{folder}/b.so")
    b.index_new.restype = ctypes.c_void_p
    b.index_new.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
    b.index_load.restype = ctypes.c_void_p
    b.index_load.argtypes = [ctypes.c_size_t, ctypes.c_char_p]
    b.index_save.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    b.index_set_ef.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    b.index_search.restype = ctypes.c_size_t
    b.index_search.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
    return b


def read_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(n))
        data = f.read()
    meta = head.pop("__metadata__", {})
    return {k: np.frombuffer(data[slice(*v["data_offsets"])], "<f4").reshape(v["shape"]) for k, v in head.items()}, meta


def read_pack(path):
    """docs/formats.md, Container."""
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack_from("<I", data, 12)
    at, = struct.unpack_from("<Q", data, 16)
    kinds = {1: "u1", 2: "<u4", 3: "<u8", 4: "<i8", 5: "<f4", 6: "<f8"}
    out = {}
    for i in range(n):
        name, kind, columns, rows, offset, size = struct.unpack_from("<48sIIQQQ", data, at + 88 * i)
        v = np.frombuffer(data[offset:offset + size], kinds[kind])
        out[name.split(b"\0")[0].decode()] = v.reshape(rows, columns) if columns > 1 else v
    return out


def strings(pack, name):
    off, text = pack[f"{name}.off"], pack[f"{name}.bytes"].tobytes()
    return [text[off[i]:off[i + 1]].decode() for i in range(len(off) - 1)]


class Model:
    def __init__(self, bundle, ef, threads, index):
        w, meta = read_safetensors(f"{bundle}/model.safetensors")
        users, items = read_pack(f"{bundle}/users.pack"), read_pack(f"{bundle}/items.pack")
        with open(f"{bundle}/schema.json", encoding="utf-8") as f:
            fields = [f for f in json.load(f)["user"]["fields"] if f["kind"] != "display"]
        if any(f["kind"] == "multi" for f in fields):
            raise SystemExit("multi-valued features are not for this program")
        self.relu_out = meta["relu_out"] == "true"
        self.tables = [w[f"user.emb.{f['name']}"] for f in fields]
        self.layers = [(w[f"user.fc.{i}.weight"], w[f"user.fc.{i}.bias"]) for i in range(8) if f"user.fc.{i}.weight" in w]
        self.x = users["x"].reshape(len(users["ids.off"]) - 1, -1)
        self.a_u = users.get("aug")
        self.row = {name: i for i, name in enumerate(strings(users, "ids"))}
        self.item_ids = strings(items, "ids")
        emb, _ = read_safetensors(f"{bundle}/items.safetensors")
        self.v = np.ascontiguousarray(emb["embeddings"], np.float32)
        self.b = compile_binding()
        begin = time.time()
        if index and os.path.exists(index):
            self.index = self.b.index_load(self.v.shape[1], index.encode())
        else:
            self.index = self.b.index_new(self.v.shape[1], len(self.v), self.v.ctypes.data, threads)
            print(f"index of {len(self.v)} items built in {time.time() - begin:.1f} s", flush=True)
            if index:
                self.b.index_save(self.index, index.encode())
        self.b.index_set_ef(self.index, ef)

    def embed(self, row):
        x = self.x[row]
        parts = [t[i] for t, i in zip(self.tables, x)]
        if self.a_u is not None:
            parts.append(self.a_u[row])
        h = np.concatenate(parts)
        for i, (weight, bias) in enumerate(self.layers):
            h = weight @ h + bias
            if self.relu_out or i + 1 < len(self.layers):
                h = np.maximum(h, 0)
        return h / np.linalg.norm(h)

    def retrieve(self, user, k, ef):
        if ef:
            self.b.index_set_ef(self.index, ef)
        p = np.ascontiguousarray(self.embed(self.row[user]), np.float32)
        ids, scores = np.empty(k, np.uint32), np.empty(k, np.float32)
        n = self.b.index_search(self.index, p.ctypes.data, k, ids.ctypes.data, scores.ctypes.data)
        names = self.item_ids
        return [{"id": names[i], "score": s} for i, s in zip(ids[:n].tolist(), scores[:n].tolist())]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("bundle")
    a.add_argument("--port", type=int, default=9000)
    a.add_argument("--ef", type=int, default=100)
    a.add_argument("--index")
    a.add_argument("--build-threads", type=int, default=os.cpu_count())
    a = a.parse_args()
    model = Model(a.bundle, a.ef, a.build_threads, a.index)
    app = FastAPI()

    @app.post("/v1/retrieve")
    async def retrieve(request: Request):
        body = await request.json()
        items = model.retrieve(body["user_id"], body["k"], body.get("ef"))
        return Response(json.dumps({"returned": len(items), "items": items}), media_type="application/json")

    uvicorn.run(app, host="127.0.0.1", port=a.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
