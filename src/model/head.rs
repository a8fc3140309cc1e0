//! What lists filter jobs by, kept in their records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::job::JobSpec;

/// Bytes of a head that a job's record keeps: each change of the job's state writes them again.
const KEPT_MAX: usize = 256;

/// Namespace and labels of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHead {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl JobHead {
    /// What the record of such a job keeps: none if it is too long.
    #[must_use]
    pub fn kept(spec: &JobSpec) -> Option<Self> {
        let labels = spec.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        (spec.namespace.len() + labels <= KEPT_MAX)
            .then(|| Self { namespace: spec.namespace.clone(), labels: spec.labels.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_short_ones_only() {
        let text = r#"{"namespace": "home", "type": "batch", "count": 1, "task": {"name": "t", "engine": {"kind": "x"}}}"#;
        let mut spec: JobSpec = serde_json::from_str(text).unwrap();
        spec.labels.insert("a".into(), "b".repeat(KEPT_MAX - 5));
        assert_eq!(JobHead::kept(&spec).unwrap().labels, spec.labels);
        spec.labels.insert("c".into(), String::new());
        assert_eq!(JobHead::kept(&spec), None);
    }
}
