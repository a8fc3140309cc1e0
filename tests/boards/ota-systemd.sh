#!/usr/bin/env bash
# The last part of ota.sh, which calls it in a mount namespace: a container whose root is this machine's own, below an
# overlay in memory, with a real systemd, the units that ship, and the bundles in WORK.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/boards/container.sh
work=$1
fail() { printf '%s: FAILED: %s\n' "${0##*/}" "$*" >&2; exit 1; }
ok() { printf 'ok: %s\n' "$*"; }

base=/run/codling-ota
mkdir -p "$base"
mount -t tmpfs -o size=700m tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
board=$base/root
# Nothing of this machine's own is started.
rm -rf "$board/etc/systemd/system" "$board/etc/machine-id" "$board/etc/codling" "$board/opt/codling" "$board/var/lib/codling"
: >"$board/etc/machine-id"
mkdir -p "$board/etc/systemd/system" "$board/etc/codling" "$board/bundles"
install -m 644 packaging/codling.service "$board/etc/systemd/system/codling.service"
install -D -m 644 packaging/codling.sysusers.conf "$board/usr/lib/sysusers.d/codling.conf"
install -m 644 packaging/codling.tmpfiles.conf "$board/usr/lib/tmpfiles.d/codling.conf"
install -m 755 "$work/codling" "$board/usr/bin/codling"
cp -r packaging/ota "$board/bundles/ota"
cp "$work"/out/codling-*-generic.tar "$work/keys/update.pub" "$board/bundles"
echo 'Results: {Quota: 64MiB, MinFree: 0}' >"$board/etc/codling/config.yaml"
# What takes minutes on a board takes seconds here.
mkdir "$board/etc/systemd/system/codling.service.d" "$board/etc/systemd/system/codling-update-check.service.d"
printf '[Service]\nRestartSec=500ms\n' >"$board/etc/systemd/system/codling.service.d/test.conf"
printf '[Service]\nExecStart=\nExecStart=/opt/codling/good/codling update confirm --timeout 12s --config /etc/codling/config.yaml\n' \
    >"$board/etc/systemd/system/codling-update-check.service.d/test.conf"

container_starts "$base/console" systemd.unit=multi-user.target
# until_is SECONDS WHAT EXPECTED COMMAND...: what COMMAND prints has EXPECTED in it.
until_is() {
    local deadline=$((SECONDS + $1)) what=$2 expected=$3 found
    shift 3
    until found=$("$@" 2>&1 || true) && [[ $found == *$expected* ]]; do
        [ "$SECONDS" -lt "$deadline" ] \
            || fail "$what: '$found', not '$expected': $(in_board journalctl --no-pager -n 60 || true)"
        sleep 0.2
    done
}
until_is 60 systemd running in_board systemctl is-system-running
ok "systemd $(in_board systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') is up"
in_board systemd-sysusers
in_board systemd-tmpfiles --create codling.conf

in_board /bundles/ota/setup.sh --board generic --key /bundles/update.pub /bundles/codling-1-generic.tar >/dev/null
in_board systemctl start codling.service
# runs VERSION: the service does, from that version's slot, and takes work.
runs() {
    local slot
    until_is 40 "the service" active in_board systemctl is-active codling.service
    slot=$(in_board readlink -f /opt/codling/current)
    until_is 10 "what runs" "$slot/codling" in_board sh -c 'readlink /proc/$(systemctl show -p MainPID --value codling)/exe'
    in_board grep -q "\"version\":\"$1\"" "$slot/manifest.json" || fail "version $1 should run from $slot"
    until_is 20 readiness OK in_board curl -s http://127.0.0.1:1234/readyz
}
status() { in_board codling update status; }
apply() { in_board /usr/lib/codling/codling-ota apply "/bundles/codling-$1-generic.tar" >/dev/null; }
runs 1
ok "version 1 runs as $(in_board ps -o user= -C codling | head -1), from $(in_board readlink /opt/codling/current)"

began=$SECONDS
apply 2
until_is 60 "a version that works" "version 2 stayed" status
runs 2
ok "a version that works is confirmed by itself, $((SECONDS - began)) s after it was applied"

began=$SECONDS
apply 3
until_is 90 "a version that hangs" "version 3 went back" status
runs 2
ok "a version that hangs goes back by itself, after $((SECONDS - began)) s of which 12 are the gate's (120 on a board)"

began=$SECONDS
apply 4
until_is 90 "a version that crashes" "version 4 went back" status
runs 2
ok "a version that crashes goes back by itself, after $((SECONDS - began)) s: $(status | sed -n 's/^Last update *//p')"

# A power cut during a trial: everything stops at once, with the version not judged yet.
apply 3
until_is 30 "a trial" "started 1 of 3" status
container_cut
container_starts "$base/console" systemd.unit=multi-user.target
until_is 60 systemd running in_board systemctl is-system-running
in_board systemctl start --no-block codling.service
until_is 30 "the trial after the cut" "started 2 of 3" status
until_is 90 "the trial after the cut" "version 3 went back" status
runs 2
ok "a cut during the trial: it is counted on after the restart, and goes back by itself"
