//! Records as a damaged disk, or a later or earlier version, may have left them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::decode;
use crate::model::{ExecutionRecord, ExecutionRow, HistoryEvent, JobRecord, JobSpec, ResultEntry, Sha256};
use crate::wire::{Dialect, ExecutionParts, ExecutionView, HistoryView, JobView, ResultView};

/// What can be read of any kind is written back as the same, and can be shown.
pub(crate) fn records(data: &[u8]) {
    if let Some(event) = same::<HistoryEvent>(data) {
        for dialect in [Dialect::A, Dialect::B] {
            shown(&HistoryView::of(&event, "j-1", "n-1", dialect));
        }
    }
    if let Some(spec) = same::<JobSpec>(data) {
        let record = r#"{"id":"j-00000000-0000-4000-8000-000000000000","digest":"","name":"","state":"Running",
            "version":1,"revision":1,"created":0,"modified":0}"#;
        let record = record.replace(r#""digest":"""#, &format!(r#""digest":"{}""#, Sha256::of(data)));
        if let Some(record) = same::<JobRecord>(record.as_bytes()) {
            shown(&JobView::of(&spec, &record, Dialect::B));
        }
    }
    if let Some(record) = same::<JobRecord>(data) {
        let _ = (record.created.rfc3339(), record.modified.since(record.created));
    }
    let record = same::<ExecutionRecord>(data);
    let row = same::<ExecutionRow>(data);
    if let Some(row) = &row {
        for dialect in [Dialect::A, Dialect::B] {
            let record = record.as_ref();
            let parts = ExecutionParts { row, record, namespace: "", task: "", node: "", next: None };
            let result = ResultView::download(String::new(), &Sha256::of(b""), crate::model::Bytes(0));
            shown(&ExecutionView::of(&parts, result, dialect));
        }
    }
    if let Some(entry) = same::<ResultEntry>(data) {
        let _ = (entry.is_stored(), entry.is_pinned(entry.created), entry.created.rfc3339());
        let _ = entry.retention.map(|retention| entry.created.plus(retention));
    }
}

/// The value, if it can be read.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let value: T = decode(data, || "the input".into()).ok()?;
    let written = super::encode(&value, || "the input".into());
    assert!(written.is_ok(), "{value:?} cannot be written");
    let again: Option<T> = written.ok().and_then(|bytes| decode(&bytes, || "the input".into()).ok());
    assert_eq!(again.as_ref(), Some(&value), "as it was written");
    Some(value)
}

fn shown(view: &impl Serialize) {
    let text = serde_json::to_vec(view);
    assert!(text.is_ok(), "cannot be shown: {text:?}");
}
