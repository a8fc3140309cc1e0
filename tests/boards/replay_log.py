#!/usr/bin/env python3
"""Reads a log of a disk's writes (the format of Linux's dm-log-writes, as qemu's blklogwrites makes it) and rebuilds the disk
as a power cut may have left it.

    replay_log.py LOG                       says what is in the log
    replay_log.py LOG BASE OUT ENTRY SEED   OUT: BASE and the log up to ENTRY, of what followed the last flush a random part

The log begins with a sector that holds magic, version, entries (u64 each) and the sector size (u32). An entry is a sector
with first sector, sectors, flags and the length of inline data (u64 each, little-endian), then the sectors written.
"""

import os
import random
import struct
import subprocess
import sys

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
HEAD = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")


def count(path):
    """Entries that are in a log now; it may still grow."""
    with open(path, "rb") as log:
        head = log.read(HEAD.size)
    return HEAD.unpack(head)[2] if len(head) == HEAD.size else 0


class Entry:
    """One write (`size` bytes at `offset` of the disk, kept at `data` of the log), flush or discard."""

    def __init__(self, offset, size, flags, data):
        self.offset, self.size, self.flags, self.data = offset, size, flags, data

    @property
    def is_write(self):
        return self.size > 0 and not self.flags & DISCARD


class Log:
    def __init__(self, path):
        self.path, self.entries = path, []
        self.file = os.open(path, os.O_RDONLY)
        magic, version, entries, sector = HEAD.unpack(os.pread(self.file, HEAD.size, 0))
        if (magic, version) != (MAGIC, 1):
            raise ValueError(f"{path} is no log of writes (magic {magic:#x}, version {version})")
        at = sector
        for number in range(entries):
            head = os.pread(self.file, ENTRY.size, at)
            if len(head) < ENTRY.size:
                raise ValueError(f"{path} ends in entry {number} of {entries}")
            first, sectors, flags, _ = ENTRY.unpack(head)
            at += sector
            self.entries.append(Entry(first * sector, sectors * sector, flags, at))
            if not flags & DISCARD:
                at += sectors * sector
        self.sector = sector

    def flushes(self):
        return [n for n, entry in enumerate(self.entries) if entry.flags & FLUSH]

    def apply(self, disk, number, size=None):
        """Does entry `number` to an open disk; only its first `size` bytes if that is given."""
        entry = self.entries[number]
        if entry.flags & DISCARD:
            # What a discarded block holds is anybody's guess: what it held is a guess that finds readers of it.
            return
        if entry.size:
            os.pwrite(disk, os.pread(self.file, entry.size if size is None else size, entry.data), entry.offset)


class Disk:
    """A disk that follows the log from point to point, always forward."""

    def __init__(self, log, base, path):
        self.log, self.path, self.done = log, path, 0
        subprocess.run(["cp", "--sparse=always", base, path], check=True)

    def crash(self, point, seed, out):
        """Writes to `out` what a power cut after entry `point` may have left: everything up to the last flush, and of the
        writes after that each with an even chance, one of them perhaps torn. Returns how many were there, and kept."""
        flushed = max((n for n in self.log.flushes() if n <= point), default=-1)
        if flushed + 1 < self.done:
            raise ValueError("points go forward")
        disk = os.open(self.path, os.O_RDWR)
        for number in range(self.done, flushed + 1):
            self.log.apply(disk, number)
        os.close(disk)
        self.done = flushed + 1
        subprocess.run(["cp", "--sparse=always", self.path, out], check=True)
        dice = random.Random(seed)
        after = [n for n in range(flushed + 1, point + 1) if self.log.entries[n].is_write]
        kept = [n for n in after if dice.random() < 0.5]
        torn = dice.choice(kept) if kept and dice.random() < 0.25 else None
        disk = os.open(out, os.O_RDWR)
        for number in kept:
            sectors = self.log.entries[number].size // self.log.sector
            self.log.apply(disk, number, dice.randrange(sectors) * self.log.sector if number == torn else None)
        os.close(disk)
        return len(after), len(kept)


def main(arguments):
    log = Log(arguments[0])
    if len(arguments) == 1:
        writes = [entry for entry in log.entries if entry.is_write]
        print(f"{len(log.entries)} entries: {len(writes)} writes of {sum(e.size for e in writes)} bytes, "
              f"{len(log.flushes())} flushes, {sum(1 for e in log.entries if e.flags & DISCARD)} discards")
        return
    base, out, point, seed = arguments[1:]
    Disk(log, base, out + ".follow").crash(int(point), int(seed), out)
    os.unlink(out + ".follow")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 6):
        sys.exit(__doc__)
    main(sys.argv[1:])
