#!/usr/bin/env bash
# Builds the program for a board's target, without containers: scripts/build.sh TARGET [lean]
#
#   aarch64-unknown-linux-gnu      Pi 3, 4, 5, Zero 2 W with a 64-bit system; Jetson Orin
#   aarch64-unknown-linux-musl     the same boards, static: any 64-bit Linux, however old (Jetson Nano)
#   armv7-unknown-linux-gnueabihf  Pi 2, 3, 4, Zero 2 W with a 32-bit system
#   arm-unknown-linux-musleabihf   ARMv6, static: Pi Zero, Zero W, 1
#   x86_64-unknown-linux-gnu       the amd64 package
#
# The result is target/dist/TARGET/codling, with `lean` target/dist/TARGET/lean/codling (no WASM, no TLS).
#
# Rust comes from rustup where it has the target, otherwise from Debian's packages, whose standard library is compiled here
# for targets that Debian does not have; CODLING_RUST=rustup or =debian decides. The C compiler and linker is Debian's gcc
# for the targets with glibc, and zig (from PyPI) for the static ones; CODLING_LINKER=gcc or =zig decides. With zig a
# program runs with glibc 2.27 and newer, with gcc it needs the one of the machine's Debian (bookworm: 2.34).
# All that is downloaded is kept under target/toolchains.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/toolchain.sh

help() { sed -n '2,/^set/s/^# \?//p' "$0"; }

# What zig links for. Raspberry Pi OS 11 and JetPack 5 have 2.31; JetPack 4, the last for the Jetson Nano, has 2.27.
glibc=2.27

target=${1:-}
kind=${2:-full}
flags=
linker=${CODLING_LINKER:-gcc}
case $target in
    aarch64-unknown-linux-gnu) gcc=aarch64-linux-gnu-gcc package=gcc-aarch64-linux-gnu libc=libc6-dev-arm64-cross ;;
    armv7-unknown-linux-gnueabihf) gcc=arm-linux-gnueabihf-gcc package=gcc-arm-linux-gnueabihf libc=libc6-dev-armhf-cross ;;
    x86_64-unknown-linux-gnu) gcc=cc package=gcc libc=libc6-dev ;;
    aarch64-unknown-linux-musl | arm-unknown-linux-musleabihf)
        # Debian's ARM libraries stop on ARMv6. zig brings the C start files; two of each would not link.
        linker=${CODLING_LINKER:-zig} flags='-C link-self-contained=no'
        [ "$linker" = zig ] || die 64 "$target is linked by zig"
        ;;
    --help | -h) help; exit 0 ;;
    *) help >&2; die 64 "unknown target '$target'" ;;
esac
case $kind in
    full) features=() out=target/dist/$target ;;
    lean) features=(--no-default-features) out=target/dist/$target/lean ;;
    *) die 64 "unknown kind '$kind': leave it out, or say lean" ;;
esac

name=${target//-/_}
need cc gcc libc6-dev
need readelf binutils
case $linker in
    gcc)
        need "$gcc" "$package" "$libc"
        export "CARGO_TARGET_${name^^}_LINKER=$gcc" "CC_$name=$gcc"
        build=(cargo build --target "$target")
        ;;
    zig)
        use_zig
        build=(cargo-zigbuild zigbuild --target "$target")
        case $target in *-gnu*) build[3]+=.$glibc ;; esac
        ;;
    *) die 64 "CODLING_LINKER is '$linker': say gcc or zig" ;;
esac
std=()
case ${CODLING_RUST:-} in
    rustup) rustup_has "$target" || die 69 "rustup does not have $target; CODLING_RUST=debian is the other way" ;;
    debian) use_debian_rust ;;
    '') rustup_has "$target" || use_debian_rust ;;
    *) die 64 "CODLING_RUST is '$CODLING_RUST': say rustup or debian" ;;
esac
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    std=(-Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size)
    # 32-bit ARM instructions are long: what is panicked still says so, but not in which line.
    flags+=' -Z location-detail=none'
    # What lets a released compiler take that option.
    export RUSTC_BOOTSTRAP=1
fi

# A directory for each, so that two can be built side by side.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/cross/$target}
export "CARGO_TARGET_${name^^}_RUSTFLAGS=$flags"
no_paths "$target"
say "building $target, $kind, with $(rustc --version) and $linker"
"${build[@]}" --locked --release --bin codling "${features[@]}" "${std[@]}"
mkdir -p "$out"
install -m 755 "$CARGO_TARGET_DIR/$target/release/codling" "$out/codling"

# The newest that it asks for; a static program needs none.
needed=$(readelf -V "$out/codling" | grep -o 'GLIBC_[0-9.]*' | sort -urV | head -n 1 || true)
printf '%s: %s bytes, glibc: %s\n' "$out/codling" "$(stat -c %s "$out/codling")" "${needed#GLIBC_}"
