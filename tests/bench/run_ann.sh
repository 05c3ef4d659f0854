#!/bin/sh
# Breaks when bench_ann does not run, finds less than exact search does, or its report cannot be made of what it wrote.
#   run_ann.sh BIN_DIR
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$1/bench_ann" n=2000 nq=50 k=10,100 ef=100,400 rounds=1 out="$dir/x.jsonl" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
grep -q '"system":"exact","recall":1.000000' "$dir/x.jsonl" || { echo "exact search is not exact"; cat "$dir/x.jsonl"; exit 1; }
for system in hnswlib plain fast compact; do
    grep "\"k\":10,\"ef\":400,.*\"system\":\"$system\"" "$dir/x.jsonl" | grep -qE '"recall":(1\.0|0\.99)' ||
        { echo "$system finds less than it should"; cat "$dir/x.jsonl"; exit 1; }
done
"$1/bench_ann_report" "$dir" "$dir/x.jsonl"
grep -q "^| 0.99 |" "$dir/ann.md" && [ -s "$dir/ann-relu-2000-k10.svg" ] && [ -s "$dir/ann-relu-2000-k100.svg" ]
