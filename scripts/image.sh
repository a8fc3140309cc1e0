#!/usr/bin/env bash
# Puts codling onto a system that is not running: a Raspberry Pi OS-like root (or a Jetson's), as a folder or as the
# image of a card. No program of that system runs, so it may be for another architecture than this machine's.
#
#   scripts/image.sh --board BOARD --image FILE [--deb FILE] [--boot-config FILE]
#   scripts/image.sh --board BOARD --root DIR [--boot DIR] [--deb FILE] [--boot-config FILE]
#
#   --board BOARD        a folder of board-configs/: its config.yaml, memory.conf and kernel command line are used
#   --image FILE         a card's image, changed in place: partition 1 FAT (boot), partition 2 ext4 (root); needs root
#   --root DIR           a root file system; its boot partition is DIR/boot/firmware, or what --boot says
#   --deb FILE           the package; without it, target/dist/codling_*_ARCH.deb as scripts/deb.sh leaves it
#   --boot-config FILE   becomes codling.yaml on the boot partition: read once, at the first boot
#
# It may be run again on the same system: a newer package replaces the older one, nothing is added twice.
# Exit codes: 64 usage, 65 the system or the package is not for this board, 69 a tool is missing, 73 no room.
set -euo pipefail
cd_from=$PWD
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \?//p}' "$0"; }

board='' root='' image='' boot='' deb='' boot_config=''
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --board | --root | --image | --boot | --deb | --boot-config)
            [ $# -ge 2 ] || die 64 "$1 needs a value"
            name=${1#--}
            value=$2
            [[ $name = board || $value = /* ]] || value=$cd_from/$value
            printf -v "${name//-/_}" %s "$value"
            shift 2
            ;;
        *) usage >&2; die 64 "unknown argument '$1'" ;;
    esac
done
settings=board-configs/$board
[ -n "$board" ] || { usage >&2; die 64 "which board? --board, one of: $(cd board-configs && echo *)"; }
[ -f "$settings/board.yaml" ] || die 64 "no board '$board': there are $(cd board-configs && echo *)"
[ -n "$root$image" ] || die 64 "where to? --image FILE or --root DIR"
[ -z "$root" ] || [ -z "$image" ] || die 64 "either --image or --root, not both"
[ -z "$image" ] || [ -z "$boot" ] || die 64 "--boot goes with --root: an image has its own boot partition"
[ -z "$boot_config" ] || [ -f "$boot_config" ] || die 64 "$boot_config is not a file"

board_field() { sed -n "s/^$1: //p" "$settings/board.yaml"; }
did() { printf '  %s\n' "$*"; }

work=$(mktemp -d)
clean_up() {
    if mountpoint -q "$work/root" 2>/dev/null; then as_root umount "$work/root"; fi
    rm -rf "$work"
}
trap clean_up EXIT

# The start and size of a partition of the image, in sectors.
partition() { { sfdisk -d "$image" 2>/dev/null || true; } | sed -nE "s/.*[^0-9]$1 : start= *([0-9]+), size= *([0-9]+),.*/\1 \2/p"; }

open_image() {
    need sfdisk fdisk
    need mcopy mtools
    [ -f "$image" ] || die 64 "$image is not a file; for a card in a reader, make an image first or mount it and use --root"
    [ -w "$image" ] || die 64 "$image cannot be written"
    local first second start size
    first=$(partition 1) second=$(partition 2)
    [ -n "$first" ] && [ -n "$second" ] ||
        die 65 "$image has no two partitions: is it packed (unpack it: unxz $image), or only a partition (mount it, and use --root)?"
    read -r start size <<<"$first"
    fat=$image@@$((start * 512))
    mdir -i "$fat" :: >/dev/null 2>&1 || die 65 "partition 1 of $image holds no FAT: this is not laid out as Raspberry Pi OS"
    read -r start size <<<"$second"
    mkdir "$work/root"
    loop=loop,offset=$((start * 512)),sizelimit=$((size * 512))
    as_root mount -o "$loop,ro" -t ext4 "$image" "$work/root" 2>"$work/why" ||
        die 65 "partition 2 of $image cannot be mounted ($(tail -1 "$work/why")): it must be ext4, and this machine must allow loop mounts"
    root=$work/root
}

open_root() {
    [ -d "$root" ] || die 64 "$root is not a folder"
    [ "$(realpath "$root")" != / ] || die 64 "this is for a system that is not running: on the board itself, apt install the package"
    [ -n "$boot" ] || boot=$root/boot/firmware
    if ! [ -d "$boot" ]; then
        [ -z "$boot_config" ] && [ -z "$(board_field KernelCommandLine)" ] ||
            die 65 "$boot is not a folder: mount the card's first partition there, or name it with --boot"
    fi
}

# Files of the boot partition, wherever it is.
boot_read() { if [ -n "$image" ]; then mcopy -n -i "$fat" "::$1" - 2>/dev/null; else cat "$boot/$1" 2>/dev/null; fi; }
boot_write() {
    if [ -n "$image" ]; then
        mcopy -o -i "$fat" "$work/$1" "::$1" 2>"$work/why"
    else
        cp "$work/$1" "$boot/$1" 2>"$work/why"
    fi || die 73 "$1 does not fit on the boot partition ($(tail -1 "$work/why")): remove something there"
}

# The Debian architecture of a root, by the program that every root has.
architecture() {
    local file
    for file in usr/bin/env bin/sh usr/bin/dpkg; do
        file=$(realpath -m "$root/$file")
        [ -f "$file" ] || continue
        case $(od -An -tx1 -j4 -N1 "$file")$(od -An -tu1 -j18 -N1 "$file" | tr -d ' ') in
            ' 02183') echo arm64 ;;
            ' 0140') echo armhf ;;
            ' 0262') echo amd64 ;;
            *) echo other ;;
        esac
        return
    done
    die 65 "${image:-$root} holds no system: no usr/bin/env in it"
}

check_system() {
    local runs
    arch=$(architecture)
    case $(board_field Target) in aarch64-*) runs=arm64 ;; x86_64-*) runs=amd64 ;; *) runs=armhf ;; esac
    # A 64-bit Pi may well run a 32-bit system, but then its owner has to say so, with that package.
    [ "$arch" = "$runs" ] || { [ "$arch" = armhf ] && [[ $(basename "$deb") = *_armhf.deb ]]; } ||
        die 65 "${image:-the root} is a system for $arch, $board ($(board_field Name)) takes $runs: use a system for $runs, or another --board"
    units=$root/usr/lib/systemd/system
    [ -d "$units" ] || units=$root/lib/systemd/system
    [ -d "$units" ] || die 65 "${image:-the root} has no folder usr/lib/systemd/system: codling's service needs systemd there"
}

find_package() {
    need dpkg-deb dpkg
    if [ -z "$deb" ]; then
        deb=$(find target/dist -maxdepth 1 -name "codling_*_$arch.deb" -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -1 | cut -d' ' -f2-)
        [ -n "$deb" ] || die 64 "no package for $arch in target/dist: make one with scripts/deb.sh, or name one with --deb"
    fi
    [ "$(dpkg-deb -f "$deb" Package 2>"$work/why")" = codling ] || die 65 "$deb is not a package of codling"
    local for_arch need_kib free_kib ours theirs
    for_arch=$(dpkg-deb -f "$deb" Architecture)
    [ "$for_arch" = "$arch" ] || die 65 "$deb is for $for_arch, the system for $arch: name that one's package"
    # What the package's own preinst would refuse: databases of a newer program, and Debian's ARMv7 on an ARMv6 board.
    ours=$(dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/share/codling/schema 2>/dev/null) || ours=0
    theirs=$(cat "$root/usr/share/codling/schema" 2>/dev/null) || theirs=0
    [ "${theirs:-0}" -le "${ours:-0}" ] ||
        die 65 "the root has a newer codling, with databases of schema $theirs; $deb reads up to $ours: take a newer package"
    if [[ $(board_field Target) = arm-* ]] && dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./preinst 2>/dev/null | grep '"armv7" =' >/dev/null; then
        die 65 "$deb is for ARMv7 and later, $board is ARMv6: take the package for ARMv6"
    fi
    need_kib=$(($(dpkg-deb --fsys-tarfile "$deb" | wc -c) / 1024 + 4096))
    free_kib=$(df -k --output=avail "$root" | tail -1)
    [ "$free_kib" -ge "$need_kib" ] ||
        die 73 "the root has $free_kib KiB free, $need_kib are needed: make the image larger (truncate, then growpart and resize2fs) or remove something"
}

# Unpacks the package and enters it into the system's list, so that apt on the board upgrades and removes it.
install_package() {
    local info=$root/var/lib/dpkg/info status=$root/var/lib/dpkg/status version path name
    version=$(dpkg-deb -f "$deb" Version)
    as_root cp "$root/etc/codling/config.yaml" "$work/old.yaml" 2>/dev/null || true
    dpkg-deb --fsys-tarfile "$deb" | as_root tar -x --numeric-owner --keep-directory-symlink --no-overwrite-dir -C "$root"
    mkdir "$work/control"
    dpkg-deb -e "$deb" "$work/control"
    if [ -f "$status" ]; then
        as_root mkdir -p "$info"
        as_root find "$info" -maxdepth 1 -name 'codling.*' -delete
        for path in "$work"/control/*; do
            name=${path##*/}
            [ "$name" = control ] || as_root install -m "$(stat -c %a "$path")" "$path" "$info/codling.$name"
        done
        dpkg-deb --fsys-tarfile "$deb" | tar -t | sed -E 's,^\.,,; s,/$,,; s,^$,/.,' >"$work/list"
        as_root install -m 644 "$work/list" "$info/codling.list"
        {
            awk -v RS= -v ORS='\n\n' '$1 != "Package:" || $2 != "codling"' "$status"
            printf 'Package: codling\nStatus: install ok installed\n'
            dpkg-deb -f "$deb" | grep -v '^Package:'
            if [ -s "$work/control/conffiles" ]; then
                echo "Conffiles:"
                while read -r path; do
                    printf ' %s %s\n' "$path" "$(dpkg-deb --fsys-tarfile "$deb" | tar -xO ".$path" | md5sum | cut -d' ' -f1)"
                done <"$work/control/conffiles"
            fi
            echo
        } >"$work/status"
        as_root install -m 644 "$work/status" "$status"
    fi
    did "package: codling $version for $arch, from $deb"
}

# What the package's own script does on a running system.
settle_package() {
    local unit name target
    need systemd-sysusers systemd-standalone-sysusers
    as_root systemd-sysusers --root="$(realpath "$root")" codling.conf 2>"$work/why" || die 65 "no user codling in the root: $(tail -1 "$work/why")"
    gid=$(awk -F: '$1 == "codling" {print $3}' "$root/etc/group")
    uid=$(awk -F: '$1 == "codling" {print $3}' "$root/etc/passwd")
    as_root install -d -m 750 -o 0 -g "$gid" "$root/etc/codling"
    as_root install -d -m 700 -o "$uid" -g "$gid" "$root/var/lib/codling"
    did "user: codling ($uid:$gid)"
    while read -r name; do
        unit=$root$name
        for target in $(sed -n 's/^WantedBy=//p' "$unit"); do # names, without blanks
            as_root mkdir -p "$root/etc/systemd/system/$target.wants"
            as_root ln -sfn "$name" "$root/etc/systemd/system/$target.wants/${name##*/}"
            did "enabled: ${name##*/}, by $target"
        done
    done < <(dpkg-deb --fsys-tarfile "$deb" | tar -t | sed -n -E 's,^\.(/.*/systemd/system/[^/]+\.(service|timer|path|socket))$,\1,p')
}

put_settings() {
    # Settings that somebody made are kept beside the board's.
    if [ -f "$work/old.yaml" ] && ! as_root cmp -s "$work/old.yaml" "$settings/config.yaml" &&
        ! as_root cmp -s "$work/old.yaml" "$root/etc/codling/config.yaml"; then
        as_root install -m 640 -o 0 -g "$gid" "$work/old.yaml" "$root/etc/codling/config.yaml.old"
        did "kept: the settings that were there, as /etc/codling/config.yaml.old"
    fi
    as_root install -m 640 -o 0 -g "$gid" "$settings/config.yaml" "$root/etc/codling/config.yaml"
    did "settings: /etc/codling/config.yaml of $settings"
    # What updates compare bundles with.
    printf '%s\n' "$board" >"$work/board"
    as_root install -m 644 "$work/board" "$root/etc/codling/board"
    if [ -f "$settings/memory.conf" ]; then
        as_root install -D -m 644 "$settings/memory.conf" "$root/etc/systemd/system/codling.service.d/memory.conf"
        did "bounds: $(grep -v '^[#[]' "$settings/memory.conf" | tr '\n' ' ')"
    fi
}

put_command_line() {
    local word old new added=''
    read -ra words < <(board_field KernelCommandLine) || return 0
    old=$(boot_read cmdline.txt | tr -d '\r' | tr '\n' ' ' | sed 's/ *$//') || true
    [ -n "$old" ] || die 65 "no cmdline.txt on the boot partition: the kernel of $board needs '${words[*]}' on its command line"
    new=$old
    for word in "${words[@]}"; do
        [[ " $new " = *" $word "* ]] || { new="$new $word"; added="$added $word"; }
    done
    if [ -n "$added" ]; then
        printf '%s\n' "$new" >"$work/cmdline.txt"
        boot_write cmdline.txt
        did "kernel command line: added$added"
    else
        did "kernel command line: has ${words[*]}"
    fi
}

printf 'codling for %s, onto %s\n' "$(board_field Name)" "${image:-$root}"
if [ -n "$image" ]; then open_image; else open_root; fi
check_system
find_package
# Nothing has changed until here.
[ -z "$image" ] || { as_root umount "$root" && as_root mount -o "$loop" -t ext4 "$image" "$root"; }
put_command_line
if [ -n "$boot_config" ]; then
    cp "$boot_config" "$work/codling.yaml"
    boot_write codling.yaml
    did "first boot: codling.yaml on the boot partition"
fi
install_package
settle_package
put_settings
echo "done: the board starts codling when it boots; its API is on its loopback address unless codling.yaml says otherwise"
