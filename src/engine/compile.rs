//! From a module to code that runs: kept from before, or compiled.
//!
//! The compiler cannot be interrupted, so it works on a thread that nobody has to wait for: when the execution is
//! stopped, it is left to finish what it does (and to keep the result), and the execution ends.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use wasmtime::{Engine, Error, Module};

use super::cache::ModuleCache;
use super::ending::interrupted;
use super::module::{self, MODULE_MAX};
use super::{ModuleFile, Run, THREAD_STACK};
use crate::model::{Failure, FailureCode, Sha256};

/// Compilations that go on although nobody waits for them. While there are as many, nothing else is compiled: each
/// takes a core, and memory for a module of up to [`MODULE_MAX`].
const LEFT_MAX: usize = 2;

/// Compiles for one engine.
#[derive(Clone)]
pub struct Compiler {
    engine: Engine,
    cache: Option<Arc<ModuleCache>>,
    left: Arc<AtomicUsize>,
}

/// What the two threads tell each other.
enum State {
    Working,
    Done(Result<Module, Error>),
    Left,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

impl Compiler {
    /// Keeps what it compiles in `cache`, if there is one.
    pub fn new(engine: Engine, cache: Option<Arc<ModuleCache>>) -> Self {
        Self { engine, cache, left: Arc::default() }
    }

    /// The module, ready to be instantiated.
    ///
    /// # Errors
    /// It is no module that can be used, or the execution was stopped.
    pub fn compile(&self, file: &ModuleFile, run: &Run) -> Result<Module, Failure> {
        let bytes = module::read(file)?;
        let key = self.key(&bytes);
        if let Some(module) = self.kept(&key) {
            return Ok(module);
        }
        if self.left.load(Ordering::SeqCst) >= LEFT_MAX {
            let text = "the compiler is still busy with modules of executions that were stopped";
            return Err(Failure::new(FailureCode::Internal, text).hint("try again later"));
        }
        let shared: Shared = Arc::new((Mutex::new(State::Working), Condvar::new()));
        let work = (self.clone(), Arc::clone(&shared));
        let body = move || work.0.work(&bytes, &key, &work.1);
        std::thread::Builder::new()
            .name("compiler".into())
            .stack_size(THREAD_STACK)
            .spawn(body)
            .map_err(|e| Failure::new(FailureCode::Internal, format!("no thread to compile on: {e}")))?;
        match self.wait(&shared, run) {
            Some(result) => result.map_err(|e| module::malformed(file, &format!("{e:#}"))),
            None => Err(interrupted(run, None)),
        }
    }

    /// On the compiler's thread.
    fn work(&self, bytes: &[u8], key: &Sha256, shared: &Shared) {
        let result = Module::new(&self.engine, bytes);
        if let (Some(cache), Ok(module)) = (&self.cache, &result) {
            match module.serialize() {
                Ok(body) => cache.put(key, &body),
                Err(e) => log::warn!("a compiled module cannot be kept: {e:#}"),
            }
        }
        let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Left) {
            self.left.fetch_sub(1, Ordering::SeqCst);
        } else {
            *state = State::Done(result);
        }
        shared.1.notify_all();
    }

    /// What came of it; `None` if the execution was stopped first.
    fn wait(&self, shared: &Shared, run: &Run) -> Option<Result<Module, Error>> {
        let waker = Arc::clone(shared);
        let _registration = run.interrupt.on_raise(move || {
            // Whoever holds the lock has not gone to sleep yet, or already looked at the interrupt.
            drop(waker.0.lock().unwrap_or_else(PoisonError::into_inner));
            waker.1.notify_all();
        });
        let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *state, State::Working) {
                State::Done(result) => return Some(result),
                State::Working | State::Left if run.interrupt.cause().is_some() => {
                    *state = State::Left;
                    self.left.fetch_add(1, Ordering::SeqCst);
                    return None;
                }
                State::Working | State::Left => {
                    state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// What a module's compiled form depends on: its bytes, and version and settings of the compiler.
    fn key(&self, bytes: &[u8]) -> Sha256 {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        Sha256::of(&[&Sha256::of(bytes).0[..], &hasher.finish().to_le_bytes()].concat())
    }

    fn kept(&self, key: &Sha256) -> Option<Module> {
        let body = self.cache.as_ref()?.get(key)?;
        // SAFETY: the bytes are what `Module::serialize` gave: their digest was checked, and they come from a
        // directory that only this user can write to (`ModuleCache::open`). The key holds the engine's version and
        // settings, which `deserialize` checks once more.
        match unsafe { Module::deserialize(&self.engine, &body) } {
            Ok(module) => Some(module),
            Err(e) => {
                log::warn!("a compiled module is of no use and compiled again: {e:#}");
                None
            }
        }
    }
}

/// The bound on what is held in memory by compilations that nobody waits for.
const _: () = assert!(MODULE_MAX.0 * LEFT_MAX as u64 <= 128 << 20);
