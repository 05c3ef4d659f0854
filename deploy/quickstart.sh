#!/bin/sh
# From ratings to candidates on this machine: installs what is missing, builds, prepares data, trains the plain two-tower and
# DAT, evaluates and publishes both, starts duetd with an A/B test between them, sends one request and shows the answer.
#
#   sh deploy/quickstart.sh [--once] [--fast] [--data DIR|movielens|synthetic] [--work DIR]
#
#   --data movielens   (default) the 100,004 MovieLens ratings of Debian's package r-cran-dslabs
#   --data synthetic   generated city services: needs no extra package; also what is used where dslabs cannot be installed
#   --data DIR         any layout that `duet prepare` reads
#   --fast             a short training: worse candidates, well under a minute
#   --once             stop the daemon after the request and exit 0 (default: leave it running in the foreground)
#   --work DIR         where everything is written (default: .quickstart in the source folder)
set -eu
usage() { sed -n '2,13s/^# \{0,1\}//p' "$0"; }
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$PWD/$1" ;; esac; }
source_dir=$(cd "$(dirname "$0")/.." && pwd)

once="" fast="" data=movielens work=$source_dir/.quickstart
while [ $# -gt 0 ]; do
    case $1 in
    --once) once=1 ;;
    --fast) fast=--fast ;;
    --data) [ $# -gt 1 ] || { echo "quickstart: --data wants a value" >&2; exit 2; }; data=$2; shift ;;
    --work) [ $# -gt 1 ] || { echo "quickstart: --work wants a value" >&2; exit 2; }; work=$(absolute "$2"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart: unknown option '$1' (--help lists them)" >&2; exit 2 ;;
    esac
    shift
done
case $data in
movielens | synthetic) ;;
*) [ -d "$data" ] || { echo "quickstart: --data $data: no such folder; want a folder, movielens or synthetic" >&2; exit 2; }
   data=$(absolute "$data") ;;
esac
# What an earlier run wrote is written anew; a folder with anything else in it is left alone.
if [ "$work" != "$source_dir/.quickstart" ] && [ -e "$work" ] && [ ! -e "$work/.duet-quickstart" ] && [ -n "$(ls -A "$work")" ]; then
    echo "quickstart: --work $work: not empty, and not written by this script; want a new folder" >&2
    exit 2
fi
case $data/ in
"$work"/*) echo "quickstart: --data $data is inside the work folder, which is written anew; copy it elsewhere first" >&2; exit 2 ;;
esac
cd "$source_dir"

started=$(date +%s)
step() { printf '\n== %s  (%ss)\n' "$1" "$(($(date +%s) - started))"; }
run() { printf '$ %s\n' "$*"; "$@"; }

step "Installing what is missing"
sh deploy/setup.sh build
if [ "$data" = movielens ] && ! sh deploy/setup.sh data; then
    echo "quickstart: r-cran-dslabs cannot be installed here: using the synthetic data instead"
    data=synthetic
fi
echo "install time: $(($(date +%s) - started)) s"
started=$(date +%s)

step "Building"
cmake --preset release -DDUET_TESTS=OFF -B build/quickstart >/dev/null
cmake --build build/quickstart -j "$(nproc)"
PATH=$source_dir/build/quickstart/bin:$PATH
export PATH

rm -rf "$work"
mkdir -p "$work/raw"
touch "$work/.duet-quickstart"
case $data in
movielens)
    step "Exporting MovieLens"
    run Rscript deploy/export_movielens.R "$work/raw"
    raw=$work/raw ;;
synthetic)
    step "Generating city services"
    run duet synth --out "$work/raw"
    raw=$work/raw ;;
*) raw=$data ;;
esac

step "Preparing"
run duet prepare --in "$raw" --out "$work/data.duet"

for model in two_tower dat; do
    step "Training $model"
    run duet train --data "$work/data.duet" --model $model --out "$work/$model" $fast
done

step "Evaluating"
run duet evaluate --data "$work/data.duet" --checkpoint "$work/two_tower" --checkpoint "$work/dat" --json "$work/metrics.json"

for model in two_tower dat; do
    step "Publishing $model"
    run duet publish --data "$work/data.duet" --checkpoint "$work/$model" --repository "$work/models" --name $model
done

# ------------------------------------------------------------------------------------------------------- serving
# The usual ports where they are free and the daemon is to stay; any free ones otherwise.
port=0 admin=0
is_free() { code=0; curl -s -m 2 -o /dev/null "http://127.0.0.1:$1/" || code=$?; [ $code = 7 ]; } # 7: nobody listens
if [ -z "$once" ] && is_free 8080 && is_free 8081; then
    port=8080 admin=8081
fi
models=$(printf '%s' "$work/models" | sed "s/'/''/g") # as in a quoted YAML scalar
cat >"$work/duetd.yaml" <<YAML
data: {address: 127.0.0.1, port: $port}
admin: {address: 127.0.0.1, port: $admin}
models:
  - {name: two_tower, path: '$models/two_tower'}
  - {name: dat, path: '$models/dat'}
experiments:
  - name: main
    salt: quickstart
    variants:
      - {name: control, model: two_tower, weight: 50}
      - {name: treatment, model: dat, weight: 50}
YAML

step "Serving"
echo "\$ duetd --config $work/duetd.yaml"
rm -f "$work/ports.json"
duetd --config "$work/duetd.yaml" --ports-file "$work/ports.json" >"$work/duetd.log" 2>&1 &
daemon=$!
trap 'kill $daemon 2>/dev/null || true' EXIT INT TERM
die() { tail -n 20 "$work/duetd.log" >&2; echo "quickstart: $1; the log's last lines are above" >&2; exit 1; }
url="" tries=0
while :; do
    kill -0 $daemon 2>/dev/null || die "duetd ended early"
    if [ -s "$work/ports.json" ]; then
        url=http://127.0.0.1:$(sed 's/.*"data": *\([0-9]*\).*/\1/' "$work/ports.json")
        curl -sf "$url/readyz" >/dev/null && break
    fi
    tries=$((tries + 1))
    [ $tries -le 300 ] || die "duetd was not ready after 30 s"
    sleep 0.1
done
user=$(duet inspect "$work/data.duet" --first-user)
body="{\"user_id\":\"$user\",\"k\":100,\"exclude_seen\":true,\"fields\":[\"title\",\"category\"]}"
printf '$ curl -s %s/v1/retrieve -H "Content-Type: application/json" -d %s\n' "$url" "'$body'"
curl -sf "$url/v1/retrieve" -H 'Content-Type: application/json' -d "$body" >"$work/answer.json" || die "the request failed"
sed 's/"items":\[/"items":[\n  /; s/},{"id"/},\n  {"id"/g' "$work/answer.json" | sed -n '1,11p'
found=$(grep -o '"id":"[^"]*"' "$work/answer.json" | sort -u | wc -l)
echo "  ... $found distinct items in all; exclude_seen left out what user $user has in the training data (whole answer: $work/answer.json)"
returned=$(grep -o '"id":"[^"]*"' "$work/answer.json" | wc -l)
[ "$found" -gt 0 ] && [ "$found" -eq "$returned" ] || die "the answer has $returned items, $found of them distinct"

step "Done"
duet evaluate --show "$work/metrics.json"
printf '\nTry next:\n'
if [ -z "$once" ]; then
    cat <<NEXT
  curl -s $url/v1/retrieve -H 'Content-Type: application/json' -d '{"user_id":"a stranger","k":5,"fields":["title"]}'
  curl -s $url/v1/users:embed -H 'Content-Type: application/json' -d '{"user_id":"$user"}'
  curl -s '$url/v1/experiments:assign?user_id=$user'
  curl -s -X POST 'http://127.0.0.1:$(sed 's/.*"admin": *\([0-9]*\).*/\1/' "$work/ports.json")/v1/admin/models/dat:reload?wait=true'
NEXT
else
    echo "  duetd --config \"$work/duetd.yaml\"     # the same daemon, to stay; it says its ports"
fi
cat <<NEXT
  duet query --bundle "$work/models/dat/1" --user "$user" -k 10
(duet and duetd are in $source_dir/build/quickstart/bin)
NEXT

if [ -n "$once" ]; then
    kill -TERM $daemon
    wait $daemon || die "duetd did not stop cleanly"
    trap - EXIT
    exit 0
fi
echo
echo "duetd is serving on $url (log: $work/duetd.log); Ctrl-C stops it."
trap 'kill -TERM $daemon 2>/dev/null' INT TERM
wait $daemon || true
wait $daemon 2>/dev/null || true
trap - EXIT
