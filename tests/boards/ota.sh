#!/usr/bin/env bash
# Updates with the real tools: each kind of bundle is made, verified, applied to a scratch root, found healthy, rolled
# back, and refused when altered, signed by another key or made for another board. Then the trial by itself, under a
# real systemd: a version that works, one that hangs, one that crashes.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
started=$SECONDS

[ "$(id -u)" -eq 0 ] || die 77 "this test mounts and starts a container: run it as root"
need openssl openssl
need cpio cpio
need cc gcc
need strip binutils
need swupdate swupdate
need mender-artifact mender-artifact
need mender mender-client
need rauc rauc
need mksquashfs squashfs-tools
need dbus-daemon dbus
need systemd-nspawn systemd-container
need curl curl

fail() { printf '%s: FAILED: %s\n' "${0##*/}" "$*" >&2; exit 1; }
ok() { printf 'ok: %s\n' "$*"; }

work=$(mktemp -d)
children=()
cleanup() {
    for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

say "programs and bundles"
# The program of this source, once for all versions.
[ -n "${CODLING_BINARY:-}" ] || cargo build -q --locked --features interpreter
strip -o "$work/codling" "${CODLING_BINARY:-target/debug/codling}"
export CODLING=$work/codling
printf '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n' | cc -x c -o "$work/hangs" -
printf 'int main(void) { return 1; }\n' | cc -x c -o "$work/crashes" -
# Of another processor, as far as its head goes.
cp "$work/crashes" "$work/arm64"
printf '\xb7' | dd of="$work/arm64" bs=1 seek=18 conv=notrunc status=none

triple=$(rustc -vV | sed -n 's/^host: //p')
scripts/bundle.sh --new-keys "$work/keys" >/dev/null
scripts/bundle.sh --new-keys "$work/others" >/dev/null
# bundle VERSION PROGRAM [MORE...]
bundle() {
    local version=$1 program=$2
    shift 2
    scripts/bundle.sh --board generic --target "$triple" --key "$work/keys/update.pem" --out "$work/out" \
        --version "$version" --binary "$program" "$@" 2>"$work/bundle.log" || fail "$(cat "$work/bundle.log")"
}
bundle 1 "$CODLING"
bundle 2 "$CODLING" --format all
bundle 3 "$work/hangs"
bundle 4 "$work/crashes"
bundle 5 "$CODLING" --schema 2
bundle 2 "$work/crashes" --format all --board pi-4
bundle 2 "$work/arm64" --board any --target aarch64-unknown-linux-gnu
mv "$work/out/codling-2-any.tar" "$work/out/arm64.tar"
mkdir "$work/foreign"
scripts/bundle.sh --board generic --target "$triple" --key "$work/others/update.pem" --out "$work/foreign" --version 2 \
    --binary "$work/crashes" --format all 2>"$work/bundle.log" >/dev/null || fail "$(cat "$work/bundle.log")"
SOURCE_DATE_EPOCH=1000000000 bundle 2 "$CODLING" --format all --out "$work/first" >/dev/null
# At another second of the clock, from another file time, by somebody with another umask.
now=$EPOCHSECONDS
until [ "$EPOCHSECONDS" != "$now" ]; do sleep 0.05; done
touch "$CODLING"
(umask 077 && SOURCE_DATE_EPOCH=1000000000 bundle 2 "$CODLING" --format all --out "$work/second" >/dev/null)
for kind in tar swu mender raucb; do
    cmp "$work/first/codling-2-generic.$kind" "$work/second/codling-2-generic.$kind" || fail "two $kind bundles of one program differ"
done
ok "two bundles of one program are equal, byte for byte: tar, SWUpdate, Mender, RAUC"
if scripts/bundle.sh --board pi-4 --key "$work/keys/update.pem" --out "$work/out" --binary "$CODLING" 2>"$work/said"; then
    fail "a program for $triple was signed for a pi-4"
fi
grep -q 'was not built for aarch64' "$work/said" || fail "$(cat "$work/said")"
ok "a program for another processor is not signed"

# altered FILE: the same with one byte of its last quarter changed; prints its name.
altered() {
    local copy=$work/altered.${1##*.} at
    cp "$1" "$copy"
    at=$(($(stat -c %s "$copy") * 3 / 4))
    printf '%b' "\\x$(printf '%02x' $((0x$(od -An -tx1 -j$at -N1 "$copy" | tr -d ' ') ^ 1)))" \
        | dd of="$copy" bs=1 seek=$at conv=notrunc status=none
    printf '%s\n' "$copy"
}

# fresh NAME: a root with version 1, in $root.
fresh() {
    root=$work/root-$1
    packaging/ota/setup.sh --board generic --key "$work/keys/update.pub" --root "$root" --mender \
        --rauc "$work/keys/tool.crt" "$work/out/codling-1-generic.tar" >/dev/null
    export CODLING_ROOT=$root CODLING_OTA=$root/usr/lib/codling/codling-ota
}
update() { "$root/opt/codling/good/codling" update "$@" --root "$root"; }
current() { sed -n 's/.*"version":"\([^"]*\)".*/\1/p' "$root/opt/codling/current/manifest.json"; }
runs() { [ "$(current)" = "$1" ] || fail "$2: version $(current) is started, not $1: $(update status)"; }
# What systemd does with ota.conf: the guard, then what `current` leads to.
start() {
    update guard 2>/dev/null
    "$root/opt/codling/current/codling" serve --data-dir "$root/var/lib/codling" --api-port 7791 \
        -c Publishers.Types.Local.Port=7792 >"$work/node.log" 2>&1 &
    node=$!
    children+=("$node")
}
stop() { kill "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; }
export BACALHAU_API_PORT=7791

# trial TOOL: version 2 was applied to $root; it is found healthy, and the one before comes back on demand.
trial() {
    runs 2 "$1"
    update status | grep -q 'on trial' || fail "$1: no trial: $(update status)"
    start
    update confirm --timeout 60s >/dev/null || fail "$1: not healthy: $(tail -5 "$work/node.log")"
    runs 2 "$1"
    stop
    "$CODLING_OTA" rollback --from 2 >/dev/null
    runs 1 "$1"
    ok "$1: applied, healthy, confirmed, rolled back"
}
# refuses TOOL WHAT COMMAND...: it must fail, and version 1 stays.
refuses() {
    local tool=$1 what=$2
    shift 2
    if "$@" >"$work/said" 2>&1; then fail "$tool took what is $what"; fi
    runs 1 "$tool, $what"
    update status | grep -q 'on trial' && fail "$tool: on trial after what is $what"
    ok "$tool refuses what is $what: $(grep -v '^hint' "$work/said" | grep -iE 'error|fail|not |invalid' | tail -1 | cut -c1-150)"
}

say "plain tar"
fresh tar
apply() { "$CODLING_OTA" apply "$@"; }
refuses tar "altered" apply "$(altered "$work/out/codling-2-generic.tar")"
refuses tar "signed by another key" apply "$work/foreign/codling-2-generic.tar"
refuses tar "for another board" apply "$work/out/codling-2-pi-4.tar"
refuses tar "for another processor" apply "$work/out/arm64.tar"
head -c 100000 "$work/out/codling-2-generic.tar" >"$work/short.tar"
refuses tar "cut off" apply "$work/short.tar"
refuses tar "a migration" apply "$work/out/codling-5-generic.tar"
apply "$work/out/codling-2-generic.tar" >/dev/null
trial tar
# A version that never becomes ready, and one that goes down at each start.
apply "$work/out/codling-3-generic.tar" >/dev/null
start
if update confirm --timeout 2s >"$work/said" 2>&1; then fail "a version that hangs was confirmed"; fi
stop
runs 1 "a version that hangs"
ok "a version that hangs goes back by itself: $(tail -2 "$work/said" | head -1 | cut -c1-120)"
apply "$work/out/codling-4-generic.tar" >/dev/null
for _ in 1 2 3; do
    start
    if wait "$node" 2>/dev/null; then fail "it should crash"; fi
    runs 4 "a version that crashes"
done
start
update status | grep -q 'went back: it was started 3 times' || fail "$(update status)"
runs 1 "a version that crashes"
stop
ok "a version that crashes goes back by itself, after three starts"
# With databases that only the new version reads.
stored() { (cd "$root/var/lib/codling" && sha256sum compute/executions.db orchestrator/jobs.db | sha256sum); }
before=$(stored)
apply --allow-migration "$work/out/codling-5-generic.tar" >/dev/null
start
update confirm --timeout 60s >/dev/null
refuses_older() {
    if apply "$work/out/codling-2-generic.tar" >"$work/said" 2>&1; then fail "an older schema was taken"; fi
    grep -q 'holds schema 2, version 2 knows only up to 1' "$work/said" || fail "$(cat "$work/said")"
    runs 5 "an older schema"
}
refuses_older
ok "tar refuses an older schema: $(sed -n 's/^error: //p' "$work/said")"
stop
# What the new version left is put aside for what was there before.
printf 'no database of version 1' >"$root/var/lib/codling/orchestrator/jobs.db"
update rollback --restore >/dev/null
runs 1 "a rollback with databases"
[ "$(stored)" = "$before" ] || fail "other databases came back than there were"
start
until curl -fs http://127.0.0.1:7791/readyz >/dev/null; do
    kill -0 "$node" 2>/dev/null || fail "version 1 does not start on its databases: $(tail -3 "$work/node.log")"
    sleep 0.1
done
stop
ok "databases are kept before a version that changes them, and come back with the one before"

say "SWUpdate $(swupdate --version 2>&1 | sed -n 's/^SWUpdate v//p')"
fresh swupdate
swu() { swupdate -k "$work/keys/tool.crt" -H generic:1.0 "$@"; }
swu -c -i "$work/out/codling-2-generic.swu" >/dev/null 2>&1 || fail "swupdate does not verify the bundle"
refuses swupdate "altered" swu -i "$(altered "$work/out/codling-2-generic.swu")"
refuses swupdate "signed by another key" swu -i "$work/foreign/codling-2-generic.swu"
refuses swupdate "for another board" swu -i "$work/out/codling-2-pi-4.swu"
swu -i "$work/out/codling-2-generic.swu" >"$work/said" 2>&1 || fail "swupdate: $(cat "$work/said")"
[ ! -e /var/tmp/codling-update.tar ] || fail "the tar was left over"
trial swupdate

say "Mender: $(mender --version | head -1), $(mender-artifact --version | head -1)"
fresh mender
mkdir -p "$root/etc/mender" "$root/var/lib/mender"
echo device_type=generic >"$root/var/lib/mender/device_type"
echo artifact_name=none >"$root/etc/mender/artifact_info"
printf '{"ArtifactVerifyKey":"%s","DeviceTypeFile":"%s"}\n' "$work/keys/tool.pub" "$root/var/lib/mender/device_type" \
    >"$root/etc/mender/mender.conf"
# The client looks for its modules and its artifact's name in fixed places: those of the scratch root, for it alone.
mender_here() {
    unshare -m sh -c 'mount --bind "$0/etc/mender" /etc/mender
        mount --bind "$0/usr/share/mender/modules" /usr/share/mender/modules
        exec mender --no-syslog -l error -c /etc/mender/mender.conf -d "$0/var/lib/mender" "$@"' "$root" "$@"
}
mender-artifact validate -k "$work/keys/tool.pub" "$work/out/codling-2-generic.mender" >/dev/null \
    || fail "mender-artifact does not validate the artifact"
refuses mender "altered" mender_here install "$(altered "$work/out/codling-2-generic.mender")"
refuses mender "signed by another key" mender_here install "$work/foreign/codling-2-generic.mender"
refuses mender "for another board" mender_here install "$work/out/codling-2-pi-4.mender"
mender_here install "$work/out/codling-2-generic.mender" >"$work/said" 2>&1 || fail "mender: $(cat "$work/said")"
runs 2 mender
mender_here rollback >"$work/said" 2>&1 || fail "mender: $(cat "$work/said")"
runs 1 "mender rollback"
mender_here install "$work/out/codling-2-generic.mender" >"$work/said" 2>&1 || fail "mender: $(cat "$work/said")"
start
mender_here commit >"$work/said" 2>&1 || fail "mender: $(cat "$work/said")"
stop
update status | grep -q 'version 2 stayed' || fail "mender: $(update status)"
"$CODLING_OTA" rollback --from 2 >/dev/null
runs 1 mender
ok "mender: applied, rolled back, applied, healthy, committed, rolled back"

say "$(rauc --version)"
fresh rauc
mkdir "$work/mnt"
sed -i -e "s|=/etc|=$root/etc|; s|=/var/lib|=$root|; s|=/opt|=$root/opt|" "$root/etc/rauc/system.conf"
cat >"$work/bus.conf" <<BUS
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=$work/bus</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_sender="*"/>
</policy></busconfig>
BUS
dbus-daemon --config-file="$work/bus.conf" --nofork 2>/dev/null &
children+=($!)
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$work/bus
until [ -S "$work/bus" ]; do sleep 0.05; done
rauc_here() { timeout 60 rauc --conf="$root/etc/rauc/system.conf" "$@"; }
# There is no other slot of the board's that it was started from.
rauc --conf="$root/etc/rauc/system.conf" --mount="$work/mnt" --override-boot-slot=_external_ service >"$work/rauc.log" 2>&1 &
children+=($!)
until dbus-send --bus="$DBUS_SYSTEM_BUS_ADDRESS" --dest=org.freedesktop.DBus --print-reply / \
    org.freedesktop.DBus.NameHasOwner string:de.pengutronix.rauc 2>/dev/null | grep -q 'boolean true'; do sleep 0.05; done
rauc_here info "$work/out/codling-2-generic.raucb" >/dev/null 2>&1 || fail "rauc does not verify the bundle"
refuses rauc "altered" rauc_here install "$(altered "$work/out/codling-2-generic.raucb")"
refuses rauc "signed by another key" rauc_here install "$work/foreign/codling-2-generic.raucb"
refuses rauc "for another board" rauc_here install "$work/out/codling-2-pi-4.raucb"
rauc_here install "$work/out/codling-2-generic.raucb" >"$work/said" 2>&1 || fail "rauc: $(cat "$work/said" "$work/rauc.log")"
trial rauc

say "by itself, under systemd"
unshare -m tests/boards/ota-systemd.sh "$work"
printf '\nboards: ota passed in %s s\n' "$((SECONDS - started))"
