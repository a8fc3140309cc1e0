#!/bin/sh
# Builds every guest from its source: guests/<name>/src/main.rs becomes guests/<name>.wasm.
# With --check, builds elsewhere and fails if a module that lies here is not what its source gives. Another compiler than
# the one in `built-with` gives other bytes: then it is only checked that the sources build.
# Needs the target wasm32-wasip1, which it adds with rustup if it is missing.
set -eu
cd "$(dirname "$0")"
out=.
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
compiler=$(rustc --version | cut -d' ' -f1,2)
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1" ]; then
    if ! rustup target add wasm32-wasip1; then
        [ "$out" != . ] || exit 1
        echo "guests NOT rebuilt: this compiler has no target wasm32-wasip1, and rustup cannot fetch it" >&2
        exit 0
    fi
fi
for source in */src/main.rs; do
    name=${source%%/*}
    # Paths are remapped so that the module is the same wherever it is built.
    rustc --edition 2024 --crate-name "$name" --target wasm32-wasip1 \
        -C opt-level=z -C lto=fat -C codegen-units=1 -C panic=abort -C strip=symbols \
        --remap-path-prefix "$PWD=guests" -D warnings -o "$out/$name.wasm" "$source"
    if [ "$out" != . ] && [ "$compiler" = "$(cat built-with)" ]; then
        cmp "$out/$name.wasm" "$name.wasm"
    fi
done
if [ "$out" = . ]; then
    echo "$compiler" >built-with
else
    echo "guests build with $compiler; the modules here were built with $(cat built-with)"
fi
