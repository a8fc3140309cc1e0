//! Clocks, and waiting for them.

use std::time::{Duration, SystemTime};

use super::abi::{Answer, Errno, errno};
use super::table::Entry;
use super::{Memory, Wasi};

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

/// Subscriptions that one call may have.
const SUBSCRIPTIONS_MAX: u32 = 1024;
const SUBSCRIPTION_SIZE: u32 = 48;
const EVENT_SIZE: u32 = 32;

/// What a guest waits for.
enum Subscription {
    /// This long from now.
    After(Duration),
    /// A file: always ready, with that many bytes.
    Ready { kind: u8, bytes: u64 },
    /// Nothing that exists.
    Wrong { kind: u8, error: Errno },
}

impl Wasi {
    pub(in crate::engine) fn clock_res_get(&mut self, memory: &mut Memory, id: u32, out: u32) -> Answer {
        match id {
            // Linux keeps both in nanoseconds.
            REALTIME | MONOTONIC => Ok(memory.put_u64(out, 1)?),
            _ => Err(errno::INVAL.into()),
        }
    }

    pub(in crate::engine) fn clock_time_get(
        &mut self,
        memory: &mut Memory,
        id: u32,
        _precision: u64,
        out: u32,
    ) -> Answer {
        let now = self.clock(id)?;
        Ok(memory.put_u64(out, now)?)
    }

    /// Nanoseconds on that clock.
    fn clock(&self, id: u32) -> Result<u64, Errno> {
        let now = match id {
            REALTIME => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            MONOTONIC => self.started.elapsed(),
            _ => return Err(errno::INVAL),
        };
        u64::try_from(now.as_nanos()).map_err(|_| errno::OVERFLOW)
    }

    pub(in crate::engine) fn poll_oneoff(
        &mut self,
        memory: &mut Memory,
        subscriptions: u32,
        events: u32,
        count: u32,
        out: u32,
    ) -> Answer {
        if count == 0 || count > SUBSCRIPTIONS_MAX {
            return Err(errno::INVAL.into());
        }
        // Both lists must be there before anybody waits. The products are below 2^16.
        memory.bytes(subscriptions, count * SUBSCRIPTION_SIZE)?;
        memory.bytes(events, count * EVENT_SIZE)?;
        let mut shortest: Option<Duration> = None;
        let mut ready = false;
        for i in 0..count {
            match self.subscription(memory, subscriptions, i)? {
                Subscription::After(wait) => shortest = Some(shortest.map_or(wait, |s| s.min(wait))),
                Subscription::Ready { .. } | Subscription::Wrong { .. } => ready = true,
            }
        }
        let waited = if ready { Duration::ZERO } else { shortest.unwrap_or_default() };
        // Read before the wait: it tells which of several clocks have come.
        let mut due = Vec::new();
        for i in 0..count {
            let event = match self.subscription(memory, subscriptions, i)? {
                Subscription::After(wait) if wait <= waited => Some((0, None, 0)),
                Subscription::After(_) => None,
                Subscription::Ready { kind, bytes } => Some((kind, None, bytes)),
                Subscription::Wrong { kind, error } => Some((kind, Some(error), 0)),
            };
            due.extend(event.map(|event| (i, event)));
        }
        if !waited.is_zero() {
            // Asked again just below, like everywhere.
            let _ = self.interrupt.sleep(waited);
        }
        self.check_interrupt()?;
        let mut at = events;
        for (i, (kind, error, bytes)) in &due {
            // The range was checked above.
            let userdata: [u8; 8] = memory.array(subscriptions + i * SUBSCRIPTION_SIZE)?;
            let mut event = [0; EVENT_SIZE as usize];
            event[..8].copy_from_slice(&userdata);
            event[8..10].copy_from_slice(&error.map_or(0, |e: Errno| e.0).to_le_bytes());
            event[10] = *kind;
            event[16..24].copy_from_slice(&bytes.to_le_bytes());
            memory.put(at, &event)?;
            at = at.saturating_add(EVENT_SIZE);
        }
        Ok(memory.put_u32(out, u32::try_from(due.len()).map_err(|_| errno::OVERFLOW)?)?)
    }

    fn subscription(&mut self, memory: &Memory, list: u32, i: u32) -> Result<Subscription, Errno> {
        const ABSOLUTE: u8 = 1;
        let bytes: [u8; SUBSCRIPTION_SIZE as usize] = memory.array(list + i * SUBSCRIPTION_SIZE)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let id = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]);
        let kind = bytes[8];
        Ok(match kind {
            0 => match self.clock(id) {
                Ok(now) if bytes[40] & ABSOLUTE != 0 => {
                    Subscription::After(Duration::from_nanos(word(24).saturating_sub(now)))
                }
                Ok(_) => Subscription::After(Duration::from_nanos(word(24))),
                Err(error) => Subscription::Wrong { kind, error },
            },
            1 | 2 => match self.table.get(id) {
                Ok(Entry::File(file)) if kind == 1 => {
                    let size = file.file.metadata().map_or(0, |m| m.len());
                    Subscription::Ready { kind, bytes: size.saturating_sub(file.position) }
                }
                Ok(_) => Subscription::Ready { kind, bytes: u64::from(kind == 2) },
                Err(error) => Subscription::Wrong { kind, error },
            },
            _ => return Err(errno::INVAL),
        })
    }
}
