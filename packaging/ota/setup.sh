#!/bin/sh
# Makes a board update itself: setup.sh --board BOARD --key update.pub [--root DIR] [--mender] [--rauc KEYRING] BUNDLE.tar
#
# Installs the first version from BUNDLE.tar, whose signature is checked with that key, and has the service start it.
# A codling has to be there: the package's, or one that CODLING names.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

root= board= key= mender= keyring=
while [ $# -gt 1 ]; do
    case $1 in
        --root) root=${2%/}; shift 2 ;;
        --board) board=$2; shift 2 ;;
        --key) key=$2; shift 2 ;;
        --mender) mender=yes; shift ;;
        --rauc) keyring=$2; shift 2 ;;
        *) break ;;
    esac
done
if [ $# -ne 1 ] || [ -z "$board" ] || [ -z "$key" ]; then
    sed -n '2,5s/^# \?//p' "$0" >&2
    exit 64
fi
bundle=$1

install -d "$root/etc/codling/update-keys.d" "$root/usr/lib/codling"
install -m 644 "$key" "$root/etc/codling/update-keys.d/$(basename "${key%.pub}").pub"
printf '%s\n' "$board" >"$root/etc/codling/board"
install -m 755 "$here/codling-ota" "$root/usr/lib/codling/codling-ota"
CODLING_ROOT=${root:-/} "$here/codling-ota" apply "$bundle"

# From here on, the service starts what the slots hold.
units=$root/etc/systemd/system
install -d "$units/codling.service.d"
install -m 644 "$here/codling-ota.conf" "$units/codling.service.d/ota.conf"
install -m 644 "$here/codling-update-check.service" "$units/codling-update-check.service"
if [ -n "$mender" ]; then
    install -D -m 755 "$here/mender/codling" "$root/usr/share/mender/modules/v3/codling"
fi
if [ -n "$keyring" ]; then
    install -D -m 644 "$keyring" "$root/etc/rauc/keyring.pem"
    [ -e "$root/etc/rauc/system.conf" ] \
        || sed "s/@BOARD@/codling-$board/" "$here/rauc/system.conf" >"$root/etc/rauc/system.conf"
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart codling.service
fi
