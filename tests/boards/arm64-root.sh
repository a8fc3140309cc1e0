#!/usr/bin/env bash
# Makes a Debian root for arm64 in which a real systemd boots: tests/boards/arm64-root.sh TARFILE
#
# Nothing runs in it on the way, so that it takes seconds and not minutes of emulation: packages are unpacked, dpkg's
# records of them are written, and of their maintainer scripts only the effects that a service needs are made here.
# What is tested in it, codling's own package, runs its scripts there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# registered ROOT: dpkg in ROOT knows the packages whose archives lie in its cache.
registered() {
    local root=$1 deb name info=$1/var/lib/dpkg/info control
    : >"$root/var/lib/dpkg/status"
    for deb in "$root"/var/cache/apt/archives/*.deb; do
        control=$(mktemp -d)
        dpkg-deb -e "$deb" "$control"
        name=$(dpkg-deb -f "$deb" Package)
        [ "$(dpkg-deb -f "$deb" Multi-Arch)" != same ] || name+=:$(dpkg-deb -f "$deb" Architecture)
        dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's,^\.,,; s,/$,,; s,^$,/.,' >"$info/$name.list"
        {
            sed '1a Status: install ok installed' "$control/control"
            if [ -s "$control/conffiles" ]; then
                echo 'Conffiles:'
                while read -r file; do
                    case $file in
                        /*) printf ' %s %s\n' "$file" "$(md5sum <"$root$file" | cut -d' ' -f1)" ;;
                    esac
                done <"$control/conffiles"
            fi
            echo
        } >>"$root/var/lib/dpkg/status"
        rm "$control/control"
        for file in "$control"/*; do [ ! -f "$file" ] || install -m 755 "$file" "$info/$name.${file##*/}"; done
        rm -r "$control"
    done
}

# settled ROOT: what base-passwd, base-files, dbus and systemd do when they are configured.
settled() {
    local root=$1
    install -m 644 "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    install -m 644 "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    sed -i 's/^root:\*:/root::/' "$root/etc/passwd"
    printf 'messagebus:x:100:\n' >>"$root/etc/group"
    printf 'messagebus:x:100:100::/nonexistent:/usr/sbin/nologin\n' >>"$root/etc/passwd"
    systemd-sysusers --root="$root"
    mkdir -p "$root/var/lib/systemd/deb-systemd-helper-enabled"
    ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    : >"$root/etc/machine-id"
    echo board >"$root/etc/hostname"
    ln -sf mawk "$root/usr/bin/awk"
}

if [ "${1:-}" = --hook ]; then
    registered "$2"
    settled "$2"
    exit
fi
out=${1:?TARFILE}
need mmdebstrap mmdebstrap
need systemd-sysusers systemd
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } |
    sed -nE 's/^(deb .*|URIs:) *(https?:[^ ]*\/debian)\/?( .*|$)/\2/p' | head -1)
[ -n "$mirror" ] || mirror=$(debian_mirror bookworm)
mkdir -p "${out%/*}"
# shellcheck disable=SC2016  # hooks are expanded by mmdebstrap's shell
mmdebstrap --quiet --mode=root --arch=arm64 --variant=extract --format=tar \
    --include='?essential' --include=apt,systemd,systemd-sysv,dbus,iproute2,procps \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --setup-hook='mkdir -p "$1"/usr/bin "$1"/usr/sbin "$1"/usr/lib && ln -s usr/bin usr/sbin usr/lib "$1"/' \
    --extract-hook="'$PWD/tests/boards/arm64-root.sh' --hook \"\$1\"" \
    bookworm "$out.part" "deb $mirror bookworm main"
mv "$out.part" "$out"
