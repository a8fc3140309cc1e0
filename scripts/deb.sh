#!/usr/bin/env bash
# Makes the Debian package: scripts/deb.sh arm64|armhf|amd64 [--binary FILE] [--version V] [--out DIR]
#
#   --binary FILE   this program instead of the one that scripts/build.sh makes for the architecture
#   --version V     instead of the version in Cargo.toml
#   --out DIR       instead of target/dist
#
# The result is DIR/codling_VERSION_ARCH.deb. The same sources give the same bytes: times are SOURCE_DATE_EPOCH, or
# that of the last commit. The maintainer is DEBFULLNAME <DEBEMAIL>, if they are set.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
umask 022

usage() { sed -n '2,9s/^# \?//p' "$0"; }

arch='' binary='' version=$(crate_version) out=target/dist
while [ $# -gt 0 ]; do
    case $1 in
        arm64 | armhf | amd64) arch=$1 ;;
        --binary | --version | --out) [ $# -ge 2 ] || die 64 "$1 needs a value"
            case $1 in --binary) binary=$2 ;; --version) version=$2 ;; *) out=$2 ;; esac; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die 64 "unknown argument '$1'" ;;
    esac
    shift
done
case $arch in
    arm64) target=aarch64-unknown-linux-gnu machine=AArch64 qemu=aarch64 libc=/usr/aarch64-linux-gnu ;;
    armhf) target=armv7-unknown-linux-gnueabihf machine=ARM qemu=arm libc=/usr/arm-linux-gnueabihf ;;
    amd64) target=x86_64-unknown-linux-gnu machine='Advanced Micro Devices X86-64' qemu=x86_64 libc=/usr/x86_64-linux-gnu ;;
    *) usage >&2; die 64 "which architecture?" ;;
esac
# Semver's 1.0.0-rc.1 comes before 1.0.0; so does Debian's 1.0.0~rc.1.
version=${version//-/\~}
[[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]] || die 64 "'$version' is no version of a Debian package"
commit_time
maintainer="${DEBFULLNAME:-codling maintainers} <${DEBEMAIL:-codling@users.noreply.github.com}>"

need dpkg-deb dpkg
need readelf binutils
if [ -z "$binary" ]; then
    scripts/build.sh "$target" >&2
    binary=target/dist/$target/codling
fi
[ -f "$binary" ] || die 66 "there is no program $binary: scripts/build.sh $target makes it"
header=$(LC_ALL=C readelf -hW "$binary" 2>/dev/null) || die 65 "$binary is not a program"
grep -q "Machine: *$machine\$" <<<"$header" ||
    die 65 "$binary is for $(sed -n 's/ *Machine: *//p' <<<"$header"), the package is for $arch"

# depends: the packages of the libraries that the program names, in the least version that has all it needs of them.
depends() {
    local library newest
    while read -r library; do
        case $library in
            libc.so.6 | libm.so.6 | ld-linux*) ;;
            libgcc_s.so.1) printf 'libgcc-s1, ' ;;
            *) die 65 "$binary needs $library: scripts/deb.sh does not know its package" ;;
        esac
    done < <(readelf -dW "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    newest=$(readelf -VW "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
    [ -z "$newest" ] || printf 'libc6 (>= %s), ' "${newest#GLIBC_}"
    printf 'systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles'
}
depends=$(depends)
cpu=$arch
[ "$arch" != armhf ] || ! readelf -A "$binary" | grep -q 'Tag_CPU_arch: v[78]' || cpu=armv7

# program ARGUMENT...: the packaged program says its own pages and completions, here or in qemu: the same bytes.
native=$([ "$(dpkg --print-architecture)" = "$arch" ] && echo yes || true)
if [ -z "$native" ]; then
    need "qemu-$qemu-static" qemu-user-static
    [ -d "$libc" ] || as_root apt-get install -qy --no-install-recommends "libc6-$arch-cross" libgcc-s1-"$arch"-cross >&2
fi
program() {
    if [ "$native" ]; then "$binary" "$@"; else "qemu-$qemu-static" -L "$libc" "$binary" "$@"; fi
}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
# fill FILE...: the words between @ in scripts and texts.
units=(codling.service)
for unit in packaging/firstboot/*.service; do [ ! -f "$unit" ] || units+=("${unit##*/}"); done
schema=$(sed -n 's/^pub const SCHEMA: u32 = \([0-9]*\);/\1/p' src/store/mod.rs)
[ -n "$schema" ] || die 70 "src/store/mod.rs names no SCHEMA"
fill() {
    sed -i -e "s/@VERSION@/$version/g; s/@SCHEMA@/$schema/g; s/@CPU@/$cpu/g; s/@UNITS@/${units[*]}/g" "$@"
}

put 755 "$binary" usr/bin/codling
put 644 packaging/codling.service usr/lib/systemd/system/codling.service
for unit in "${units[@]:1}"; do put 644 "packaging/firstboot/$unit" "usr/lib/systemd/system/$unit"; done
put 644 packaging/codling.sysusers.conf usr/lib/sysusers.d/codling.conf
put 644 packaging/codling.tmpfiles.conf usr/lib/tmpfiles.d/codling.conf
put 644 board-configs/generic/config.yaml etc/codling/config.yaml
for file in board-configs/*/*; do put 644 "$file" "usr/share/codling/boards/${file#board-configs/}"; done
for file in packaging/codling.service.d/*.example; do
    name=${file##*/}
    put 644 "$file" "usr/share/doc/codling/examples/codling.service.d/${name%.example}"
done
for file in examples/*.json examples/*.yaml; do put 644 "$file" "usr/share/doc/codling/examples/${file##*/}"; done
while read -r file; do
    mode=644
    if [ -x "packaging/ota/$file" ]; then mode=755; fi
    put "$mode" "packaging/ota/$file" "usr/share/codling/ota/$file"
done < <(cd packaging/ota && find . -type f -printf '%P\n' | LC_ALL=C sort)
put 644 packaging/avahi/codling.service usr/share/codling/avahi/codling.service
printf '%s\n' "$schema" >"$root/usr/share/codling/schema"

mkdir -p "$root"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
program man --dir "$root/usr/share/man/man1"
program completions bash >"$root/usr/share/bash-completion/completions/codling"
program completions zsh >"$root/usr/share/zsh/vendor-completions/_codling"
program completions fish >"$root/usr/share/fish/vendor_completions.d/codling.fish"

doc=$root/usr/share/doc/codling
put 644 packaging/deb/copyright usr/share/doc/codling/copyright
put 644 packaging/deb/README.Debian usr/share/doc/codling/README.Debian
put 644 packaging/deb/lintian-overrides usr/share/lintian/overrides/codling
put 644 CHANGELOG.md usr/share/doc/codling/NEWS
cat >"$doc/changelog" <<END
codling ($version) stable; urgency=medium

  * Packaged from codling $version. What changed is in NEWS.gz.

 -- $maintainer  $(LC_ALL=C date -uRd "@$SOURCE_DATE_EPOCH")
END
gzip -9n "$doc/changelog" "$doc/NEWS" "$root"/usr/share/man/man1/*.1

mkdir "$root/DEBIAN"
for script in preinst postinst prerm postrm; do put 755 "packaging/deb/$script" "DEBIAN/$script"; done
fill "$root"/DEBIAN/p* "$root/usr/share/codling/avahi/codling.service"
printf '/etc/codling/config.yaml\n' >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
# As dpkg-gencontrol counts: files in whole KiB, a KiB for anything else.
size=$(find "$root" -path "$root/DEBIAN" -prune -o -type f -printf '%s\n' -o -printf 'x\n' |
    awk '{ sum += $1 == "x" ? 1 : int(($1 + 1023) / 1024) } END { print sum }')
cat >"$root/DEBIAN/control" <<END
Package: codling
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $size
Depends: $depends
Suggests: avahi-daemon
Section: net
Priority: optional
Homepage: https://github.com/codling/codling
Description: small Bacalhau node for ARM boards
 One program turns a board into a node that takes Bacalhau job files, runs them
 in a WASM sandbox with limits of memory, disk and time, packs each result, and
 serves it over HTTP with resume. It keeps its state through power cuts, and
 never fills the disk.
 .
 The service listens on the loopback address until it is told otherwise.
END
chmod 644 "$root"/DEBIAN/{control,conffiles,md5sums} "$root/usr/share/codling/schema"

mkdir -p "$out"
deb=$out/codling_${version}_$arch.deb
# One thread: with several, the compressed bytes differ from a machine with one core. xz: every dpkg reads it.
find "$root" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --uniform-compression -Zxz --threads-max=1 --build "$root" "$deb" >/dev/null
printf '%s: %s bytes\n' "$deb" "$(stat -c %s "$deb")"
