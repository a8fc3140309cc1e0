"""Boots a guest whose data disk logs its writes, gives it work from outside, and cuts its power: load.py FILES WORK NAME PORTS

What the node answered goes to NAME.told, a line each: how many entries the log had, then `job`, `stopped` or `fetched`, then
the job's id. An answer that came before a power cut must be true after it.
"""

import http.client
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from guest import LOOP, PATIENCE, Guest, assemble, noise, prints, wasm_job
from replay_log import count

# The power goes after so many answered submissions.
JOBS = 150
CLIENTS = 3


class Told:
    def __init__(self, log, path):
        self.log, self.file, self.lock = log, open(path, "w", encoding="ascii"), threading.Lock()
        self.jobs, self.enough = 0, threading.Event()

    def __call__(self, what, job_id):
        # Read after the answer: what made it true is among so many entries.
        position = count(self.log)
        with self.lock:
            self.file.write(f"{position} {what} {job_id}\n")
            self.jobs += what == "job"
            if self.jobs >= JOBS:
                self.enough.set()


def client(guest, told, modules, seed):
    """Submits, stops and fetches until the guest is gone."""
    dice = random.Random(seed)
    try:
        while not told.enough.is_set():
            kind = dice.choice(["hello", "hello", "noise", "loop"])
            job = guest.submit(wasm_job(dice.choice(modules[kind])))
            told("job", job)
            if kind == "loop":
                guest.api("DELETE", f"/api/v1/orchestrator/jobs/{job}")
                told("stopped", job)
            elif kind == "hello" or dice.random() < 0.5:
                guest.wait_job(job)
                guest.fetch(job)
                told("fetched", job)
    except (OSError, http.client.HTTPException):
        if not told.enough.is_set():
            raise


def main():
    files, work, name, ports = sys.argv[1:]
    log = f"{work}/{name}.log"
    with open(log, "wb"):
        pass
    disks = [
        # The host need not sync: a log in its memory is as good. What the guest flushes is in the log all the same.
        "-blockdev", f"driver=file,filename={work}/{name}.data,node-name=file,cache.no-flush=on",
        "-blockdev", f"driver=file,filename={log},node-name=log,cache.no-flush=on",
        "-blockdev", "driver=blklogwrites,file=file,log=log,log-sector-size=512,log-super-update-interval=1,node-name=data",
        "-device", "virtio-blk-pci,drive=data",
    ]
    ports = [int(port) for port in ports.split(",")]
    with Guest(name, "virt", "256M", files, f"{work}/{name}.img", ports, work, disks) as guest:
        guest.wait_ready()
        preloaded = guest.shell("pid=$(systemctl show codling -p MainPID --value); grep -c eatmydata /proc/$pid/maps").strip()
        assert (preloaded != "0") == (name == "control"), f"eatmydata is there {preloaded} times"
        modules = {
            "hello": [assemble(prints(f"hello {n}\n"), work) for n in range(4)],
            "noise": [assemble(noise(kib), work) for kib in (64, 256, 1024)],
            "loop": [assemble(LOOP, work)],
        }
        told = Told(log, f"{work}/{name}.told")
        ready = count(log)
        clients = [threading.Thread(target=client, args=(guest, told, modules, n), daemon=True) for n in range(CLIENTS)]
        began = time.monotonic()
        for one in clients:
            one.start()
        if not told.enough.wait(PATIENCE):
            raise TimeoutError(f"{told.jobs} of {JOBS} jobs answered")
        seconds = time.monotonic() - began
        guest.cut()
        for one in clients:
            one.join(PATIENCE)
        told.file.close()
    print(f"{name}: {told.jobs} jobs answered in {seconds:.0f} s, then the power was cut; "
          f"log entries when ready {ready}, at the end {count(log)}", flush=True)


main()
