#!/usr/bin/env bash
# The Debian package for arm64 under a real systemd: installed, run, upgraded at work, downgraded, removed, purged.
#
# systemd boots as PID 1 of a container whose programs are arm64 ones, run by qemu's user emulation. The kernel learns
# of that emulation in a user namespace that ends with the test; nothing of the machine is changed, and the container
# has a network of its own with nothing but a loopback device in it. CODLING_ARM64 names a program that is there already.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
. tests/boards/container.sh
work=$PWD/target/boards-deb
roots=$PWD/target/boards-root
# The ceiling of tests/front_door/service.rs, in tenths.
ceiling=$(sed -n 's/^const EXPOSURE_MAX: u32 = \([0-9]*\);/\1/p' tests/front_door/service.rs)
started=$SECONDS

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
ok() { printf '%4ss  %s\n' "$((SECONDS - started))" "$*"; }

# ---------------------------------------------------------------- packages

packages() {
    local version=$1 next=$2 deb=$work/codling_$1_arm64.deb program=${CODLING_ARM64:-}
    rm -rf "$work"
    mkdir -p "$work/again"
    if [ -z "$program" ]; then
        scripts/build.sh aarch64-unknown-linux-gnu
        program=target/dist/aarch64-unknown-linux-gnu/codling
    fi
    scripts/deb.sh arm64 --out "$work" --binary "$program"
    scripts/deb.sh arm64 --out "$work/again" --binary "$program" >/dev/null
    cmp "$deb" "$work/again/${deb##*/}" || fail "two builds of the package differ"
    scripts/deb.sh arm64 --out "$work" --binary "$program" --version "$next" >/dev/null
    # A package whose program reads older databases only.
    mkdir "$work/old"
    dpkg-deb -R "$deb" "$work/old"
    sed -i 's/^schema=.*/schema=0/' "$work/old/DEBIAN/preinst"
    sed -i 's/^Version: .*/Version: 0.0.1/' "$work/old/DEBIAN/control"
    dpkg-deb --root-owner-group -Zxz -b "$work/old" "$work/codling_0.0.1_arm64.deb" >/dev/null
    rm -r "$work/old"
    ok "two builds of $(basename "$deb") are equal, byte for byte: $(stat -c %s "$deb") bytes"

    need lintian lintian
    lintian --allow-root --fail-on error --tag-display-limit 0 "$deb" | tee "$work/lintian" ||
        fail "lintian finds errors"
    ok "lintian: no errors, $(grep -c '^W:' "$work/lintian" || true) warnings"

    # What is said of the program comes from the program: this machine's own build says the same.
    cargo build -q --locked --features interpreter
    dpkg-deb -x "$deb" "$work/tree"
    python3 -c 'import sys, xml.dom.minidom as xml; xml.parse(sys.argv[1])' "$work/tree/usr/share/codling/avahi/codling.service"
    mkdir "$work/man"
    target/debug/codling man --dir "$work/man"
    gzip -9n "$work"/man/*
    diff -r "$work/man" "$work/tree/usr/share/man/man1" || fail "the manual pages are not those of the native program"
    for shell in bash/bash-completion/completions/codling zsh/zsh/vendor-completions/_codling \
        fish/fish/vendor_completions.d/codling.fish; do
        target/debug/codling completions "${shell%%/*}" | cmp - "$work/tree/usr/share/${shell#*/}"
    done
    ok "manual pages and completions are those of the native program"
    if scripts/deb.sh armhf --out "$work" --binary "$program" 2>"$work/said"; then
        fail "a package for armhf took an arm64 program"
    fi
    grep -q 'is for AArch64, the package is for armhf' "$work/said" || fail "$(cat "$work/said")"
    local named
    named=$(strings -a "$program" | grep -F -m 3 -e "$PWD/" -e "${CARGO_HOME:-$HOME/.cargo}/" -e "$HOME/.rustup/" || true)
    [ -z "$named" ] || fail "the program names directories of this machine: $named"
    ok "the program names no directory of this machine"
}

# root_image: a tar of a Debian root, kept as long as what makes it is the same.
root_image() {
    local key
    key=$(sha256sum tests/boards/arm64-root.sh | cut -c1-16)
    image=$roots/arm64-$key.tar
    [ -f "$image" ] || { rm -f "$roots"/arm64-*.tar; tests/boards/arm64-root.sh "$image"; }
    ok "a root of Debian for arm64: $(du -h "$image" | cut -f1)"
}

# ---------------------------------------------------------------- the container

board=/run/board

boot() {
    container_starts "$work/console.log"
    local state tries=0
    until state=$(in_board systemctl is-system-running 2>/dev/null || true) && [[ $state =~ ^(running|degraded)$ ]]; do
        [ $((tries += 1)) -lt 300 ] || fail "systemd is '$state': $(tail -5 "$work/console.log")"
        sleep 1
    done
    # Below installs's patience, for what is stuck.
    in_board sh -c 'mkdir -p /run/systemd/system/codling.service.d &&
        printf "[Service]\nTimeoutStartSec=40\nTimeoutStopSec=20\n" >/run/systemd/system/codling.service.d/impatient.conf'
    # Those that want credentials, device nodes or the kernel's settings cannot have them in a user namespace.
    ok "systemd $(in_board systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') is up ($state), $(in_board uname -m)"
}

# A node that refuses says so in its journal.
fail_node() { in_board journalctl -u codling --no-pager -n 30 >&2 || true; fail "$*"; }
# stuck: how many children of systemd for the node were killed before they had become the node, or even taken its name:
# a fork in the emulated systemd, which has other threads at that moment, has been seen to hang for ever.
stuck() { in_board journalctl -u codling --no-pager -o cat | grep -cE 'Killing process [0-9]+ \((systemd|\(codling\))\)' || true; }
property() { in_board systemctl show codling -p "$1" --value; }
field() { python3 -c 'import json,sys; v=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

# until_is SECONDS WHAT EXPECTED COMMAND...: what COMMAND prints becomes EXPECTED.
until_is() {
    local deadline=$((SECONDS + $1)) what=$2 expected=$3 found
    shift 3
    until found=$("$@" 2>&1 || true) && [ "$found" = "$expected" ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail_node "$what is '$found', not '$expected'"
        sleep 0.5
    done
}

job_state() { in_board codling job describe "$1" --output json | field 'v["Job"]["State"]["StateType"]'; }
submit() { in_board codling job run --id-only "/root/$1"; }

# A job file for a program of the tests' that does what its parameters say.
job_file() {
    python3 - "$@" <<'END'
import base64, json, sys
module = base64.b64encode(open("guests/probe.wasm", "rb").read()).decode()
print(json.dumps({"Type": "batch", "Count": 1, "Tasks": [{"Name": "main",
    "Engine": {"Type": "wasm", "Params": {"EntryModule": "/app/probe.wasm", "Parameters": sys.argv[1:]}},
    "InputSources": [{"Target": "/app/probe.wasm", "Source": {"Type": "inline",
        "Params": {"URL": "data:application/wasm;base64," + module}}}],
    "Publisher": {"Type": "local"}, "Resources": {"CPU": "100m", "Memory": "16Mi"},
    "Timeouts": {"ExecutionTimeout": 4000}}]}))
END
}

installs() {
    in_board apt-get -qq install "/root/codling_$1_arm64.deb" >"$work/apt.log" 2>&1 || {
        cat "$work/apt.log" >&2
        fail_node "apt does not install codling $1"
    }
    until_is 120 "the service" active property ActiveState
    [ "$(property Type)" = notify ] || fail "the service does not say when it is ready"
    ok "apt installed codling $1; the service is ready"
}

looks() {
    local listens user score exposure
    user=$(in_board ps -o user= -p "$(property MainPID)")
    [ "$user" = codling ] || fail_node "it runs as '$user'"
    listens=$(in_board ss -Htln 2>/dev/null | awk '{ print $4 }' | LC_ALL=C sort | tr '\n' ' ')
    [ "$listens" = '127.0.0.1:1234 127.0.0.1:6001 ' ] || fail_node "it listens on '$listens'"
    # As it ships: without the drop-in that the emulator needs.
    mv "$emulator" "$emulator.away"
    score=$(in_board systemd-analyze security --offline=true --no-pager /usr/lib/systemd/system/codling.service |
        grep 'exposure level')
    mv "$emulator.away" "$emulator"
    exposure=$(grep -o '[0-9]*\.[0-9]' <<<"$score" | tail -1)
    [ "${exposure/./}" -le "$ceiling" ] || fail "$score: the ceiling is $ceiling tenths"
    [ "$(in_board stat -c '%U %G %a' /etc/codling)" = 'root codling 750' ] || fail "/etc/codling is open"
    [ "$(in_board stat -c '%U %G %a' /var/lib/codling)" = 'codling codling 700' ] || fail "/var/lib/codling is open"
    [ "$(in_board systemctl is-enabled codling)" = enabled ] || fail "it does not start at boot"
    ok "it runs as $user, listens on $listens; exposure $exposure"
}

works() {
    first=$(submit hello.json)
    until_is 120 "the job" Completed job_state "$first"
    in_board sh -c "cd /root && rm -rf result && codling job get $first -o result >/dev/null"
    [ "$(in_board cat /root/result/stdout)" = 'on the board' ] || fail_node "the result is wrong"
    ok "a WASM job ran, and its result was fetched"
}

upgrades() {
    local running queued=() id before
    before=$(stuck)
    in_board sh -c 'printf "# kept\nCompute: {MaxExecutions: 1}\n" >/etc/codling/config.yaml'
    in_board systemctl restart codling
    until_is 120 "the service" active property ActiveState
    running=$(submit sleep.json)
    until_is 60 "the job" Running job_state "$running"
    for _ in 1 2 3; do queued+=("$(submit hello.json)"); done
    installs "$1"
    [ "$(in_board dpkg-query -W -f '${Version}' codling)" = "$1" ] || fail "it is not $1"
    [ "$(in_board head -1 /etc/codling/config.yaml)" = '# kept' ] || fail "the settings were not kept"
    [ "$(property NRestarts)" -le "$(($(stuck) - before))" ] || fail_node "the new version fell over"
    for id in "${queued[@]}" "$first"; do until_is 300 "job $id" Completed job_state "$id"; done
    until_is 120 "the job that was cut off" Running job_state "$running"
    in_board codling job history "$running" 2>/dev/null | grep -q restarted || fail_node "its history does not say that it was cut off"
    in_board codling job stop "$running" >/dev/null
    ok "upgraded with a job running and three queued: the one runs again, the three completed; the settings are the user's"
}

refuses_older() {
    if in_board dpkg -i /root/codling_0.0.1_arm64.deb >"$work/said" 2>&1; then fail "older data were not refused"; fi
    grep -q 'reads databases up to schema 0' "$work/said" || fail "$(cat "$work/said")"
    [ "$(property ActiveState)" = active ] || fail_node "it did not go on after the refusal"
    [ "$(in_board dpkg-query -W -f '${Status} ${Version}' codling)" = "install ok installed $1" ] || fail "half installed"
    ok "a package that cannot read the data was refused, and the node went on"
}

removes_and_purges() {
    in_board apt-get -qq remove codling >"$work/apt.log" 2>&1
    until_is 30 "the program" "" in_board pgrep -x codling
    in_board test ! -e /usr/bin/codling || fail "the program is still there"
    in_board test -s /var/lib/codling/orchestrator/jobs.db || fail "remove took the data"
    in_board grep -q kept /etc/codling/config.yaml || fail "remove took the settings"
    ok "removed: the data and the settings stay"
    installs "$1"
    [ "$(job_state "$first")" = Completed ] || fail_node "a job from before is gone"
    ok "installed again: it knows its jobs"
    in_board apt-get -qq purge codling >"$work/apt.log" 2>&1
    left=$(in_board find / -xdev -name '*codling*' -not -path '/root/*' -not -path '/proc/*' -not -path '/var/log/*' \
        -not -path '/sys/*' -not -path '/var/cache/apt/*')
    [ -z "$left" ] || fail "purge left $left"
    ok "purged: nothing is left"
}

# As an image is made: no systemd runs.
in_a_chroot() {
    local wants=$board/etc/systemd/system/multi-user.target.wants/codling.service
    chroot "$board" env -i PATH=/usr/sbin:/usr/bin LC_ALL=C dpkg -i "/root/codling_$1_arm64.deb" >"$work/said" 2>&1 ||
        fail "not installed in a chroot: $(cat "$work/said")"
    [ -L "$wants" ] || fail "not enabled in a chroot"
    [ "$(chroot "$board" stat -c '%U %G %a' /etc/codling)" = 'root codling 750' ] || fail "/etc/codling is open in a chroot"
    chroot "$board" env -i PATH=/usr/sbin:/usr/bin LC_ALL=C dpkg -P codling >"$work/said" 2>&1 || fail "$(cat "$work/said")"
    [ ! -L "$wants" ] || fail "still enabled after a purge in a chroot"
    ok "in a chroot without systemd: installed, enabled, purged"
}

obeys_policy() {
    printf '#!/bin/sh\nexit 101\n' | in_board sh -c 'cat >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d'
    in_board dpkg -i "/root/codling_$1_arm64.deb" >"$work/said" 2>&1 || fail "$(cat "$work/said")"
    [ "$(property ActiveState)" = inactive ] || fail "it was started against the will of policy-rc.d"
    [ "$(in_board systemctl is-enabled codling)" = enabled ] || fail "it does not start at boot"
    ok "policy-rc.d forbids starting: installed and enabled, not started"
}

inside() {
    local version=$1 next=$2
    mount --make-rprivate /
    mount -t tmpfs none /run
    if mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null; then
        # F: the emulator is opened here, so that it need not be in the root.
        sed 's/:O\?P\?F$/:PF/' /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
    elif [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
        die 69 "Linux before 6.7 runs arm64 programs for the whole machine only: systemctl restart systemd-binfmt"
    fi
    mkdir -p "$board"
    tar -C "$board" --exclude='./dev/*' -xf "$image"
    cp "$work"/codling_*_arm64.deb "$board/root/"
    # A process of the emulator has a second thread, and with one the kernel makes no user namespace.
    emulator=$board/etc/systemd/system/service.d/emulator.conf
    mkdir -p "${emulator%/*}"
    printf '[Service]\nPrivateUsers=no\n' >"$emulator"
    job_file echo on the board >"$board/root/hello.json"
    job_file sleep 3600000 >"$board/root/sleep.json"
    in_a_chroot "$version"
    boot
    installs "$version"
    looks
    works
    upgrades "$next"
    refuses_older "$next"
    removes_and_purges "$next"
    obeys_policy "$version"
}

# in_user_namespace COMMAND...: as root of a user namespace with this machine's numbers.
in_user_namespace() {
    local gate pid status=0
    gate=$(mktemp -d)
    mkfifo "$gate/go"
    # shellcheck disable=SC2016
    unshare --user --mount bash -c 'read -r _ <"$0"; exec "$@"' "$gate/go" "$@" &
    pid=$!
    until [ "$(readlink "/proc/$pid/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.05; done
    echo '0 0 65536' >"/proc/$pid/uid_map"
    echo '0 0 65536' >"/proc/$pid/gid_map"
    echo >"$gate/go"
    wait "$pid" || status=$?
    rm -r "$gate"
    return "$status"
}

version=$(crate_version)
next=$version+next
if [ "${1:-}" = --inside ]; then
    image=$2 inside "$version" "$next"
    exit
fi
[ "$(id -u)" -eq 0 ] || die 77 "this test mounts and starts a container: run it as root"
need systemd-nspawn systemd-container
need qemu-aarch64-static qemu-user-static
need nsenter util-linux
need strings binutils
say "packages"
packages "$version" "$next"
say "an arm64 board"
root_image
in_user_namespace "$0" --inside "$image"
printf '\nboards: deb passed in %s s\n' "$((SECONDS - started))"
