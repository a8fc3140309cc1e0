#!/usr/bin/env bash
# Sets up what the tests need, then passes them. On a machine with Rust and a C compiler nothing else is needed first.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# The tests hold codling against real tools: GNU tar, gzip and Python's tarfile; systemd reads the unit, strace the calls,
# faketime's library sets a node's clock.
missing=()
for tool in cc tar gzip python3 faketime systemd-analyze strace mkfs.ext4 mount; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
    say "installing: ${missing[*]}"
    command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 69; }
    as_root=(); [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" apt-get install -qy --no-install-recommends gcc libc6-dev tar gzip python3 faketime systemd strace e2fsprogs mount
fi
if command -v rustup >/dev/null; then
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
fi

say "format"
cargo fmt --check

say "lints, every feature set that ships"
cargo clippy --locked --all-targets --features interpreter -- -D warnings
cargo clippy --locked --no-default-features -- -D warnings
cargo clippy --locked --no-default-features --features interpreter,tls -- -D warnings

say "guests: the modules that ship are what their sources give"
./guests/build.sh --check

say "tests"
cargo test --locked --features interpreter
