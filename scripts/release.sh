#!/usr/bin/env bash
# Makes a release: scripts/release.sh [--targets "T..."] [--kinds "K..."] [--key KEY] [--check]
#
#   --targets "T..."  these instead of all that scripts/build.sh knows
#   --kinds "K..."    instead of full and lean; packages hold the full program
#   --key KEY         signs the update bundles of every board of these targets (scripts/bundle.sh); without it there are
#                     none; bundles hold the full program, too
#   --check           builds what is committed twice, in two directories, and compares the bytes; with no --targets for
#                     x86_64-unknown-linux-gnu alone
#
# The result is target/dist/release-VERSION: the program for each target, in full and lean, Debian packages, bundles,
# bills of materials (CycloneDX), SIZES.md, SHA256SUMS. Times are SOURCE_DATE_EPOCH, or that of the last commit.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
umask 022

targets='' kinds='full lean' key='' check=''
while [ $# -gt 0 ]; do
    case $1 in
        --targets | --kinds | --key) [ $# -ge 2 ] || die 64 "$1 needs a value"
            case $1 in --targets) targets=$2 ;; --kinds) kinds=$2 ;; *) key=$2 ;; esac; shift ;;
        --check) check=yes ;;
        -h | --help) sed -n '2,12s/^# \?//p' "$0"; exit 0 ;;
        *) sed -n '2,12s/^# \?//p' "$0" >&2; die 64 "unknown argument '$1'" ;;
    esac
    shift
done
for kind in $kinds; do case $kind in full | lean) ;; *) die 64 "unknown kind '$kind': full or lean" ;; esac; done
[ -z "$key" ] || [ -f "$key" ] || die 66 "there is no key $key"
[ -z "$key" ] || key=$(realpath -s "$key")
version=$(crate_version)
commit_time
need python3 python3

# twice: the committed sources in two directories of different length, with cargo's directory elsewhere the second time.
twice() {
    local area=target/release-check from=${CARGO_HOME:-$HOME/.cargo} each place commit
    need git git
    commit=$(git rev-parse HEAD)
    [ -z "$(git status --porcelain --untracked-files=no)" ] || say "what is not committed is not in this check"
    rm -rf "$area"
    for each in one two/in-another-place; do
        place=$PWD/$area/$each
        mkdir -p "$place"
        git archive "$commit" | tar -xC "$place"
        (
            unset CARGO_TARGET_DIR
            # Compilers that were fetched for this checkout serve both.
            if [ -d target/toolchains ]; then mkdir "$place/target" && cp -al target/toolchains "$place/target/"; fi
            if [ "$each" != one ]; then
                export CARGO_HOME=$PWD/$area/cargo-of-another
                mkdir "$CARGO_HOME"
                ln -s "$from/registry" "$CARGO_HOME/registry"
            fi
            "$place/scripts/release.sh" --targets "${targets:-x86_64-unknown-linux-gnu}" --kinds "$kinds" ${key:+--key "$key"}
        )
    done
    local one=$area/one/target/dist/release-$version two=$area/two/in-another-place/target/dist/release-$version
    diff -r "$one" "$two" || die 65 "two builds differ; see $one and $two"
    say "two builds in two directories are equal, byte for byte"
    cat "$one/SHA256SUMS"
}
if [ "$check" ]; then twice; exit; fi

# Those that the help of scripts/build.sh lists.
known() { sed -nE '/^set /q; s/^#   ([a-z0-9_]+-[a-z0-9_]+-[a-z0-9-]+) .*/\1/p' scripts/build.sh; }
[ -n "$targets" ] || targets=$(known | tr '\n' ' ')
release=$PWD/target/dist/release-$version
rm -rf "$release"
mkdir -p "$release"

# clean FILE: the program names no directory of this machine.
clean() {
    local found
    found=$(strings -a "$1" | grep -F -m 3 -e "$PWD/" -e "${CARGO_HOME:-$HOME/.cargo}/" -e "${RUSTUP_HOME:-$HOME/.rustup}/" || true)
    [ -z "$found" ] || die 65 "$1 names directories of this machine: $found"
}

# archive FILE NAME: the program with licence and documents, the same bytes for the same content.
archive() {
    local tree
    tree=$(mktemp -d)
    mkdir "$tree/$2"
    install -m 755 "$1" "$tree/$2/codling"
    install -m 644 LICENSE README.md CHANGELOG.md "$tree/$2/"
    tar -C "$tree" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$2" |
        gzip -9n >"$release/$2.tar.gz"
    rm -r "$tree"
}

size() { if [ -f "$1" ]; then stat -c %s "$1"; else echo -; fi; }

need strings binutils
rows=()
for target in $targets; do
    for kind in $kinds; do
        say "$target, $kind"
        if [ "$kind" = full ]; then kind=''; fi
        # shellcheck disable=SC2086  # one word or none
        scripts/build.sh "$target" $kind
        program=target/dist/$target${kind:+/$kind}/codling
        name=codling-$version-$target${kind:+-$kind}
        clean "$program"
        archive "$program" "$name"
        # shellcheck disable=SC2086
        scripts/sbom.py "$target" $kind --time "$SOURCE_DATE_EPOCH" >"$release/$name.cdx.json"
    done
    # The program for ARMv6 is an armhf package, too; by its name alone nobody could tell them apart.
    case $target in
        aarch64-unknown-linux-gnu) arch=arm64 folder=. ;;
        armv7-unknown-linux-gnueabihf) arch=armhf folder=. ;;
        arm-unknown-linux-musleabihf) arch=armhf folder=armv6 ;;
        x86_64-unknown-linux-gnu) arch=amd64 folder=. ;;
        *) arch='' ;;
    esac
    deb=''
    if [ "$arch" ] && [[ $kinds == *full* ]]; then
        scripts/deb.sh "$arch" --binary "target/dist/$target/codling" --out "$release/$folder"
        deb=$release/$folder/codling_${version//-/\~}_$arch.deb
    fi
    dist=target/dist/$target
    full=$([[ $kinds == *full* ]] && size "$dist/codling" || echo -)
    lean=$([[ $kinds == *lean* ]] && size "$dist/lean/codling" || echo -)
    rows+=("| $target | $full | $lean | $(size "${deb:-none}") |")
done

if [ -z "$key" ]; then
    say "no update bundles: they are signed, --key names the key"
elif [ -x scripts/bundle.sh ]; then
    for board in board-configs/*/; do
        # A program of another target would be one that some earlier version has left in target/dist.
        target=$(sed -n 's/^Target: *//p' "$board/board.yaml")
        [[ " $targets " == *" $target "* && $kinds == *full* ]] || continue
        board=${board#*/} board=${board%/}
        scripts/bundle.sh --board "$board" --key "$key" --out "$release/bundles/$board" --format all
    done
else
    die 69 "scripts/bundle.sh is not there: no bundles without it"
fi

{
    printf '# Sizes of codling %s, in bytes\n\n' "$version"
    printf '| target | full | lean | Debian package |\n|---|---:|---:|---:|\n'
    printf '%s\n' "${rows[@]}"
} >"$release/SIZES.md"
(cd "$release" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum) >"$release.sums"
mv "$release.sums" "$release/SHA256SUMS"
say "$release"
cat "$release/SIZES.md"
