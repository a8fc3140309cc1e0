//! The results server: published archives, whole or in part, and word of those that had to go.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::gate::{Instruction, Parcel, Sent};
use crate::model::{ExecutionId, Sha256, with_causes};
use crate::results::Missing;
use crate::wire::{ApiError, Code};

use super::App;
use super::ask::{Ask, Reply};
use super::range::{Wanted, http_date, wanted};
use super::routes::not_allowed;

/// `GET /<execution id>.tar.gz`, or `.tgz`. There is no list: who does not know the id does not get it.
pub fn get(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    if ask.method != "GET" {
        return Err(not_allowed("GET, HEAD"));
    }
    let name = ask.path.strip_prefix('/').unwrap_or_default();
    let stem = [".tar.gz", ".tgz"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let Some(id) = stem.and_then(|stem| stem.parse::<ExecutionId>().ok()) else {
        return Err(ApiError::new(Code::NotFound, "there is no such file").component("Results"));
    };
    // Before anything else: who has no link does not learn what there is.
    if let Some(links) = app.urls.links() {
        let (expires, signature) = (ask.query.get("expires"), ask.query.get("signature"));
        links.check(&id, expires, signature).map_err(|bad| {
            ApiError::new(Code::Forbidden, bad.to_string())
                .component("Results")
                .hint("ask the node's API for a new link, e.g. with 'codling job get'")
        })?;
    }
    let open = app.shelf.open_result(&id).map_err(|missing| why_missing(&missing, &id))?;
    let (size, sha256) = (open.entry.size.0, open.entry.sha256);
    let etag = format!("\"{sha256}\"");
    let last_modified = http_date(open.entry.created);
    let wanted = wanted(ask, size, &etag, &last_modified);
    let (status, offset, length) = match wanted {
        Wanted::Whole => (200, 0, size),
        Wanted::Part(offset, length) => (206, offset, length),
        Wanted::NotModified => {
            return Ok(without_body(304).field("ETag", etag).field("Last-Modified", last_modified));
        }
        Wanted::Failed => {
            let error = ApiError::new(Code::PreconditionFailed, "this is another file than If-Match names");
            return Ok(Reply::from(error.component("Results")).field("ETag", etag));
        }
        Wanted::Unsatisfiable => {
            let error = ApiError::new(Code::RangeNotSatisfiable, format!("the file has {size} bytes"));
            return Ok(
                Reply::from(error.component("Results")).field("Content-Range", format!("bytes */{size}"))
            );
        }
    };
    let mut reply = described(&id, &sha256).field("ETag", etag).field("Last-Modified", last_modified);
    if status == 206 {
        let last = offset + length - 1;
        reply = reply.field("Content-Range", format!("bytes {offset}-{last}/{size}"));
    }
    let token = if ask.head_only {
        0
    } else {
        // Who asks for the end has the beginning, or is about to.
        let sent = (offset + length == size).then(|| {
            let (shelf, id) = (Arc::clone(&app.shelf), id.clone());
            Box::new(move || shelf.note_fetched(&id)) as Sent
        });
        let parcel = Parcel { file: open.file, keep: Box::new(open.lease), sent };
        app.parcels.put(parcel).ok_or_else(|| {
            ApiError::new(Code::ServiceUnavailable, "too many downloads are about to begin")
                .component("Results")
        })?
    };
    reply.status = status;
    reply.send = Some(Instruction { token, offset, length });
    Ok(reply)
}

/// What is said of every archive. No Content-Encoding: Go's client would take the file apart.
fn described(id: &ExecutionId, sha256: &Sha256) -> Reply {
    let digest = STANDARD.encode(sha256.0);
    without_body(200)
        .field("Content-Type", "application/gzip")
        .field("Content-Disposition", format!("attachment; filename=\"{id}.tar.gz\""))
        .field("Accept-Ranges", "bytes")
        .field("Repr-Digest", format!("sha-256=:{digest}:"))
        .field("Digest", format!("sha-256={digest}"))
}

fn without_body(status: u16) -> Reply {
    Reply { status, fields: Vec::new(), body: Vec::new(), send: None }
}

/// What is said of a result that cannot be had.
pub fn why_missing(missing: &Missing, id: &ExecutionId) -> ApiError {
    match missing {
        Missing::Never => ApiError::new(Code::NotFound, format!("there is no result of execution {id}")),
        Missing::Deleted { reason, at } => {
            let word = serde_json::to_value(reason).ok().and_then(|word| word.as_str().map(str::to_owned));
            ApiError::new(Code::Gone, format!("the result of execution {id} was deleted at {at}: {reason}"))
                .hint("run the job again, and pin its result or fetch it earlier")
                .detail("Reason", word.unwrap_or_default())
                .detail("At", at.rfc3339())
        }
        Missing::Ledger(error) => return super::store_error(error),
        _ => {
            log::error!("result of {id}: {}", with_causes(missing));
            ApiError::new(Code::InternalError, with_causes(missing))
        }
    }
    .component("Results")
}
