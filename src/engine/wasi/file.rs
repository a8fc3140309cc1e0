//! The functions on open files.

use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::abi::{Answer, Errno, Fault, FileStat, FileType, errno, fdflags, fstflags, rights};
use super::disk::Disk;
use super::table::{Entry, OpenFile};
use super::{Memory, Wasi};

/// Bytes that one read or write moves; the guest comes back for more, and may be stopped in between.
const IO_MAX: u32 = 1 << 20;

impl Wasi {
    pub(in crate::engine) fn fd_advise(
        &mut self,
        _: &mut Memory,
        fd: u32,
        _offset: u64,
        _len: u64,
        advice: u32,
    ) -> Answer {
        self.table.file(fd)?;
        // Advice is taken and left: six kinds are known.
        if advice <= 5 { Ok(()) } else { Err(errno::INVAL.into()) }
    }

    pub(in crate::engine) fn fd_allocate(
        &mut self,
        _: &mut Memory,
        fd: u32,
        offset: u64,
        len: u64,
    ) -> Answer {
        let file = writable(self.table.file(fd)?)?;
        let end = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(errno::FBIG)?;
        if len == 0 {
            return Err(errno::INVAL.into());
        }
        let grown = end.saturating_sub(file.file.metadata()?.len());
        self.disk.charge(file.volume, grown)?;
        let done = match rustix::fs::fallocate(&file.file, FallocateFlags::empty(), offset, len) {
            // A file system that cannot reserve still can grow.
            Err(rustix::io::Errno::OPNOTSUPP) if grown > 0 => file.file.set_len(end).map_err(Errno::from),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other.map_err(Errno::from),
        };
        if done.is_err() {
            let left = end.saturating_sub(file.file.metadata()?.len());
            self.disk.release(file.volume, left.min(grown));
        }
        Ok(done?)
    }

    pub(in crate::engine) fn fd_close(&mut self, _: &mut Memory, fd: u32) -> Answer {
        let entry = self.table.remove(fd)?;
        self.closed(entry);
        Ok(())
    }

    /// Gives back the room of a file whose last name went while it was open.
    pub(super) fn closed(&mut self, entry: Entry) {
        if let Entry::File(file) = entry
            && let Ok(metadata) = file.file.metadata()
            && std::os::unix::fs::MetadataExt::nlink(&metadata) == 0
            && !self.table.holds(file.id)
        {
            self.disk.release(file.volume, metadata.len());
        }
    }

    pub(in crate::engine) fn fd_datasync(&mut self, memory: &mut Memory, fd: u32) -> Answer {
        self.fd_sync(memory, fd)
    }

    pub(in crate::engine) fn fd_sync(&mut self, _: &mut Memory, fd: u32) -> Answer {
        let (file, volume) = match self.table.get(fd)? {
            Entry::File(open) => (&open.file, open.volume),
            Entry::Dir(open) => (&open.file, open.volume),
            Entry::Stdin | Entry::Stdout | Entry::Stderr => return Ok(()),
        };
        // Scratch space does not outlive the execution: syncing it would only wear the flash.
        if self.tree.volume(volume)?.durable {
            file.sync_all()?;
        }
        Ok(())
    }

    pub(in crate::engine) fn fd_fdstat_get(&mut self, memory: &mut Memory, fd: u32, out: u32) -> Answer {
        let streams = rights::FD_SEEK | rights::FD_TELL;
        let (kind, flags, base) = match self.table.get(fd)? {
            Entry::Stdin => (FileType::CharacterDevice, 0, streams | rights::FD_READ),
            Entry::Stdout | Entry::Stderr => (FileType::CharacterDevice, 0, streams | rights::FD_WRITE),
            Entry::Dir(_) => (FileType::Directory, 0, rights::ALL),
            Entry::File(file) => {
                let closed =
                    (u64::from(!file.read) * rights::FD_READ) | (u64::from(!file.write) * rights::FD_WRITE);
                (FileType::RegularFile, file.flags, rights::ALL & !closed)
            }
        };
        let mut stat = [0; 24];
        stat[0] = kind as u8;
        stat[2..4].copy_from_slice(&flags.to_le_bytes());
        stat[8..16].copy_from_slice(&base.to_le_bytes());
        stat[16..24].copy_from_slice(&rights::ALL.to_le_bytes());
        Ok(memory.put(out, &stat)?)
    }

    pub(in crate::engine) fn fd_fdstat_set_flags(&mut self, _: &mut Memory, fd: u32, flags: u32) -> Answer {
        let flags = u16::try_from(flags).ok().filter(|f| f & !fdflags::ALL == 0).ok_or(errno::INVAL)?;
        match self.table.get(fd)? {
            Entry::File(file) => file.flags = flags,
            Entry::Stdin | Entry::Stdout | Entry::Stderr | Entry::Dir(_) => {}
        }
        Ok(())
    }

    pub(in crate::engine) fn fd_fdstat_set_rights(
        &mut self,
        _: &mut Memory,
        fd: u32,
        _base: u64,
        _inheriting: u64,
    ) -> Answer {
        self.table.get(fd)?;
        Ok(())
    }

    pub(in crate::engine) fn fd_filestat_get(&mut self, memory: &mut Memory, fd: u32, out: u32) -> Answer {
        let stat = match self.table.get(fd)? {
            Entry::Stdin | Entry::Stdout | Entry::Stderr => FileStat::STREAM,
            Entry::Dir(dir) => dir.file.metadata()?.into(),
            Entry::File(file) => file.file.metadata()?.into(),
        };
        Ok(memory.put(out, &stat.encode())?)
    }

    pub(in crate::engine) fn fd_filestat_set_size(&mut self, _: &mut Memory, fd: u32, size: u64) -> Answer {
        let file = self.table.file(fd)?;
        if !file.write || i64::try_from(size).is_err() {
            return Err(errno::INVAL.into());
        }
        let old = file.file.metadata()?.len();
        self.disk.charge(file.volume, size.saturating_sub(old))?;
        let done = file.file.set_len(size);
        let unused = if done.is_ok() { old.saturating_sub(size) } else { size.saturating_sub(old) };
        self.disk.release(file.volume, unused);
        Ok(done?)
    }

    pub(in crate::engine) fn fd_filestat_set_times(
        &mut self,
        _: &mut Memory,
        fd: u32,
        atim: u64,
        mtim: u64,
        flags: u32,
    ) -> Answer {
        let times = timestamps(atim, mtim, flags)?;
        let (file, volume) = match self.table.get(fd)? {
            Entry::File(open) => (&open.file, open.volume),
            Entry::Dir(open) => (&open.file, open.volume),
            Entry::Stdin | Entry::Stdout | Entry::Stderr => return Err(errno::INVAL.into()),
        };
        if !self.tree.volume(volume)?.writable {
            return Err(errno::ROFS.into());
        }
        Ok(rustix::fs::futimens(file, &times)?)
    }

    pub(in crate::engine) fn fd_pread(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        iovecs: u32,
        count: u32,
        offset: u64,
        out: u32,
    ) -> Answer {
        let file = self.table.file(fd)?;
        let done = read(file, memory, iovecs, count, offset)?;
        Ok(memory.put_u32(out, done)?)
    }

    pub(in crate::engine) fn fd_read(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        iovecs: u32,
        count: u32,
        out: u32,
    ) -> Answer {
        if matches!(self.table.get(fd)?, Entry::Stdin) {
            return Ok(memory.put_u32(out, 0)?);
        }
        let file = self.table.file(fd)?;
        let done = read(file, memory, iovecs, count, file.position)?;
        // It was read from there, so it fits.
        file.position = file.position.saturating_add(u64::from(done));
        Ok(memory.put_u32(out, done)?)
    }

    pub(in crate::engine) fn fd_pwrite(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        iovecs: u32,
        count: u32,
        offset: u64,
        out: u32,
    ) -> Answer {
        let file = self.table.file(fd)?;
        let done = write(file, memory, iovecs, count, offset, &mut self.disk)?;
        Ok(memory.put_u32(out, done)?)
    }

    pub(in crate::engine) fn fd_write(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        iovecs: u32,
        count: u32,
        out: u32,
    ) -> Answer {
        let stream = match self.table.get(fd)? {
            Entry::Stdin => return Err(errno::BADF.into()),
            Entry::Stdout => Some(&mut self.stdout),
            Entry::Stderr => Some(&mut self.stderr),
            Entry::Dir(_) | Entry::File(_) => None,
        };
        let done = match stream {
            Some(stream) => {
                let mut total = 0;
                for i in 0..count {
                    let (at, len) = memory.iovec(iovecs, count, i)?;
                    let len = len.min(IO_MAX - total);
                    stream.write(memory.bytes(at, len)?, &mut self.disk)?;
                    total += len;
                }
                total
            }
            None => {
                let file = self.table.file(fd)?;
                let at = if file.flags & fdflags::APPEND != 0 {
                    file.file.metadata()?.len()
                } else {
                    file.position
                };
                let done = write(file, memory, iovecs, count, at, &mut self.disk)?;
                file.position = at.saturating_add(u64::from(done));
                done
            }
        };
        Ok(memory.put_u32(out, done)?)
    }

    pub(in crate::engine) fn fd_renumber(&mut self, _: &mut Memory, from: u32, to: u32) -> Answer {
        if let Some(entry) = self.table.renumber(from, to)? {
            self.closed(entry);
        }
        Ok(())
    }

    pub(in crate::engine) fn fd_seek(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        offset: i64,
        whence: u32,
        out: u32,
    ) -> Answer {
        let file = self.table.file(fd)?;
        let from = match whence {
            0 => 0,
            1 => file.position,
            2 => file.file.metadata()?.len(),
            _ => return Err(errno::INVAL.into()),
        };
        let position =
            from.checked_add_signed(offset).filter(|p| i64::try_from(*p).is_ok()).ok_or(errno::INVAL)?;
        memory.put_u64(out, position)?;
        file.position = position;
        Ok(())
    }

    pub(in crate::engine) fn fd_tell(&mut self, memory: &mut Memory, fd: u32, out: u32) -> Answer {
        let position = self.table.file(fd)?.position;
        Ok(memory.put_u64(out, position)?)
    }
}

fn writable(file: &mut OpenFile) -> Result<&mut OpenFile, Errno> {
    if file.write { Ok(file) } else { Err(errno::BADF) }
}

/// Fills the buffers from `offset` on; how much there was.
fn read(file: &OpenFile, memory: &mut Memory, iovecs: u32, count: u32, offset: u64) -> Result<u32, Fault> {
    if !file.read {
        return Err(errno::BADF.into());
    }
    let mut total = 0;
    for i in 0..count {
        let (at, len) = memory.iovec(iovecs, count, i)?;
        let buffer = memory.bytes_mut(at, len.min(IO_MAX - total))?;
        let from = offset.checked_add(u64::from(total)).ok_or(errno::INVAL)?;
        let done = match file.file.read_at(buffer, from) {
            Ok(done) => done,
            Err(_) if total > 0 => break,
            Err(error) => return Err(error.into()),
        };
        // At most IO_MAX.
        total += u32::try_from(done).map_err(|_| errno::OVERFLOW)?;
        if done < buffer.len() {
            break;
        }
    }
    Ok(total)
}

/// Writes the buffers from `offset` on, growth charged first; how much was written.
fn write(
    file: &mut OpenFile,
    memory: &Memory,
    iovecs: u32,
    count: u32,
    offset: u64,
    disk: &mut Disk,
) -> Result<u32, Fault> {
    let file = writable(file)?;
    let mut size = file.file.metadata()?.len();
    let mut total = 0;
    for i in 0..count {
        let (at, len) = memory.iovec(iovecs, count, i)?;
        let buffer = memory.bytes(at, len.min(IO_MAX - total))?;
        if buffer.is_empty() {
            continue;
        }
        let from = offset.checked_add(u64::from(total)).ok_or(errno::FBIG)?;
        let end =
            from.checked_add(buffer.len() as u64).filter(|e| i64::try_from(*e).is_ok()).ok_or(errno::FBIG)?;
        let grown = end.saturating_sub(size);
        disk.charge(file.volume, grown)?;
        let written = file.file.write_at(buffer, from);
        let done = *written.as_ref().unwrap_or(&0);
        let reached = if done > 0 { from + done as u64 } else { size };
        disk.release(file.volume, end.saturating_sub(reached.max(size)).min(grown));
        size = size.max(reached);
        match written {
            Err(_) if total > 0 => break,
            Err(error) => return Err(error.into()),
            // At most IO_MAX.
            Ok(done) => total += u32::try_from(done).map_err(|_| errno::OVERFLOW)?,
        }
        if done < buffer.len() {
            break;
        }
    }
    Ok(total)
}

/// Times as the kernel takes them.
pub(super) fn timestamps(atim: u64, mtim: u64, flags: u32) -> Result<Timestamps, Errno> {
    let time = |given: u32, now: u32, nanos: u64| match (flags & given != 0, flags & now != 0) {
        (true, true) => Err(errno::INVAL),
        (false, false) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }),
        (false, true) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }),
        (true, false) => {
            let seconds = i64::try_from(nanos / 1_000_000_000).map_err(|_| errno::INVAL)?;
            let nanos = i32::try_from(nanos % 1_000_000_000).map_err(|_| errno::INVAL)?;
            Ok(Timespec { tv_sec: seconds, tv_nsec: nanos.into() })
        }
    };
    if flags > 15 {
        return Err(errno::INVAL);
    }
    Ok(Timestamps {
        last_access: time(fstflags::ATIM, fstflags::ATIM_NOW, atim)?,
        last_modification: time(fstflags::MTIM, fstflags::MTIM_NOW, mtim)?,
    })
}
