#!/usr/bin/env bash
# What scripts/image.sh refuses, with reason and next step, and leaves untouched: refusals.sh FILES DEB
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh
files=$1 deb=$2
work=$(mktemp -d -p target/guest refusals.XXXXXX)
trap 'umount "$work/m" 2>/dev/null || true; rm -rf "$work"' EXIT
card=$work/card.img
cp --sparse=always "$files/card.img" "$card"
sum=$(sha256sum <"$card")

# refused CODE WORDS ARGUMENT...: it must end with this code, say these words, and change nothing on the card.
refused() {
    local code=$1 words=$2 got=0
    shift 2
    scripts/image.sh "$@" >"$work/out" 2>&1 || got=$?
    [ "$got" = "$code" ] || die 1 "image.sh $*: exit code $got, not $code: $(cat "$work/out")"
    grep -qF -- "$words" "$work/out" || die 1 "image.sh $*: does not say '$words': $(cat "$work/out")"
    printf '  refused (%s): %s\n' "$code" "$(tail -1 "$work/out" | cut -c1-150)"
}

# A root for tests of --root, with as much in it as is looked at.
root=$work/root
mkdir -p "$root"/{usr/bin,usr/lib/systemd/system,boot/firmware,etc}
printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0\267\0' >"$root/usr/bin/env"
echo "console=tty1 root=/dev/mmcblk0p2" >"$root/boot/firmware/cmdline.txt"
cp -a "$root" "$work/armhf"
printf '\177ELF\1\1\1\0\0\0\0\0\0\0\0\0\3\0\50\0' >"$work/armhf/usr/bin/env"

refused 64 "no board 'pi-9'" --board pi-9 --image "$card"
refused 64 "not running" --board pi-3 --root / --deb "$deb"
refused 65 "a system for arm64, pi-zero" --board pi-zero --image "$card" --deb "$deb"
refused 65 "a system for armhf, pi-3" --board pi-3 --root "$work/armhf" --deb "$deb"
refused 65 "is for arm64, the system for armhf" --board pi-zero --root "$work/armhf" --deb "$deb"
refused 65 "has no two partitions" --board pi-3 --image "$deb" --deb "$deb"
refused 65 "not a package of codling" --board pi-3 --image "$card" --deb "$files/virt.initrd"
refused 64 "is not a file" --board pi-3 --image "$card" --deb "$deb" --boot-config "$work/none.yaml"
mkdir "$work/empty"
refused 65 "holds no system" --board generic --root "$work/empty" --deb "$deb"
rm -r "$root/usr/lib/systemd"
refused 65 "no folder usr/lib/systemd/system" --board pi-3 --root "$root" --deb "$deb"
[ "$(sha256sum <"$card")" = "$sum" ] || die 1 "a refusal has changed the card"

# A full card: reason and next step, and no half of a package on it.
mkdir "$work/m"
mount -o "loop,offset=$((133120 * 512))" "$card" "$work/m"
fallocate -l "$(($(df -k --output=avail "$work/m" | tail -1) - 3000))K" "$work/m/filler"
umount "$work/m"
refused 73 "are needed" --board pi-3 --image "$card" --deb "$deb"
mount -o "loop,offset=$((133120 * 512))" "$card" "$work/m"
[ ! -e "$work/m/usr/bin/codling" ] || die 1 "a full card has a part of the package"
rm "$work/m/filler"
umount "$work/m"

# Twice is as good as once.
for _ in 1 2; do scripts/image.sh --board pi-3 --image "$card" --deb "$deb" >"$work/out"; done
[ "$(mcopy -n -i "$card@@1M" ::cmdline.txt - | grep -o cgroup_enable=memory | wc -l)" = 1 ] || die 1 "the command line has it twice"
mount -o "loop,offset=$((133120 * 512))" "$card" "$work/m"
[ "$(grep -c '^Package: codling$' "$work/m/var/lib/dpkg/status")" = 1 ] || die 1 "dpkg knows the package twice"
# A newer program's databases are not given to an older one.
echo 99 >"$work/m/usr/share/codling/schema"
umount "$work/m"
refused 65 "has a newer codling" --board pi-3 --image "$card" --deb "$deb"
