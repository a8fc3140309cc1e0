//! A job as it was submitted ([`JobSpec`], immutable, stored once) and what becomes of it ([`JobRecord`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::head::JobHead;
use super::ids::{JobDigest, JobId};
use super::resources::ResourceRequest;
use super::state::{IllegalTransition, JobEvent, JobState};
use super::time::Timestamp;

/// Parameters of an engine, source or publisher, in the user's own key case.
pub type Params = serde_json::Map<String, serde_json::Value>;

/// How long and where a job lives (job-spec.md section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobType {
    /// `Count` runs to completion.
    Batch,
    /// One run to completion on every matching node.
    Ops,
    /// `Count` runs for ever.
    Service,
    /// One run for ever on every matching node.
    Daemon,
}

impl JobType {
    /// The word used in job files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Ops => "ops",
            Self::Service => "service",
            Self::Daemon => "daemon",
        }
    }

    /// Whether it is over when its program ends.
    #[must_use]
    pub const fn runs_to_completion(self) -> bool {
        matches!(self, Self::Batch | Self::Ops)
    }
}

/// `{Type, Params}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecConfig {
    /// The kind, compared without case.
    pub kind: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

impl SpecConfig {
    /// Whether this is of that kind (which is given in lower case).
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.kind.trim().eq_ignore_ascii_case(kind)
    }

    /// The parameter of that name, compared without case.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&serde_json::Value> {
        self.params
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null())
            .map(|(_, v)| v)
    }

    /// The text parameter of that name, if it is there and a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.param(name).and_then(serde_json::Value::as_str)
    }
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Source(pub SpecConfig);

/// One input and where the guest finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSource {
    /// Where it comes from.
    pub source: Source,
    /// A name for it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Path in the guest.
    pub target: String,
}

/// An output directory: `path` in the guest, `name` in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultPath {
    /// Directory in the archive.
    pub name: String,
    /// Directory in the guest.
    pub path: String,
}

/// A condition on node labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// Label.
    pub key: String,
    /// One of `=`, `==`, `!=`, `in`, `notin`, `exists`, `!`, `gt`, `lt`.
    pub operator: String,
    /// As many as the operator takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Constraint {
    /// Whether a node with these labels satisfies it. An absent label satisfies `!=`, `notin` and `!`.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let have = labels.get(&self.key);
        let number = |text: &String| text.trim().parse::<i64>().ok();
        let first = self.values.first();
        match self.operator.as_str() {
            "=" | "==" | "in" => have.is_some_and(|v| self.values.contains(v)),
            "!=" | "notin" => have.is_none_or(|v| !self.values.contains(v)),
            "exists" => have.is_some(),
            "!" => have.is_none(),
            "gt" | "lt" => match (have.and_then(number), first.and_then(number)) {
                (Some(have), Some(want)) if self.operator == "gt" => have > want,
                (Some(have), Some(want)) => have < want,
                _ => false,
            },
            _ => false,
        }
    }
}

/// A task's network (job-spec.md section 7). Whether it is allowed is the node's decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `None`, `Full`, `HTTP`, `Default`, `Host` or `Bridge`; `None` here means that the field was absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NetworkKind>,
    /// Domains that may be reached with `HTTP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

/// Kinds of network access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkKind {
    /// No access.
    None,
    /// The host's network (old word).
    Full,
    /// Listed domains only.
    HTTP,
    /// Whatever the node gives.
    Default,
    /// The host's network.
    Host,
    /// A bridge with mapped ports.
    Bridge,
}

/// Limits in time; zero is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// One execution, inputs included. Falls back to `total`.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub execution: Duration,
    /// From submission until it starts.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub queue: Duration,
    /// From submission to the end, retries included.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub total: Duration,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What runs it.
    pub engine: SpecConfig,
    /// What publishes its result, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<SpecConfig>,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Free.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputSource>,
    /// Outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub result_paths: Vec<ResultPath>,
    /// What it needs.
    #[serde(default)]
    pub resources: ResourceRequest,
    /// Network access.
    #[serde(default)]
    pub network: Network,
    /// Limits in time.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// A job as submitted, with defaults applied. Immutable: stored once, under its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Empty if none was given: the job's id then serves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `default` if none was given.
    pub namespace: String,
    /// Its type.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// Larger first.
    #[serde(default)]
    pub priority: i32,
    /// Executions wanted.
    pub count: u32,
    /// Conditions on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// Free.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// For filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The one task.
    pub task: Task,
}

impl JobSpec {
    /// The encoded form that is stored, and its digest.
    ///
    /// # Errors
    /// Only if a map held a key that is no text, which these types rule out.
    pub fn encode(&self) -> Result<(JobDigest, Vec<u8>), serde_json::Error> {
        let bytes = serde_json::to_vec(self)?;
        Ok((JobDigest::of(&bytes), bytes))
    }

    /// How many times an execution that a restart of the node cut off is run again.
    /// `Meta` key `codling/restarts`; 3 by default, so that a job which kills the node cannot do so for ever.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.meta.get("codling/restarts").and_then(|text| text.trim().parse().ok()).unwrap_or(3)
    }

    /// How long the result is kept, if the job says so itself; zero is for ever. [`validate`] lets no job pass whose
    /// word cannot be read.
    ///
    /// [`validate`]: super::validate::validate
    #[must_use]
    pub fn retention(&self) -> Option<Duration> {
        let (_, word) = self.result_word(&keeping::RETENTION)?;
        keeping::retention(&word).ok()
    }

    /// Whether the result is pinned as soon as it is there.
    #[must_use]
    pub fn pin(&self) -> bool {
        self.result_word(&keeping::PIN).is_some_and(|(_, word)| keeping::pin(&word) == Ok(true))
    }

    /// What the job says about its result, and the field that says it: the publisher's parameter before the label
    /// before the meta key.
    pub(super) fn result_word(&self, key: &keeping::Key) -> Option<(String, String)> {
        let of_publisher = self.task.publisher.as_ref().and_then(|publisher| publisher.param(key.param));
        if let Some(value) = of_publisher {
            let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return Some((format!("Tasks[0].Publisher.Params.{}", key.param), word));
        }
        let of = |map: &BTreeMap<String, String>, what: &str| {
            map.get(key.label).map(|word| (format!("{what}[{}]", key.label), word.clone()))
        };
        of(&self.labels, "Labels").or_else(|| of(&self.meta, "Meta"))
    }
}

/// What a job can say about how long its result is kept.
///
/// | parameter of the publisher | label or meta key | means |
/// |---|---|---|
/// | `Retention` | `codling/retention` | how long the result is kept (`36h`, `7d`), or `forever`; otherwise `Results.Retention` |
/// | `Pin` | `codling/pin` | `true`: it is pinned from the beginning, until a user unpins it |
pub mod keeping {
    use std::time::Duration;

    use crate::model::units::parse_duration;

    /// One such word, under its two names.
    #[derive(Debug)]
    pub struct Key {
        /// Parameter of the publisher, compared without case.
        pub param: &'static str,
        /// Label or meta key.
        pub label: &'static str,
    }

    /// How long.
    pub const RETENTION: Key = Key { param: "Retention", label: "codling/retention" };
    /// Pinned from the beginning.
    pub const PIN: Key = Key { param: "Pin", label: "codling/pin" };

    /// Reads a retention; zero is for ever.
    ///
    /// # Errors
    /// It is neither a duration nor `forever`; the fragment says so.
    pub fn retention(word: &str) -> Result<Duration, String> {
        if word.trim().eq_ignore_ascii_case("forever") {
            return Ok(Duration::ZERO);
        }
        parse_duration(word).map_err(|error| format!("{error}, or forever"))
    }

    /// Reads a pin.
    ///
    /// # Errors
    /// It is neither `true` nor `false`; the fragment says so.
    pub fn pin(word: &str) -> Result<bool, String> {
        word.trim()
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| format!("'{}' is neither true nor false", word.trim()))
    }
}

/// What is known of a job besides its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Where its body is.
    pub digest: JobDigest,
    /// Name (the id if none was given), kept here so that lists need no body.
    pub name: String,
    /// What lists filter by, kept here for the same reason, if it is short. Records made before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<JobHead>,
    /// Its state.
    pub state: JobState,
    /// Why it is in that state; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Version of the body, from 1: an update or a re-run makes the next.
    pub version: u64,
    /// Changes so far, from 1.
    pub revision: u64,
    /// Submitted.
    pub created: Timestamp,
    /// Last changed.
    pub modified: Timestamp,
}

impl JobRecord {
    /// Moves on. The one place where a job's state changes.
    ///
    /// # Errors
    /// The event makes no sense in this state; nothing changed.
    pub fn advance(
        &mut self,
        event: JobEvent,
        message: &str,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        self.state = self.state.next(event)?;
        message.clone_into(&mut self.message);
        self.revision += 1;
        self.modified = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::validate::validate;

    fn job(publisher: serde_json::Value, label: Option<&str>, meta: Option<&str>) -> JobSpec {
        let map = |word: Option<&str>| word.map(|w| ("codling/retention".to_owned(), w.to_owned()));
        let labels: BTreeMap<_, _> = map(label).into_iter().collect();
        let meta: BTreeMap<_, _> = map(meta).into_iter().collect();
        serde_json::from_value(serde_json::json!({
            "namespace": "default", "type": "batch", "count": 1, "labels": labels, "meta": meta,
            "task": {"name": "t", "engine": {"kind": "x"}, "publisher": publisher},
        }))
        .unwrap()
    }

    #[test]
    fn a_job_says_how_long_its_result_is_kept() {
        let of = |params| serde_json::json!({"kind": "local", "params": params});
        let none = serde_json::json!({});
        let day = Duration::from_secs(86_400);
        let param = job(of(serde_json::json!({"retention": "7d"})), Some("1d"), Some("2d"));
        assert_eq!(param.retention(), Some(7 * day));
        assert_eq!(job(of(none.clone()), Some("1d"), Some("2d")).retention(), Some(day));
        assert_eq!(job(of(none.clone()), None, Some("2d")).retention(), Some(2 * day));
        assert_eq!(job(of(none.clone()), None, None).retention(), None);
        let ever = job(of(serde_json::json!({"Retention": "Forever", "Pin": true})), None, None);
        assert_eq!((ever.retention(), ever.pin()), (Some(Duration::ZERO), true));
        validate(&ever).unwrap();
        let wrong = |params, field: &str| {
            let text = validate(&job(of(params), None, None)).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{field}: ")) && !text.contains('\n'), "{text}");
        };
        wrong(serde_json::json!({"Retention": "soon"}), "Tasks[0].Publisher.Params.Retention");
        wrong(serde_json::json!({"Retention": 7}), "Tasks[0].Publisher.Params.Retention");
        wrong(serde_json::json!({"Pin": "yes"}), "Tasks[0].Publisher.Params.Pin");
        let text = validate(&job(of(none), Some("a while"), None)).unwrap_err().to_string();
        assert!(text.starts_with("Labels[codling/retention]: "), "{text}");
    }

    #[test]
    fn constraints_match_as_kubernetes_selectors_do() {
        let labels: BTreeMap<String, String> =
            [("zone", "a"), ("ram", "512")].into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        let table = [
            ("zone", "=", vec!["a"], true),
            ("zone", "!=", vec!["a"], false),
            ("none", "!=", vec!["a"], true),
            ("zone", "in", vec!["b", "a"], true),
            ("none", "notin", vec!["b"], true),
            ("zone", "exists", vec![], true),
            ("zone", "!", vec![], false),
            ("ram", "gt", vec!["256"], true),
            ("ram", "lt", vec!["256"], false),
            ("zone", "gt", vec!["1"], false),
            ("zone", "~", vec!["a"], false),
        ];
        for (key, operator, values, wanted) in table {
            let c = Constraint {
                key: key.into(),
                operator: operator.into(),
                values: values.into_iter().map(String::from).collect(),
            };
            assert_eq!(c.matches(&labels), wanted, "{c:?}");
        }
    }
}
