# Compilers for the boards' targets; sourced by scripts/build.sh. All of it is kept under target/toolchains.
# shellcheck shell=bash

toolchains=$PWD/target/toolchains
# The last one whose standard library Debian has for all of amd64, arm64 and armhf. Packages get replaced: what was
# downloaded once is kept.
debian_rust=${CODLING_DEBIAN_RUST:-1.96.0}

# zig, and cargo-zigbuild which makes cargo use it: one C compiler and linker for every target. Its glibc is whichever
# version is asked for, and its musl runs on ARMv6, for which Debian's own ARM libraries are too new.
use_zig() {
    local dir=$toolchains/zig-0.17.0
    if [ ! -e "$dir/complete" ]; then
        need python3 python3
        python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
        say "downloading zig and cargo-zigbuild"
        rm -rf "$dir"
        python3 -m pip install --quiet --no-deps --only-binary :all: --require-hashes --target "$dir" -r scripts/zig.txt ||
            die 69 "no zig from PyPI; see above. Is the network reachable?"
        touch "$dir/complete"
    fi
    export PATH=$dir/bin:$PATH CARGO_ZIGBUILD_ZIG_PATH=$dir/ziglang/zig CARGO_ZIGBUILD_CACHE_DIR=$toolchains/zig-cache
    export ZIG_GLOBAL_CACHE_DIR=$toolchains/zig-cache
}

# apt with lists of its own: Debian's packages for other processors, without a word to the machine's own apt, which must
# not be given another architecture (one whose security suite is stale would take the whole suite away).
private_apt() {
    local dir=$toolchains/apt key=/usr/share/keyrings/debian-archive-keyring.gpg main security
    main=$(debian_mirror bookworm)
    security=$(debian_mirror bookworm-security)
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/status"
    cat >"$dir/sources.list" <<SOURCES
deb [signed-by=$key arch=amd64,arm64] $main bookworm main
deb [signed-by=$key arch=amd64,arm64] $security bookworm-security main
deb [signed-by=$key arch=armhf] $main trixie main
SOURCES
    cat >"$dir/apt.conf" <<CONF
Dir::State "$dir/state";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; "armhf"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
    APT_CONFIG=$dir/apt.conf apt-get "$@"
}

# Debian's compiler, its standard libraries for amd64, arm64 and armhf, and their sources, unpacked into a folder: the
# packages themselves would drive rustup out.
use_debian_rust() {
    local dir=$toolchains/debian-rust-$debian_rust packages=$toolchains/packages file
    if [ ! -e "$dir/complete" ]; then
        [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die 69 "Debian's Rust is used here on amd64 only: please install rustup"
        say "unpacking Debian's Rust $debian_rust"
        rm -rf "$dir" "$packages"
        mkdir -p "$dir/unpacked" "$dir/lib" "$packages"
        local wanted=()
        for file in rustc-web:amd64 cargo-web:amd64 rust-web-src:amd64 libstd-rust-web-"${debian_rust%.*}":amd64 \
            libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64 libstd-rust-web-dev:armhf; do
            wanted+=("$file=$debian_rust*")
        done
        private_apt update -q >&2
        (cd "$packages" && private_apt download -q "${wanted[@]}" >&2) ||
            die 69 "Debian has no Rust $debian_rust any more; CODLING_DEBIAN_RUST=VERSION takes another (apt-cache policy rustc-web)"
        for file in "$packages"/*.deb; do
            dpkg-deb --fsys-tarfile "$file" | tar x -C "$dir/unpacked" --exclude='./usr/share/*'
        done
        mv "$dir/unpacked/usr/bin" "$dir/bin"
        mv "$dir/unpacked/usr/lib/rustlib" "$dir"/unpacked/usr/lib/*/librustc_driver* "$dir/lib/"
        mv "$dir"/unpacked/usr/src/rustc-* "$dir/src"
        ln -sfn ../../../src "$dir/lib/rustlib/src/rust"
        rm -rf "$dir/unpacked" "$packages"
        need patchelf patchelf
        patchelf --set-rpath "\$ORIGIN/../lib" "$dir/bin/rustc" "$dir/bin/rustdoc"
        # The libraries below them are in nobody's way.
        if ldd "$dir/bin/rustc" "$dir/bin/cargo" | grep -q 'not found'; then
            as_root apt-get update -q >&2
            as_root apt-get install -qy --no-install-recommends libllvm22 libgit2-1.5 libssh2-1 libcurl4 libsqlite3-0 >&2
        fi
        "$dir/bin/rustc" --version >&2 || die 70 "Debian's Rust does not start; see above"
        touch "$dir/complete"
    fi
    export PATH=$dir/bin:$PATH
    # A cargo of rustup's would ask for this first.
    unset RUSTUP_TOOLCHAIN
}

# rustup_has TARGET: rustup has this target's standard library, or gets it.
rustup_has() {
    command -v rustup >/dev/null || return 1
    rustup target list --installed | grep -qx "$1" || RUST_BACKTRACE=0 rustup target add "$1" >&2
}
