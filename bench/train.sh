#!/bin/bash
# Question: how many training pairs does a core take, against PyTorch with the same recipe and sizes, and what does a second thread add?
# Each round asks every program once, in turn; prints medians over the rounds and of the ratios within a round (bench/results.md, "Training").
#
#   bench/train.sh DATA              DATA: ml-1m in the generic layout, which both sides read
#   ROUNDS=7 SECONDS_EACH=2 TWO=1 bench/train.sh DATA     TWO=1: ours on two threads too, by wall time; that needs two idle cores
#
# torch.set_num_threads does not reach OpenBLAS, which by itself takes every core and counts their waiting as the peer's CPU time: it is told.
#
# Needs build/release with -DDUET_BENCH=ON and Debian's python3-torch python3-numpy.
set -e
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
cd "$(dirname "$0")/.."
bin=$PWD/build/release/bin data=$1 work=$(mktemp -d /tmp/duet-train-bench.XXXXXX)
rounds=${ROUNDS:-7} each=${SECONDS_EACH:-2}
trap 'rm -rf "$work"' EXIT
[ -d "$data" ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
"$bin/duet" prepare --in "$data" --out "$work/data.duet" >/dev/null 2>&1
for _ in $(seq "$rounds"); do
    for job in "paper dat 100" "paper two_tower 100" "plain dat 30" "plain two_tower 30"; do
        read -r recipe model batches <<<"$job"
        out=$work/$recipe.$model
        "$bin/bench_train" "$work/data.duet" "$recipe" "$model" 1 "$each" >>"$out.one"
        [ "${TWO:-0}" = 0 ] || "$bin/bench_train" "$work/data.duet" "$recipe" "$model" 2 "$each" >>"$out.two"
        /usr/bin/python3 bench/train_torch.py "$data" --recipe "$recipe" --model "$model" --batches "$batches" >>"$out.dense"
        /usr/bin/python3 bench/train_torch.py "$data" --recipe "$recipe" --model "$model" --batches "$batches" --adam sparse >>"$out.sparse"
    done
done
echo "$(lscpu | sed -n 's/^Model name: *//p'), load $(cut -d' ' -f1-3 /proc/loadavg), $rounds rounds"
/usr/bin/python3 - "$work" <<'PY'
import json, os, statistics as st, sys
def runs(name):
    path = f"{sys.argv[1]}/{name}"
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []
show = lambda v: f"{st.median(v):,.0f} ({min(v):,.0f} to {max(v):,.0f})"
ratio = lambda v: f"{st.median(v):.2f} ({min(v):.2f} to {max(v):.2f})"
print("| recipe, model | duet, pairs a CPU second | PyTorch, the faster Adam | duet / PyTorch | two threads / one, wall |\n| --- | --- | --- | --- | --- |")
for name in ("paper.dat", "paper.two_tower", "plain.dat", "plain.two_tower"):
    ours, two = runs(name + ".one"), runs(name + ".two")
    cpu = lambda r: [x["pairs_per_cpu_s"] for x in r]
    peer = max((cpu(runs(f"{name}.{adam}")) for adam in ("dense", "sparse")), key=st.median)
    threads = ratio([b["pairs_per_s"] / a["pairs_per_s"] for a, b in zip(ours, two)]) if two else "-"
    print(f"| {name.replace('.', ', ')} | {show(cpu(ours))} | {show(peer)} | {ratio([a / b for a, b in zip(cpu(ours), peer)])} | {threads} |")
PY
