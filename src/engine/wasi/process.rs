//! Arguments, environment, randomness, the end.

#![expect(clippy::too_many_arguments, reason = "the signatures are WASI's")]

use std::fs::File;
use std::io::Read;

use super::abi::{Answer, Fault, Stop, errno};
use super::{Memory, Wasi};

/// Bytes of randomness between two looks at the interrupt.
const RANDOM_STEP: usize = 1 << 20;

impl Wasi {
    pub(in crate::engine) fn args_get(&mut self, memory: &mut Memory, argv: u32, buffer: u32) -> Answer {
        put_texts(memory, &self.args, argv, buffer)
    }

    pub(in crate::engine) fn args_sizes_get(&mut self, memory: &mut Memory, count: u32, size: u32) -> Answer {
        put_sizes(memory, &self.args, count, size)
    }

    pub(in crate::engine) fn environ_get(
        &mut self,
        memory: &mut Memory,
        environ: u32,
        buffer: u32,
    ) -> Answer {
        put_texts(memory, &self.env, environ, buffer)
    }

    pub(in crate::engine) fn environ_sizes_get(
        &mut self,
        memory: &mut Memory,
        count: u32,
        size: u32,
    ) -> Answer {
        put_sizes(memory, &self.env, count, size)
    }

    pub(in crate::engine) fn random_get(&mut self, memory: &mut Memory, buffer: u32, len: u32) -> Answer {
        let out = memory.bytes_mut(buffer, len)?;
        let mut source = File::open("/dev/urandom")?;
        for piece in out.chunks_mut(RANDOM_STEP) {
            self.check_interrupt()?;
            source.read_exact(piece)?;
        }
        Ok(())
    }

    /// The guest ends. Exit codes are 32 bits without a sign in WASI, with one everywhere else.
    pub(in crate::engine) fn proc_exit(code: u32) -> Fault {
        Stop::Exit(code.cast_signed()).into()
    }

    pub(in crate::engine) fn proc_raise(&mut self, _: &mut Memory, _signal: u32) -> Answer {
        Err(errno::NOTSUP.into())
    }

    pub(in crate::engine) fn sched_yield(&mut self, _: &mut Memory) -> Answer {
        self.check_interrupt()?;
        std::thread::yield_now();
        Ok(())
    }

    pub(in crate::engine) fn sock_accept(
        &mut self,
        _: &mut Memory,
        _fd: u32,
        _flags: u32,
        _out: u32,
    ) -> Answer {
        Err(errno::NOTSUP.into())
    }

    pub(in crate::engine) fn sock_recv(
        &mut self,
        _: &mut Memory,
        _fd: u32,
        _iovecs: u32,
        _count: u32,
        _flags: u32,
        _out: u32,
        _out_flags: u32,
    ) -> Answer {
        Err(errno::NOTSUP.into())
    }

    pub(in crate::engine) fn sock_send(
        &mut self,
        _: &mut Memory,
        _fd: u32,
        _iovecs: u32,
        _count: u32,
        _flags: u32,
        _out: u32,
    ) -> Answer {
        Err(errno::NOTSUP.into())
    }

    pub(in crate::engine) fn sock_shutdown(&mut self, _: &mut Memory, _fd: u32, _how: u32) -> Answer {
        Err(errno::NOTSUP.into())
    }
}

/// Number of texts and of all their bytes.
fn put_sizes(memory: &mut Memory, texts: &[Vec<u8>], count: u32, size: u32) -> Answer {
    let bytes: usize = texts.iter().map(Vec::len).sum();
    memory.put_u32(count, u32::try_from(texts.len()).map_err(|_| errno::OVERFLOW)?)?;
    memory.put_u32(size, u32::try_from(bytes).map_err(|_| errno::OVERFLOW)?)?;
    Ok(())
}

/// The texts one after another in `buffer`, and where each begins in `list`.
fn put_texts(memory: &mut Memory, texts: &[Vec<u8>], list: u32, buffer: u32) -> Answer {
    let (mut list, mut buffer) = (list, buffer);
    for text in texts {
        memory.put_u32(list, buffer)?;
        memory.put(buffer, text)?;
        let len = u32::try_from(text.len()).map_err(|_| errno::OVERFLOW)?;
        buffer = buffer.checked_add(len).ok_or(errno::FAULT)?;
        list = list.checked_add(4).ok_or(errno::FAULT)?;
    }
    Ok(())
}
