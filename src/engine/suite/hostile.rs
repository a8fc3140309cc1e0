//! Guests that mean harm, and files that are no guests.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::engine::wasi::each_function;
use crate::sys::Cause;

over_engines!(
    wild_arguments_to_every_function,
    functions_without_a_memory,
    what_is_not_a_module,
    what_is_another_kind_of_module,
    random_bytes,
    a_damaged_module,
    long_names_in_messages,
);

/// Name and argument types of every function.
macro_rules! signatures {
    ($($name:ident($($arg:ident: $ty:ty),* $(,)?),)*) => {
        const FUNCTIONS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($ty)),*])),*];
    };
}
each_function!(signatures);

/// A module that calls every function, each time with other arguments, most of them out of bounds.
fn wild(mut seed: u64, calls: u32) -> String {
    const WORDS: [u64; 14] =
        [0, 1, 2, 3, 4, 5, 8, 100, 65_520, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff];
    const LONG: [u64; 4] = [1 << 40, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX];
    // A linear congruential generator: the same module for the same seed.
    let mut next = move |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % n
    };
    let wasm = |ty: &str| if ty.ends_with("64") { "i64" } else { "i32" };
    let mut imports = String::new();
    let mut body = String::new();
    for (name, args) in FUNCTIONS {
        let params: String = args.iter().map(|ty| format!(" {}", wasm(ty))).collect();
        imports += &format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param{params}) (result i32)))\n"
        );
    }
    for _ in 0..calls {
        for (name, args) in FUNCTIONS {
            // Nothing that earlier calls left may be taken for an hour's sleep.
            if *name == "poll_oneoff" {
                body += "(memory.fill (i32.const 0) (i32.const 0) (i32.const 65536))\n";
            }
            let mut values = String::new();
            for ty in *args {
                let all = WORDS.len() + if wasm(ty) == "i64" { LONG.len() } else { 0 };
                let i = next(all);
                let value = WORDS.get(i).copied().unwrap_or_else(|| LONG[i - WORDS.len()]);
                values += &format!(" ({}.const {value})", wasm(ty));
            }
            body += &format!("(drop (call ${name}{values}))\n");
        }
    }
    // Something to find in memory: a path at 100, and lists of buffers that point everywhere.
    format!(
        r#"(module {imports} (memory (export "memory") 1)
            (data (i32.const 0) "\64\00\00\00\08\00\00\00\ff\ff\ff\ff\ff\ff\ff\ff")
            (data (i32.const 100) "a/../b\00x/tmp/../../..")
            (func (export "_start") {body}))"#
    )
}

fn wild_arguments_to_every_function(engine: &AnyEngine) {
    for seed in 0..12 {
        let mut bench = Bench::wat(&wild(seed, 25)).output("out", "/");
        // A write at a wild offset may end it, with a reason; nothing else may.
        bench.disk = Bytes(u64::MAX);
        let ran = bench.run(engine);
        assert_eq!(ran.result, Ok(0), "seed {seed}: {}", ran.stderr);
    }
}

fn functions_without_a_memory(engine: &AnyEngine) {
    for (name, args) in FUNCTIONS {
        let wasm = |ty: &&str| if ty.ends_with("64") { "i64" } else { "i32" };
        let params: String = args.iter().map(|ty| format!(" {}", wasm(ty))).collect();
        let values: String = args.iter().map(|ty| format!(" ({}.const 0)", wasm(ty))).collect();
        let ran = Bench::wat(&format!(
            r#"(module (import "wasi_snapshot_preview1" "{name}" (func $f (param{params}) (result i32)))
                 (func (export "_start") (drop (call $f{values}))))"#
        ))
        .run(engine);
        assert_eq!(ran.result, Ok(1), "{name}");
        assert!(ran.stderr.contains("exports no memory named 'memory'"), "{name}: {}", ran.stderr);
    }
}

fn invalid(bytes: &[u8], engine: &AnyEngine) -> Failure {
    let failure = Bench::new(bytes).run(engine).result.unwrap_err();
    assert_eq!(failure.code, FailureCode::InvalidJob, "{failure:?}");
    assert!(failure.message.starts_with("module '/guest.wasm' "), "{failure:?}");
    assert!(!failure.message.contains('\n') && failure.message.len() < 500, "{failure:?}");
    failure
}

fn what_is_not_a_module(engine: &AnyEngine) {
    for bytes in
        [&b""[..], b"\0as", b"\0asm", b"#!/bin/sh\n", b"(module)", b"\x7fELF\x02\x01\x01\0\0\0", &[0; 64]]
    {
        let failure = invalid(bytes, engine);
        assert!(failure.message.contains("is not a WebAssembly module"), "{failure:?}");
        assert!(failure.hint.contains("wasm32-wasip1"), "{failure:?}");
    }
    assert!(invalid(b"\0asm\x02\0\0\0", engine).message.contains("unknown WebAssembly version"));
    assert!(invalid(b"\0asm\x0d\0\x01\0", engine).message.contains("is a component"));
    // Larger than what is taken; the file has a hole where its bytes would be.
    let bench = Bench::new(b"");
    let file = bench.file("big.wasm", b"");
    File::options()
        .write(true)
        .open(bench.dir.path().join("big.wasm"))
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    let big = ModuleFile { name: "/big.wasm".into(), file };
    let failure = crate::engine::module::read(&big).unwrap_err();
    assert_eq!(failure.message, "module '/big.wasm' has 64.0 MiB; at most 64.0 MiB are taken");
}

fn what_is_another_kind_of_module(engine: &AnyEngine) {
    for text in [
        r#"(module (memory i64 1) (func (export "_start")))"#,
        r#"(module (memory 1 1 shared) (func (export "_start")))"#,
        r#"(module (memory (export "memory") 1) (func (export "_start") (drop (i32.const 1) (i32.const 2) (i32.add))
            (drop (i32.atomic.load (i32.const 0)))))"#,
        r#"(module (import "env" "memory" (memory 1)) (func (export "_start")))"#,
        r#"(module (import "wasi_unstable" "fd_close" (func (param i32) (result i32))) (func (export "_start")))"#,
        r#"(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64))) (func (export "_start")))"#,
        r#"(module (import "wasi_snapshot_preview1" "fd_close" (global i32)) (func (export "_start")))"#,
    ] {
        match wat::parse_str(text) {
            Ok(bytes) => drop(invalid(&bytes, engine)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn random_bytes(engine: &AnyEngine) {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() });
    runner
        .run(&(body, any::<bool>()), |(mut body, headed)| {
            if headed {
                body.splice(..0, *b"\0asm\x01\0\0\0");
            }
            let result = Bench::new(&body).run(engine).result;
            prop_assert_eq!(result.unwrap_err().code, FailureCode::InvalidJob);
            Ok(())
        })
        .unwrap();
}

fn a_damaged_module(engine: &AnyEngine) {
    let module = include_bytes!("../../../guests/weather.wasm");
    let damage = proptest::collection::vec((0..module.len(), any::<u8>()), 1..6);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 30, failure_persistence: None, ..Default::default() });
    runner
        .run(&damage, |damage| {
            let mut bytes = module.to_vec();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            let running = Bench::new(&bytes).start(engine);
            // It may do anything now, also loop: whatever it is, it ends, and nothing panics.
            let result = match running.result.recv_timeout(Duration::from_millis(500)) {
                Ok(result) => result,
                Err(_) => {
                    running.bench.interrupt.raise(Cause::Timeout);
                    running.end().result
                }
            };
            prop_assert!(
                result.as_ref().map_or_else(|f| f.code != FailureCode::Internal, |_| true),
                "{result:?}"
            );
            Ok(())
        })
        .unwrap();
}

fn long_names_in_messages(engine: &AnyEngine) {
    let long = "x".repeat(50_000);
    let text = format!(r#"(module (import "{long}" "{long}" (func)) (func (export "_start")))"#);
    invalid(&wat::parse_str(text).unwrap(), engine);
    let mut bench = Bench::wat(r#"(module (func (export "run")))"#);
    bench.entrypoint = long;
    let failure = bench.run(engine).result.unwrap_err();
    assert!(failure.message.len() < 200, "{failure:?}");
}
