//! The engine without a compiler: wasmi.
//!
//! Guests run on fuel, a slice at a time: whenever one is used up, the interrupt is looked at and the guest resumed.

use wasmi::errors::{ErrorKind, LinkerError, MemoryError, TableError};
use wasmi::{
    Caller, Config, CustomFuelCosts, Error, Extern, ExternType, Func, Instance, Linker, Module, OperatorCost,
    ResourceLimiter, ResumableCall, Store, TrapCode, Val,
};
use wasmi_core::LimiterError;

use super::ending::{Ending, conclude, interrupted, open_host};
use super::limits::{INSTANCES_MAX, Limits, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::module::{self, START};
use super::wasi::{self, Fault, Memory, Stop, Wasi};
use super::{Engine, ModuleFile, Run};
use crate::model::Failure;

/// Fuel between two looks at the interrupt: about as many instructions, well below a millisecond.
const SLICE: u64 = 10_000;

/// Bytes that an instruction on a range moves for one unit of fuel. More than all tables hold: `table.grow`, the one
/// instruction that wasmi 2.0 cannot resume after it ran out of fuel, then never does.
const BYTES_PER_FUEL: u32 = 4 << 20;
const _: () = assert!(TABLE_ELEMENTS_MAX * 16 < BYTES_PER_FUEL as usize);
/// Fuel of such an instruction besides: 40 of them, or at most 160 MiB, end a slice.
const RANGE_COST: u8 = 250;

/// Calls that may be nested, and bytes of the interpreter's own stack.
const CALLS_MAX: usize = 16_000;
const STACK_MAX: usize = 4 << 20;

/// wasmi. Every run has an engine of its own, so that nothing of its module stays.
#[derive(Debug, Default)]
pub struct Interpreted;

/// What a store holds.
struct Guest {
    wasi: Wasi,
    limits: Limits,
    stop: Option<Stop>,
}

impl Interpreted {
    /// Costs nothing until a guest runs.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// What is asked of wasmi.
pub(super) fn config() -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .fuel_cost(CustomFuelCosts {
            bytes_copied_per_fuel: BYTES_PER_FUEL,
            fuel_per_bytes_translated: 0,
            fuel_per_bytes_validated: 0,
        })
        .operator_cost(OperatorCost {
            memory_copy: RANGE_COST,
            memory_fill: RANGE_COST,
            memory_grow: RANGE_COST,
            memory_init: RANGE_COST,
            table_copy: RANGE_COST,
            table_fill: RANGE_COST,
            table_grow: RANGE_COST,
            table_init: RANGE_COST,
            ..OperatorCost::default()
        })
        .set_max_recursion_depth(CALLS_MAX)
        .set_max_stack_height(STACK_MAX)
        .ignore_custom_sections(true);
    config
}

impl Engine for Interpreted {
    fn name(&self) -> &'static str {
        "wasmi"
    }

    fn run(&self, run: &Run) -> Result<i32, Failure> {
        module::check_memory(run)?;
        let engine = wasmi::Engine::new(&config());
        let main = translate(&engine, &run.module)?;
        let imports =
            run.imports.iter().map(|i| translate(&engine, &i.module)).collect::<Result<Vec<_>, _>>()?;
        if run.interrupt.cause().is_some() {
            return Err(interrupted(run, None));
        }
        let guest = Guest { wasi: open_host(run)?, limits: Limits::new(run.memory), stop: None };
        let mut store = Store::new(&engine, guest);
        store.limiter(|guest| &mut guest.limits);
        let ending = drive(run, &main, &imports, &mut store)?;
        let Guest { mut wasi, limits, .. } = store.into_data();
        conclude(ending, run, &mut wasi, &limits)
    }
}

fn translate(engine: &wasmi::Engine, file: &ModuleFile) -> Result<Module, Failure> {
    let bytes = module::read(file)?;
    let without_start = module::without_start(&bytes);
    Module::new(engine, without_start.as_ref().unwrap_or(&bytes))
        .map_err(|e| module::malformed(file, &e.to_string()))
}

/// From instances to the end of the entry function.
fn drive(run: &Run, main: &Module, imports: &[Module], store: &mut Store<Guest>) -> Result<Ending, Failure> {
    let mut linker = Linker::new(store.engine());
    let linked = link_wasi(&mut linker);
    linked.map_err(|e| module::malformed(&run.module, &e.to_string()))?;
    for (module, import) in imports.iter().zip(&run.imports) {
        let instance = match instantiate(&linker, run, &import.module, module, store)? {
            Ok(instance) => instance,
            Err(ending) => return Ok(ending),
        };
        for name in &import.names {
            linker
                .instance(&mut *store, name, instance)
                .map_err(|e| module::invalid(&import.module, &format!("clashes with another: {e}")))?;
        }
    }
    let instance = match instantiate(&linker, run, &run.module, main, store)? {
        Ok(instance) => instance,
        Err(ending) => return Ok(ending),
    };
    let function = entry(run, main, instance, store)?;
    Ok(call(function, run, store))
}

/// An instance whose start function and `_initialize`, if it has them, have run.
fn instantiate(
    linker: &Linker<Guest>,
    run: &Run,
    file: &ModuleFile,
    module: &Module,
    store: &mut Store<Guest>,
) -> Result<Result<Instance, Ending>, Failure> {
    // No start section is left in it: nothing runs here.
    let instance = match linker.instantiate_and_start(&mut *store, module) {
        Ok(instance) => instance,
        Err(error) => {
            return match error.kind() {
                ErrorKind::Linker(LinkerError::MissingDefinition { name, .. }) => {
                    Err(module::unknown_import(file, name.module(), name.name()))
                }
                ErrorKind::TrapCode(_) => Ok(Err(ending(&error, store))),
                _ => Ok(Err(Ending::NotInstantiated(error.to_string()))),
            };
        }
    };
    for name in [START, "_initialize"] {
        if let Some(function) = instance.get_func(&*store, name)
            && function.ty(&*store).params().is_empty()
        {
            match call(function, run, store) {
                Ending::Returned => {}
                ending => return Ok(Err(ending)),
            }
        }
    }
    Ok(Ok(instance))
}

fn entry(run: &Run, main: &Module, instance: Instance, store: &Store<Guest>) -> Result<Func, Failure> {
    let callable = |ty: &ExternType| matches!(ty, ExternType::Func(f) if f.params().is_empty());
    let functions =
        || main.exports().filter(|e| callable(e.ty()) && e.name() != START).map(|e| e.name()).collect();
    match instance.get_func(store, &run.spec.entrypoint) {
        None => Err(module::no_entry(run, "exports no function", functions())),
        Some(function) if !function.ty(store).params().is_empty() => {
            Err(module::no_entry(run, "wants parameters for", functions()))
        }
        Some(function) => Ok(function),
    }
}

/// Runs slice after slice. Results are allowed, and ignored.
fn call(function: Func, run: &Run, store: &mut Store<Guest>) -> Ending {
    let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
    let mut fuel = SLICE;
    let mut paused = None;
    loop {
        if let Err(error) = store.set_fuel(fuel) {
            return ending(&error, store);
        }
        let step = match paused.take() {
            None => function.call_resumable(&mut *store, &[], &mut results),
            Some(ResumableCall::OutOfFuel(call)) => call.resume(&mut *store, &mut results),
            Some(ResumableCall::HostTrap(call)) => Err(call.into_host_error()),
            Some(ResumableCall::Finished) => return Ending::Returned,
        };
        match step {
            Ok(ResumableCall::OutOfFuel(call)) => {
                if run.interrupt.cause().is_some() {
                    return Ending::Stopped(Stop::Interrupted);
                }
                fuel = SLICE.max(call.required_fuel());
                paused = Some(ResumableCall::OutOfFuel(call));
            }
            Ok(done) => paused = Some(done),
            Err(error) => return ending(&error, store),
        }
    }
}

fn ending(error: &Error, store: &Store<Guest>) -> Ending {
    if let Some(stop) = store.data().stop {
        return Ending::Stopped(stop);
    }
    Ending::Trapped(match error.kind() {
        // As wasmtime says it.
        ErrorKind::TrapCode(TrapCode::IndirectCallToNull) => "uninitialized element".to_owned(),
        _ => error.to_string(),
    })
}

/// A guest's call: with its own memory, and its stop remembered.
fn enter(
    caller: &mut Caller<'_, Guest>,
    function: &mut dyn FnMut(&mut Wasi, &mut Memory) -> wasi::Answer,
) -> Result<u32, Error> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(Error::new("the module exports no memory named 'memory'"));
    };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    let answer = function(&mut guest.wasi, &mut Memory::new(bytes));
    match guest.wasi.settle(answer) {
        Ok(()) => Ok(0),
        Err(Fault::Errno(number)) => Ok(number.0.into()),
        Err(Fault::Stop(stop)) => {
            guest.stop = Some(stop);
            Err(Error::new("stopped"))
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
    ) -> Result<bool, LimiterError> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.memory_growing(current, desired))
    }

    fn memory_grow_failed(&mut self, _: &MemoryError) -> Result<(), LimiterError> {
        self.memory_grow_failed();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.table_growing(current, desired))
    }

    fn table_grow_failed(&mut self, _: &TableError) -> Result<(), LimiterError> {
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
