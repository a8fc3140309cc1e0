//! What an honest program gets.

use super::*;

over_engines!(
    what_a_program_prints_and_returns,
    arguments_and_environment,
    exit_codes,
    a_trap_is_exit_code_1_and_says_so,
    entry_functions,
    start_functions_and_initializers_run_first,
    imported_modules,
    time_passes,
    streams_are_cut_at_their_cap,
    weather,
);

fn what_a_program_prints_and_returns(engine: &AnyEngine) {
    let ran = Bench::probe(&["echo hello world", "stderr oops", "stdin", "tty"]).run(engine);
    assert_eq!(ran.lines(), ["hello world", "ok", "", "false false"]);
    assert_eq!(ran.stderr, "oops\n");
    assert_eq!(ran.result_file("exitCode"), "0");
    let output = ran.scratch.run_output(0);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("hello world\nok\n\nfalse false\n", "oops\n")
    );
    assert!(!output.stdout_truncated && !output.stderr_truncated);
}

fn arguments_and_environment(engine: &AnyEngine) {
    let mut bench = Bench::probe(&["args", "envs"]);
    bench.env =
        [("A", "1"), ("BACALHAU_JOB_ID", "j-1"), ("EMPTY", "")].map(|(k, v)| (k.into(), v.into())).into();
    let ran = bench.run(engine);
    assert_eq!(
        ran.lines(),
        [r#"["", "args", ";", "envs"]"#, r#"[("A", "1"), ("BACALHAU_JOB_ID", "j-1"), ("EMPTY", "")]"#]
    );
}

fn exit_codes(engine: &AnyEngine) {
    for code in [0, 1, 3, 255] {
        let ran = Bench::probe(&[&format!("exit {code}")]).run(engine);
        assert_eq!(ran.result, Ok(code));
        assert_eq!(ran.result_file("exitCode"), code.to_string());
    }
    let exit = |code: &str| {
        let text = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                 (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const {code}))))"#
        );
        Bench::wat(&text).run(engine).result
    };
    assert_eq!(exit("-1"), Ok(-1));
    assert_eq!(exit("0x7fffffff"), Ok(i32::MAX));
}

fn a_trap_is_exit_code_1_and_says_so(engine: &AnyEngine) {
    let trap = |body: &str| {
        let ran = Bench::wat(&format!(
            r#"(module (memory 1) (table 1 funcref) (type $f (func)) (func $r (call $r))
                 (func (export "_start") {body}))"#
        ))
        .run(engine);
        assert_eq!(ran.result, Ok(1), "{body}");
        assert_eq!(ran.result_file("exitCode"), "1");
        ran.stderr
    };
    for (body, said) in [
        ("unreachable", "wasm `unreachable` instruction executed"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i32.load (i32.const 65536)))", "out of bounds memory access"),
        ("(call_indirect (type $f) (i32.const 0))", "uninitialized element"),
        ("(call_indirect (type $f) (i32.const 1))", "undefined element: out of bounds table access"),
        ("(call $r)", "call stack exhausted"),
    ] {
        assert_eq!(trap(body), format!("wasm trap: {said}\n"));
    }
    let ran = Bench::probe(&["echo before", "panic"]).run(engine);
    assert_eq!((ran.result.clone(), ran.stdout.as_str()), (Ok(1), "before\n"));
    assert!(
        ran.stderr.contains("as told") && ran.stderr.ends_with("instruction executed\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(Bench::probe(&["recurse"]).run(engine).result, Ok(1));
}

fn entry_functions(engine: &AnyEngine) {
    let module = r#"(module (func (export "run") (result i32) (i32.const 7)) (func (export "add") (param i32))
        (func (export "go")) (memory (export "memory") 1))"#;
    let run = |name: &str| {
        let mut bench = Bench::wat(module);
        bench.entrypoint = name.into();
        bench.run(engine).result
    };
    assert_eq!(run("run"), Ok(0));
    assert_eq!(run("go"), Ok(0));
    for (name, said) in [
        ("_start", "module '/guest.wasm' exports no function '_start'"),
        ("memory", "module '/guest.wasm' exports no function 'memory'"),
        ("add", "module '/guest.wasm' wants parameters for 'add'"),
    ] {
        let failure = run(name).unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (FailureCode::InvalidJob, said));
        assert_eq!(failure.hint, "set Engine.Params.Entrypoint to one of: go, run");
    }
    let none = Bench::wat("(module)").run(engine).result.unwrap_err();
    assert!(none.hint.contains("no function without parameters"), "{none:?}");
}

/// Prints one character with `fd_write`.
const PRINT: &str = r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func $print (param $c i32)
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 1))
        (i32.store (i32.const 16) (local.get $c))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#;

fn start_functions_and_initializers_run_first(engine: &AnyEngine) {
    let ran = Bench::wat(&format!(
        r#"(module {PRINT} (func $s (call $print (i32.const 115))) (start $s)
            (func (export "_initialize") (call $print (i32.const 105)))
            (func (export "_start") (call $print (i32.const 109))))"#
    ))
    .run(engine);
    assert_eq!(ran.lines(), ["sim"]);
    // Without any export of its own, and with a start function that ends it.
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func $s (call $exit (i32.const 9))) (start $s) (data (i32.const 0) "x"))"#;
    assert_eq!(Bench::wat(text).run(engine).result, Ok(9));
    assert_eq!(Bench::wat("(module (func $s unreachable) (start $s))").run(engine).result, Ok(1));
    let mut spinning = Bench::wat("(module (func $s (loop br 0)) (start $s))").start(engine);
    spinning.bench.interrupt.raise(crate::sys::Cause::Timeout);
    spinning.bench.memory = Bytes::ZERO;
    assert_eq!(spinning.end().failure().0, FailureCode::Timeout);
}

fn imported_modules(engine: &AnyEngine) {
    let library = wat::parse_str(format!(
        r#"(module {PRINT} (func (export "say") (call $print (i32.const 33))) (global (export "g") i32 (i32.const 5)))"#
    ))
    .unwrap();
    let main = r#"(module (import "lib" "say" (func $say)) (import "/lib.wasm" "g" (global i32))
        (func (export "_start") (call $say)))"#;
    let mut bench = Bench::wat(main);
    bench.imports.push((vec!["lib".into(), "/lib.wasm".into()], library.clone()));
    assert_eq!(bench.run(engine).lines(), ["!"]);

    let ran = Bench::wat(main).run(engine);
    let (code, message) = ran.failure();
    assert_eq!(code, FailureCode::InvalidJob);
    assert!(message.contains("imports 'say' from 'lib'"), "{message}");

    let mut wrong =
        Bench::wat(r#"(module (import "lib" "say" (func (param i64))) (func (export "_start")))"#);
    wrong.imports.push((vec!["lib".into()], library.clone()));
    assert_eq!(wrong.run(engine).failure().0, FailureCode::InvalidJob);

    let mut twice = Bench::wat(main);
    twice.imports.push((vec!["lib".into()], library.clone()));
    twice.imports.push((vec!["lib".into()], library));
    assert!(twice.run(engine).failure().1.contains("clashes"));

    let unknown = r#"(module (import "wasi_snapshot_preview1" "fd_fly" (func)) (func (export "_start")))"#;
    assert!(Bench::wat(unknown).run(engine).failure().1.contains("'fd_fly' from 'wasi_snapshot_preview1'"));
}

fn time_passes(engine: &AnyEngine) {
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let ran = Bench::probe(&["sleep 20", "now"]).run(engine);
    let lines = ran.lines();
    assert_eq!(lines[0], "true");
    let now: u64 = lines[1].parse().unwrap();
    assert!((before..before + PATIENCE.as_secs()).contains(&now), "{now}");
}

fn streams_are_cut_at_their_cap(engine: &AnyEngine) {
    let mut bench = Bench::probe(&["flood 2", "stderr note"]);
    bench.stream_cap = Bytes(100_000);
    let ran = bench.run(engine);
    assert_eq!(ran.result, Ok(0));
    assert_eq!(ran.stdout, "x".repeat(100_000));
    // 2 MiB, then `flooded` and `ok` with their newlines, less what was kept.
    let rest = Bytes((2 << 20) + 11 - 100_000);
    assert_eq!(ran.stderr, format!("note\ncodling: stdout reached its cap; {rest} more were discarded\n"));
    assert!(ran.meter.used() < Scratch::COST.plus(Bytes(110_000)), "what was dropped is not charged");
    let output = ran.scratch.run_output(0);
    assert_eq!((output.stdout.len(), output.stdout_truncated), (2048, true));
}

fn weather(engine: &AnyEngine) {
    let bench = Bench::new(include_bytes!("../../../guests/weather.wasm"));
    let host = bench.host("in");
    std::fs::create_dir(host.join("sub")).unwrap();
    let table = "# daily\ndate,station,tmin,tmax,precip\n\
        2025-01-30,\"A, b\",-3.5,2,0\n2025-01-31,A,-1.5,4,NA\n2025-02-01,A,,6,1.5\nbroken\n2024-02-29,A,1,12,2.5\n";
    std::fs::write(host.join("table.csv"), table).unwrap();
    std::fs::write(host.join("sub/prose.txt"), "one two\nthree, four\nfive").unwrap();
    std::fs::write(host.join("semicolons.csv"), "1;2\n3;4\n").unwrap();
    let ran = bench.input("/inputs", &host, false).output("outputs", "/outputs").run(engine);
    assert_eq!(
        ran.lines(),
        [
            "semicolons.csv: 2 rows",
            "  column 1        2 values   min 1   mean 2.00   max 3",
            "  column 2        2 values   min 2   mean 3.00   max 4",
            "prose.txt: 3 lines, 5 words, 24 bytes",
            "table.csv: 4 rows, 2024-02-29 to 2025-02-01 (1 rows of another shape left out)",
            "  tmin          3 values   min -3.5 (2025-01-30)   mean -1.33   max 1 (2024-02-29)",
            "  tmax          4 values   min 2 (2025-01-30)   mean 6.00   max 12 (2024-02-29)",
            "  precip        3 values   min 0 (2025-01-30)   mean 1.33   max 2.5 (2024-02-29)",
            "wrote /outputs/summary.csv and /outputs/report.txt",
        ]
    );
    let summary = ran.result_file("outputs/summary.csv");
    for line in [
        "file,column,period,count,min,mean,max",
        "table.csv,tmax,all,4,2,6.000,12",
        "table.csv,tmin,2025-01,2,-3.5,-2.500,-1.5",
        "table.csv,precip,2024-02,1,2.5,2.500,2.5",
        "prose.txt,words,all,5,,,",
    ] {
        assert!(summary.lines().any(|l| l == line), "{line} in {summary}");
    }
    let report = ran.result_file("outputs/report.txt");
    assert!(report.contains("  Feb         1.00       9.00       2.00\n"), "{report}");

    let bench = Bench::new(include_bytes!("../../../guests/weather.wasm"));
    let ran = bench.run(engine);
    assert_eq!((ran.result, ran.stderr.lines().last()), (Ok(2), Some("no files to summarise in /inputs")));
}
