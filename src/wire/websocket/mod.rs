//! The frames of RFC 6455, for both ends: what is sent, and a strict reader of what comes.
//!
//! No extensions and no subprotocols: a reserved bit or an unknown opcode is an error, as the RFC has it.

mod sha1;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the RFC appends to a key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes that a control frame may carry.
pub const CONTROL_MAX: usize = 125;
/// The only version.
pub const VERSION: &str = "13";

/// All was said.
pub const NORMAL: u16 = 1000;
/// What came was no frame of this protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// What came breaks a rule of this server.
pub const POLICY: u16 = 1008;
/// A message was larger than is taken.
pub const TOO_BIG: u16 = 1009;
/// There is no room for this now: come again later.
pub const TRY_AGAIN: u16 = 1013;

/// The value of `Sec-WebSocket-Accept` for a client's key; `None` if it is not 16 bytes in Base64.
#[must_use]
pub fn accept(key: &str) -> Option<String> {
    let nonce = STANDARD.decode(key).ok()?;
    (nonce.len() == 16).then(|| STANDARD.encode(sha1::sha1(format!("{key}{GUID}").as_bytes())))
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of a message that was begun.
    Continuation = 0,
    /// A message in UTF-8.
    Text = 1,
    /// A message in bytes.
    Binary = 2,
    /// Nothing more comes.
    Close = 8,
    /// Are you there?
    Ping = 9,
    /// Yes.
    Pong = 10,
}

impl Opcode {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// One whole frame, of a server that gives no mask, or masked as a client's must be.
#[must_use]
pub fn frame(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(0x80 | opcode as u8);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.push(masked | length),
        (_, Ok(length)) => {
            out.push(masked | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(mask.iter().flatten());
    let begin = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(out.get_mut(begin..).unwrap_or_default(), mask);
    }
    out
}

/// A close frame. The reason is cut to what fits, between characters.
#[must_use]
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let fits = reason.floor_char_boundary(CONTROL_MAX - 2);
    let payload = [&code.to_be_bytes()[..], reason.get(..fits).unwrap_or_default().as_bytes()].concat();
    frame(Opcode::Close, &payload, mask)
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    bytes.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message, of text or bytes.
    Message(Vec<u8>),
    /// To be answered with a pong of the same bytes.
    Ping(Vec<u8>),
    /// The answer to a ping.
    Pong,
    /// The end: code (if there is one) and reason.
    Close(Option<u16>, String),
}

/// Why what came is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It breaks the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// A message is larger than is taken.
    #[error("a message is larger than is taken here")]
    TooBig,
}

impl Fault {
    /// The code to close with.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => PROTOCOL_ERROR,
            Self::TooBig => TOO_BIG,
        }
    }
}

/// Whose frames are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// They must be masked.
    Client,
    /// They must not be.
    Server,
}

/// Takes frames apart as they come.
#[derive(Debug)]
pub struct Reader {
    from: From,
    message_max: usize,
    /// Of a message in several frames: what has come, if one was begun.
    begun: Option<Vec<u8>>,
}

/// The first bytes of a frame.
struct Start {
    last: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    /// Where the payload begins.
    begin: usize,
    /// Where it ends.
    end: usize,
}

impl Reader {
    /// Messages may have that many bytes.
    #[must_use]
    pub const fn new(from: From, message_max: usize) -> Self {
        Self { from, message_max, begun: None }
    }

    /// Takes the first whole frames off `received`, up to one that means something. `None`: more must come. What is
    /// left in `received` is then at most one frame that is not whole.
    ///
    /// # Errors
    /// What came is not to be taken; nothing after it has a meaning.
    pub fn next(&mut self, received: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        while let Some(start) = self.start(received)? {
            let Some(payload) = received.get(start.begin..start.end) else { return Ok(None) };
            let mut payload = payload.to_vec();
            received.drain(..start.end);
            if let Some(mask) = start.mask {
                unmask(&mut payload, mask);
            }
            if let Some(event) = self.take(&start, payload)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The start of the next frame once it is there, checked before the rest is waited for.
    fn start(&self, received: &[u8]) -> Result<Option<Start>, Fault> {
        let [first, second, ..] = *received else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Fault::Protocol("a reserved bit is set"));
        }
        let last = first & 0x80 != 0;
        let opcode = Opcode::of(first & 0x0f).ok_or(Fault::Protocol("an unknown kind of frame"))?;
        if (second & 0x80 != 0) != (self.from == From::Client) {
            return Err(Fault::Protocol(match self.from {
                From::Client => "a client's frame is not masked",
                From::Server => "a server's frame is masked",
            }));
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!last || usize::from(short) > CONTROL_MAX) {
            return Err(Fault::Protocol("a control frame is in pieces, or too long"));
        }
        match (opcode, &self.begun) {
            (Opcode::Continuation, None) => return Err(Fault::Protocol("a continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Fault::Protocol("a message begins within another"));
            }
            _ => {}
        }
        let extra = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(digits) = received.get(2..2 + extra) else { return Ok(None) };
        let long = digits.iter().fold(0_u64, |length, digit| length << 8 | u64::from(*digit));
        let length = if extra == 0 { u64::from(short) } else { long };
        if extra == 2 && length < 126 || extra == 8 && (length <= 0xffff || length >> 63 != 0) {
            return Err(Fault::Protocol("a length is not as short as it could be"));
        }
        let length = usize::try_from(length).map_err(|_| Fault::TooBig)?;
        let before = self.begun.as_ref().map_or(0, Vec::len);
        if !opcode.is_control() && length > self.message_max.saturating_sub(before) {
            return Err(Fault::TooBig);
        }
        let mut begin = 2 + extra;
        let mut mask = None;
        if self.from == From::Client {
            let Some(bytes) = received.get(begin..begin + 4) else { return Ok(None) };
            mask = bytes.try_into().ok();
            begin += 4;
        }
        Ok(Some(Start { last, opcode, mask, begin, end: begin + length }))
    }

    fn take(&mut self, start: &Start, payload: Vec<u8>) -> Result<Option<Event>, Fault> {
        match start.opcode {
            Opcode::Ping => return Ok(Some(Event::Ping(payload))),
            Opcode::Pong => return Ok(Some(Event::Pong)),
            Opcode::Close => return closing(&payload).map(Some),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        let message = match self.begun.take() {
            None => payload,
            Some(mut begun) => {
                begun.extend_from_slice(&payload);
                begun
            }
        };
        if start.last {
            return Ok(Some(Event::Message(message)));
        }
        self.begun = Some(message);
        Ok(None)
    }
}

fn closing(payload: &[u8]) -> Result<Event, Fault> {
    match payload {
        [] => Ok(Event::Close(None, String::new())),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Fault::Protocol("a close frame has a code that may not be sent"));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Fault::Protocol("a reason is no text"))?;
            Ok(Event::Close(Some(code), reason.to_owned()))
        }
        _ => Err(Fault::Protocol("a close frame has half a code")),
    }
}
