//! Listings, and the directory that the guest begins with.

use std::mem::MaybeUninit;

use rustix::fs::{RawDir, SeekFrom};

use super::abi::{Answer, FileType, errno};
use super::table::Entry;
use super::{Memory, Wasi};

/// Name of the one directory that the guest is given.
const ROOT: &[u8] = b"/";
/// Bytes of a listing held at once: the rest stays in the kernel.
const LISTING: usize = 4096;
/// Bytes before the name of an entry.
const HEADER: usize = 24;

impl Wasi {
    pub(in crate::engine) fn fd_prestat_get(&mut self, memory: &mut Memory, fd: u32, out: u32) -> Answer {
        match self.table.get(fd)? {
            Entry::Dir(dir) if dir.preopened => {
                // Tag 0: a directory.
                memory.put_u32(out, 0)?;
                memory.put_u32(out.checked_add(4).ok_or(errno::FAULT)?, 1)?;
                Ok(())
            }
            // What ends libc's search for such directories.
            _ => Err(errno::BADF.into()),
        }
    }

    pub(in crate::engine) fn fd_prestat_dir_name(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        buffer: u32,
        len: u32,
    ) -> Answer {
        match self.table.get(fd)? {
            Entry::Dir(dir) if dir.preopened && len as usize >= ROOT.len() => Ok(memory.put(buffer, ROOT)?),
            Entry::Dir(dir) if dir.preopened => Err(errno::NAMETOOLONG.into()),
            _ => Err(errno::BADF.into()),
        }
    }

    /// Cookies are the kernel's own positions in the directory: nothing of a listing is remembered here.
    pub(in crate::engine) fn fd_readdir(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        buffer: u32,
        len: u32,
        cookie: u64,
        out: u32,
    ) -> Answer {
        let dir = self.table.dir(fd)?;
        let target = memory.bytes_mut(buffer, len)?;
        rustix::fs::seek(&dir.file, SeekFrom::Start(cookie))?;
        let mut space = [MaybeUninit::uninit(); LISTING];
        let mut listing = RawDir::new(&dir.file, &mut space);
        let mut used = 0;
        while used < target.len() {
            // Once for each buffer of the kernel's, not for each name.
            if listing.is_buffer_empty() && self.interrupt.cause().is_some() {
                return Err(super::Stop::Interrupted.into());
            }
            let Some(entry) = listing.next() else { break };
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let mut header = [0; HEADER];
            header[..8].copy_from_slice(&entry.next_entry_cookie().to_le_bytes());
            header[8..16].copy_from_slice(&entry.ino().to_le_bytes());
            // At most 255 on Linux.
            header[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
            header[20] = FileType::from(entry.file_type()) as u8;
            // The last entry may be cut: a full buffer tells the guest to come again.
            for part in [&header[..], name] {
                let room = target.get_mut(used..).unwrap_or_default();
                let n = room.len().min(part.len());
                room[..n].copy_from_slice(&part[..n]);
                used += n;
            }
        }
        Ok(memory.put_u32(out, u32::try_from(used).map_err(|_| errno::OVERFLOW)?)?)
    }
}
