#!/usr/bin/env bash
# Sets up what the tests need, then passes them. On a machine with Rust and a C compiler nothing else is needed first.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# The tests hold codling against real tools, and the fuzzing engine is C++. Command and Debian's package, each.
needed='
    cc gcc
    c++ g++
    tar tar
    gzip gzip
    python3 python3
    openssl openssl
    curl curl
    faketime faketime
    systemd-analyze systemd
    strace strace
    mkfs.ext4 e2fsprogs
    mount mount
'
missing=()
while read -r tool package; do
    [ -z "$tool" ] || command -v "$tool" >/dev/null || missing+=("$package")
done <<<"$needed"
# Debian's Python comes without what virtual environments are made with.
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing: ${missing[*]}"
    command -v apt-get >/dev/null || { echo "please install: ${missing[*]}" >&2; exit 69; }
    as_root=(); [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" apt-get install -qy --no-install-recommends libc6-dev "${missing[@]}"
fi
if command -v rustup >/dev/null; then
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
fi

say "format"
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml

say "lints, every feature set that ships"
cargo clippy --locked --all-targets --features interpreter -- -D warnings
cargo clippy --locked --no-default-features -- -D warnings
cargo clippy --locked --no-default-features --features interpreter,tls -- -D warnings

say "guests: the modules that ship are what their sources give"
./guests/build.sh --check

say "clients that are not ours"
./tests/clients/setup.sh

say "tests"
cargo test --locked --features interpreter

say "fuzzing, for a short while; longer with FUZZ_SECONDS"
./fuzz/run.sh

say "boards: packages, updates, cards and power cuts with the boards' own tools and emulators"
# Of aarch64's static programs the lean one alone: the full one takes minutes more, and ./tests/boards/run.sh has it.
CODLING_TARGETS='aarch64-unknown-linux-gnu aarch64-unknown-linux-musl:lean armv7-unknown-linux-gnueabihf arm-unknown-linux-musleabihf' \
    ./tests/boards/run.sh
