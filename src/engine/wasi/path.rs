//! The functions on paths.

#![expect(clippy::too_many_arguments, reason = "the signatures are WASI's")]

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cap_std::fs::{Dir, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt};
use rustix::fs::{AtFlags, OFlags};

use super::abi::{Answer, Errno, Fault, FileStat, LOOKUP_SYMLINK_FOLLOW, errno, fdflags, oflags, rights};
use super::file::timestamps;
use super::table::{Entry, OpenDir, OpenFile};
use super::tree::{DEPTH_MAX, Place, Source};
use super::{Memory, Wasi};

/// What a guest wants of a path that it opens.
struct Wish {
    follow: bool,
    oflags: u32,
    flags: u16,
    read: bool,
    write: bool,
}

impl Wish {
    const fn has(&self, flag: u32) -> bool {
        self.oflags & flag != 0
    }
}

impl Wasi {
    pub(in crate::engine) fn path_open(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        oflags: u32,
        base: u64,
        _inheriting: u64,
        flags: u32,
        out: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        // Checked before anything is created.
        memory.bytes(out, 4)?;
        self.table.check_room()?;
        let flags = u16::try_from(flags).ok().filter(|f| f & !fdflags::ALL == 0).ok_or(errno::INVAL)?;
        let wish = Wish {
            follow: lookup & LOOKUP_SYMLINK_FOLLOW != 0,
            oflags,
            flags,
            read: base & rights::FD_READ != 0,
            write: base & rights::FD_WRITE != 0,
        };
        let entry = self.open(&place, &wish)?;
        let fd = self.table.insert(entry)?;
        Ok(memory.put_u32(out, fd)?)
    }

    fn open(&mut self, place: &Place, wish: &Wish) -> Result<Entry, Fault> {
        let volume = self.tree.volume(place.volume)?;
        let changes = wish.write || wish.has(oflags::TRUNC);
        let dir = match &volume.source {
            Source::File(file) => {
                if wish.has(oflags::DIRECTORY) || place.wants_dir {
                    return Err(errno::NOTDIR.into());
                }
                if wish.has(oflags::CREAT) && wish.has(oflags::EXCL) {
                    return Err(errno::EXIST.into());
                }
                if changes && !volume.writable {
                    return Err(errno::ROFS.into());
                }
                let file = file.try_clone()?;
                return self.opened_file(place, wish, file);
            }
            Source::Dir(dir) => dir,
        };
        let found = if wish.follow { dir.metadata(&place.path) } else { dir.symlink_metadata(&place.path) };
        match found {
            Ok(m) if m.is_symlink() => Err(errno::LOOP.into()),
            Ok(_) if wish.has(oflags::CREAT) && wish.has(oflags::EXCL) => Err(errno::EXIST.into()),
            Ok(m) if m.is_dir() => {
                if wish.has(oflags::TRUNC) || (wish.write && !wish.has(oflags::DIRECTORY)) {
                    return Err(errno::ISDIR.into());
                }
                let file = dir.open_with(&place.path, &reading())?.into_std();
                let absolute = place.absolute.clone();
                Ok(Entry::Dir(OpenDir { file, absolute, volume: place.volume, preopened: false }))
            }
            Ok(_) if wish.has(oflags::DIRECTORY) || place.wants_dir => Err(errno::NOTDIR.into()),
            Ok(m) if m.is_file() => {
                if changes && !volume.writable {
                    return Err(errno::ROFS.into());
                }
                let mut options = reading();
                options.read(wish.read || !changes).write(changes);
                let file = dir.open_with(&place.path, &options)?.into_std();
                self.opened_file(place, wish, file)
            }
            // Opening a device or a FIFO could block or do things.
            Ok(_) => Err(errno::ACCES.into()),
            Err(e) if e.kind() == ErrorKind::NotFound && wish.has(oflags::CREAT) => self.create(place, wish),
            Err(e) => Err(e.into()),
        }
    }

    fn create(&mut self, place: &Place, wish: &Wish) -> Result<Entry, Fault> {
        let dir = self.tree.writable_dir(place)?;
        if place.wants_dir {
            return Err(errno::ISDIR.into());
        }
        if wish.has(oflags::DIRECTORY) {
            return Err(errno::INVAL.into());
        }
        self.disk.charge_entry(place.volume)?;
        let mut options = reading();
        options.read(wish.read).write(true);
        // Without following, a link that has just come there is not written through.
        if wish.follow && !wish.has(oflags::EXCL) {
            options.create(true)
        } else {
            options.create_new(true)
        };
        let file = match dir.open_with(&place.path, &options) {
            Ok(file) => file.into_std(),
            Err(e) => {
                self.disk.release_entry(place.volume);
                return Err(e.into());
            }
        };
        self.opened_file(place, wish, file)
    }

    fn opened_file(&mut self, place: &Place, wish: &Wish, file: std::fs::File) -> Result<Entry, Fault> {
        let metadata = file.metadata()?;
        // Looked at again: it may have been exchanged since.
        if !metadata.is_file() {
            return Err(errno::ACCES.into());
        }
        if wish.has(oflags::TRUNC) {
            file.set_len(0)?;
            self.disk.release(place.volume, metadata.len());
        }
        Ok(Entry::File(OpenFile {
            file,
            volume: place.volume,
            id: (metadata.dev(), metadata.ino()),
            read: wish.read,
            write: wish.write,
            flags: wish.flags,
            position: 0,
        }))
    }

    pub(in crate::engine) fn path_create_directory(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        if place.is_volume() {
            return Err(errno::EXIST.into());
        }
        let dir = self.tree.writable_dir(&place)?;
        self.disk.charge_entry(place.volume)?;
        let done = dir.create_dir(&place.path);
        if done.is_err() {
            self.disk.release_entry(place.volume);
        }
        Ok(done?)
    }

    pub(in crate::engine) fn path_filestat_get(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        flags: u32,
        path: u32,
        len: u32,
        out: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        let stat: FileStat = match &self.tree.volume(place.volume)?.source {
            Source::File(_) if place.wants_dir => return Err(errno::NOTDIR.into()),
            Source::File(file) => file.metadata()?.into(),
            Source::Dir(dir) => {
                let follow = flags & LOOKUP_SYMLINK_FOLLOW != 0 || place.wants_dir;
                let m = if follow { dir.metadata(&place.path) } else { dir.symlink_metadata(&place.path) }?;
                if place.wants_dir && !m.is_dir() {
                    return Err(errno::NOTDIR.into());
                }
                m.into()
            }
        };
        Ok(memory.put(out, &stat.encode())?)
    }

    pub(in crate::engine) fn path_filestat_set_times(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        flags: u32,
        path: u32,
        len: u32,
        atim: u64,
        mtim: u64,
        set: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        let times = timestamps(atim, mtim, set)?;
        let volume = self.tree.volume(place.volume)?;
        if !volume.writable {
            return Err(errno::ROFS.into());
        }
        let dir = match &volume.source {
            Source::File(file) => return Ok(rustix::fs::futimens(file, &times)?),
            Source::Dir(dir) => dir,
        };
        let target = if flags & LOOKUP_SYMLINK_FOLLOW == 0 {
            place.path
        } else {
            let path = dir.canonicalize(&place.path)?;
            if path.as_os_str().is_empty() { ".".into() } else { path }
        };
        // In an opened parent, a single name that is not followed cannot lead elsewhere.
        let (parent, name) = match (target.parent(), target.file_name()) {
            (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => (dir.open_dir(parent)?, name),
            (_, Some(name)) => (dir.open_dir(".")?, name),
            (_, None) => (dir.open_dir(".")?, OsStr::new(".")),
        };
        Ok(rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(in crate::engine) fn path_link(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        flags: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new_path: u32,
        new_len: u32,
    ) -> Answer {
        let from = self.place(memory, fd, path, len)?;
        let to = self.place(memory, new_fd, new_path, new_len)?;
        if flags & LOOKUP_SYMLINK_FOLLOW != 0 {
            return Err(errno::INVAL.into());
        }
        if from.volume != to.volume || from.is_volume() {
            return Err(errno::XDEV.into());
        }
        if from.wants_dir || to.wants_dir {
            return Err(errno::NOENT.into());
        }
        let dir = self.tree.writable_dir(&to)?;
        self.disk.charge_entry(to.volume)?;
        let done = dir.hard_link(&from.path, dir, &to.path);
        if done.is_err() {
            self.disk.release_entry(to.volume);
        }
        Ok(done?)
    }

    pub(in crate::engine) fn path_readlink(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        path: u32,
        len: u32,
        buffer: u32,
        buffer_len: u32,
        out: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        if place.is_volume() || place.wants_dir {
            return Err(errno::INVAL.into());
        }
        let target = self.tree.dir(&place)?.read_link_contents(&place.path)?;
        let target = target.as_os_str().as_bytes();
        // A link's text is at most a page.
        let n = u32::try_from(target.len()).map_err(|_| errno::OVERFLOW)?.min(buffer_len);
        memory.put(buffer, target.get(..n as usize).unwrap_or(target))?;
        Ok(memory.put_u32(out, n)?)
    }

    pub(in crate::engine) fn path_remove_directory(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        if self.tree.holds_mount(&place) {
            return Err(errno::BUSY.into());
        }
        self.tree.writable_dir(&place)?.remove_dir(&place.path)?;
        self.disk.release_entry(place.volume);
        Ok(())
    }

    pub(in crate::engine) fn path_unlink_file(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        if self.tree.holds_mount(&place) {
            return Err(errno::BUSY.into());
        }
        let dir = self.tree.writable_dir(&place)?;
        let metadata = dir.symlink_metadata(&place.path)?;
        if metadata.is_dir() {
            return Err(errno::ISDIR.into());
        }
        if place.wants_dir {
            return Err(errno::NOTDIR.into());
        }
        dir.remove_file(&place.path)?;
        self.removed(place.volume, &metadata);
        Ok(())
    }

    /// Gives back what an entry held that is no longer there. A file that is still open holds its bytes until closed.
    fn removed(&mut self, volume: usize, metadata: &Metadata) {
        self.disk.release_entry(volume);
        if metadata.is_file() && metadata.nlink() == 1 && !self.table.holds((metadata.dev(), metadata.ino()))
        {
            self.disk.release(volume, metadata.len());
        }
    }

    pub(in crate::engine) fn path_rename(
        &mut self,
        memory: &mut Memory,
        fd: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new_path: u32,
        new_len: u32,
    ) -> Answer {
        let from = self.place(memory, fd, path, len)?;
        let to = self.place(memory, new_fd, new_path, new_len)?;
        if self.tree.holds_mount(&from) || self.tree.holds_mount(&to) {
            return Err(errno::BUSY.into());
        }
        if from.volume != to.volume {
            return Err(errno::XDEV.into());
        }
        let dir = self.tree.writable_dir(&to)?;
        let source = dir.symlink_metadata(&from.path)?;
        if (from.wants_dir || to.wants_dir) && !source.is_dir() {
            return Err(errno::NOTDIR.into());
        }
        if source.is_dir() {
            // What is below comes to lie deeper.
            let (old, new) = (from.absolute.iter().count(), to.absolute.iter().count());
            self.check_depth(dir, &from.path, DEPTH_MAX.saturating_sub(new.max(old)))?;
        }
        let replaced = dir.symlink_metadata(&to.path).ok();
        dir.rename(&from.path, dir, &to.path)?;
        // Two names of one file: the kernel then does nothing.
        if let Some(replaced) = replaced.filter(|r| (r.dev(), r.ino()) != (source.dev(), source.ino())) {
            self.removed(to.volume, &replaced);
        }
        Ok(())
    }

    /// Whether no directory or file lies more than `levels` below `path`.
    fn check_depth(&self, dir: &Dir, path: &Path, levels: usize) -> Result<(), Fault> {
        for entry in dir.read_dir(path)? {
            self.check_interrupt()?;
            let entry = entry?;
            let deeper = levels.checked_sub(1).ok_or(errno::NAMETOOLONG)?;
            if entry.file_type()?.is_dir() {
                self.check_depth(dir, &path.join(entry.file_name()), deeper)?;
            }
        }
        Ok(())
    }

    pub(in crate::engine) fn path_symlink(
        &mut self,
        memory: &mut Memory,
        target: u32,
        target_len: u32,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Answer {
        let place = self.place(memory, fd, path, len)?;
        let target = memory.bytes(target, target_len)?;
        if target.is_empty() || place.wants_dir {
            return Err(errno::NOENT.into());
        }
        if target.contains(&0) {
            return Err(errno::INVAL.into());
        }
        if place.is_volume() {
            return Err(errno::EXIST.into());
        }
        let dir = self.tree.writable_dir(&place)?;
        self.disk.charge_entry(place.volume)?;
        let done = symlink(dir, Path::new(OsStr::from_bytes(target)), &place.path);
        if done.is_err() {
            self.disk.release_entry(place.volume);
        }
        Ok(done?)
    }
}

/// A link with an absolute target could only lead out of the guest's world: it is refused.
fn symlink(dir: &Dir, target: &Path, link: &Path) -> Result<(), Errno> {
    if target.is_absolute() {
        return Err(errno::NOTCAPABLE);
    }
    Ok(dir.symlink_contents(target, link)?)
}

/// For reading, and without waiting should something odd be there.
fn reading() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}
