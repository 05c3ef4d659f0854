#!/bin/sh
# Breaks when deploy/quickstart.sh deletes a folder that it did not write, or cannot be called from elsewhere or with paths
# that hold spaces. Nothing is built: all that is tried here must end before.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/a link" "$dir/mine" "$dir/ours" "$dir/ours/raw"
ln -s "$DUET_SOURCE_DIR/deploy" "$dir/a link/deploy"
echo precious >"$dir/mine/file"
touch "$dir/ours/.duet-quickstart"
cd "$dir/a link"

refused() { # text arguments ...: exit status 2, and the text on standard error
    want=$1
    shift
    code=0
    sh deploy/quickstart.sh "$@" >"$dir/out" 2>"$dir/err" || code=$?
    [ $code = 2 ] && grep -q -- "$want" "$dir/err" || { echo "$*: status $code, wanted 2 and '$want'; found:"; cat "$dir/err"; exit 1; }
}

sh deploy/quickstart.sh --help | grep -q -- '--work DIR' || { echo "--help does not help"; exit 1; }
refused "unknown option '--twice'" --twice
refused "wants a value" --data
refused "wants a value" --work
refused "no such folder" --data nowhere
refused "$dir/a link/../mine: not empty" --work ../mine
refused "$dir/mine: not empty" --data synthetic --work "$dir/mine"
[ "$(cat "$dir/mine/file")" = precious ] || { echo "a folder of somebody else's was touched"; exit 1; }
refused "inside the work folder" --data "$dir/ours/raw" --work "$dir/ours"
[ -d "$dir/ours/raw" ] || { echo "the data were deleted"; exit 1; }
