//! The engine with a compiler: wasmtime and Cranelift.

use std::sync::{Arc, OnceLock};

use wasmtime::{
    Caller, Config, Error, Extern, ExternType, Func, Instance, Linker, Module, OptLevel, ResourceLimiter,
    Store, Trap, UpdateDeadline, Val,
};

use super::cache::ModuleCache;
use super::compile::Compiler;
use super::ending::{Ending, conclude, interrupted, open_host};
use super::limits::{INSTANCES_MAX, Limits, MEMORIES_MAX, TABLES_MAX};
use super::module;
use super::wasi::{self, Fault, Memory, Stop, Wasi};
use super::{Engine, ModuleFile, Run};
use crate::model::{Failure, FailureCode};

/// Stack of the guest; what is deeper traps. The rest of [`super::THREAD_STACK`] is for the compiler and the host.
const GUEST_STACK: usize = 1 << 20;

/// An address space below this has no room for the 4 GiB that a memory without bounds checks reserves.
const ROOMY: u64 = 64 << 30;

/// wasmtime. Made when the first guest runs.
#[derive(Default)]
pub struct Compiled {
    shared: OnceLock<Result<Shared, String>>,
    cache: Option<Arc<ModuleCache>>,
}

struct Shared {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
    compiler: Compiler,
}

/// What a store holds.
struct Guest {
    wasi: Wasi,
    limits: Limits,
    stop: Option<Stop>,
}

impl Compiled {
    /// Costs nothing until a guest runs. Keeps compiled modules in `cache`, if there is one.
    #[must_use]
    pub fn new(cache: Option<Arc<ModuleCache>>) -> Self {
        Self { shared: OnceLock::new(), cache }
    }

    fn shared(&self) -> Result<&Shared, Failure> {
        let new = || Shared::new(self.cache.clone()).map_err(|e| format!("{e:#}"));
        self.shared.get_or_init(new).as_ref().map_err(|e| {
            Failure::new(
                FailureCode::Internal,
                format!("the WASM compiler does not work on this machine: {e}"),
            )
        })
    }
}

impl Shared {
    fn new(cache: Option<Arc<ModuleCache>>) -> Result<Self, Error> {
        let engine = wasmtime::Engine::new(&config())?;
        let mut linker = Linker::new(&engine);
        link_wasi(&mut linker)?;
        Ok(Self { compiler: Compiler::new(engine.clone(), cache), engine, linker })
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_memory64(false)
        .generate_address_map(false);
    let address_space = rustix::process::getrlimit(rustix::process::Resource::As).current;
    if address_space.is_some_and(|bytes| bytes < ROOMY) {
        config.memory_reservation(0).memory_guard_size(64 << 10).memory_reservation_for_growth(1 << 20);
    }
    config
}

impl Engine for Compiled {
    fn name(&self) -> &'static str {
        "wasmtime"
    }

    fn run(&self, run: &Run) -> Result<i32, Failure> {
        let shared = self.shared()?;
        module::check_memory(run)?;
        let compiler = &shared.compiler;
        let main = compiler.compile(&run.module, run)?;
        let imports =
            run.imports.iter().map(|i| compiler.compile(&i.module, run)).collect::<Result<Vec<_>, _>>()?;
        if run.interrupt.cause().is_some() {
            return Err(interrupted(run, None));
        }
        let guest = Guest { wasi: open_host(run)?, limits: Limits::new(run.memory), stop: None };
        let mut store = Store::new(&shared.engine, guest);
        store.limiter(|guest| &mut guest.limits);
        // Raising an interrupt moves the epoch, and every guest then looks at its own.
        store.set_epoch_deadline(1);
        let interrupt = run.interrupt.clone();
        store.epoch_deadline_callback(move |_| match interrupt.cause() {
            Some(_) => Ok(UpdateDeadline::Interrupt),
            None => Ok(UpdateDeadline::Continue(1)),
        });
        let engine = shared.engine.clone();
        let registration = run.interrupt.on_raise(move || engine.increment_epoch());
        let ending = shared.drive(run, &main, &imports, &mut store)?;
        drop(registration);
        let Guest { mut wasi, limits, .. } = store.into_data();
        conclude(ending, run, &mut wasi, &limits)
    }
}

impl Shared {
    /// From instances to the end of the entry function.
    fn drive(
        &self,
        run: &Run,
        main: &Module,
        imports: &[Module],
        store: &mut Store<Guest>,
    ) -> Result<Ending, Failure> {
        let mut own;
        let mut linker = &self.linker;
        if !imports.is_empty() {
            own = self.linker.clone();
            for (module, import) in imports.iter().zip(&run.imports) {
                let instance = match instantiate(&own, &import.module, module, store)? {
                    Ok(instance) => instance,
                    Err(ending) => return Ok(ending),
                };
                for name in &import.names {
                    own.instance(&mut *store, name, instance).map_err(|e| {
                        module::invalid(&import.module, &format!("clashes with another: {e:#}"))
                    })?;
                }
            }
            linker = &own;
        }
        let instance = match instantiate(linker, &run.module, main, store)? {
            Ok(instance) => instance,
            Err(ending) => return Ok(ending),
        };
        let function = entry(run, main, instance, store)?;
        Ok(call(function, store).unwrap_or_else(|error| ending(&error, store)))
    }
}

/// An instance whose `_initialize`, if it has one, has run.
fn instantiate(
    linker: &Linker<Guest>,
    file: &ModuleFile,
    module: &Module,
    store: &mut Store<Guest>,
) -> Result<Result<Instance, Ending>, Failure> {
    for import in module.imports() {
        if linker.get_by_import(&mut *store, &import).is_none() {
            return Err(module::unknown_import(file, import.module(), import.name()));
        }
    }
    let instance = match linker.instantiate(&mut *store, module) {
        Ok(instance) => instance,
        // A start function ended it.
        Err(error) if error.is::<Trap>() || store.data().stop.is_some() => {
            return Ok(Err(ending(&error, store)));
        }
        Err(error) => return Ok(Err(Ending::NotInstantiated(format!("{error:#}")))),
    };
    if let Some(initialize) = instance.get_func(&mut *store, "_initialize")
        && initialize.ty(&*store).params().len() == 0
        && let Err(error) = call(initialize, store)
    {
        return Ok(Err(ending(&error, store)));
    }
    Ok(Ok(instance))
}

fn entry(run: &Run, main: &Module, instance: Instance, store: &mut Store<Guest>) -> Result<Func, Failure> {
    let callable = |ty: &ExternType| matches!(ty, ExternType::Func(f) if f.params().len() == 0);
    let functions = || main.exports().filter(|e| callable(&e.ty())).map(|e| e.name()).collect();
    match instance.get_func(&mut *store, &run.spec.entrypoint) {
        None => Err(module::no_entry(run, "exports no function", functions())),
        Some(function) if function.ty(&*store).params().len() > 0 => {
            Err(module::no_entry(run, "wants parameters for", functions()))
        }
        Some(function) => Ok(function),
    }
}

/// Results are allowed, and ignored.
fn call(function: Func, store: &mut Store<Guest>) -> Result<Ending, Error> {
    let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
    function.call(store, &[], &mut results)?;
    Ok(Ending::Returned)
}

fn ending(error: &Error, store: &Store<Guest>) -> Ending {
    if let Some(stop) = store.data().stop {
        return Ending::Stopped(stop);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Ending::Stopped(Stop::Interrupted),
        Some(trap) => Ending::Trapped(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
        None => Ending::Trapped(format!("{error:#}")),
    }
}

/// A guest's call: with its own memory, and its stop remembered.
fn enter(
    caller: &mut Caller<'_, Guest>,
    function: &mut dyn FnMut(&mut Wasi, &mut Memory) -> wasi::Answer,
) -> Result<u32, Error> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(Error::msg("the module exports no memory named 'memory'"));
    };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    let answer = function(&mut guest.wasi, &mut Memory::new(bytes));
    match guest.wasi.settle(answer) {
        Ok(()) => Ok(0),
        Err(Fault::Errno(number)) => Ok(number.0.into()),
        Err(Fault::Stop(stop)) => {
            guest.stop = Some(stop);
            Err(Error::msg("stopped"))
        }
    }
}

macro_rules! define {
    ($($name:ident($($arg:ident: $ty:ty),* $(,)?),)*) => {
        fn link_wasi(linker: &mut Linker<Guest>) -> Result<(), Error> {
            $(linker.func_wrap(
                wasi::MODULE,
                stringify!($name),
                |mut caller: Caller<'_, Guest>, $($arg: $ty),*| {
                    enter(&mut caller, &mut |wasi, memory| wasi.$name(memory, $($arg),*))
                },
            )?;)*
            linker.func_wrap(wasi::MODULE, "proc_exit", |mut caller: Caller<'_, Guest>, code: u32| {
                enter(&mut caller, &mut |_, _| Err(Wasi::proc_exit(code))).map(drop)
            })?;
            Ok(())
        }
    };
}
wasi::each_function!(define);

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.memory_growing(current, desired))
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<(), Error> {
        self.memory_grow_failed();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, Error> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.table_growing(current, desired))
    }

    fn table_grow_failed(&mut self, _: Error) -> Result<(), Error> {
        self.table_grow_failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
