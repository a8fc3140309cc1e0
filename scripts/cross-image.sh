#!/usr/bin/env bash
# Makes an image for `cross` where its own cannot be pulled: eval "$(scripts/cross-image.sh TARGET)"
#
#   aarch64-unknown-linux-gnu, aarch64-unknown-linux-musl, armv7-unknown-linux-gnueabihf, arm-unknown-linux-musleabihf
#
# and then, as anywhere: cross build --release --target TARGET
#
# The image is of Debian's packages: C compilers for this machine and for the target; for ARMv6, for which Debian's own
# libraries are too new, zig. Rust is mounted into it by cross: rustup's where it has the target, otherwise Debian's
# (see scripts/build.sh; CODLING_RUST decides), of which ARMv6's standard library is compiled with the program. It goes
# to docker if it runs, or else to podman, which is installed if it is missing (CROSS_CONTAINER_ENGINE decides), as
# localhost/codling-cross:TARGET-..., and is made anew when this script has changed. What is printed names it to cross; a
# change of cross.toml is not needed, which stays in force. All else is kept under target/cross-image.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/toolchain.sh

help() { sed -n '2,/^set/s/^# \?//p' "$0" | sed '$d'; }

target=${1:-}
case $target in
    # The musl that is linked is Rust's own; the headers of glibc serve for the little C that there is.
    aarch64-unknown-linux-gnu | aarch64-unknown-linux-musl) gcc=aarch64-linux-gnu-gcc packages=,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross ;;
    armv7-unknown-linux-gnueabihf) gcc=arm-linux-gnueabihf-gcc packages=,gcc-arm-linux-gnueabihf,libc6-dev-armhf-cross ;;
    # No packages: zig, see put_zig.
    arm-unknown-linux-musleabihf) gcc=arm-linux-musleabihf-cc packages='' ;;
    --help | -h) help; exit 0 ;;
    *) help >&2; die 64 "unknown target '$target'" ;;
esac
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die 69 "images are made on Debian for amd64: scripts/build.sh $target does without containers"
command -v cross >/dev/null || die 69 "cross is missing: cargo install cross --version 0.2.5 --locked"
dir=$PWD/target/cross-image
mkdir -p "$dir/bin"

engine=${CROSS_CONTAINER_ENGINE:-}
if [ -z "$engine" ]; then
    if docker info >/dev/null 2>&1; then engine=docker; else need podman podman runc >&2; engine=podman; fi
fi
"$engine" info >"$dir/tried" 2>&1 || { cat "$dir/tried" >&2; die 69 "the container engine '$engine' does not answer; see above"; }

# cross takes what `rustup toolchain list` says of a toolchain, "(active, default)", for a part of its name, and would
# install a toolchain of that name.
case ${CODLING_RUST:-} in
    rustup) rustup_has "$target" >&2 || die 69 "rustup does not have $target; CODLING_RUST=debian is the other way"; rust=rustup ;;
    debian) rust=debian ;;
    '') if rustup_has "$target" >&2; then rust=rustup; else rust=debian; fi ;;
    *) die 64 "CODLING_RUST is '$CODLING_RUST': say rustup or debian" ;;
esac
libraries='' path=$dir/bin
if [ "$rust" = rustup ]; then
    real=$(type -ap rustup | grep -vxF "$dir/bin/rustup" | head -n 1)
    list="'$real' toolchain list | sed 's/ (.*//'"
else
    use_debian_rust >&2
    real=false list='basename "$(rustc --print sysroot)"' path+=:${PATH%%:*}
    # What rustc-web and cargo-web call for.
    libraries=,libllvm22,libgit2-1.5,libssh2-1,libcurl4,libsqlite3-0
fi
# shellcheck disable=SC2016
printf '#!/bin/sh\nif [ "$1 $2" = "toolchain list" ]; then %s; else exec %s "$@"; fi\n' "$list" "'$real'" >"$dir/bin/rustup"
chmod 755 "$dir/bin/rustup"

# put_zig: zig and the names by which it is called, into the image, and what Rust must know of them into $changes.
put_zig() {
    use_zig >&2
    local zig=${CARGO_ZIGBUILD_ZIG_PATH%/ziglang/zig} bin=$dir/zig-bin
    rm -rf "$bin"
    mkdir "$bin"
    # As cargo-zigbuild has it for this target; it leaves out what rustc says to gcc and zig does not know.
    printf '#!/bin/sh\nexec /opt/zig/bin/cargo-zigbuild zig cc -- -g -fno-sanitize=all -mcpu=generic+v6+strict_align+vfp2-d32 -target arm-linux-musleabihf "$@"\n' >"$bin/$gcc"
    printf '#!/bin/sh\nexec /opt/zig/bin/cargo-zigbuild zig ar -- "$@"\n' >"$bin/${gcc%cc}ar"
    chmod 755 "$bin"/*
    tar -C "$zig" --transform 's,^\.,./opt/zig,' --owner=0 --group=0 -rf "$dir/image.tar" .
    tar -C "$bin" --transform 's,^\.,./usr/local/bin,' --owner=0 --group=0 -rf "$dir/image.tar" "./$gcc" "./${gcc%cc}ar"
    changes+=(--change "ENV AR_$name=${gcc%cc}ar" --change "ENV CARGO_ZIGBUILD_ZIG_COMMAND=/opt/zig/ziglang/zig"
        --change "ENV CARGO_ZIGBUILD_ZIG_VERSION=${zig##*/zig-}" --change "ENV ZIG_GLOBAL_CACHE_DIR=/tmp/zig"
        --change "ENV CARGO_ZIGBUILD_CACHE_DIR=/tmp/zig")
    # See scripts/build.sh.
    local flags='-C link-self-contained=no'
    if [ "$rust" = debian ]; then
        flags+=' -Z location-detail=none'
        changes+=(--change "ENV RUSTC_BOOTSTRAP=1" --change "ENV CARGO_UNSTABLE_BUILD_STD=std,panic_abort"
            --change "ENV CARGO_UNSTABLE_BUILD_STD_FEATURES=optimize_for_size")
    fi
    changes+=(--change "ENV CARGO_TARGET_${name^^}_RUSTFLAGS=$flags")
}

key=$(printf '%s %s' "$rust" "$(sha256sum scripts/cross-image.sh)" | sha256sum | cut -c1-12)
image=localhost/codling-cross:$target-$key
if ! "$engine" image inspect "$image" >/dev/null 2>&1; then
    need mmdebstrap mmdebstrap >&2
    say "making $image" >&2
    main=$(debian_mirror bookworm)
    security=$(debian_mirror bookworm-security)
    # Memory is far quicker than a disk for many small files.
    memory=/dev/shm
    [ "$(df -k --output=avail "$memory" 2>/dev/null | tail -1)" -gt 3000000 ] || memory=$dir
    TMPDIR=$memory mmdebstrap --quiet --variant=essential --arch=amd64 --format=tar --dpkgopt=force-unsafe-io \
        --include="gcc,libc6-dev$packages$libraries" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        bookworm "$dir/image.tar" "deb $main bookworm main" "deb $security bookworm-security main" >&2
    name=${target//-/_}
    changes=(--change "ENV CARGO_TARGET_${name^^}_LINKER=$gcc" --change "ENV CC_$name=$gcc")
    if [ -z "$packages" ]; then put_zig; fi
    "$engine" import "${changes[@]}" "$dir/image.tar" "$image" >&2 || die 69 "$engine does not take the image; see above. Is it running?"
    rm "$dir/image.tar"
fi

# Where limits may not be raised (in a container, say), podman's defaults do not start; settings that ask for less do.
tried() { "$engine" run --rm --network none "$image" sh -c "command -v $gcc" >"$dir/tried" 2>&1; }
own=''
if ! tried && [ "$engine" = podman ] && [ -z "${CONTAINERS_CONF:-}" ]; then
    own=$dir/containers.conf
    cat >"$own" <<'CONF'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
    need runc runc >&2
    CONTAINERS_CONF=$own tried || own=''
fi
[ "$own" ] || tried || { cat "$dir/tried" >&2; die 69 "$engine does not run the image; see above"; }

name=${target//-/_}
printf 'export CROSS_CONTAINER_ENGINE=%q\n' "$engine"
printf 'export CROSS_TARGET_%s_IMAGE=%q\n' "${name^^}" "$image"
printf 'export PATH=%q:"$PATH"\n' "$path"
[ -z "$own" ] || printf 'export CONTAINERS_CONF=%q\n' "$own"
# The compiler is there, with the target: cross need not ask rustup for the sources as well, which it does otherwise.
echo export CROSS_CUSTOM_TOOLCHAIN=1
if [ -z "$packages" ] && [ "$rust" = debian ]; then
    say "for a build without a network, what the standard library needs: RUSTC_BOOTSTRAP=1 cargo fetch --target $target -Zbuild-std" >&2
fi
say "now: cross build --release --target $target" >&2
