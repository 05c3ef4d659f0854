#!/bin/sh
# Breaks when an error's code that duetd may answer is not in the table of docs/api.md, which clients are written from.
set -eu
cd "$DUET_SOURCE_DIR"
missing=0
for code in $(grep -hoE '([45][0-9][0-9]|resp), "[a-z_]+"' server/*.c | grep -oE '"[a-z_]{2,}' | tr -d '"' | sort -u); do
    grep -q "^| [45].*\`$code\`" docs/api.md || { echo "$code is not in docs/api.md's table of errors"; missing=1; }
done
exit $missing
