#!/bin/sh
# Builds every guest from its source: guests/<name>/src/main.rs becomes guests/<name>.wasm.
# With --check, builds elsewhere and fails if a module that lies here is not what its source gives (same compiler only).
# Needs: rustup target add wasm32-wasip1
set -eu
cd "$(dirname "$0")"
out=.
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
for source in */src/main.rs; do
    name=${source%%/*}
    # Paths are remapped so that the module is the same wherever it is built.
    rustc --edition 2024 --crate-name "$name" --target wasm32-wasip1 \
        -C opt-level=z -C lto=fat -C codegen-units=1 -C panic=abort -C strip=symbols \
        --remap-path-prefix "$PWD=guests" -D warnings -o "$out/$name.wasm" "$source"
    [ "$out" = . ] || cmp "$out/$name.wasm" "$name.wasm"
done
