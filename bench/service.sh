#!/bin/bash
# Question: what is a request's cost at a million items, against FastAPI + NumPy + hnswlib, and against the tower and the search in a bare
# loop and behind a bare libmicrohttpd handler (bench_floor)? Do many connections stall it, and is a reload felt? Sets everything up, runs
# them in turn, prints a table (bench/results.md, "Service at a million items").
#
#   bench/service.sh [WORK]          WORK (default /tmp/duet-service) keeps the bundle and hnswlib's index from run to run: 2 GB, and ten
#                                    minutes the first time
#   ROUNDS=7 SECONDS_EACH=4 RECALL=.993 CONNECTIONS=16 RATE=500 LAYOUT=compact HEADER_BYTES=16384 bench/service.sh
#
# Needs build/release with -DDUET_BENCH=ON and Debian's python3-fastapi python3-uvicorn python3-numpy libhnswlib-dev g++. The daemon has one
# event loop and the peer one process; both, and the clients, are pinned to one core, for otherwise each answer wakes the client's idle core,
# which on a virtual machine costs the server up to 20 us of CPU time (10,400 answers a CPU second instead of 13,600).
set -e
cd "$(dirname "$0")/.."
bin=$PWD/build/release/bin work=${1:-/tmp/duet-service}
rounds=${ROUNDS:-7} each=${SECONDS_EACH:-4} recall=${RECALL:-.993} connections=${CONNECTIONS:-16} rate=${RATE:-500} layout=${LAYOUT:-compact}
header_bytes=${HEADER_BYTES:-16384}
data=18080 admin=18081 peer_port=19000
mkdir -p "$work"
[ -e "$work/bundle1m/dat/2/compact.hnsw" ] || { # 2: the last of them to be written; one from before that file loads twice as long
    rm -rf "$work/bundle1m"; "$bin/bench_bundle" "$work/bundle1m" >"$work/bundle.log" 2>&1; }
bundle=$work/bundle1m/dat/1
seq 50000 >"$work/users"

cat >"$work/duetd.yaml" <<YAML
data: {port: $data, threads: 1}
admin: {port: $admin}
admission: {max_lag_ms: 0}
limits: {header_bytes: $header_bytes}
models: [{name: dat, path: $work/bundle1m/dat, version: 1, index_layout: $layout}]
YAML
pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; }
trap stop EXIT
taskset -c 0 "$bin/duetd" --config "$work/duetd.yaml" 2>"$work/duetd.log" &
duetd=$! pids+=($!)
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 taskset -c 0,1 /usr/bin/python3 bench/peer_fastapi.py "$bundle" --port $peer_port --index "$work/bundle1m.hnswlib" &
peer=$! pids+=($!)
for url in http://127.0.0.1:$admin/readyz http://127.0.0.1:$peer_port/docs; do
    until curl -sf -o /dev/null "$url"; do kill -0 $duetd; kill -0 $peer; sleep 1; done
done
taskset -cp 0 $peer >/dev/null

# The ef with which each finds that share of the true top 100: over the users that are asked for here, by scores.
/usr/bin/python3 - $data $peer_port "$recall" >"$work/ef" <<'PY'
import json, sys, urllib.request
data, peer, target = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
users = [str(1 + 211 * i) for i in range(200)]
def ask(port, **body):
    r = urllib.request.Request(f"http://127.0.0.1:{port}/v1/retrieve", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return [i["score"] for i in json.load(urllib.request.urlopen(r))["items"]]
least = {u: ask(data, user_id=u, k=100, exact=True)[99] - 1e-5 for u in users}
for port in (data, peer):
    recall = lambda ef: sum(s >= least[u] for u in users for s in ask(port, user_id=u, k=100, ef=ef)) / 100 / len(users)
    low, high = 100, 400
    while high - low > 3:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= target else (middle, high)
    print(high, f"{recall(high):.4f}")
PY
{ read -r ef reached; read -r peer_ef peer_reached; } <"$work/ef"
echo "ef for recall $recall: duetd $ef ($reached), hnswlib $peer_ef ($peer_reached); $(lscpu | sed -n 's/^Model name: *//p'), load $(cut -d' ' -f1-3 /proc/loadavg)"

load() { taskset -c 0 "$bin/duet" bench load --url "http://127.0.0.1:$1" --users "$work/users" -k 100 --ef "$2" --connections "$connections" --seconds "$each" --warmup .5 --pid "$3" --json; }
rm -f "$work/floor_port"
taskset -c 0 "$bin/bench_floor" "$bundle" ef="$ef" layout="$layout" memory="$header_bytes" >"$work/floor_port" &
floor=$! pids+=($!)
until [ -s "$work/floor_port" ]; do kill -0 $floor; sleep 1; done
rm -f "$work"/{duetd,floor,peer,bare}.runs
for _ in $(seq "$rounds"); do
    load $data "$ef" $duetd >>"$work/duetd.runs"
    load "$(cat "$work/floor_port")" "$ef" $floor >>"$work/floor.runs"
    load $peer_port "$peer_ef" $peer >>"$work/peer.runs"
    taskset -c 0 "$bin/bench_retrieve" "$bundle" ef="$ef" seconds=2 users=1 layout="$layout" >>"$work/bare.runs"
done
kill $peer $floor
/usr/bin/python3 - "$work" <<'PY'
import json, statistics as st, sys
def runs(name):
    text, out, decoder = open(f"{sys.argv[1]}/{name}.runs").read(), [], json.JSONDecoder()
    while text.strip():
        value, end = decoder.raw_decode(text.lstrip())
        out, text = out + [value], text.lstrip()[end:]
    return out
duetd, floor, peer = ([r["answers_per_cpu_second"] for r in runs(name)] for name in ("duetd", "floor", "peer"))
bare = runs("bare")
loop, topk = [b["bare"] for b in bare], [b["topk"] for b in bare]
show = lambda v: f"{st.median(v):,.0f} ({min(v):,.0f} to {max(v):,.0f})"
ratio = lambda a, b: f"{st.median(x / y for x, y in zip(a, b)):.2f} ({min(x / y for x, y in zip(a, b)):.2f} to {max(x / y for x, y in zip(a, b)):.2f})"
print("| | requests a CPU second, median (rounds) |\n| --- | --- |")
for name, v in (("duetd", duetd), ("tower and search behind bare libmicrohttpd", floor), ("FastAPI, NumPy, hnswlib", peer), ("tower and search in a loop", loop), ("retrieve_topk in a loop", topk)):
    print(f"| {name} | {show(v)} |")
print(f"| duetd / FastAPI, within a round | {ratio(duetd, peer)} |\n| duetd / bare loop, within a round | {ratio(duetd, loop)} |\n| bare libmicrohttpd / bare loop, within a round | {ratio(floor, loop)} |\n"
      f"| duetd / bare libmicrohttpd, within a round | {ratio(duetd, floor)} |")
PY

echo "memory: bundle $(du -sb "$bundle" | cut -f1) bytes, duetd $(sed -n 's/^VmRSS:[[:space:]]*//p' /proc/$duetd/status) resident"
for many in 16 256 1000; do
    echo "$many connections, $((2 * rate)) requests a second in all:"
    "$bin/duet" bench load --url "http://127.0.0.1:$data" --users "$work/users" --ef "$ef" --rate $((2 * rate)) --connections $many --seconds 8 --warmup 2 | grep -E '^(latency|status|fail)'
done
taskset -acp 0,1 $duetd >/dev/null # the loader may have the other core, as it would in service
"$bin/duet" bench swap --url http://127.0.0.1:$data --admin http://127.0.0.1:$admin --model dat --users "$work/users" --ef "$ef" --rate "$rate" \
    --rounds "${SWAPS:-4}" --pause 2 --limit 1.2 || echo "(the limit was passed)"
echo "the same, the daemon with its loader on one core, the client, whom nobody then disturbs, on the other:"
taskset -acp 0 $duetd >/dev/null
taskset -c 1 "$bin/duet" bench swap --url http://127.0.0.1:$data --admin http://127.0.0.1:$admin --model dat --users "$work/users" --ef "$ef" --rate "$rate" \
    --rounds "${SWAPS:-4}" --pause 2 --limit 1.2 || echo "(the limit was passed)"
echo "memory after $((4 * ${SWAPS:-4})) reloads: duetd $(sed -n 's/^VmHWM:[[:space:]]*//p' /proc/$duetd/status) at its peak"
