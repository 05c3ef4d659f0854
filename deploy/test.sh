#!/bin/sh
# Installs what is missing, builds with warnings as errors, and runs the whole test suite.
#
#   sh deploy/test.sh          release and asan-ubsan
#   sh deploy/test.sh --all    and tsan
#   sh deploy/test.sh --slow   and, in release, the long runs labelled slow (training to the published figures)
#
# Tests that want real datasets take them from DUET_TEST_DATA (here: ../shared/data when it exists) and are skipped otherwise.
set -eu
cd "$(dirname "$0")/.."

presets="release asan-ubsan" slow=""
for arg in "$@"; do
    case $arg in
    --all) presets="$presets tsan" ;;
    --slow) slow=1 ;;
    *) echo "usage: sh deploy/test.sh [--all] [--slow]" >&2; exit 2 ;;
    esac
done

sh deploy/setup.sh build test

if [ -z "${DUET_TEST_DATA:-}" ] && [ -d ../shared/data ]; then
    DUET_TEST_DATA=$(cd ../shared/data && pwd)
fi
if [ -n "${DUET_TEST_DATA:-}" ]; then
    export DUET_TEST_DATA
    echo "test: real datasets from $DUET_TEST_DATA"
else
    echo "test: no real datasets (DUET_TEST_DATA is not set): tests that need them are skipped, ctest lists them below"
fi

# The kernel's address-space randomisation can leave no room for ThreadSanitizer's shadow memory.
no_aslr=""
if setarch "$(uname -m)" -R true 2>/dev/null; then
    no_aslr="setarch $(uname -m) -R"
fi

jobs=$(nproc)
for preset in $presets; do
    echo "test: $preset"
    cmake --preset "$preset" -DDUET_WERROR=ON >"/tmp/duet-cmake.$$" 2>&1 || { cat "/tmp/duet-cmake.$$"; rm -f "/tmp/duet-cmake.$$"; exit 1; }
    rm -f "/tmp/duet-cmake.$$"
    cmake --build --preset "$preset" -j "$jobs"
    prefix=""
    [ "$preset" = tsan ] && prefix=$no_aslr
    $prefix ctest --preset "$preset" -j "$jobs" -LE slow
done
if [ -n "$slow" ]; then
    echo "test: the slow ones"
    ctest --preset release -L slow
fi
