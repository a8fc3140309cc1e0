//! The guest's memory, and the only way to touch it: every pointer that a guest hands over is checked here.

use super::abi::{Errno, errno};

/// Buffers that one call may name (`IOV_MAX` of Linux).
const IOVECS_MAX: u32 = 1024;

/// Linear memory of the module that called.
#[derive(Debug)]
pub struct Memory<'a>(&'a mut [u8]);

impl<'a> Memory<'a> {
    /// Wraps all of it.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// `len` bytes at `at`.
    pub fn bytes(&self, at: u32, len: u32) -> Result<&[u8], Errno> {
        self.0.get(at as usize..).and_then(|rest| rest.get(..len as usize)).ok_or(errno::FAULT)
    }

    /// The same, to write to.
    pub fn bytes_mut(&mut self, at: u32, len: u32) -> Result<&mut [u8], Errno> {
        self.0.get_mut(at as usize..).and_then(|rest| rest.get_mut(..len as usize)).ok_or(errno::FAULT)
    }

    /// Copies `bytes` to `at`.
    pub fn put(&mut self, at: u32, bytes: &[u8]) -> Result<(), Errno> {
        let len = u32::try_from(bytes.len()).map_err(|_| errno::FAULT)?;
        self.bytes_mut(at, len)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Stores a 32-bit number.
    pub fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    /// Stores a 64-bit number.
    pub fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    /// `N` bytes at `at`, copied.
    pub fn array<const N: usize>(&self, at: u32) -> Result<[u8; N], Errno> {
        let slice = self.0.get(at as usize..).and_then(|rest| rest.get(..N)).ok_or(errno::FAULT)?;
        slice.try_into().map_err(|_| errno::FAULT)
    }

    /// The `i`th of `count` buffers in the list at `list`: where it is and how long.
    pub fn iovec(&self, list: u32, count: u32, i: u32) -> Result<(u32, u32), Errno> {
        if count > IOVECS_MAX {
            return Err(errno::INVAL);
        }
        let at = list.checked_add(i * 8).ok_or(errno::FAULT)?;
        let [a, b, c, d, e, f, g, h] = self.array(at)?;
        Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }
}
