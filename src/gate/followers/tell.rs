//! The life of one follower, from its handshake to its last message.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::archive::Step;
use crate::logs::cut::{PIECE, Rest, next_piece};
use crate::logs::{Found, Wanted};
use crate::model::{ExecutionId, ExecutionRecord, RunOutput, with_causes};
use crate::store::StoreError;
use crate::wire::log_line::{LogMessage, LogStream};

use super::super::race::race;
use super::super::stream::Stream;
use super::peer::{End, Peer};
use super::{Arrival, Open, Room};

/// How long half a line waits for its end.
const HALF_A_LINE: Duration = Duration::from_millis(200);

/// Serves one follower until it leaves.
pub async fn serve(arrival: Arrival, room: &Room) {
    let Arrival { stream, peer, received, accept, wanted, place } = arrival;
    let stream = match Stream::attach(stream) {
        Ok(stream) => stream,
        Err(error) => return log::warn!("cannot send a log: {error}"),
    };
    log::debug!("{peer} follows a log");
    let mut peer = Peer::new(stream, peer, received, place, room.stopping.clone(), room.limits);
    let told = async {
        peer.welcome(&accept).await?;
        let wanted = wanted.map_err(End::Error)?;
        tell(&mut peer, &wanted, room).await
    };
    let end = Box::pin(told).await.map_or_else(|end| end, |()| End::Over);
    Box::pin(peer.end(end)).await;
}

async fn tell(peer: &mut Peer, wanted: &Wanted, room: &Room) -> Result<(), End> {
    loop {
        let changed = room.changed.notified();
        match room.logs.find(wanted).map_err(unreadable)? {
            Found::Running(id) => return live(peer, &id, wanted, room).await,
            // Nothing will be written any more.
            Found::Ended(_) if wanted.tail => return Ok(()),
            Found::Ended(record) => return kept(peer, &record, [0, 0], room).await,
            Found::NotYet if wanted.follow => peer.wait(changed).await?,
            Found::NotYet => return Ok(()),
            Found::Never(why) => return Err(End::Error(why)),
        }
    }
}

fn unreadable(error: StoreError) -> End {
    log::error!("a log cannot be found: {}", with_causes(&error));
    End::Error(format!("the node cannot read its records: {error}"))
}

/// Sends the log of an execution that runs, from its files.
async fn live(peer: &mut Peer, id: &ExecutionId, wanted: &Wanted, room: &Room) -> Result<(), End> {
    let open = room.open(id);
    let lengths = open.lengths().map(Option::unwrap_or_default);
    let mut at = if wanted.tail { lengths } else { [0, 0] };
    let until = if wanted.follow { [u64::MAX; 2] } else { lengths };
    // Since when there has been half a line.
    let mut half: Option<Instant> = None;
    loop {
        let ended = open.ended();
        if let Some((record, since)) = &ended
            && since.elapsed() > room.limits.stall_time
        {
            // The room that the files take is wanted.
            drop(open);
            return kept(peer, record, at, room).await;
        }
        let changed = open.changed.notified();
        let rest = match (&ended, half) {
            (Some(_), _) => Rest::Never,
            (None, _) if !wanted.follow => Rest::Later,
            (None, Some(since)) if since.elapsed() >= HALF_A_LINE => Rest::Later,
            (None, _) => Rest::Soon,
        };
        let (mut said, mut waits) = (false, false);
        for (n, stream) in LogStream::ALL.into_iter().enumerate() {
            let (message, length) = match next(&open, stream, at[n], until[n], rest) {
                Next::Piece(message, length) => (message, length),
                Next::Waits => {
                    waits = true;
                    continue;
                }
                Next::Nothing => continue,
            };
            peer.say(&message).await?;
            at[n] += length;
            said = true;
        }
        if said {
            half = None;
            peer.turn().await?;
        } else if let Some((record, _)) = ended {
            // Of what was over too soon to be opened, something may be kept; else all has been read.
            return if open.lengths() == [None, None] { kept(peer, &record, at, room).await } else { Ok(()) };
        } else if !wanted.follow {
            return Ok(());
        } else if waits {
            let since = *half.get_or_insert_with(Instant::now);
            let enough = sleep_until(since + HALF_A_LINE);
            peer.wait(race(changed, enough)).await?;
        } else {
            half = None;
            peer.wait(changed).await?;
        }
    }
}

enum Next {
    /// A message, and how many bytes of the stream are in it.
    Piece(LogMessage, u64),
    /// There is half a line.
    Waits,
    /// There is nothing.
    Nothing,
}

fn next(open: &Open, stream: LogStream, at: u64, until: u64, rest: Rest) -> Next {
    let mut buffer = [0; PIECE];
    let most = usize::try_from(until.saturating_sub(at)).unwrap_or(PIECE).min(PIECE);
    let read = open.live.read(stream, at, buffer.get_mut(..most).unwrap_or_default());
    let n = read.unwrap_or_else(|error| {
        log::warn!("cannot read {}: {error}", stream.as_str());
        0
    });
    let bytes = buffer.get(..n).unwrap_or_default();
    match next_piece(bytes, rest) {
        0 if n == 0 => Next::Nothing,
        0 => Next::Waits,
        length => {
            Next::Piece(LogMessage::piece(stream, bytes.get(..length).unwrap_or_default()), length as u64)
        }
    }
}

/// Sends what is kept of an execution that has ended, from these places on: the published result, or else what its
/// record has.
async fn kept(peer: &mut Peer, record: &ExecutionRecord, at: [u64; 2], room: &Room) -> Result<(), End> {
    let Some(output) = &record.output else { return Ok(()) };
    for (at, stream) in at.into_iter().zip(LogStream::ALL) {
        let (text, cut) = summary(output, stream);
        if cut && archived(peer, &record.id, stream, at, room).await? {
            continue;
        }
        let begin = text.floor_char_boundary(usize::try_from(at).unwrap_or(usize::MAX));
        let mut rest = text.get(begin..).unwrap_or_default().as_bytes();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(next_piece(rest, Rest::Never));
            peer.say(&LogMessage::piece(stream, piece)).await?;
            rest = more;
        }
        if cut {
            let line = if text.ends_with('\n') { "" } else { "\n" };
            let note = format!(
                "{line}codling: only the beginning of {} is kept of this execution\n",
                stream.as_str()
            );
            peer.say(&LogMessage::piece(LogStream::Stderr, note.as_bytes())).await?;
        }
    }
    Ok(())
}

/// The first bytes of a stream, and whether there were more.
fn summary(output: &RunOutput, stream: LogStream) -> (&str, bool) {
    match stream {
        LogStream::Stdout => (&output.stdout, output.stdout_truncated),
        LogStream::Stderr => (&output.stderr, output.stderr_truncated),
    }
}

/// Sends a stream from the published result; says whether there is one. A few do so at a time, a step each, so that
/// those who follow what runs wait for none of them.
async fn archived(
    peer: &mut Peer,
    id: &ExecutionId,
    stream: LogStream,
    mut skip: u64,
    room: &Room,
) -> Result<bool, End> {
    // The semaphore is never closed.
    let _turn = peer.wait(room.turns.acquire()).await?;
    let Some((mut member, _lease)) = room.logs.archived(id, stream) else { return Ok(false) };
    peer.hurry();
    let mut buffer = vec![0; 2 * PIECE].into_boxed_slice();
    let (mut filled, mut rest) = (0, Rest::Soon);
    while rest == Rest::Soon {
        match member.step(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(Step::Bytes(n)) => {
                let skipped = n.min(usize::try_from(skip).unwrap_or(usize::MAX));
                skip -= skipped as u64;
                buffer.copy_within(filled + skipped..filled + n, filled);
                filled += n - skipped;
            }
            Ok(Step::Nearer) => {}
            Ok(Step::End) => rest = Rest::Never,
            Err(error) => {
                log::warn!("the log of {id} cannot be read: {error}");
                return Err(End::Error(format!("the result of execution {id} cannot be read: {error}")));
            }
        }
        loop {
            let length = next_piece(buffer.get(..filled).unwrap_or_default(), rest);
            if length == 0 {
                break;
            }
            peer.say(&LogMessage::piece(stream, buffer.get(..length).unwrap_or_default())).await?;
            buffer.copy_within(length..filled, 0);
            filled -= length;
        }
        peer.turn().await?;
    }
    peer.relax();
    Ok(true)
}
