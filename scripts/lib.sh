# What the scripts here share; sourced, not run.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }

# die CODE MESSAGE: exit codes as the program's own (sysexits: 64 usage, 65 data, 69 unavailable).
die() { local code=$1; shift; printf '%s: %s\n' "${0##*/}" "$*" >&2; exit "$code"; }

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# need TOOL PACKAGE...: the Debian packages are installed unless the tool is there.
need() {
    local tool=$1; shift
    command -v "$tool" >/dev/null && return
    command -v apt-get >/dev/null || die 69 "$tool is missing: please install $*"
    say "installing $* for $tool"
    as_root apt-get update -q >&2
    as_root apt-get install -qy --no-install-recommends "$@" >&2
    command -v "$tool" >/dev/null || die 69 "$tool is still missing after installing $*"
}

# no_paths TARGET: what is built from here on names no directory of this machine, so that the same sources give the
# same bytes wherever they lie. Flags that are set already stay.
no_paths() {
    local cargo=${CARGO_HOME:-$HOME/.cargo} name=${1//-/_} sysroot commit from flags c_flags
    sysroot=$(rustc --print sysroot)
    commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
    flags=CARGO_TARGET_${name^^}_RUSTFLAGS
    c_flags=CFLAGS_$name
    # Cargo would heed these alone.
    if [ -n "${RUSTFLAGS:-}" ]; then export "$flags=$RUSTFLAGS ${!flags:-}"; unset RUSTFLAGS; fi
    # Of several that fit, the last counts: the checkout may lie within cargo's directory, or the other way round.
    for from in "$sysroot=/toolchain" "$sysroot/lib/rustlib/src/rust=/rustc/$commit" "$cargo=/cargo" "$PWD=/codling"; do
        export "$flags=${!flags:-} --remap-path-prefix=$from"
        export "$c_flags=${!c_flags:-} -ffile-prefix-map=$from"
    done
}

# The version of the program, as Cargo.toml has it.
crate_version() { sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml; }

# commit_time: SOURCE_DATE_EPOCH, unless it is set: when these sources were committed; without git, their newest time.
commit_time() {
    [ -n "${SOURCE_DATE_EPOCH:-}" ] || SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) ||
        SOURCE_DATE_EPOCH=$(stat -c %Y CHANGELOG.md)
    export SOURCE_DATE_EPOCH
}

# debian_mirror SUITE: where this machine's own apt has a suite of Debian from.
debian_mirror() {
    local site
    site=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | sed -n "s/ $1\$//p" | head -n 1)
    [ -n "$site" ] || die 69 "this machine's apt has no $1: please add that suite of Debian to its sources"
    echo "$site"
}
