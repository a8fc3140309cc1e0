#!/usr/bin/env bash
# `cross build` from a clean clone with the repository's cross.toml: tests/boards/cross.sh [TARGET...]
#
# With no target, aarch64-unknown-linux-gnu. cross's own images cannot be had everywhere, so scripts/cross-image.sh makes
# one; container and engine have no network but one of their own without a way out. Not among the suites that
# tests/boards/run.sh runs by itself: cross, the image and the lean program are built from nothing, which takes 5 to 10
# minutes on two cores. What is not committed is not in this test. CODLING_RUST=debian takes Debian's Rust into the image.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
work=$PWD/target/boards/cross
started=$SECONDS
targets=("$@")
[ $# -gt 0 ] || targets=(aarch64-unknown-linux-gnu)

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
ok() { printf '%4ss  %s\n' "$((SECONDS - started))" "$*"; }

[ "$(id -u)" -eq 0 ] || die 77 "this test gives containers a network of their own: run it as root"
need git git
need unshare util-linux
need readelf binutils
need podman podman runc
need cc gcc libc6-dev

if [ "$("target/tools/bin/cross" --version 2>/dev/null | sed -n 's/^cross //p')" != 0.2.5 ]; then
    say "cross 0.2.5"
    cargo install --quiet cross --version 0.2.5 --locked --root target/tools
fi
export PATH=$PWD/target/tools/bin:$PATH
ok "$(cross --version 2>/dev/null | head -n 1)"

# A clone, and images, that are nobody else's. Compilers that were fetched for this checkout serve the clone.
rm -rf "$work/clone" "$work/other"
mkdir -p "$work"
git clone --quiet . "$work/clone"
if [ -d target/toolchains ]; then mkdir -p "$work/clone/target" && cp -al target/toolchains "$work/clone/target/"; fi
export CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/images" "$work/run" >"$CONTAINERS_STORAGE_CONF"
export CROSS_CONTAINER_ENGINE=podman CROSS_CONTAINER_OPTS='--network none' CARGO_NET_OFFLINE=true

# in_force TARGET: what stands in cross.toml is what cross does, in a second clone where it names an image.
in_force() {
    local target=$1 named=localhost/named-in-cross-toml:1
    rm -rf "$work/other"
    git clone --quiet . "$work/other"
    sed -i "s,^\[target\.$target\]\$,&\nimage = \"$named\"," "$work/other/cross.toml"
    grep -q "$named" "$work/other/cross.toml" || fail "cross.toml has no table for $target"
    said() { (cd "$work/other" && unset "${!CROSS_TARGET_@}" && unshare --net cross build --target "$target" 2>&1) || true; }
    said | grep -qF "$named" || fail "cross does not heed cross.toml: $(said | tail -n 3)"
    # Without the link it is not read: the negative control.
    rm "$work/other/Cross.toml"
    if said | grep -qF "$named"; then fail "cross reads cross.toml by itself: is the link still needed?"; fi
    rm -rf "$work/other"
    ok "$target: cross takes the image that cross.toml names; without the link Cross.toml it does not"
}

builds() {
    local target=$1 emulator=$2 libc=$3 program=$work/clone/target/$1/release/codling args said size glibc
    args=$(env -u CARGO_NET_OFFLINE "$work/clone/scripts/cross-image.sh" "$target") || fail "no image for $target"
    (
        eval "$args"
        in_force "$target"
        cd "$work/clone"
        env -u CARGO_NET_OFFLINE cargo fetch --quiet --locked --target "$target"
        if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
            RUSTC_BOOTSTRAP=1 env -u CARGO_NET_OFFLINE cargo fetch --quiet --locked --target "$target" -Zbuild-std
        fi
        ok "$target: the image is there"
        git diff --quiet HEAD || fail "the clone is not clean"
        unshare --net cross build --verbose --release --locked --no-default-features --target "$target" >"$work/$target.log" 2>&1 ||
            { tail -n 30 "$work/$target.log" >&2; fail "cross does not build $target"; }
    )
    grep -q "podman.* run .*codling-cross:$target" "$work/$target.log" || fail "it was not built in the image: see $work/$target.log"
    # Linkers in cross's own images are of 2016 and know nothing that is newer.
    said=$(grep -h 'rustc-link-arg' "$work/clone/target/$target"/release/build/codling-*/output)
    [[ $said =~ ^cargo:rustc-link-arg-bins=-Wl,-T,/[^\ ]*/build\.ld$ ]] || fail "the linker is given more than its script: $said"
    # But for the few bytes that crtbegin.o of Rust's own musl refers to (see build.ld).
    while read -r size; do
        [ "$((16#$size))" -lt 200 ] || fail "$program has tables for unwinding: 0x$size bytes"
    done < <(readelf -SW "$program" | sed -n 's/.* \.eh_frame[_hdr]* *PROGBITS *[0-9a-f]* [0-9a-f]* \([0-9a-f]*\) .*/\1/p')
    need "$emulator" qemu-user-static
    case $libc in
        /usr/aarch64*) [ -d "$libc/lib" ] || apt-get install -qy --no-install-recommends libc6-arm64-cross ;;
        /usr/arm*) [ -d "$libc/lib" ] || apt-get install -qy --no-install-recommends libc6-armhf-cross ;;
    esac
    case $target in arm-*) export QEMU_CPU=arm1176 ;; esac
    said=$("$emulator" -L "$libc" "$program" --version)
    unset QEMU_CPU
    [ "$said" = "codling $(crate_version)" ] || fail "$target says '$said'"
    glibc=$(readelf -VW "$program" | grep -o 'GLIBC_[0-9.]*' | sort -urV | head -n 1 || true)
    glibc=${glibc#GLIBC_}
    ok "$target: lean, $(stat -c %s "$program") bytes, glibc: ${glibc:-none}; it runs: $said"
}

for target in "${targets[@]}"; do
    case $target in
        aarch64-unknown-linux-gnu) builds "$target" qemu-aarch64-static /usr/aarch64-linux-gnu ;;
        aarch64-unknown-linux-musl) builds "$target" qemu-aarch64-static / ;;
        armv7-unknown-linux-gnueabihf) builds "$target" qemu-arm-static /usr/arm-linux-gnueabihf ;;
        arm-unknown-linux-musleabihf) builds "$target" qemu-arm-static / ;;
        *) die 64 "scripts/cross-image.sh makes no image for '$target'" ;;
    esac
done
printf '\nboards: cross passed in %s s\n' "$((SECONDS - started))"
