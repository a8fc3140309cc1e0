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
