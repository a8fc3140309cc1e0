#!/usr/bin/env bash
# Builds the program for a board's target, without containers: scripts/build.sh TARGET [lean]
#
#   aarch64-unknown-linux-gnu      Pi 3, 4, 5, Zero 2 W with a 64-bit system; Jetson
#   armv7-unknown-linux-gnueabihf  Pi 2, 3, 4, Zero 2 W with a 32-bit system
#
# The result is target/dist/TARGET/codling, with `lean` target/dist/TARGET/lean/codling (no WASM, no TLS).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=${1:-}
kind=${2:-full}
case $target in
    aarch64-unknown-linux-gnu) gcc=aarch64-linux-gnu-gcc package=gcc-aarch64-linux-gnu libc=libc6-dev-arm64-cross ;;
    armv7-unknown-linux-gnueabihf) gcc=arm-linux-gnueabihf-gcc package=gcc-arm-linux-gnueabihf libc=libc6-dev-armhf-cross ;;
    x86_64-unknown-linux-gnu) gcc=cc package=gcc libc=libc6-dev ;;
    *) sed -n '2,7s/^# \?//p' "$0" >&2; die 64 "unknown target '$target'" ;;
esac
case $kind in
    full) features=() out=target/dist/$target ;;
    lean) features=(--no-default-features) out=target/dist/$target/lean ;;
    *) die 64 "unknown kind '$kind': leave it out, or say lean" ;;
esac

need "$gcc" "$package" "$libc"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
name=${target//-/_}
export "CARGO_TARGET_${name^^}_LINKER=$gcc" "CC_$name=$gcc"
no_paths "$target"
cargo build --locked --release --target "$target" "${features[@]}"
mkdir -p "$out"
install -m 755 "target/$target/release/codling" "$out/codling"
printf '%s: %s bytes\n' "$out/codling" "$(stat -c %s "$out/codling")"
