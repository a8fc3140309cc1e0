#!/usr/bin/env bash
# packaging/firstboot/user-data.example as a board's first boot has it: the real cloud-init of Debian trixie, started by
# a real systemd in a container without a network, finds it as on Raspberry Pi OS, on the boot partition beside the
# package, and installs and configures the node with it. Then a boot with nothing new, and one with settings that are
# wrong. The container is of this machine's architecture; CODLING_AMD64 names a program that is there already.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
. tests/boards/container.sh
work=$PWD/target/boards-cloud
roots=$PWD/target/boards-root
board=/run/board
boot=$board/boot/firmware
started=$SECONDS

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
ok() { printf '%4ss  %s\n' "$((SECONDS - started))" "$*"; }

# root_image: a tar of a Debian root with cloud-init, kept as long as what it is made of is the same.
root_image() {
    local memory=/dev/shm packages=systemd,systemd-sysv,dbus,cloud-init,iproute2,procps
    image=$roots/cloud-$(sha256sum <<<"trixie $packages" | cut -c1-16).tar
    if [ ! -f "$image" ]; then
        need mmdebstrap mmdebstrap
        mkdir -p "$roots"
        rm -f "$roots"/cloud-*.tar
        # Memory is far quicker than a disk for many small files.
        [ "$(df -k --output=avail "$memory" 2>/dev/null | tail -1)" -gt 2000000 ] || memory=$roots
        TMPDIR=$memory mmdebstrap --quiet --mode=root --arch=amd64 --variant=minbase --format=tar \
            --include="$packages" \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            --dpkgopt=force-unsafe-io trixie "$image.part" "deb $(debian_mirror bookworm) trixie main"
        mv "$image.part" "$image"
    fi
    ok "a root of Debian trixie with cloud-init: $(du -h "$image" | cut -f1)"
}

fail_board() {
    in_board tail -n 40 /var/log/cloud-init-output.log >&2 || true
    in_board journalctl -u codling -u codling-first-boot --no-pager -n 30 >&2 || true
    fail "$*"
}
is() { [ "$2" = "$3" ] || fail_board "$1 is '$2', not '$3'"; }

# boots: systemd starts, and all that it starts of itself is done, cloud-init's stages too.
boots() {
    local tries=0 state
    container_starts "$work/console.log"
    until state=$(in_board systemctl is-system-running 2>/dev/null || true) && [[ $state =~ ^(running|degraded)$ ]]; do
        [ $((tries += 1)) -lt 600 ] || fail_board "systemd is '$state': $(in_board systemctl list-jobs --no-pager || true)"
        sleep 0.2
    done
    # 2 is "done, but with warnings": this root has no ssh whose keys could be made.
    in_board cloud-init status --wait >"$work/status" 2>&1 || [ $? -eq 2 ] || fail_board "cloud-init: $(cat "$work/status")"
    is "cloud-init" "$(grep -o 'status: [a-z]*' "$work/status")" 'status: done'
    is "the service" "$(in_board systemctl show codling -p ActiveState --value)" active
}

quota() { in_board codling config list --config /etc/codling/config.yaml --output json | python3 -c '
import json, sys
print(next(key["Value"] for key in json.load(sys.stdin) if key["Key"] == "Results.Quota"))'; }
node() { in_board codling agent node --output json | python3 -c 'import json, sys; print(json.load(sys.stdin)["NodeID"])'; }
installed() { in_board grep -c 'status installed codling:' /var/log/dpkg.log; }

inside() {
    mount --make-rprivate /
    mount -t tmpfs none /run
    mkdir -p "$board"
    tar -C "$board" --exclude='./dev/*' -xf "$image"
    mkdir -p "$boot"
    # What Raspberry Pi OS has of its own.
    printf '%s\n' 'datasource_list: [NoCloud, None]' 'datasource: {NoCloud: {seedfrom: "file:///boot/firmware"}}' \
        >"$board/etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg"

    # Another number than the package's own settings have.
    sed 's/Quota: 50%/Quota: 40%/' packaging/firstboot/user-data.example >"$boot/user-data"
    chroot "$board" cloud-init schema --config-file /boot/firmware/user-data >"$work/said" 2>&1 || fail "$(cat "$work/said")"
    sed 's/^hostname: .*/hostname: [1]/' "$boot/user-data" >"$boot/wrong"
    if chroot "$board" cloud-init schema --config-file /boot/firmware/wrong >"$work/said" 2>&1; then fail "the schema takes all"; fi
    rm "$boot/wrong"
    ok "$(chroot "$board" cloud-init --version) finds nothing wrong with it"

    cp "$work"/codling_*_amd64.deb "$boot/"
    echo 'instance-id: first' >"$boot/meta-data"
    boots
    local id
    id=$(node)
    is "the host's name" "$(in_board hostname)" edge-1
    is "the quota" "$(quota)" 40%
    is "the node's settings" "$(in_board stat -c '%U %G %a' /etc/codling/config.d/50-boot.yaml)" 'codling codling 600'
    is "the boot partition" "$(in_board sh -c 'cd /boot/firmware && echo *')" \
        "$(cd "$work" && echo codling_*_amd64.deb) meta-data user-data"
    in_board grep -q '^ok  *ports ' /var/log/cloud-init-output.log || fail_board "doctor does not say that the node runs"
    ok "first boot: the package is installed, the node runs with the settings of user-data, as edge-1"

    container_cut
    boots
    is "the quota" "$(quota)" 40%
    is "the node" "$(node)" "$id"
    is "the number of installations" "$(installed)" 1
    ok "second boot: the same node with the same settings; nothing is installed again"

    container_cut
    sed 's/Quota: 50%/Quota: 500%/' packaging/firstboot/user-data.example >"$boot/user-data"
    echo 'instance-id: second' >"$boot/meta-data"
    boots
    is "the quota" "$(quota)" 40%
    is "the node" "$(node)" "$id"
    in_board grep -q 'Quota' /boot/firmware/codling.yaml.error || fail_board "no word of what is wrong on the boot partition"
    ok "user-data with wrong settings: $(in_board tail -n 1 /boot/firmware/codling.yaml.error); the node goes on"
    container_cut
}

if [ "${1:-}" = --inside ]; then
    image=$2 inside
    exit
fi
[ "$(id -u)" -eq 0 ] || die 77 "this test mounts and starts a container: run it as root"
[ "$(dpkg --print-architecture)" = amd64 ] || die 69 "this test runs on amd64"
need systemd-nspawn systemd-container
need nsenter util-linux
need python3 python3
need strip binutils
rm -rf "$work"
mkdir -p "$work"
program=${CODLING_AMD64:-target/debug/codling}
[ -n "${CODLING_AMD64:-}" ] || cargo build -q --locked --features interpreter
strip -o "$work/codling" "$program"
scripts/deb.sh amd64 --out "$work" --binary "$work/codling"
root_image
unshare --mount "$0" --inside "$image"
printf '\nboards: cloud passed in %s s\n' "$((SECONDS - started))"
