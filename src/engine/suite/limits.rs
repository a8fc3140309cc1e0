//! Limits: memory, tables, stack, disk, time, and the word that stops a guest.

use super::*;
use crate::sys::Cause;

over_engines!(
    memory_that_may_not_grow,
    memory_too_large_from_the_start,
    all_memories_count,
    table_bombs,
    deep_recursion,
    open_files,
    a_busy_loop_stops,
    a_loop_of_range_instructions_stops,
    a_sleep_stops,
    a_loop_of_calls_stops,
    one_interrupt_stops_one_guest,
    an_interrupt_before_the_start,
    disk_by_write,
    disk_by_offset_and_size,
    disk_by_entries,
    disk_by_streams,
    disk_given_back,
    disk_of_a_file_without_a_name,
    disk_below_what_outputs_need,
);

fn memory_that_may_not_grow(engine: &AnyEngine) {
    // A guest that takes a no: it ends by itself.
    let grow = r#"(module (memory (export "memory") 1) (func (export "_start")
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))))"#;
    let mut bench = Bench::wat(grow);
    bench.memory = Bytes((2 << 16) - 1);
    assert_eq!(bench.run(engine).result, Ok(0));
    // One that does not.
    let mut bench = Bench::probe(&["alloc 8", "alloc 40"]);
    bench.memory = Bytes::mib(32);
    let ran = bench.run(engine);
    let (code, message) = ran.failure();
    assert_eq!(code, FailureCode::OutOfMemory);
    assert!(message.contains("it may have 32.0 MiB and wanted 32."), "{message}");
    assert_eq!(ran.stdout, "8\n");
    assert!(ran.stderr.contains("wasm trap: "), "{}", ran.stderr);
    // The module's own maximum is not the node's refusal.
    let own = r#"(module (memory (export "memory") 1 1) (func (export "_start")
        (drop (memory.grow (i32.const 1))) unreachable))"#;
    assert_eq!(Bench::wat(own).run(engine).result, Ok(1));
}

fn memory_too_large_from_the_start(engine: &AnyEngine) {
    let mut bench = Bench::wat(r#"(module (memory (export "memory") 65536) (func (export "_start")))"#);
    bench.memory = Bytes::mib(1);
    let ran = bench.run(engine);
    let (code, message) = ran.failure();
    assert_eq!(code, FailureCode::OutOfMemory);
    assert_eq!(message, "module '/guest.wasm' needs 4.0 GiB of memory to begin with, and may have 1.0 MiB");
    let mut bench = Bench::wat("(module)");
    bench.memory = Bytes::gib(4).plus(Bytes(1));
    assert_eq!(bench.run(engine).failure().0, FailureCode::InvalidJob);
}

fn all_memories_count(engine: &AnyEngine) {
    let mut bench = Bench::wat(r#"(module (memory 10) (memory 10) (func (export "_start")))"#);
    bench.memory = Bytes(19 << 16);
    assert_eq!(bench.run(engine).failure().0, FailureCode::OutOfMemory);
    let many = "(memory 0)".repeat(50);
    let ran = Bench::wat(&format!(r#"(module {many} (func (export "_start")))"#)).run(engine);
    assert_eq!(ran.failure().0, FailureCode::InvalidJob);
}

fn table_bombs(engine: &AnyEngine) {
    let refused = |text: &str| {
        let ran = Bench::wat(text).run(engine);
        assert_eq!(ran.failure().0, FailureCode::InvalidJob, "{text}");
        ran.failure().1.to_owned()
    };
    let message = refused(r#"(module (table 9000000 funcref) (func (export "_start")))"#);
    assert!(message.contains("needs tables of 9000000 elements; 200000 are allowed"), "{message}");
    refused(&format!(r#"(module {} (func (export "_start")))"#, "(table 150000 funcref)".repeat(2)));
    refused(&format!(r#"(module {} (func (export "_start")))"#, "(table 1 funcref)".repeat(99)));
    let grow = r#"(module (table $t 1 funcref) (func (export "_start")
        (if (i32.ne (table.grow $t (ref.null func) (i32.const 199999)) (i32.const 1)) (then unreachable))
        (if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then unreachable))))"#;
    assert_eq!(Bench::wat(grow).run(engine).result, Ok(0));
}

fn deep_recursion(engine: &AnyEngine) {
    // Deep enough for real programs, and bounded.
    let recurse = |depth: &str| {
        let text = format!(
            r#"(module (func $r (param $n i32) (if (local.get $n) (then (call $r (i32.sub (local.get $n) (i32.const 1))))))
                 (func (export "_start") (call $r (i32.const {depth}))))"#
        );
        Bench::wat(&text).run(engine)
    };
    assert_eq!(recurse("10000").result, Ok(0));
    let ran = recurse("-1");
    assert_eq!((ran.result, ran.stderr.as_str()), (Ok(1), "wasm trap: call stack exhausted\n"));
}

fn open_files(engine: &AnyEngine) {
    let ran = Bench::probe(&["write /f x", "open-many /f 1000", "open-many /f 252", "read /f"]).run(engine);
    // Three streams and the root are open besides; 33 is EMFILE.
    assert_eq!(ran.lines(), ["ok", "252 then Some(33)", "252", "x"]);
}

fn stopped(bench: Bench, engine: &AnyEngine) {
    for (cause, code) in [(Cause::Timeout, FailureCode::Timeout), (Cause::Cancelled, FailureCode::Cancelled)]
    {
        let mut again = Bench::new(&bench.module);
        again.parameters.clone_from(&bench.parameters);
        let running = again.start(engine);
        running.printed();
        running.bench.interrupt.raise(cause);
        assert_eq!(running.end().failure().0, code);
    }
}

/// Prints a character, then does `body` for ever.
fn forever(body: &str) -> Bench {
    Bench::wat(&format!(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
             (memory (export "memory") 512) (table $t 1000 funcref)
             (func $leaf) (elem (i32.const 0) $leaf)
             (func $r (param $n i32) (if (local.get $n) (then
                (call $r (i32.sub (local.get $n) (i32.const 1))) (call $r (i32.sub (local.get $n) (i32.const 1))))))
             (data (i32.const 0) "\10\00\00\00\01\00\00\00") (data (i32.const 16) "x")
             (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (loop {body} (br 0))))"#
    ))
}

fn a_busy_loop_stops(engine: &AnyEngine) {
    stopped(Bench::probe(&["echo begin", "spin"]), engine);
    stopped(forever(""), engine);
    stopped(forever("(call $leaf)"), engine);
    stopped(forever("(call $r (i32.const 200))"), engine);
    stopped(forever("(call_indirect $t (i32.const 0))"), engine);
}

fn a_loop_of_range_instructions_stops(engine: &AnyEngine) {
    stopped(forever("(memory.fill (i32.const 0) (i32.const 1) (i32.const 0x1ffffff))"), engine);
    stopped(forever("(memory.copy (i32.const 0) (i32.const 1) (i32.const 0x1fffffe))"), engine);
    stopped(forever("(table.fill $t (i32.const 0) (ref.null func) (i32.const 1000))"), engine);
    stopped(forever("(drop (table.grow $t (ref.null func) (i32.const 1)))"), engine);
}

fn a_sleep_stops(engine: &AnyEngine) {
    stopped(Bench::probe(&["echo begin", "sleep 3600000"]), engine);
}

fn a_loop_of_calls_stops(engine: &AnyEngine) {
    stopped(forever("(drop (call $yield))"), engine);
    stopped(forever("(drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8)))"), engine);
}

fn one_interrupt_stops_one_guest(engine: &AnyEngine) {
    let (one, other) = (forever("").start(engine), forever("").start(engine));
    one.printed();
    other.printed();
    let (stop, go_on) = (one.bench.interrupt.clone(), other.bench.interrupt.clone());
    stop.raise(Cause::Cancelled);
    assert_eq!(one.end().failure().0, FailureCode::Cancelled);
    assert!(other.result.try_recv().is_err(), "the other still runs");
    go_on.raise(Cause::Shutdown);
    assert_eq!(other.end().failure().0, FailureCode::NodeRestart);
}

fn an_interrupt_before_the_start(engine: &AnyEngine) {
    let bench = forever("");
    bench.interrupt.raise(Cause::Cancelled);
    let ran = bench.run(engine);
    assert_eq!((ran.failure().0, ran.stdout.as_str()), (FailureCode::Cancelled, ""));
}

/// Runs commands with 1 MiB of disk; they go beyond it.
fn over(engine: &AnyEngine, commands: &[&str]) -> Ran {
    let mut bench = Bench::probe(commands).output("out", "/out");
    bench.disk = Bytes::mib(1);
    let ran = bench.run(engine);
    let (code, message) = ran.failure();
    assert_eq!(code, FailureCode::DiskQuota, "{message}");
    assert!(message.starts_with("the execution may write 1.0 MiB to disk and wanted "), "{message}");
    assert!(ran.result.as_ref().unwrap_err().hint.contains("Resources.Disk"));
    assert!(on_disk(ran.scratch.dir()) <= 1 << 20, "what lies there is within the limit");
    assert!(!ran.scratch.exit_code().exists());
    ran
}

/// What a directory holds: sizes, and 4 KiB for every entry.
fn on_disk(dir: &Path) -> u64 {
    let entry = |e: std::fs::DirEntry| {
        let metadata = e.metadata().unwrap();
        4096 + if metadata.is_dir() { on_disk(&e.path()) } else { metadata.len() }
    };
    std::fs::read_dir(dir).unwrap().map(|e| entry(e.unwrap())).sum()
}

fn disk_by_write(engine: &AnyEngine) {
    let big = "x".repeat(30_000);
    let append = format!("append /out/f {big}");
    let mut commands = vec!["write /out/f x"];
    commands.extend(std::iter::repeat_n(append.as_str(), 40));
    let ran = over(engine, &commands);
    assert!(std::fs::metadata(ran.scratch.output("out").join("f")).unwrap().len() > 900_000);
}

fn disk_by_offset_and_size(engine: &AnyEngine) {
    over(engine, &["write /out/f x", "pwrite /out/f 2000000 1"]);
    over(engine, &["write /out/f x", "pwrite /out/f 9000000000000000000 1"]);
    over(engine, &["write /out/f x", "pwrite /out/f 0 1500000"]);
    over(engine, &["write /f x", "truncate /f 2000000"]);
    // A hole of 1 TiB, and one that a write leaves behind.
    over(engine, &["write /f x", "truncate /f 1099511627776"]);
    over(engine, &["write /f x", "pwrite /f 1099511627776 1"]);
    over(engine, &["write /f x", "truncate /f 9223372036854775807"]);
    over(engine, &["write /f x", "allocate /f 2000000"]);
    // Beyond what a file can be at all, the guest is told and goes on.
    let ran =
        Bench::probe(&["write /f x", "pwrite /f 18446744073709551615 1", "allocate /f 18446744073709551615"]);
    assert_eq!(ran.run(engine).lines(), ["ok", "err 22", "err 22"]);
}

fn disk_by_entries(engine: &AnyEngine) {
    let ran = over(engine, &["mkdir /out/d", "many /out/d 1000"]);
    assert!(std::fs::read_dir(ran.scratch.output("out").join("d")).unwrap().count() > 200);
    // A million files with nothing in them cost what a million inodes do.
    let ran = over(engine, &["mkdir /out/d", "many /out/d 1000000"]);
    assert!(std::fs::read_dir(ran.scratch.output("out").join("d")).unwrap().count() <= 256);
    // More names of one file, too; and what has two names is not given back with the first.
    let names: Vec<_> = (0..300).map(|i| format!("ln /out/f /out/f{i}")).collect();
    let names = std::iter::once("write /out/f x").chain(names.iter().map(String::as_str));
    over(engine, &names.collect::<Vec<_>>());
    let big = format!("write /out/f {}", "x".repeat(600_000));
    over(engine, &[&big, "ln /out/f /out/g", "rm /out/f", &big]);
    let mkdirs: Vec<_> = (0..300).map(|i| format!("mkdir /d{i}")).collect();
    over(engine, &mkdirs.iter().map(String::as_str).collect::<Vec<_>>());
    let links: Vec<_> = (0..300).map(|i| format!("symlink x l{i}")).collect();
    over(engine, &links.iter().map(String::as_str).collect::<Vec<_>>());
}

fn disk_by_streams(engine: &AnyEngine) {
    let ran = over(engine, &["flood 4"]);
    assert!(ran.stdout.len() > 900_000);
    assert!(ran.scratch.run_output(-1).stdout_truncated);
}

fn disk_given_back(engine: &AnyEngine) {
    // Again and again nearly all of the limit: by rewriting, removing, cutting, replacing.
    let big = format!("write /out/f {}", "x".repeat(600_000));
    let other = format!("write /out/g {}", "y".repeat(300_000));
    let mut commands = Vec::new();
    for _ in 0..4 {
        commands.extend([
            &big,
            "truncate /out/f 10",
            &big,
            "rm /out/f",
            &other,
            "write /out/f x",
            "mv /out/f /out/g",
        ]);
    }
    let mut bench = Bench::probe(&commands).output("out", "/out");
    bench.disk = Bytes::mib(1);
    let ran = bench.run(engine);
    assert_eq!(ran.lines(), vec!["ok"; commands.len()]);
    // One output directory and where it is mounted, one file with one byte.
    let printed = ran.stdout.len() as u64;
    assert_eq!(ran.meter.used(), Scratch::COST.plus(Bytes(printed + 3 * 4096 + 1)));
}

fn disk_of_a_file_without_a_name(engine: &AnyEngine) {
    let mut bench = Bench::probe(&["unlink-open /f 3", "unlink-open /f 3", "unlink-open /f 3"]);
    bench.disk = Bytes::mib(4);
    assert_eq!(bench.run(engine).lines(), vec!["3145728"; 3]);
    over(engine, &["unlink-open /f 3"]);
}

fn disk_below_what_outputs_need(engine: &AnyEngine) {
    for blocks in [0, 1] {
        let mut bench = Bench::probe(&["echo x"]).output("out", "/out");
        bench.disk = Scratch::COST.plus(Bytes(blocks * 4096));
        assert_eq!(bench.run(engine).failure().0, FailureCode::DiskQuota);
    }
}
