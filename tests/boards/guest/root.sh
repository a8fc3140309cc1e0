#!/usr/bin/env bash
# Makes what the guests of these tests boot: a Raspberry Pi OS-like SD card of Debian's arm64 packages (partition 1 FAT,
# partition 2 ext4), with kernels and initramfs for qemu's virt and raspi3b. Prints the folder that holds it all.
#
# No foreign program runs: packages are unpacked, and what their scripts would have done and a boot needs is done here.
# Kept under target/guest by a hash of this folder's inputs; the packages' versions are those of the day it was made.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh
here=tests/boards/guest

need mmdebstrap mmdebstrap
need modprobe kmod
need mcopy mtools
need sfdisk fdisk
need mke2fs e2fsprogs
need cpio cpio
need systemd-sysusers systemd-standalone-sysusers

key=$(cat $here/root.sh $here/init $here/rootfs/* | sha256sum | cut -c1-16)
out=target/guest/$key
mkdir -p target/guest
exec 9>target/guest/lock
flock 9
if [ -e "$out/done" ]; then echo "$out"; exit 0; fi
rm -rf target/guest/????????????????
mkdir -p "$out"

# Memory is far quicker than a disk for many small files.
work=$(mktemp -d -p "$([ "$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 2000000 ] && echo /dev/shm || echo "$out")")
trap 'rm -rf "$work"' EXIT
root=$work/root

packages=(
    # Essential in Debian; unpacking resolves what these depend on, and no more.
    base-files base-passwd bash coreutils dash debianutils diffutils dpkg findutils grep gzip hostname libc-bin login mawk
    mount ncurses-base perl-base sed sysvinit-utils tar util-linux
    systemd systemd-sysv udev kmod passwd procps busybox-static libeatmydata1 linux-image-cloud-arm64 linux-image-arm64
)
say "Debian packages for arm64" >&2
# shellcheck disable=SC2016 # mmdebstrap's hook has a $1 of its own
mmdebstrap --quiet --architectures=arm64 --variant=extract --include="$(IFS=,; echo "${packages[*]}")" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --setup-hook='mkdir -p "$1"/usr/bin "$1"/usr/sbin "$1"/usr/lib; for d in bin sbin lib; do ln -s usr/$d "$1"/$d; done' \
    bookworm "$root" "deb $(debian_mirror bookworm) bookworm main" \
    "deb $(debian_mirror bookworm-security) bookworm-security main" >&2

say "kernels and initramfs" >&2
# Modules that the two machines need, in kernel and initramfs.
modules() {
    case $1 in
        *-cloud-*) echo virtio_pci virtio_blk virtio_net ext4 vfat nls_ascii nls_cp437 ;;
        *) echo bcm2835 sdhci_iproc mmc_block ext4 vfat nls_ascii nls_cp437 dwc2 cdc_ether rndis_host cdc_subset ;;
    esac
}
for kernel in "$root"/boot/vmlinuz-*; do
    version=${kernel##*/vmlinuz-}
    machine=raspi3b; [[ $version = *-cloud-* ]] && machine=virt
    depmod -b "$root" "$version"
    read -ra wanted < <(modules "$version")
    for module in "${wanted[@]}"; do
        modprobe -d "$root" -S "$version" --show-depends "$module"
    done | sed -n 's/^insmod //p' | awk '{print $1}' | awk '!seen[$0]++' >"$work/order"
    initrd=$work/initrd-$machine
    mkdir -p "$initrd"/{bin,m,proc,sys,dev,new}
    cp "$root/usr/bin/busybox" "$initrd/bin/busybox"
    install -m 755 $here/init "$initrd/init"
    while read -r module; do
        cp "$module" "$initrd/m/"
        echo "${module##*/}" >>"$initrd/m/order"
    done <"$work/order"
    (cd "$initrd" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$out/$machine.initrd"
    cp "$kernel" "$out/$machine.kernel"
    # Nothing else of the modules is of use here.
    (cd "$root/usr/lib/modules/$version" && find kernel -name '*.ko*' | while read -r module; do
        grep -q "/${module##*/}\$" "$work/order" || rm "$module"
    done; find kernel -type d -empty -delete)
    depmod -b "$root" "$version"
done
cp "$root"/usr/lib/linux-image-*-arm64/broadcom/bcm2837-rpi-3-b.dtb "$out/raspi3b.dtb"
rm -rf "$root"/boot/* "$root"/usr/lib/linux-image-* "$root"/usr/share/{i18n,zoneinfo,perl*,bash-completion}

say "what packages' scripts would have done" >&2
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
systemd-sysusers --root="$root" >&2
printf 'raspberrypi\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost raspberrypi\n' >"$root/etc/hosts"
printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
: >"$root/etc/machine-id"
printf 'LABEL=rootfs / ext4 noatime 0 0\nPARTUUID=c0d11e00-01 /boot/firmware vfat nofail,x-systemd.device-timeout=15min 0 0\n' >"$root/etc/fstab"
mkdir -p "$root/boot/firmware" "$root/etc/systemd/system/multi-user.target.wants" \
    "$root/etc/systemd/system/sockets.target.wants" "$root/etc/systemd/network" "$root/var/lib/dpkg/info"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
cp $here/rootfs/guest.network "$root/etc/systemd/network/"
cp $here/rootfs/guest-shell.socket $here/rootfs/guest-shell@.service $here/rootfs/guest-ready.service "$root/etc/systemd/system/"
ln -sf ../guest-shell.socket "$root/etc/systemd/system/sockets.target.wants/"
ln -sf ../guest-ready.service "$root/etc/systemd/system/multi-user.target.wants/"

say "SD card image" >&2
# A power of two, as qemu's SD card wants it.
truncate -s 2G "$work/card.img"
printf 'label: dos\nlabel-id: 0xc0d11e00\nstart=2048, size=131072, type=c\nstart=133120, type=83\n' | sfdisk -q "$work/card.img" >&2
mformat -i "$work/card.img@@1M" -T 131072 -h 16 -s 63 -H 2048 -v bootfs ::
printf 'console=tty1 root=LABEL=rootfs rootfstype=ext4 fsck.repair=yes rootwait' >"$work/cmdline.txt"
printf 'arm_64bit=1\n' >"$work/config.txt"
mcopy -i "$work/card.img@@1M" "$work/cmdline.txt" "$work/config.txt" ::
mke2fs -q -t ext4 -L rootfs -d "$root" -E offset=$((133120 * 512)) "$work/card.img" $(((4194304 - 133120) / 2))k >&2
cp --sparse=always "$work/card.img" "$out/card.img"
touch "$out/done"
du -h "$out"/* >&2
echo "$out"
