//! `GET jobs/{id}/logs`: what is to be followed. The gate does the following.

use crate::gate::FOLLOW;
use crate::logs::Wanted;
use crate::wire::{ApiError, Code};

use super::App;
use super::ask::{Ask, Reply};
use super::jobs::find;

/// Looks the job up and leaves word for the gate. That there is none is told over the websocket: clients show nothing
/// of a refused handshake.
pub fn follow(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let query = &ask.query;
    let (follow, tail) = (query.flag("follow")?, query.flag("tail")?);
    let all = query.flag("all_job_versions")?;
    let version = query.number("job_version")?.map(u64::from);
    let wanted = match find(app, ask, id) {
        Ok((record, _)) => Ok(Wanted {
            execution: query.get("execution_id").map(str::to_owned),
            // The present version, unless another is asked for: a job that was run again does not tell of before.
            version: (!all).then(|| version.unwrap_or(record.version)),
            follow,
            tail,
            job: record.id,
        }),
        Err(error) if error.status < 500 => Err(error.message),
        Err(error) => return Err(error),
    };
    let token = app.parcels.put_log(wanted).ok_or_else(|| {
        ApiError::new(Code::ServiceUnavailable, "too many logs are about to be followed").component("Logs")
    })?;
    Ok(Reply::text(Vec::new()).field(FOLLOW, token.to_string()))
}
