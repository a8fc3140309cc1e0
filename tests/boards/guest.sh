#!/usr/bin/env bash
# Flashes cards with scripts/image.sh and boots them: qemu's virt with 256 and 512 MB, and its Raspberry Pi 3 B. In each the
# agent is up under systemd, runs a WASM job, and the result is fetched from outside; figures are read in the guest.
#
#   CODLING_DEB   this arm64 package instead of the one that scripts/deb.sh makes
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
[ "$(id -u)" -eq 0 ] || exec sudo -E "$0" "$@"

here=tests/boards/guest
. $here/common.sh
began=$SECONDS
prepare
say "refusals of scripts/image.sh"
$here/refusals.sh "$files" "$deb"

# boot NAME BOARD MACHINE MEMORY DISK: flashes a card for the board and boots it; figures into NAME.json.
boot() {
    local name=$1 board=$2 machine=$3 memory=$4 disk=$5 ports
    ports=$(free_ports)
    flash "$name" "$board" "$ports" "$disk" roomy
    python3 $here/boot.py "$files" "$work" "$name" "$machine" "$memory" "$work/$name.img" "$ports" "$disk" >"$work/$name.json"
}

say "booting virt with 256 and 512 MB"
boot virt-256 generic virt 256M "$(data_disk virt-256 1G)" & first=$!
boot virt-512 pi-zero-2 virt 512M "$(data_disk virt-512 1G)" & second=$!
wait $first; wait $second
say "booting raspi3b"
boot raspi3b pi-3 raspi3b 1G -

say "figures of the guests (aarch64 kernel, emulated on $(nproc) cores of this machine)"
python3 - "$work"/*.json <<'PY'
import json, sys
rows = [json.load(open(path)) for path in sys.argv[1:]]
print("| | " + " | ".join(row["name"] for row in rows) + " |")
print("|---|" + "---|" * len(rows))
for label, show in [
    ("machine", lambda r: r["model"]),
    ("PSS idle, KiB (limit 6144)", lambda r: r["pss_idle_kib"]),
    ("PSS peak while a program writes 64 MiB, KiB", lambda r: r["pss_running_kib"]),
    ("PSS peak while they are packed, KiB (samples)", lambda r: f'{r["pss_packing_kib"]} ({r["packing_samples"]})'),
    ("start of the service to ready, s", lambda r: r["service_to_ready_s"]),
    ("kernel to ready, s", lambda r: r["kernel_to_ready_s"]),
    ("power to /readyz from outside, s", lambda r: r["power_to_ready_s"]),
    ("device that counts", lambda r: r["device"]),
    ("KiB written for a no-op job", lambda r: r["noop_kib"]),
    ("writes for a no-op job", lambda r: r["noop_writes"]),
    ("flushes for a no-op job", lambda r: r["noop_flushes"]),
]:
    print(f"| {label} | " + " | ".join(str(show(row)) for row in rows) + " |")
PY
echo "guest: all in $((SECONDS - began)) s"
