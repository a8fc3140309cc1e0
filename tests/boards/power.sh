#!/usr/bin/env bash
# Cuts a board's power: an arm64 guest works with its data disk behind qemu's log of writes; the disk is rebuilt at many
# points of that log (all writes up to a flush, some of those after it, one perhaps torn), repaired by e2fsck, mounted, and
# this machine's own codling starts on it. The rules of ARCHITECTURE.md must hold at each point.
#
# Then the same with libeatmydata in the guest's service, which takes fsync away: there the check must fail.
#
#   CODLING_DEB      this arm64 package instead of the one that scripts/deb.sh makes
#   CODLING_POINTS   points to check (200)
#   CODLING_SEED     of the choice of points; a run prints its own
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
[ "$(id -u)" -eq 0 ] || exec sudo -E "$0" "$@"

here=tests/boards/guest
# shellcheck source=tests/boards/guest/common.sh
. $here/common.sh
began=$SECONDS
points=${CODLING_POINTS:-200} seed=${CODLING_SEED:-$RANDOM}
need e2fsck e2fsprogs
say "the checker, for this machine"
checker=$(cargo test --locked --features interpreter --test front_door --no-run --message-format=json |
    python3 -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "front_door"][-1])')
prepare

eat_my_data() {
    mkdir -p "$1/etc/systemd/system/codling.service.d"
    printf '[Service]\nEnvironment=LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libeatmydata.so.1\n' \
        >"$1/etc/systemd/system/codling.service.d/eatmydata.conf"
}

# run NAME, in the background: a guest under load, its power cut; leaves NAME.log, NAME.told and NAME.base, the disk before.
run() {
    local name=$1 ports disk
    ports=$(free_ports)
    disk=$(data_disk "$name" 256M)
    cp --sparse=always "$disk" "$work/$name.base"
    flash "$name" generic "$ports" "$disk" small
    [ "$name" != control ] || on_card "$name" eat_my_data
    exec python3 $here/load.py "$files" "$work" "$name" "$ports"
}

say "two guests under load, one of them without fsync"
run board & first=$!
run control & second=$!
wait $first; wait $second

# Many small disks are made: in memory, if there is enough.
memory=$work
if [ "$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 1500000 ]; then
    memory=$(mktemp -d -p /dev/shm codling-power.XXXXXX)
    mv "$work"/{board,control}.{log,told,base} "$memory"
fi
say "the board's disk at $points points"
python3 $here/points.py "$memory" board "$memory/board.base" "$points" "$seed" "$checker"
say "the control's disk: this must fail"
if python3 $here/points.py "$memory" control "$memory/control.base" 40 "$seed" "$checker" >"$work/control.out"; then
    cat "$work/control.out"
    die 1 "without fsync nothing was lost: this test sees nothing"
fi
cat "$work/control.out"
grep -Eq 'is lost|but ([1-9][0-9]* )?jobs were taken' "$work/control.out" || die 1 "the control failed for another reason than a lost answer"
echo "power: all in $((SECONDS - began)) s"
