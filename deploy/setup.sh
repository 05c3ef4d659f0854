#!/bin/sh
# Installs what Duet needs from Debian's packages. This is the one place that names them.
#
#   sh deploy/setup.sh [build] [run] [test] [mpi] [data] [golden] [ops] [peer]     default: build
#
#   build   compiler, CMake and the libraries' headers     test   what the test suite needs beside that
#   run     the shared libraries of an installed duetd     data   R's dslabs, which carries the quickstart's MovieLens
#   mpi     Open MPI, for `mpirun duet train`: its headers before duet is built, mpirun beside that (part of test)
#   golden  PyTorch, to export models trained with it and to make the golden files of tests/golden again (large; tests do without)
#   ops     promtool and HAProxy: tests of deploy/ use them where they are
#   peer    what bench/ measures against: the service of bench/peer_fastapi.py, hnswlib, Faiss, PyTorch
#
# Asks nothing; works as root or through sudo; installs only what is missing, and says what.
set -eu

build="build-essential cmake ninja-build pkg-config libmicrohttpd-dev libjansson-dev libyaml-dev libopenblas-dev libxxhash-dev zlib1g-dev libcurl4-openssl-dev libgnutls28-dev librdkafka-dev curl"
run="libmicrohttpd12 libjansson4 libyaml-0-2 libopenblas0-pthread libxxhash0 zlib1g libcurl4 libgnutls30 librdkafka1"
mpi="libopenmpi-dev openmpi-bin"
test="$mpi libcmocka-dev libhnswlib-dev python3-minimal libpython3-stdlib python3-yaml openssl"
data="r-cran-dslabs"
golden="python3-torch python3-numpy"
ops="prometheus haproxy"
peer="python3-fastapi python3-uvicorn python3-numpy python3-torch libhnswlib-dev libfaiss-dev g++"

packages=""
for group in "${@:-build}"; do
    case $group in
    build) packages="$packages $build" ;;
    run) packages="$packages $run" ;;
    test) packages="$packages $test" ;;
    mpi) packages="$packages $mpi" ;;
    data) packages="$packages $data" ;;
    golden) packages="$packages $golden" ;;
    ops) packages="$packages $ops" ;;
    peer) packages="$packages $peer" ;;
    *) echo "setup: unknown group '$group'; want build, run, test, mpi, data, golden, ops or peer" >&2; exit 2 ;;
    esac
done

missing=""
for p in $packages; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || { echo "setup: nothing to install (${*:-build})"; exit 0; }

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "setup: need root or sudo to install:$missing" >&2
    exit 1
fi
echo "setup: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Package lists of a fresh machine are empty or old: refresh them once, then install without questions.
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive \
       apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get failed; the last lines of its output are above" >&2
    exit 1
fi
echo "setup: done"
