//! Jobs of strangers: files and request bodies, of both generations.

use crate::model::{JobDigest, JobId, JobRecord, JobSpec, JobState, Timestamp};

use super::tree::{self, Limits, Tree};
use super::{Dialect, JobView, Reading, read_job};

/// What can be read can be stored and shown, and what is shown can be submitted again.
pub(crate) fn job(data: &[u8]) {
    let limits = Limits { bytes: 1 << 20, depth: 64, values: 1 << 12 };
    for parsed in [tree::parse_json(data, &limits), tree::parse_yaml(data, &limits)] {
        match parsed {
            Ok(tree) => {
                for reading in [Reading::body(Dialect::A), Reading::body(Dialect::B), Reading::file()] {
                    read(&tree, reading, &limits);
                }
            }
            Err(error) => assert!(error.to_string().chars().count() < 1000, "{error}"),
        }
    }
    let _ = tree::parse(data, &limits);
}

fn read(tree: &Tree, reading: Reading, limits: &Limits) {
    let spec = match read_job(tree, reading) {
        Ok(read) => read.spec,
        Err(problems) => return assert!(!problems.0.is_empty() && problems.0.iter().all(|p| !p.is_empty())),
    };
    let stored = serde_json::to_vec(&spec).unwrap_or_default();
    let again: Result<JobSpec, _> = serde_json::from_slice(&stored);
    assert_eq!(again.ok().as_ref(), Some(&spec), "as it was stored");
    let record = JobRecord {
        head: None,
        id: JobId::from_uuid(uuid::Uuid::nil()),
        digest: JobDigest::of(&stored),
        name: spec.name.clone(),
        state: JobState::Running,
        message: String::new(),
        version: 1,
        revision: 2,
        created: Timestamp(1),
        modified: Timestamp(2),
    };
    for dialect in [Dialect::A, Dialect::B] {
        let text = serde_json::to_vec(&JobView::of(&spec, &record, dialect)).unwrap_or_default();
        // A text at the limits may be over them with the server's fields; that is no fault.
        let limits = Limits { bytes: limits.bytes * 8, values: limits.values * 2, depth: limits.depth + 8 };
        let shown = tree::parse_json(&text, &limits);
        let again = shown.map(|tree| read_job(&tree, Reading::body(dialect)));
        match again {
            Ok(Ok(mut again)) => {
                // Only the later generation has all the words for networks, and can say that nothing is to be run.
                if dialect == Dialect::A {
                    again.spec.task.network = spec.task.network.clone();
                    again.spec.count = spec.count;
                }
                assert_eq!(again.spec, spec, "as it was shown to {dialect:?}");
            }
            other => panic!("shown to {dialect:?}, but not taken again: {other:?}"),
        }
    }
}

/// What a client sends over a websocket: the same however it comes in pieces, and never more than was said.
pub(crate) fn websocket(data: &[u8]) {
    use super::websocket::{Event, Fault, From, Reader};
    const MOST: usize = 200;
    let read = |step: usize| {
        let (mut reader, mut received, mut events) =
            (Reader::new(From::Client, MOST), Vec::new(), Vec::new());
        for piece in data.chunks(step) {
            received.extend_from_slice(piece);
            loop {
                match reader.next(&mut received) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(Fault::Protocol(what)) => return (events, Some(what)),
                    Err(Fault::TooBig) => return (events, Some("")),
                }
            }
            assert!(received.len() < MOST + 14 + step, "{} bytes wait", received.len());
        }
        (events, None)
    };
    let whole = read(data.len().max(1));
    for event in &whole.0 {
        match event {
            Event::Message(message) => assert!(message.len() <= MOST),
            Event::Ping(payload) => assert!(payload.len() <= super::websocket::CONTROL_MAX),
            Event::Pong | Event::Close(..) => {}
        }
    }
    assert_eq!(read(1), whole);
    assert_eq!(read(7), whole);
}
