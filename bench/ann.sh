#!/bin/sh
# The index beside hnswlib and Faiss: the whole suite, its tables and its plots.
#
#   sh bench/ann.sh [CACHE] [OUT] [DATA]
#
#   CACHE  folder for graphs, exact answers and each part's figures (about 4 GB; default build/ann). A part whose figures are there is not
#          run again, so a run that was cut off goes on where it was; remove CACHE/*.jsonl to measure anew with the same graphs.
#   OUT    folder for ann.md and the plots (default bench/results)
#   DATA   folder of MovieLens-1M (ml-1m of a download): item embeddings of a DAT trained on it are measured as well
#
# TEN_MILLION=1 adds 10M items (an hour and a half of building, 10 GB; the fast layout would take 15 more and is left out). CPU=n pins to that core. Needs a release build with -DDUET_BENCH=ON.
set -eu
cd "$(dirname "$0")/.."
cache=${1:-build/ann} out=${2:-bench/results} data=${3:-} bin=build/release/bin
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
mkdir -p "$cache" "$out"

part() { # NAME options of bench_ann
    name=$1
    shift
    [ ! -s "$cache/$name.jsonl" ] || { echo "ann: $name is there"; return 0; }
    echo "ann: $name"
    rm -f "$cache/$name.part"
    "$bin/bench_ann" cache="$cache" cpu="${CPU:--1}" out="$cache/$name.part" "$@"
    mv "$cache/$name.part" "$cache/$name.jsonl"
}

part relu-1M-k100 kind=relu n=1000000 nq=1000 k=100 ef=100,120,150,200,300,400,500 rounds=5
part relu-1M-k10 kind=relu n=1000000 nq=1000 k=10 ef=10,15,20,30,40,60,90 rounds=5
part relu-1M-k1000 kind=relu n=1000000 nq=300 k=1000 ef=1000,1200,1500,2000,3000 rounds=5
part relu-100k kind=relu n=100000 nq=1000 k=100 ef=100,120,150,200,300,400 rounds=5
part relu-10k kind=relu n=10000 nq=1000 k=100 ef=100,120,150,200,300 rounds=5
part sphere-200k kind=sphere n=200000 nq=500 k=100 ef=100,150,200,300,400,600,1000 rounds=5
[ -z "${TEN_MILLION:-}" ] || part relu-10M kind=relu n=10000000 nq=300 k=100 ef=100,150,200,300,400 rounds=3 threads=2 systems=hnswlib,plain,compact
if [ -n "$data" ]; then
    if [ ! -d "$cache/ml-1m/models" ]; then
        "$bin/duet" prepare --in "$data" --out "$cache/ml-1m.duet" && "$bin/duet" train --data "$cache/ml-1m.duet" --out "$cache/ml-1m" &&
            "$bin/duet" publish --data "$cache/ml-1m.duet" --checkpoint "$cache/ml-1m" --repository "$cache/ml-1m/models" --name dat
    fi
    part ml-1m data="$cache/ml-1m/models/dat/1/items.safetensors" name=ml-1m n=0 nq=1000 k=100 ef=100,120,150,200,300 rounds=5
fi
"$bin/bench_ann_report" "$out" "$cache"/*.jsonl
echo "ann: $out/ann.md"
