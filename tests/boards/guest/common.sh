# What guest.sh and power.sh share; sourced, from the repository's root.
# shellcheck shell=bash disable=SC2034

# prepare: tools, the package ($deb), what guests boot ($files), a folder that goes at the end ($work).
prepare() {
    need qemu-system-aarch64 qemu-system-arm
    need wat2wasm wabt
    need python3 python3
    say "the package for arm64"
    if [ -n "${CODLING_DEB:-}" ]; then
        deb=$CODLING_DEB
    else
        scripts/deb.sh arm64 >&2
        deb=$(find target/dist -maxdepth 1 -name 'codling_*_arm64.deb' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
    fi
    say "what the guests boot"
    files=$(tests/boards/guest/root.sh)
    work=$(mktemp -d -p target/guest run.XXXXXX)
    trap clean_up EXIT
}

# What was made goes, and what still runs ends: the guests, and mounts of their cards.
clean_up() {
    trap - EXIT
    jobs -p | xargs -r kill 2>/dev/null || true
    wait || true
    findmnt -rno TARGET | grep -F -e "$(realpath "$work")" -e "${memory:-/dev/null}" | xargs -r umount || true
    rm -rf "$work" "${memory:-$work}"
}

free_ports() { python3 tests/boards/guest/guest.py ports; }

# data_disk NAME SIZE: an empty ext4 disk for /var/lib/codling.
data_disk() {
    truncate -s "$2" "$work/$1.data"
    mke2fs -q -t ext4 -L codling -E root_owner="0:0",lazy_itable_init=0,lazy_journal_init=0 "$work/$1.data"
    echo "$work/$1.data"
}

# on_card NAME COMMAND...: runs a command with the card's root mounted at $work/NAME.root.
on_card() {
    local name=$1 mounted=$work/$1.root
    shift
    mkdir -p "$mounted"
    mount -o "loop,offset=$((133120 * 512))" "$work/$name.img" "$mounted"
    "$@" "$mounted"
    umount "$mounted"
}

# A machine that emulates slowly is no reason to give up on the disk.
mount_data() {
    echo 'LABEL=codling /var/lib/codling ext4 noatime,x-systemd.device-timeout=15min 0 0' >>"$1/etc/fstab"
}

# flash NAME BOARD PORTS DISK KIND: a card with codling, as a user makes it, with settings of guest.py on the boot partition.
# With a disk, that becomes /var/lib/codling.
flash() {
    local name=$1 board=$2 ports=$3 disk=$4
    cp --sparse=always "$files/card.img" "$work/$name.img"
    python3 tests/boards/guest/guest.py settings "${ports##*,}" "$5" >"$work/$name.yaml"
    scripts/image.sh --board "$board" --image "$work/$name.img" --deb "$deb" --boot-config "$work/$name.yaml"
    mcopy -n -i "$work/$name.img@@1M" ::cmdline.txt - >"$work/$name.cmdline"
    [ "$disk" = - ] || on_card "$name" mount_data
}
