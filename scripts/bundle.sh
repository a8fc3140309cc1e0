#!/usr/bin/env bash
# Makes signed update bundles for a board: scripts/bundle.sh --board BOARD --key KEY.pem --out DIR [more]
#
#   --board BOARD        a folder of board-configs; `any` makes a bundle for every board of --target
#   --key KEY.pem        Ed25519 key that signs; boards have its public half in /etc/codling/update-keys.d
#   --out DIR            where codling-VERSION-BOARD.tar, .swu, .mender and .raucb go
#   --format FORMAT      tar (the default), swu (SWUpdate), mender, rauc, or all
#   --tool-key KEY.pem   RSA key for swu, mender and rauc, and its certificate
#   --tool-cert CERT.pem [both default to tool.pem and tool.crt beside --key]
#   --binary FILE        the program, instead of target/dist/TARGET/codling, which scripts/build.sh makes if need be
#   --target TRIPLE      what the program was built for, instead of what board.yaml says
#   --version VERSION    instead of that in Cargo.toml
#   --schema N           what the program's store writes, and
#   --least-schema N     what it reads at least, instead of what this source says
#
# scripts/bundle.sh --new-keys DIR makes update.pem, update.pub, tool.pem and tool.crt; keep the .pem files from others.
# The same program and keys give the same bytes: SOURCE_DATE_EPOCH, or the last commit's time, is that of files and
# signatures.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
. "$repo/scripts/lib.sh"
umask 022

usage() { sed -n '2,19s/^# \?//p' "$0"; }

new_keys() {
    need openssl openssl
    mkdir -p "$1"
    for name in update.pem tool.pem; do [ ! -e "$1/$name" ] || die 73 "$1/$name is there already"; done
    (
        umask 077
        openssl genpkey -algorithm ed25519 -out "$1/update.pem"
        # PKCS#1, as mender-artifact reads it.
        openssl genrsa -traditional -out "$1/tool.pem" 3072 2>/dev/null
    )
    openssl pkey -in "$1/update.pem" -pubout -out "$1/update.pub"
    openssl pkey -in "$1/tool.pem" -pubout -out "$1/tool.pub"
    openssl req -x509 -new -key "$1/tool.pem" -days 36500 -subj "/CN=codling updates" -out "$1/tool.crt"
    echo "$1: update.pem update.pub tool.pem tool.pub tool.crt"
}

board='' key='' out='' format=tar tool_key='' tool_cert='' binary='' target='' version='' schema='' least=''
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --new-keys) new_keys "${2:?--new-keys DIR}"; exit 0 ;;
        --board | --key | --out | --format | --tool-key | --tool-cert | --binary | --target | --version | --schema \
            | --least-schema)
            [ $# -ge 2 ] || die 64 "$1 needs a value"
            name=${1#--}; name=${name//-/_}; [ "$name" != least_schema ] || name=least
            printf -v "$name" '%s' "$2"
            shift 2
            ;;
        *) usage >&2; die 64 "unknown argument '$1'" ;;
    esac
done
[ -n "$board" ] && [ -n "$key" ] && [ -n "$out" ] || { usage >&2; die 64 "--board, --key and --out are needed"; }
case $format in tar | swu | mender | rauc | all) ;; *) die 64 "unknown format '$format': tar, swu, mender, rauc, all" ;; esac
[ -r "$key" ] || die 66 "$key cannot be read; scripts/bundle.sh --new-keys DIR makes keys"
if [ -z "$target" ]; then
    [ -r "$repo/board-configs/$board/board.yaml" ] \
        || die 66 "there is no board-configs/$board: name one of $(cd "$repo/board-configs" && echo *), or give --target"
    target=$(sed -n 's/^Target: *//p' "$repo/board-configs/$board/board.yaml")
fi
if [ -z "$binary" ]; then
    binary=$repo/target/dist/$target/codling
    [ -x "$binary" ] || "$repo/scripts/build.sh" "$target" >&2
fi
[ -r "$binary" ] || die 66 "$binary cannot be read"
version=${version:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -1)}
schema=${schema:-$(sed -n 's/^pub const SCHEMA: u32 = \([0-9]*\);.*/\1/p' "$repo/src/store/mod.rs")}
# Databases of every schema so far are read: tests/fixtures holds them.
least=${least:-1}
SOURCE_DATE_EPOCH=$(cd "$repo" && commit_time && echo "$SOURCE_DATE_EPOCH")
export SOURCE_DATE_EPOCH
epoch=$SOURCE_DATE_EPOCH

# e_machine of the ELF header: a program for another processor is not signed by mistake.
machine=$(od -An -tx1 -j18 -N2 "$binary" | tr -d ' ')
case $target:$machine in
    x86_64-*:3e00 | aarch64-*:b700 | arm*:2800) ;;
    *) die 65 "$binary was not built for $target: name another with --binary, or build it with scripts/build.sh" ;;
esac

need openssl openssl
need tar tar
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)
name=codling-$version-$board

install -m 755 "$binary" "$work/codling"
printf '{"format":1,"product":"codling","version":"%s","target":"%s","boards":["%s"],"schema":%s,"least_schema":%s,"files":[{"name":"codling","size":%s,"sha256":"%s"}]}\n' \
    "$version" "$target" "$board" "$schema" "$least" "$(stat -c %s "$work/codling")" \
    "$(sha256sum <"$work/codling" | cut -d' ' -f1)" >"$work/manifest.json"
openssl pkeyutl -sign -inkey "$key" -rawin -in "$work/manifest.json" -out "$work/manifest.sig" \
    || die 65 "$key does not sign: an Ed25519 key is needed (openssl genpkey -algorithm ed25519)"
[ "$(stat -c %s "$work/manifest.sig")" -eq 64 ] || die 65 "$key is no Ed25519 key"
chmod 644 "$work/manifest.json" "$work/manifest.sig"
tar --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -C "$work" -cf "$work/codling.tar" \
    manifest.json manifest.sig codling

# The tools' own inputs, too: what they pack has one time, and so has what they sign.
touch -d "@$epoch" "$work/codling.tar"
at_epoch() { TZ=UTC FAKETIME_DONT_FAKE_MONOTONIC=1 faketime -f "$(date -u -d "@$epoch" '+%F %T')" "$@"; }

wants() { [ "$format" = all ] || [ "$format" = "$1" ]; }
made() { printf '%s: %s bytes\n' "$1" "$(stat -c %s "$1")"; }

if wants tar; then
    cp "$work/codling.tar" "$out/$name.tar"
    made "$out/$name.tar"
fi
if [ "$format" = tar ]; then exit 0; fi

tool_key=${tool_key:-$(dirname "$key")/tool.pem}
tool_cert=${tool_cert:-$(dirname "$key")/tool.crt}
for file in "$tool_key" "$tool_cert"; do
    [ -r "$file" ] || die 66 "$file cannot be read: $format is signed with --tool-key and --tool-cert (see --new-keys)"
done
need faketime faketime

if wants swu; then
    need cpio cpio
    mkdir "$work/swu"
    # On the board, the tar waits there for the script.
    sed 's|@BUNDLE@|/var/tmp/codling-update.tar|' "$repo/packaging/ota/swupdate/codling.sh" >"$work/swu/codling.sh"
    cp "$work/codling.tar" "$work/swu/codling.tar"
    digest() { sha256sum <"$work/swu/$1" | cut -d' ' -f1; }
    # A board that its revision does not name is refused: `any` is for all that call themselves so.
    cat >"$work/swu/sw-description" <<DESCRIPTION
software = {
    version = "$version";
    description = "codling $version for $board";
    $board = {
        hardware-compatibility: [ "#RE:.*" ];
        files: ({
            filename = "codling.tar";
            path = "/var/tmp/codling-update.tar";
            sha256 = "$(digest codling.tar)";
        });
        scripts: ({
            filename = "codling.sh";
            type = "shellscript";
            sha256 = "$(digest codling.sh)";
        });
    };
}
DESCRIPTION
    at_epoch openssl cms -sign -in "$work/swu/sw-description" -out "$work/swu/sw-description.sig" -signer "$tool_cert" \
        -inkey "$tool_key" -outform DER -nosmimecap -binary
    touch -d "@$epoch" "$work"/swu/*
    chmod 644 "$work"/swu/*
    (cd "$work/swu" && printf '%s\n' sw-description sw-description.sig codling.tar codling.sh \
        | cpio --quiet -o -H crc --reproducible -R 0:0) >"$out/$name.swu"
    made "$out/$name.swu"
fi

if wants mender; then
    need mender-artifact mender-artifact
    mender-artifact write module-image --type codling --artifact-name "codling-$version" --device-type "$board" \
        --software-name codling --software-version "$version" --file "$work/codling.tar" --key "$tool_key" \
        --output-path "$work/now.mender" >&2
    # What it signs is the same each time. The tars around that name the hour and the user.
    mkdir "$work/mender"
    tar -C "$work/mender" -xf "$work/now.mender"
    plain=(--format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$epoch")
    tar "${plain[@]}" -C "$work" -cf - codling.tar | gzip -9n >"$work/mender/data/0000.tar.gz"
    tar "${plain[@]}" --mode=600 -C "$work/mender" -cf "$out/$name.mender" \
        version manifest manifest.sig header.tar.gz data/0000.tar.gz
    made "$out/$name.mender"
fi

if wants rauc; then
    need rauc rauc
    need mksquashfs squashfs-tools
    mkdir "$work/rauc"
    cp "$work/codling.tar" "$work/rauc/codling.img"
    install -m 755 "$repo/packaging/ota/rauc/hook" "$work/rauc/hook"
    cat >"$work/rauc/manifest.raucm" <<MANIFEST
[update]
compatible=codling-$board
version=$version

[bundle]
format=plain

[hooks]
filename=hook

[image.codling]
filename=codling.img
hooks=install
MANIFEST
    rm -f "$out/$name.raucb"
    touch -d "@$epoch" "$work"/rauc/* "$work/rauc"
    at_epoch rauc --cert "$tool_cert" --key "$tool_key" bundle "$work/rauc" "$out/$name.raucb" >&2
    made "$out/$name.raucb"
fi
