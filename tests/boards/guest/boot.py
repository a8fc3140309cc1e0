"""Boots codling's guests and measures: boot.py FILES WORK NAME MACHINE MEMORY CARD PORTS DATA-DISK-OR-DASH

Prints one JSON line with the figures. The guest's card has codling on it as scripts/image.sh put it there."""

import json
import sys
import threading

from guest import NOOP, Guest, assemble, eventually, noise, prints, wasm_job

PSS_IDLE_MAX_KIB = 6 * 1024
NOOP_JOBS = 100
PACKED_MIB = 64
# Seconds after its start at which a node that nobody asked for anything counts as idle.
IDLE_AFTER = 60


def stat_of(guest, device):
    """What the block device counts: writes, sectors written, flushes."""
    fields = guest.shell(f"sync; cat /sys/block/{device}/stat").split()
    return int(fields[4]), int(fields[6]), int(fields[15])


def pid_of(guest):
    return int(guest.shell("systemctl show codling -p MainPID --value"))


def pss_idle(guest, pid):
    def old_enough():
        ticks, uptime = guest.shell(f"cut -d' ' -f22 /proc/{pid}/stat; cut -d' ' -f1 /proc/uptime").split()
        return True if float(uptime) - int(ticks) / 100 >= IDLE_AFTER else None

    eventually("the node to be idle", old_enough, pause=2)
    rollup = guest.shell(f"cat /proc/{pid}/smaps_rollup")
    return int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])


def pss_while_packing(guest, machine, pid, folder):
    """Peaks of a job with much output: while its program runs, and while its result is packed."""
    sampler = f"""
        data=/var/lib/codling; n=0
        while [ -e /run/guest-sampling ]; do
            packing=0; for f in $data/results/*.partial; do [ -e "$f" ] && packing=1; done
            while read -r key value unit; do [ "$key" = Pss: ] && echo "$packing $value"; done </proc/{pid}/smaps_rollup
            busybox usleep 20000
        done"""
    guest.shell("touch /run/guest-sampling")
    samples = []
    thread = threading.Thread(target=lambda: samples.append(guest.shell(sampler)))
    thread.start()
    try:
        job = guest.submit(wasm_job(assemble(noise(PACKED_MIB * 1024), folder), Disk=f"{PACKED_MIB + 8}Mi"))
        guest.wait_job(job)
    finally:
        guest.shell("rm -f /run/guest-sampling")
        thread.join()
    peaks = {"0": [], "1": []}
    for line in samples[0].splitlines():
        packing, value = line.split()
        peaks[packing].append(int(value))
    assert len(peaks["1"]) >= 5, f"the packing was seen {len(peaks['1'])} times"
    size = guest.row(job)["Size"]
    assert size > PACKED_MIB << 20, f"what does not compress was packed into {size} bytes"
    if machine != "raspi3b":  # whose emulated USB network takes minutes for it
        files, _ = guest.fetch(job)
        assert len(files["stdout"]) == PACKED_MIB << 20, len(files["stdout"])
    return max(peaks["0"]), max(peaks["1"]), len(peaks["1"])


def taken_over(guest):
    """The settings of the boot partition have moved: nobody but root and the node reads them."""
    left = guest.shell("ls /boot/firmware; stat -c '%a %G %n' /etc/codling/config.d/*")
    assert "cmdline.txt" in left and "codling.yaml" not in left, left
    modes = [line.split() for line in left.splitlines() if "/config.d/" in line]
    assert modes and all(mode[0] in ("600", "640") for mode in modes), left
    print(f"{guest.name}: codling.yaml has moved: {modes}", file=sys.stderr, flush=True)


def main():
    files, folder, name, machine, memory, card, ports, disk = sys.argv[1:]
    ports = [int(port) for port in ports.split(",")]
    disks = [] if disk == "-" else [
        "-drive", f"file={disk},if=none,id=data,format=raw,cache=unsafe", "-device", "virtio-blk-pci,drive=data"]
    device = "mmcblk0" if machine == "raspi3b" else "vda" if disk == "-" else "vdb"
    with open(f"{folder}/{name}.cmdline", encoding="ascii") as file:
        # What the boot partition says, but for the console and root of that machine.
        words = [w for w in file.read().split() if not w.startswith(("console=", "root=", "rootwait"))]
    with Guest(name, machine, memory, files, card, ports, folder, disks, " ".join(words)) as guest:
        figures = {"name": name, "machine": machine, "memory": memory}
        figures["power_to_ready_s"] = round(guest.wait_ready(), 1)
        show = guest.shell("systemctl show codling -p ActiveState -p ActiveEnterTimestampMonotonic "
                           "-p ExecMainStartTimestampMonotonic -p User -p MemoryMax; cat /proc/meminfo")
        unit = dict(line.split("=", 1) for line in show.splitlines() if "=" in line)
        assert unit["ActiveState"] == "active" and unit["User"] == "codling", unit
        ready, start = int(unit["ActiveEnterTimestampMonotonic"]), int(unit["ExecMainStartTimestampMonotonic"])
        figures["kernel_to_ready_s"] = round(ready / 1e6, 1)
        figures["service_to_ready_s"] = round((ready - start) / 1e6, 2)
        figures["memory_max"] = unit["MemoryMax"]
        taken_over(guest)
        pid = pid_of(guest)
        figures["pss_idle_kib"] = pss_idle(guest, pid)

        text = f"hello from {name}\n"
        job = guest.submit(wasm_job(assemble(prints(text), folder)))
        guest.wait_job(job)
        result, digest = guest.fetch(job)
        assert result["stdout"] == text.encode(), result
        print(f"{name}: {job} ran, its result came out whole: sha256 {digest}", file=sys.stderr, flush=True)

        noop = wasm_job(assemble(NOOP, folder))
        guest.wait_job(guest.submit(noop))
        before = stat_of(guest, device)
        for _ in range(NOOP_JOBS):
            guest.wait_job(guest.submit(noop))
        after = stat_of(guest, device)
        writes, sectors, flushes = (b - a for a, b in zip(before, after))
        figures["device"] = device
        figures["noop_writes"] = round(writes / NOOP_JOBS, 1)
        figures["noop_kib"] = round(sectors / 2 / NOOP_JOBS, 1)
        figures["noop_flushes"] = round(flushes / NOOP_JOBS, 1)

        peaks = pss_while_packing(guest, machine, pid, folder)
        figures["pss_running_kib"], figures["pss_packing_kib"], figures["packing_samples"] = peaks
        assert pid_of(guest) == pid, "the node went down meanwhile"
        figures["model"] = guest.shell("cat /proc/device-tree/model").strip("\0\n")
        doctor = guest.shell("codling doctor --help >/dev/null 2>&1 && codling doctor; true")
        if doctor:
            print(f"{name}: codling doctor says:\n{doctor}", file=sys.stderr, flush=True)
    print(json.dumps(figures), flush=True)
    assert figures["pss_idle_kib"] <= PSS_IDLE_MAX_KIB, f"idle PSS {figures['pss_idle_kib']} KiB > {PSS_IDLE_MAX_KIB}"


main()
