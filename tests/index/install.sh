#!/bin/sh
# Breaks when index/ cannot be built by itself, installed, found by pkg-config or CMake, or when the example does not
# run against what was installed, static or shared; and when the shared library shows more than the headers do.
#   install.sh SOURCE_DIR
set -eu
source=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cmake -S "$source/index" -B "$dir/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug >"$dir/log" 2>&1 &&
    cmake --build "$dir/build" -j2 >>"$dir/log" 2>&1 && cmake --install "$dir/build" --prefix "$dir/prefix" >>"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
lib=$(dirname "$(find "$dir/prefix" -name libhnswlib-c.a)")
export PKG_CONFIG_PATH="$lib/pkgconfig"

# pkg-config: against the shared library, and against the static one
cc "$source/index/example.c" -o "$dir/shared" $(pkg-config --cflags --libs hnswlib-c) -Wl,-rpath,"$lib"
cc "$source/index/example.c" -o "$dir/static" $(pkg-config --cflags hnswlib-c) "$lib/libhnswlib-c.a" -lm -pthread
# CMake
mkdir "$dir/user"
cat >"$dir/user/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(hnswlib-c 0.1 REQUIRED)
add_executable(user ${EXAMPLE})
target_link_libraries(user hnswlib-c::hnsw)
EOF
cmake -S "$dir/user" -B "$dir/user/build" -DCMAKE_PREFIX_PATH="$dir/prefix" -DEXAMPLE="$source/index/example.c" >"$dir/log" 2>&1 &&
    cmake --build "$dir/user/build" >>"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }

for way in shared static user/build/user; do
    "$dir/$way" >"$dir/out"
    head -n 1 "$dir/out" | grep -qx "42 1.0000" || { echo "install: $way: the nearest of vector 42 is not itself:"; cat "$dir/out"; exit 1; }
    [ "$(wc -l <"$dir/out")" = 5 ] || { echo "install: $way: want 5 lines:"; cat "$dir/out"; exit 1; }
done
# every header by itself, also for C++
for header in "$dir"/prefix/include/hnsw/*.h; do
    name=$(basename "$header")
    echo "#include <hnsw/$name>" | cc -fsyntax-only -Wall -Werror -I"$dir/prefix/include" -x c -
    ! command -v c++ >/dev/null || echo "#include <hnsw/$name>" | c++ -fsyntax-only -I"$dir/prefix/include" -x c++ -
done
more=$(nm -D --defined-only "$lib/libhnswlib-c.so" | awk '$2 == "T" { print $3 }' | while read -r f; do
    grep -qw "$f" "$dir"/prefix/include/hnsw/*.h || echo "$f"
done)
[ -z "$more" ] || { echo "install: the shared library shows what no header declares:" $more; exit 1; }
man=$(find "$dir/prefix" -name hnswlib-c.3)
! command -v mandoc >/dev/null || mandoc -T lint -W error "$man"
! command -v groff >/dev/null || [ -z "$(groff -mandoc -ww -z "$man" 2>&1)" ] || { groff -mandoc -ww -z "$man"; exit 1; }
