"""Rebuilds a guest's data disk at points of its log and has each checked: points.py WORK NAME BASE POINTS SEED CHECKER

CHECKER is the program of tests/front_door.rs: its test power::what_a_board_left looks at the mounted disk, starts the node
of this machine on it, and looks again. Prints a summary; exit code 1 if a check failed.
"""

import collections
import os
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from replay_log import Disk, Log

WORKERS = 2
TEST = "power::what_a_board_left"
# So many failures are shown, and end the control.
ENOUGH_FAILURES = 12


class Seen:
    def __init__(self):
        self.lock, self.points, self.failed = threading.Lock(), 0, []
        self.repaired, self.told, self.after, self.kept = collections.Counter(), 0, 0, 0
        self.fsck = collections.Counter()


def check(out, mount, told, point, told_file, checker, seen):
    fsck = subprocess.run(["e2fsck", "-fy", out], capture_output=True, text=True)
    if fsck.returncode > 1:
        return f"e2fsck: {fsck.returncode}: {fsck.stdout[-500:]}"
    subprocess.run(["mount", "-o", "loop,noatime", out, mount], check=True)
    try:
        with open(told_file, "w", encoding="ascii") as file:
            file.writelines(f"{what} {job}\n" for position, what, job in told if position <= point + 1)
        env = dict(os.environ, CODLING_LEFT=mount, CODLING_TOLD=told_file)
        run = subprocess.run([checker, "--exact", TEST, "--ignored", "--nocapture"], capture_output=True, text=True, env=env)
    finally:
        subprocess.run(["umount", mount], check=True)
    with seen.lock:
        seen.fsck["clean" if fsck.returncode == 0 else "repaired"] += 1
        for number, what in re.findall(r"^repaired: (\d+) (.+)$", run.stderr, re.MULTILINE):
            seen.repaired[what] += int(number)
    if run.returncode != 0 or "1 passed" not in run.stdout:
        why = re.search(r"panicked at (.+\n.+)", run.stderr)
        return why[1].replace("\n", " ")[:400] if why else (run.stdout + run.stderr)[-1500:]
    return None


def worker(name, work, log, base, points, told, checker, seen, is_control):
    follow, out, mount = (f"{work}/{name}.{what}" for what in ("follow", "out", "mount"))
    os.mkdir(mount)
    disk = Disk(log, base, follow)
    for point, seed in points:
        with seen.lock:
            if is_control and len(seen.failed) >= ENOUGH_FAILURES:
                return
        after, kept = disk.crash(point, seed, out)
        problem = check(out, mount, told, point, f"{work}/{name}.now", checker, seen)
        with seen.lock:
            seen.points += 1
            seen.after += after
            seen.kept += kept
            if problem:
                seen.failed.append(f"after entry {point} (seed {seed}): {problem}")


def main():
    work, name, base, wanted, seed, checker = sys.argv[1:]
    log, dice = Log(f"{work}/{name}.log"), random.Random(int(seed))
    with open(f"{work}/{name}.told", encoding="ascii") as file:
        told = [(int(position), what, job) for position, what, job in map(str.split, file)]
    # From the first answer on: a quarter of the points right after a flush, a quarter anywhere, and half before a flush,
    # where the most writes are under way.
    first = told[0][0]
    flushes = [n for n in log.flushes() if n >= first - 1]
    chosen = []
    for n in range(int(wanted)):
        if n % 4 == 0:
            chosen.append(dice.choice(flushes))
        else:
            point = dice.randrange(first, len(log.entries))
            chosen.append(point if n % 4 == 1 else min((f - 1 for f in flushes if f > point), default=point))
    points = [(point, dice.randrange(1 << 32)) for point in sorted(chosen)]
    seen, began = Seen(), time.monotonic()
    half = -(-len(points) // WORKERS)
    threads = [
        threading.Thread(target=worker, args=(f"{name}{n}", work, log, base, points[n * half:(n + 1) * half], told, checker,
                                              seen, name == "control"))
        for n in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writes = sum(1 for entry in log.entries if entry.is_write)
    print(f"{name}: {len(log.entries)} log entries ({writes} writes, {len(log.flushes())} flushes), {len(told)} answers; "
          f"{seen.points} points ({len(set(chosen))} different) in {time.monotonic() - began:.0f} s, seed {seed}; "
          f"of {seen.after} writes after a flush {seen.kept} kept; e2fsck {dict(seen.fsck)}; "
          f"start-up repaired {dict(seen.repaired)}; {len(seen.failed)} failed")
    for problem in seen.failed[:ENOUGH_FAILURES]:
        print(f"  {problem}")
    # A check that could not be made is not a check: every point has to have ended here.
    if seen.points < len(points) and not (name == "control" and len(seen.failed) >= ENOUGH_FAILURES):
        sys.exit(70)
    sys.exit(1 if seen.failed else 0)


main()
