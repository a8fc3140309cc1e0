//! Bodies of requests and answers that are no jobs, executions, history or nodes.
//!
//! What the command line reads back is decoded by these same types.

use serde::{Deserialize, Serialize};

use crate::model::{Bytes, DeletionReason, DiskState, ResultEntry, ResultStatus, Timestamp};

/// Answer to a submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SubmitAnswer {
    /// The job's id.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// An evaluation's id, for clients that want one.
    #[serde(rename = "EvaluationID")]
    pub evaluation_id: String,
    /// What was ignored or changed.
    pub warnings: Vec<String>,
}

/// Answer to a run once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RerunAnswer {
    /// The job's id.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// The version that runs now.
    pub job_version: u64,
    /// An evaluation's id, for clients that want one.
    #[serde(rename = "EvaluationID")]
    pub evaluation_id: String,
    /// What the user should hear.
    pub warnings: Vec<String>,
}

/// Answer to a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiffAnswer {
    /// Lines that begin with `-` or `+`; empty if nothing differs.
    pub diff: String,
    /// What would be ignored or changed.
    pub warnings: Vec<String>,
}

/// Answer to a stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StopAnswer {
    /// An evaluation's id; empty if there was nothing to stop.
    #[serde(rename = "EvaluationID")]
    pub evaluation_id: String,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Page<T> {
    /// Where the next page begins; empty at the end.
    #[serde(default)]
    pub next_token: String,
    /// The items.
    pub items: Vec<T>,
}

impl<T> Page<T> {
    /// The only page.
    #[must_use]
    pub const fn whole(items: Vec<T>) -> Self {
        Self { next_token: String::new(), items }
    }
}

/// Answer to `GET jobs/{id}`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobAnswer<J, H, E> {
    /// The job.
    pub job: J,
    /// Its history, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Page<H>>,
    /// Its executions, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executions: Option<Page<E>>,
}

/// Why and when a result was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Deleted {
    /// A stable word, e.g. `quota`.
    pub reason: DeletionReason,
    /// The same for people.
    pub message: String,
    /// RFC 3339.
    pub at: String,
}

/// A published result, there or deleted, as the node's own endpoint lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResultRow {
    /// The execution that made it.
    #[serde(rename = "ExecutionID")]
    pub execution_id: String,
    /// Its job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// Its digest.
    #[serde(rename = "SHA256")]
    pub sha256: String,
    /// Published, RFC 3339.
    pub created: String,
    /// Where it is to be fetched now; empty if it was deleted.
    #[serde(rename = "URL", default)]
    pub url: String,
    /// Whether somebody has downloaded it whole.
    #[serde(default)]
    pub fetched: bool,
    /// Seconds it is kept, if the job said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<u64>,
    /// Whether a pin holds it.
    #[serde(default)]
    pub pinned: bool,
    /// Until when, RFC 3339; for ever if it is pinned without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_until: Option<String>,
    /// Why it is gone, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Deleted>,
}

impl ResultRow {
    /// The row of a ledger entry; `url` only if it can be fetched.
    #[must_use]
    pub fn of(entry: &ResultEntry, url: String, now: Timestamp) -> Self {
        let pinned = entry.is_pinned(now);
        Self {
            execution_id: entry.execution_id.to_string(),
            job_id: entry.job_id.to_string(),
            size: entry.size.0,
            sha256: entry.sha256.hex(),
            created: entry.created.rfc3339(),
            url,
            fetched: entry.fetched,
            retention_seconds: entry.retention.map(|retention| retention.as_secs()),
            pinned,
            pinned_until: entry.pin.filter(|_| pinned).and_then(|pin| pin.until).map(Timestamp::rfc3339),
            deleted: match entry.status {
                ResultStatus::Stored => None,
                ResultStatus::Deleted { reason, at } => {
                    Some(Deleted { reason, message: reason.to_string(), at: at.rfc3339() })
                }
            },
        }
    }
}

/// A result that is to go, or has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeletionRow {
    /// Which.
    #[serde(rename = "ExecutionID")]
    pub execution_id: String,
    /// Its job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// What it frees, in bytes.
    pub size: u64,
    /// A stable word.
    pub reason: DeletionReason,
    /// The same for people.
    pub message: String,
}

impl From<&crate::model::Deletion> for DeletionRow {
    fn from(deletion: &crate::model::Deletion) -> Self {
        Self {
            execution_id: deletion.execution_id.to_string(),
            job_id: deletion.job_id.to_string(),
            size: deletion.size.0,
            reason: deletion.reason,
            message: deletion.reason.to_string(),
        }
    }
}

/// Where results are to be fetched, why there, and what else there would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResultAddresses {
    /// What the URLs of results begin with, for whoever asks.
    #[serde(rename = "URL")]
    pub url: String,
    /// Why it is that.
    pub reason: String,
    /// The socket of the results server.
    pub bind: String,
    /// `Publishers.Types.Local.Address`; empty is automatic.
    pub setting: String,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// How long a URL can be used, if it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_lifetime_seconds: Option<u64>,
    /// The machine's other addresses, the best first, those of no use last.
    pub alternatives: Vec<AddressRow>,
    /// What URLs that were handed out began with, if that leads here no longer.
    pub former: Vec<FormerRow>,
}

/// An address of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddressRow {
    /// The address.
    pub address: String,
    /// Its interface.
    pub interface: String,
    /// Whether URLs could begin with it.
    pub usable: bool,
    /// What they would begin with; empty if it is of no use.
    #[serde(rename = "URL", skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Why, or why not.
    pub reason: String,
}

/// An address that led to the node's results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FormerRow {
    /// What URLs began with.
    #[serde(rename = "URL")]
    pub url: String,
    /// What they begin with now.
    pub now: String,
    /// When one was first handed out, RFC 3339; absent if the node did not know the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// When one was last handed out, to the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// Where the room went, in bytes, and what goes next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DfAnswer {
    /// What results, scratch and cache together may have.
    pub quota: Bytes,
    /// Results on the shelf.
    pub results: Bytes,
    /// Held by executions: what they may still write included.
    pub scratch: Bytes,
    /// Compiled modules and the like.
    pub cache: Bytes,
    /// The databases, and what is set aside for them.
    pub databases: Bytes,
    /// Reserved and not yet written.
    pub reserved: Bytes,
    /// What is left of the quota.
    pub free: Bytes,
    /// What the file system has to keep free.
    pub min_free: Bytes,
    /// Size of the file system.
    pub disk_total: Bytes,
    /// Free on the file system.
    pub disk_free: Bytes,
    /// What archives may take together; absent if `Quota` alone counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Bytes>,
    /// Why nothing is deleted by age now; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub clock_doubt: String,
    /// What was deleted since the node started, by reason.
    pub deleted: Vec<DeletedCount>,
    /// Jobs that have ended: how many are remembered, how many have left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<JobsKept>,
    /// How the disk is.
    pub disk_state: DiskState,
    /// What is wrong with it; empty if nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub disk_message: String,
    /// What would be deleted next, in order, and why.
    pub next: Vec<DeletionRow>,
}

/// Results that were deleted for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeletedCount {
    /// A stable word.
    pub reason: DeletionReason,
    /// The same for people.
    pub message: String,
    /// How many.
    pub count: u64,
    /// What they occupied.
    pub bytes: Bytes,
}

/// Jobs that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobsKept {
    /// Remembered now.
    pub ended: u64,
    /// How many may be: `Store.MaxJobs`.
    pub max: u64,
    /// Left since the node started because they were older than `Store.JobRetention`.
    pub left_by_age: u64,
    /// Left since the node started because there were more than `Store.MaxJobs`.
    pub left_by_count: u64,
    /// Executions that left with them.
    pub left_executions: u64,
}

/// Answer to a clean-up: what went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GcAnswer {
    /// Results.
    pub deleted: Vec<DeletionRow>,
    /// Ids of jobs that left the database, or would.
    pub jobs: Vec<String>,
}

/// Body of a pin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinRequest {
    /// Seconds from now; for ever if absent.
    pub seconds: Option<u64>,
}

/// Body of a clean-up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GcRequest {
    /// Only say what would go.
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::{ExecutionId, JobId, Pin, Sha256};

    use super::*;

    #[test]
    fn a_result_row_tells_what_became_of_it() {
        let entry = ResultEntry {
            execution_id: ExecutionId::random(),
            job_id: JobId::random(),
            size: Bytes(123),
            sha256: Sha256::of(b""),
            created: Timestamp(0),
            dating: Default::default(),
            fetched: false,
            retention: None,
            pin: Some(Pin { until: Some(Timestamp(100)) }),
            status: ResultStatus::Stored,
        };
        let row = ResultRow::of(&entry, "http://h/x.tar.gz".into(), Timestamp(50));
        assert!(row.pinned && row.deleted.is_none());
        assert!(!ResultRow::of(&entry, String::new(), Timestamp(150)).pinned);
        let gone = ResultEntry {
            status: ResultStatus::Deleted { reason: DeletionReason::Quota, at: Timestamp(0) },
            ..entry
        };
        let row = serde_json::to_value(ResultRow::of(&gone, String::new(), Timestamp(150))).unwrap();
        assert_eq!(
            row["Deleted"],
            json!({"Reason": "quota", "Message": "evicted to keep the quota", "At": "1970-01-01T00:00:00.000000000Z"})
        );
        assert_eq!(
            (&row["Size"], row["ExecutionID"].as_str()),
            (&json!(123), Some(gone.execution_id.as_str()))
        );
        let back: ResultRow = serde_json::from_value(row).unwrap();
        assert_eq!(back, ResultRow::of(&gone, String::new(), Timestamp(150)));
    }

    #[test]
    fn pages_are_never_null() {
        let page = serde_json::to_value(Page::<u8>::whole(vec![])).unwrap();
        assert_eq!(page, json!({"NextToken": "", "Items": []}));
        assert_eq!(
            serde_json::to_value(SubmitAnswer::default()).unwrap(),
            json!({"JobID": "", "EvaluationID": "", "Warnings": []})
        );
    }
}
