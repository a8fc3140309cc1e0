//! Answers of Bacalhau 1.4, which numbers the states of executions otherwise (http-api.md 4.2), as those of 1.9.

use serde_json::Value;

use crate::model::ExecutionState;
use crate::wire::Dialect;

/// The objects that hold such numbers, and their members that do.
const STATES: [(&str, &[&str]); 2] =
    [("ComputeState", &["StateType"]), ("ExecutionState", &["Previous", "New"])];

/// Puts 1.9's numbers in the place of 1.4's, however deep they lie: no deeper than the parser goes.
pub fn renumber(answer: &mut Value) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(renumber),
        Value::Object(members) => {
            for (name, value) in members {
                match STATES.iter().find(|(of, _)| of == name) {
                    Some((_, codes)) => codes.iter().for_each(|code| renumber_state(value.get_mut(code))),
                    None => renumber(value),
                }
            }
        }
        _ => {}
    }
}

fn renumber_state(code: Option<&mut Value>) {
    let Some(code) = code else { return };
    let means = |state: &&ExecutionState| code.as_u64() == Some(Dialect::A.execution_code(**state).into());
    // 1.4 says of what runs, too, that its bid was accepted: the first that the number stands for.
    if let Some(state) = ExecutionState::ALL.iter().find(means) {
        *code = Dialect::B.execution_code(*state).into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_get_the_numbers_of_later_versions_and_nothing_else_does() {
        let mut answer = json!({
            "Items": [
                {"ComputeState": {"StateType": 7, "Message": "7"}, "DesiredState": {"StateType": 2}, "Revision": 7},
                {"ComputeState": {"StateType": 5}}, {"ComputeState": {"StateType": 8}}, {"ComputeState": {"StateType": 0}},
            ],
            "History": {"Items": [
                {"ExecutionState": {"Previous": 5, "New": 9}, "JobState": {"Previous": "Running", "New": "Stopped"}},
            ]},
            "ComputeState": null,
        });
        renumber(&mut answer);
        let wanted = json!({
            "Items": [
                {"ComputeState": {"StateType": 9, "Message": "7"}, "DesiredState": {"StateType": 2}, "Revision": 7},
                {"ComputeState": {"StateType": 5}}, {"ComputeState": {"StateType": 10}}, {"ComputeState": {"StateType": 0}},
            ],
            "History": {"Items": [
                {"ExecutionState": {"Previous": 5, "New": 11}, "JobState": {"Previous": "Running", "New": "Stopped"}},
            ]},
            "ComputeState": null,
        });
        assert_eq!(answer, wanted);
    }
}
