//! Jobs for tests: small WASM programs in text form, carried inside the job.

use base64::Engine as _;
use serde_json::{Value, json};

/// A `data:` URL with these bytes.
pub fn data_url(media: &str, bytes: &[u8]) -> String {
    format!("data:{media};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// A batch job that runs the module in `wat`, in Bacalhau 1.4's form, publishing locally.
pub fn wasm(wat: &str) -> Value {
    wasm_bytes(&wat::parse_str(wat).unwrap())
}

/// The same for a module in binary form.
pub fn wasm_bytes(module: &[u8]) -> Value {
    json!({
        "Type": "batch",
        "Count": 1,
        "Tasks": [{
            "Name": "main",
            "Engine": { "Type": "wasm", "Params": {
                "EntryModule": { "Source": { "Type": "inline", "Params": { "URL": data_url("application/wasm", module) } } },
                "Entrypoint": "_start",
            } },
            "Publisher": { "Type": "local" },
        }],
    })
}

/// Does nothing, successfully.
pub const NOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// Never ends.
pub const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// Prints `text`.
pub fn hello(text: &str) -> Value {
    wasm(&print_wat(text))
}

pub fn print_wat(text: &str) -> String {
    print_after("", "", text)
}

/// Prints `text` after some code, with what that imports.
fn print_after(imports: &str, code: &str, text: &str) -> String {
    let escaped: String = text.bytes().map(|b| format!("\\{b:02x}")).collect();
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
            {imports}
            (memory (export "memory") 1)
            (data (i32.const 16) "{escaped}")
            (func (export "_start")
              {code}
              (i32.store (i32.const 0) (i32.const 16))
              (i32.store (i32.const 4) (i32.const {len}))
              (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
        len = text.len()
    )
}

/// Sleeps, then prints `text`.
pub fn sleeps(seconds: u64, text: &str) -> Value {
    let (import, code) = sleep_wat(seconds);
    wasm(&print_after(import, &code, text))
}

/// The code that sleeps, and what it imports.
fn sleep_wat(seconds: u64) -> (&'static str, String) {
    let poll = r#"(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#;
    let code = format!(
        r#"(i32.store (i32.const 1040) (i32.const 1))
              (i64.store (i32.const 1048) (i64.const {}))
              (drop (call $poll (i32.const 1024) (i32.const 1088) (i32.const 1) (i32.const 1152)))"#,
        seconds * 1_000_000_000
    );
    (poll, code)
}

/// Ends with an exit code.
pub fn exit(code: u32) -> Value {
    wasm(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start") (call $exit (i32.const {code}))))"#
    ))
}

/// Writes `mib` MiB that do not compress to standard output.
pub fn noise(mib: u32) -> Value {
    noise_after("", "", mib)
}

/// Sleeps, then does the same.
pub fn late_noise(seconds: u64, mib: u32) -> Value {
    let (import, code) = sleep_wat(seconds);
    noise_after(import, &code, mib)
}

fn noise_after(imports: &str, code: &str, mib: u32) -> Value {
    wasm(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
            {imports}
            (import "wasi_snapshot_preview1" "random_get" (func $r (param i32 i32) (result i32)))
            (memory (export "memory") 32)
            (func (export "_start") (local $n i32)
              {code}
              (i32.store (i32.const 0) (i32.const 65536))
              (i32.store (i32.const 4) (i32.const 1048576))
              (local.set $n (i32.const {mib}))
              (loop $more
                (drop (call $r (i32.const 65536) (i32.const 1048576)))
                (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $more (local.get $n)))))"#
    ))
}

/// A module that imports the two functions, with `data` at 4096 and this code.
fn talker(data: &[u8], code: &str) -> Value {
    let escaped: String = data.iter().map(|b| format!("\\{b:02x}")).collect();
    wasm(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 32)
            (data (i32.const 4096) "{escaped}")
            (func $print (param $fd i32) (param $at i32) (param $len i32)
              (i32.store (i32.const 0) (local.get $at))
              (i32.store (i32.const 4) (local.get $len))
              (drop (call $w (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            (func $sleep (param $ms i64)
              (i32.store (i32.const 1040) (i32.const 1))
              (i64.store (i32.const 1048) (i64.mul (local.get $ms) (i64.const 1000000)))
              (drop (call $poll (i32.const 1024) (i32.const 1088) (i32.const 1) (i32.const 1152))))
            {COUNT}
            (func (export "_start") (local $n i32) {code}))"#
    ))
}

/// Prints the numbers from 1 on, each in a line of nine bytes, a thousand at a time.
const COUNT: &str = r#"(func $count (param $lines i32) (local $n i32) (local $at i32) (local $rest i32) (local $digit i32)
    (loop $line
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (local.set $rest (local.get $n))
      (local.set $digit (i32.const 8))
      (i32.store8 (i32.add (i32.const 65544) (local.get $at)) (i32.const 10))
      (loop $digits
        (local.set $digit (i32.sub (local.get $digit) (i32.const 1)))
        (i32.store8 (i32.add (i32.add (i32.const 65536) (local.get $at)) (local.get $digit))
          (i32.add (i32.const 48) (i32.rem_u (local.get $rest) (i32.const 10))))
        (local.set $rest (i32.div_u (local.get $rest) (i32.const 10)))
        (br_if $digits (local.get $digit)))
      (local.set $at (i32.add (local.get $at) (i32.const 9)))
      (if (i32.or (i32.eq (local.get $at) (i32.const 9000)) (i32.eq (local.get $n) (local.get $lines)))
        (then (call $print (i32.const 1) (i32.const 65536) (local.get $at)) (local.set $at (i32.const 0))))
      (br_if $line (i32.lt_u (local.get $n) (local.get $lines)))))"#;

/// Prints `text` so often, and stays.
pub fn talks_on(text: &str, times: u32) -> Value {
    let code = format!(
        "(local.set $n (i32.const {times}))
         (loop $more (call $print (i32.const 1) (i32.const 4096) (i32.const {}))
           (local.set $n (i32.sub (local.get $n) (i32.const 1)))
           (br_if $more (local.get $n)))
         (loop $stay (call $sleep (i64.const 50)) (br $stay))",
        text.len()
    );
    talker(text.as_bytes(), &code)
}

/// Writes these bytes to these streams, and waits so many milliseconds after each.
pub fn writes(parts: &[(u32, &[u8], u32)]) -> Value {
    let (mut data, mut code) = (Vec::new(), String::new());
    for (fd, bytes, pause) in parts {
        let (at, length) = (4096 + data.len(), bytes.len());
        code.push_str(&format!(
            "(call $print (i32.const {fd}) (i32.const {at}) (i32.const {length})) (call $sleep (i64.const {pause}))"
        ));
        data.extend_from_slice(bytes);
    }
    talker(&data, &code)
}

/// Prints that many numbered lines of nine bytes.
pub fn counts(lines: u32) -> Value {
    talker(b"", &format!("(call $count (i32.const {lines}))"))
}

/// Sleeps, then does the same.
pub fn counts_after(seconds: u32, lines: u32) -> Value {
    talker(b"", &format!("(call $sleep (i64.const {seconds}000)) (call $count (i32.const {lines}))"))
}

/// Does the same, and stays.
pub fn counts_and_stays(lines: u32) -> Value {
    talker(
        b"",
        &format!("(call $count (i32.const {lines})) (loop $stay (call $sleep (i64.const 50)) (br $stay))"),
    )
}

/// Does nothing, but wants that much memory.
pub fn with_memory(memory: &str) -> Value {
    let mut job = wasm(NOOP);
    job["Tasks"][0]["Resources"] = json!({ "Memory": memory });
    job
}
