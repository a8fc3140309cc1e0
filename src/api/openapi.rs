//! The API described for programs: `openapi.json`, carried packed.

use std::io::Read;

use crate::wire::{ApiError, Code};

use super::ask::Reply;

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));

/// `GET openapi.json`.
pub fn get() -> Result<Reply, ApiError> {
    let mut text = Vec::new();
    let read = flate2::read::GzDecoder::new(PACKED).read_to_end(&mut text);
    read.map_err(|error| ApiError::new(Code::InternalError, format!("it cannot be unpacked: {error}")))?;
    Ok(Reply::text(text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::rules_of_api;
    use super::super::table::ROUTES;
    use super::*;

    fn document() -> Value {
        serde_json::from_slice(&get().unwrap().body).unwrap()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<(String, String)> = ROUTES
            .iter()
            .flat_map(|route| route.methods.iter().map(|(method, _)| (route.path.into(), (*method).into())))
            .collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn what_needs_no_token_is_said_to_need_none() {
        for (path, methods) in document()["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let open = rules_of_api(&method.to_uppercase(), &path.replace(['{', '}'], "")).open;
                let said = operation["security"].as_array().is_some_and(Vec::is_empty);
                assert_eq!(open, said, "{method} {path}");
            }
        }
    }

    #[test]
    fn references_lead_somewhere_and_parameters_are_those_of_the_path() {
        let document = document();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            open.extend(value.as_array().into_iter().flatten());
            open.extend(value.as_object().into_iter().flat_map(|fields| fields.values()));
        }
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let given = operation["parameters"].as_array().cloned().unwrap_or_default();
                let given = given.iter().map(|parameter| match parameter["$ref"].as_str() {
                    Some(reference) => document.pointer(&reference[1..]).unwrap(),
                    None => parameter,
                });
                let given: Vec<&Value> = given.collect();
                let variable: Vec<&str> = given
                    .iter()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                let wanted = path.split('/').filter_map(|part| part.strip_prefix('{'));
                let wanted: Vec<&str> = wanted.map(|part| part.trim_end_matches('}')).collect();
                assert_eq!(variable, wanted, "{method} {path}");
            }
        }
    }
}
