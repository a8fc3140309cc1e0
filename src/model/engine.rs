//! The WASM engine's parameters in both client generations' forms (job-spec.md section 3).

use std::collections::BTreeMap;

use serde_json::Value;

use super::job::{InputSource, SpecConfig, Task};

/// Where a module is found.
#[derive(Debug, Clone, PartialEq)]
pub enum ModuleRef {
    /// A source of its own (1.4: `EntryModule` is an object).
    Source(InputSource),
    /// The `Target` of one of the task's inputs (1.9: `EntryModule` is a text).
    Target(String),
}

/// What the WASM engine is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct WasmSpec {
    /// The program.
    pub module: ModuleRef,
    /// Modules that it imports from, in order.
    pub imports: Vec<ModuleRef>,
    /// The exported function without parameters that is called; `_start` if none is named.
    pub entrypoint: String,
    /// argv from index 1.
    pub parameters: Vec<String>,
    /// Environment of the engine level, over the task's own.
    pub env: BTreeMap<String, String>,
}

impl WasmSpec {
    /// Reads the engine parameters of `task`.
    ///
    /// # Errors
    /// Every problem, each naming the parameter.
    pub fn parse(task: &Task) -> Result<Self, Vec<String>> {
        let engine = &task.engine;
        let mut problems = Vec::new();
        let module = match engine.param("EntryModule") {
            Some(value) => module(value, "EntryModule", task, &mut problems),
            None => {
                problems.push(
                    "Engine.Params.EntryModule is required (the Target of an input, or a source)".into(),
                );
                None
            }
        };
        let mut imports = Vec::new();
        for (i, value) in list(engine, "ImportModules", &mut problems).iter().enumerate() {
            imports.extend(self::module(value, &format!("ImportModules[{i}]"), task, &mut problems));
        }
        let mut parameters = Vec::new();
        for (i, value) in list(engine, "Parameters", &mut problems).iter().enumerate() {
            match value.as_str() {
                Some(text) if !text.contains('\0') => parameters.push(text.to_owned()),
                _ => problems.push(format!("Engine.Params.Parameters[{i}] must be a text without NUL")),
            }
        }
        let entrypoint = match engine.param("Entrypoint") {
            None => "_start".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "_start".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(_) => {
                problems.push("Engine.Params.Entrypoint must be a text".into());
                String::new()
            }
        };
        let mut env = BTreeMap::new();
        match engine.param("EnvironmentVariables") {
            None => {}
            Some(Value::Object(map)) => {
                for (name, value) in map {
                    match value.as_str() {
                        Some(text)
                            if !name.is_empty() && !name.contains(['=', '\0']) && !text.contains('\0') =>
                        {
                            env.insert(name.clone(), text.to_owned());
                        }
                        _ => {
                            problems.push(format!("Engine.Params.EnvironmentVariables.{name} must be a text"))
                        }
                    }
                }
            }
            Some(_) => problems.push("Engine.Params.EnvironmentVariables must be a map".into()),
        }
        match module {
            Some(module) if problems.is_empty() => Ok(Self { module, imports, entrypoint, parameters, env }),
            _ => Err(problems),
        }
    }
}

fn list<'a>(engine: &'a SpecConfig, name: &str, problems: &mut Vec<String>) -> &'a [Value] {
    match engine.param(name) {
        None => &[],
        Some(Value::Array(items)) => items,
        Some(_) => {
            problems.push(format!("Engine.Params.{name} must be a list"));
            &[]
        }
    }
}

fn module(value: &Value, name: &str, task: &Task, problems: &mut Vec<String>) -> Option<ModuleRef> {
    match value {
        Value::String(target) if task.inputs.iter().any(|i| i.target == *target) => {
            Some(ModuleRef::Target(target.clone()))
        }
        // 1.9 clients may also name a file below an input's target; whether it is there shows when the inputs are.
        Value::String(target) if task.inputs.iter().any(|i| below(target, &i.target)) => {
            Some(ModuleRef::Target(target.clone()))
        }
        Value::String(target) => {
            problems.push(format!("Engine.Params.{name}: no input has the Target '{target}'"));
            None
        }
        Value::Object(_) => match source(value) {
            Some(source) => Some(ModuleRef::Source(source)),
            None => {
                problems.push(format!("Engine.Params.{name}: the source needs a Type"));
                None
            }
        },
        _ => {
            problems.push(format!("Engine.Params.{name} must be an input's Target or a source"));
            None
        }
    }
}

fn below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// `{Source: {Type, Params}, Alias, Target}`, keys without case; a bare `{Type, Params}` serves too.
fn source(value: &Value) -> Option<InputSource> {
    let field = |value: &Value, name: &str| -> Option<Value> {
        let map = value.as_object()?;
        map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
    };
    let inner = field(value, "Source").unwrap_or_else(|| value.clone());
    let kind = field(&inner, "Type")?.as_str()?.trim().to_owned();
    if kind.is_empty() {
        return None;
    }
    let params = match field(&inner, "Params") {
        Some(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let text =
        |name: &str| field(value, name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    Some(InputSource {
        source: super::job::Source(SpecConfig { kind, params }),
        alias: text("Alias"),
        target: text("Target"),
    })
}
