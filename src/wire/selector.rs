//! Label selectors in Kubernetes' syntax, as `labels=` parameters have them.

use std::collections::BTreeMap;

use super::{ApiError, Code};
use crate::model::Constraint;

/// Requirements of one request.
const REQUIREMENTS: usize = 64;

/// What labels must be like: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Constraint>);

impl Selector {
    /// Parses the values of all `labels=` parameters.
    ///
    /// # Errors
    /// One of them is malformed.
    pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, ApiError> {
        let mut all = Vec::new();
        for text in texts {
            for part in split(text) {
                let constraint = requirement(part).ok_or_else(|| malformed(part))?;
                all.push(constraint);
            }
        }
        if all.len() > REQUIREMENTS {
            return Err(ApiError::new(
                Code::BadRequest,
                format!("labels: more than {REQUIREMENTS} requirements"),
            ));
        }
        Ok(Self(all))
    }

    /// The requirements, as a job's constraints have them.
    #[must_use]
    pub fn into_constraints(self) -> Vec<Constraint> {
        self.0
    }

    /// Whether nothing is required.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels are as required.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|constraint| constraint.matches(labels))
    }
}

fn malformed(text: &str) -> ApiError {
    let text: String = text.chars().take(64).collect();
    ApiError::new(Code::BadRequest, format!("labels: '{text}' is not a label selector"))
        .hint("e.g. team=field, team!=field, 'zone in (a,b)', gpu, !gpu, ram>512")
}

/// The parts between commas that are not inside of parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth <= 0
    })
}

fn requirement(text: &str) -> Option<Constraint> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return build(key, "!", &[]);
    }
    if let Some((rest, set)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let (key, word) = rest.trim_end().rsplit_once(char::is_whitespace)?;
        let operator = matches!(word, "in" | "notin").then_some(word)?;
        let values: Vec<&str> = set.split(',').map(str::trim).collect();
        return build(key, operator, &values);
    }
    // Longer operators first: a key has none of these characters.
    for operator in ["!=", "==", "=", ">", "<"] {
        if let Some((key, value)) = text.split_once(operator) {
            let operator = match operator {
                ">" => "gt",
                "<" => "lt",
                other => other,
            };
            if matches!(operator, "gt" | "lt") && value.trim().parse::<i64>().is_err() {
                return None;
            }
            return build(key, operator, &[value.trim()]);
        }
    }
    build(text, "exists", &[])
}

fn build(key: &str, operator: &str, values: &[&str]) -> Option<Constraint> {
    let key = key.trim();
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"!=<>(),".contains(c);
    if key.is_empty() || !key.chars().all(plain) || !values.iter().all(|value| value.chars().all(plain)) {
        return None;
    }
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Some(Constraint { key: key.to_owned(), operator: operator.to_owned(), values })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("team", "field"), ("zone", "a"), ("ram", "512")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn selectors_match_as_kubernetes_selectors_do() {
        for (text, wanted) in [
            ("team=field", true),
            ("team==field", true),
            ("team = field", true),
            ("team=x", false),
            ("none=x", false),
            ("team!=field", false),
            ("none!=x", true),
            ("bacalhau_canary!=true", true),
            ("zone in (a,b)", true),
            ("zone in ( b , a )", true),
            ("zone in (b)", false),
            ("zone notin (a)", false),
            ("none notin (a)", true),
            ("team", true),
            ("none", false),
            ("!team", false),
            ("!none", true),
            ("ram>256", true),
            ("ram<256", false),
            ("zone>1", false),
            ("team=field,zone in (a,b),!none", true),
            ("team=field,zone in (b,c)", false),
            ("none=", false),
        ] {
            let selector = Selector::parse([text].into_iter()).unwrap();
            assert_eq!(selector.matches(&labels()), wanted, "{text}");
        }
        let several = Selector::parse(["team=field", "zone=b"].into_iter()).unwrap();
        assert!(!several.matches(&labels()) && !several.is_empty());
        assert!(Selector::parse([].into_iter()).unwrap().matches(&labels()));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "",
            "=",
            "a,,b",
            "a in",
            "a in (",
            "a in b)",
            "a of (b)",
            "a b",
            "a>b",
            "a=b=c",
            "!",
            "a in (b,(c)",
            ",",
        ] {
            assert!(Selector::parse([text].into_iter()).is_err(), "{text:?}");
        }
        let many = vec!["a"; REQUIREMENTS + 1].join(",");
        assert!(Selector::parse([many.as_str()].into_iter()).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a-c!=<>(), in]{0,24}") {
            let _ = Selector::parse([text.as_str()].into_iter());
        }
    }
}
