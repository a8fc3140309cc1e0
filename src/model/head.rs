//! The beginning of a job's body: what lists are filtered by, read without the rest.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::job::JobSpec;

/// Bytes of a head that a job's record keeps: each change of the job's state writes them again.
const KEPT_MAX: usize = 256;

/// Namespace and labels of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Reads it from what [`JobSpec::encode`] made. The task stands last there, and is not looked at: it may hold inputs
    /// of megabytes.
    ///
    /// # Errors
    /// It is no such body, as far as it was looked at.
    pub fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut head = Self::default();
        let mut enough = false;
        let fields = Fields { head: &mut head, enough: &mut enough };
        match serde_json::Deserializer::from_slice(body).deserialize_map(fields) {
            Err(error) if !enough => Err(error),
            _ => Ok(head),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Field {
    Namespace,
    Labels,
    Task,
    #[serde(other)]
    Other,
}

struct Fields<'a> {
    head: &'a mut JobHead,
    enough: &'a mut bool,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key()? {
            match field {
                Field::Namespace => self.head.namespace = map.next_value()?,
                Field::Labels => self.head.labels = map.next_value()?,
                Field::Task => {
                    // The one way to stop early.
                    *self.enough = true;
                    return Err(A::Error::custom("enough"));
                }
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JobSpec;

    #[test]
    fn it_is_that_of_the_whole_body() {
        for more in [
            "",
            r#""labels": {"team": "field", "k\u00e4se": "\"x\""},"#,
            r#""labels": {}, "meta": {"a": "b"},"#,
        ] {
            let text = format!(
                r#"{{"name": "n", "namespace": "home", {more} "type": "batch", "count": 1,
                    "task": {{"name": "t", "engine": {{"kind": "wasm", "params": {{"labels": 1}}}}}}}}"#
            );
            let spec: JobSpec = serde_json::from_str(&text).unwrap();
            // As it is stored: the task is last, whatever it was like before.
            let (_, stored) = spec.encode().unwrap();
            let head = JobHead::decode(&stored).unwrap();
            assert_eq!((&head.namespace, &head.labels), (&spec.namespace, &spec.labels));
            assert_eq!(JobHead::decode(text.as_bytes()).unwrap(), head);
        }
    }

    #[test]
    fn a_record_keeps_short_ones_only() {
        let text = r#"{"namespace": "home", "type": "batch", "count": 1, "task": {"name": "t", "engine": {"kind": "x"}}}"#;
        let mut spec: JobSpec = serde_json::from_str(text).unwrap();
        spec.labels.insert("a".into(), "b".repeat(KEPT_MAX - 5));
        assert_eq!(JobHead::kept(&spec).unwrap().labels, spec.labels);
        spec.labels.insert("c".into(), String::new());
        assert_eq!(JobHead::kept(&spec), None);
    }

    #[test]
    fn the_task_is_not_looked_at() {
        let head = JobHead::decode(br#"{"namespace":"x","labels":{"a":"b"},"task":{"broken"#).unwrap();
        assert_eq!(head.labels["a"], "b");
        for bad in [
            "",
            "[]",
            "{",
            r#"{"namespace":1}"#,
            r#"{"namespace":"x","labels":{"a":1},"task":{}}"#,
            r#"{"labels"#,
        ] {
            JobHead::decode(bad.as_bytes()).unwrap_err();
        }
    }
}
