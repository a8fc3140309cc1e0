//! One behaviour, checked over every engine: real guests (`guests/`) and small modules written out as text.

#![cfg(any(feature = "wasm", feature = "interpreter"))]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::testing::TempDir;
use super::{Engine, ImportFile, ModuleFile, Mount, Run, Scratch, THREAD_STACK};
use crate::model::{Bytes, Failure, FailureCode, ModuleRef, ResultPath, WasmSpec};
use crate::sys::{Bell, Interrupt, Meter};

#[cfg(all(feature = "wasm", target_pointer_width = "64"))]
mod caching;
mod files;
mod hostile;
mod limits;
mod programs;

/// Makes each function that takes an engine a test of each engine.
macro_rules! over_engines {
    ($($test:ident),* $(,)?) => {
        #[cfg(all(feature = "wasm", target_pointer_width = "64"))]
        mod compiled {
            $(#[test]
            fn $test() {
                let engine: super::AnyEngine = std::sync::Arc::new(crate::engine::compiled::Compiled::new(None));
                super::$test(&engine);
            })*
        }
        #[cfg(any(feature = "interpreter", not(target_pointer_width = "64")))]
        mod interpreted {
            $(#[test]
            fn $test() {
                let engine: super::AnyEngine = std::sync::Arc::new(crate::engine::interpreted::Interpreted::new());
                super::$test(&engine);
            })*
        }
    };
}
use over_engines;

type AnyEngine = Arc<dyn Engine>;

const PROBE: &[u8] = include_bytes!("../../../guests/probe.wasm");

/// No guest of these tests needs nearly as long; one that does not stop fails its test.
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest about to run.
struct Bench {
    dir: TempDir,
    module: Vec<u8>,
    imports: Vec<(Vec<String>, Vec<u8>)>,
    entrypoint: String,
    parameters: Vec<String>,
    env: BTreeMap<String, String>,
    inputs: Vec<Mount>,
    outputs: Vec<ResultPath>,
    memory: Bytes,
    disk: Bytes,
    stream_cap: Bytes,
    interrupt: Interrupt,
}

/// What it left.
struct Ran {
    result: Result<i32, Failure>,
    stdout: String,
    stderr: String,
    scratch: Scratch,
    meter: Arc<Meter>,
    /// Keeps the files.
    _dir: TempDir,
}

impl Bench {
    fn new(module: &[u8]) -> Self {
        Self {
            dir: TempDir::new(),
            module: module.to_vec(),
            imports: Vec::new(),
            entrypoint: "_start".into(),
            parameters: Vec::new(),
            env: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            memory: Bytes::mib(64),
            disk: Bytes::mib(64),
            stream_cap: Bytes::mib(16),
            interrupt: Interrupt::new(),
        }
    }

    fn wat(text: &str) -> Self {
        Self::new(&wat::parse_str(text).unwrap())
    }

    /// The probe with those commands; words are separated by blanks.
    fn probe(commands: &[&str]) -> Self {
        let mut bench = Self::new(PROBE);
        bench.parameters = commands.join(" ; ").split(' ').map(str::to_owned).collect();
        bench
    }

    fn input(mut self, guest: &str, host: &Path, writable: bool) -> Self {
        self.inputs.push(Mount { guest: guest.into(), host: host.into(), writable, handle: None });
        self
    }

    fn output(mut self, name: &str, path: &str) -> Self {
        self.outputs.push(ResultPath { name: name.into(), path: path.into() });
        self
    }

    /// A host directory that the guest does not see unless it is mounted.
    fn host(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Arc<File> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Arc::new(File::open(path).unwrap())
    }

    fn run(self, engine: &AnyEngine) -> Ran {
        self.start(engine).end()
    }

    fn start(self, engine: &AnyEngine) -> Running {
        let meter = Arc::new(Meter::new(self.disk));
        let scratch = Scratch::create(self.dir.path().join("scratch"), &meter).unwrap();
        let module = ModuleFile { name: "/guest.wasm".into(), file: self.file("guest.wasm", &self.module) };
        let import = |(i, (names, bytes)): (usize, &(Vec<String>, Vec<u8>))| ImportFile {
            names: names.clone(),
            module: ModuleFile { name: names.join("|"), file: self.file(&format!("import{i}.wasm"), bytes) },
        };
        let bell = Bell::default();
        let run = Run {
            scratch: scratch.clone(),
            module,
            imports: self.imports.iter().enumerate().map(import).collect(),
            spec: WasmSpec {
                module: ModuleRef::Target("/guest.wasm".into()),
                imports: Vec::new(),
                entrypoint: self.entrypoint.clone(),
                parameters: self.parameters.clone(),
                env: BTreeMap::new(),
            },
            env: self.env.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            memory: self.memory,
            meter: Arc::clone(&meter),
            interrupt: self.interrupt.clone(),
            stream_cap: self.stream_cap,
            bell: bell.clone(),
        };
        let (sender, result) = mpsc::channel();
        let engine = Arc::clone(engine);
        let body = move || sender.send(engine.run(&run));
        std::thread::Builder::new().stack_size(THREAD_STACK).spawn(body).unwrap();
        Running { result, scratch, meter, bell, bench: self }
    }
}

/// A guest on its thread.
struct Running {
    result: mpsc::Receiver<Result<i32, Failure>>,
    scratch: Scratch,
    meter: Arc<Meter>,
    bell: Bell,
    bench: Bench,
}

impl Running {
    /// Waits until the guest has printed something.
    fn printed(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let printed = || std::fs::metadata(self.scratch.stdout()).is_ok_and(|m| m.len() > 0);
        let heard = async {
            while !printed() {
                self.bell.heard().await;
            }
        };
        let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, heard).await });
        waited.expect("the guest printed nothing");
    }

    fn end(self) -> Ran {
        let result = self.result.recv_timeout(PATIENCE).expect("the guest did not end");
        let text =
            |path: PathBuf| std::fs::read(path).map_or(String::new(), |b| String::from_utf8_lossy(&b).into());
        Ran {
            result,
            stdout: text(self.scratch.stdout()),
            stderr: text(self.scratch.stderr()),
            scratch: self.scratch,
            meter: self.meter,
            _dir: self.bench.dir,
        }
    }
}

impl Ran {
    /// Lines of standard output of a guest that ended with exit code 0.
    fn lines(&self) -> Vec<&str> {
        assert_eq!(self.result, Ok(0), "stdout: {} stderr: {}", self.stdout, self.stderr);
        self.stdout.lines().collect()
    }

    fn failure(&self) -> (FailureCode, &str) {
        match &self.result {
            Err(failure) => (failure.code, &failure.message),
            Ok(code) => panic!("ended with {code}; stdout: {} stderr: {}", self.stdout, self.stderr),
        }
    }

    fn result_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.result().join(name)).unwrap()
    }
}
