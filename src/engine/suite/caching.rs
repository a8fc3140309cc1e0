//! Compiled modules that are kept, and compilations that nobody waits for.

use super::*;
use crate::engine::ModuleCache;
use crate::engine::compiled::Compiled;
use crate::sys::Cause;

fn exits(code: u32) -> Bench {
    Bench::wat(&format!(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
             (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const {code}))))"#
    ))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_module_is_compiled_once() {
    let dir = TempDir::new();
    let path = dir.path().join("cache");
    let engine = || -> AnyEngine {
        Arc::new(Compiled::new(Some(Arc::new(ModuleCache::open(&path, Bytes::mib(4)).unwrap()))))
    };
    let first = engine();
    assert_eq!(exits(5).run(&first).result, Ok(5));
    assert_eq!(exits(5).run(&first).result, Ok(5));
    let [of_five] = &files(&path)[..] else { panic!("one file for one module") };
    assert_eq!(exits(6).run(&first).result, Ok(6));
    let of_six = files(&path).into_iter().find(|file| file != of_five).unwrap();
    // What is kept is what runs, also in an engine that did not compile it: exchanged files show it.
    let (five, six) = (std::fs::read(of_five).unwrap(), std::fs::read(&of_six).unwrap());
    std::fs::write(of_five, &six).unwrap();
    std::fs::write(&of_six, &five).unwrap();
    let second = engine();
    assert_eq!((exits(5).run(&second).result, exits(6).run(&second).result), (Ok(6), Ok(5)));
}

#[test]
fn what_is_damaged_or_foreign_is_compiled_again() {
    let dir = TempDir::new();
    let path = dir.path().join("cache");
    let cache = Arc::new(ModuleCache::open(&path, Bytes::mib(4)).unwrap());
    let engine: AnyEngine = Arc::new(Compiled::new(Some(cache)));
    assert_eq!(exits(5).run(&engine).result, Ok(5));
    let file = files(&path).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    // Damaged; cut off; whole, but not what the engine makes.
    let foreign = [&crate::model::Sha256::of(b"foreign").0[..], b"foreign"].concat();
    for bytes in [&damaged[..], &whole[..100], &foreign] {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(exits(5).run(&engine).result, Ok(5));
        assert_eq!(std::fs::read(&file).unwrap().len(), whole.len());
    }
    assert_eq!(Bench::new(b"\0asm\x01\0\0\0\xff").run(&engine).failure().0, FailureCode::InvalidJob);
    assert_eq!(files(&path).len(), 1, "nothing is kept of what does not compile");
}

/// A module that takes long to compile: some megabytes of arithmetic, different for each `n`.
fn large(n: u32) -> Bench {
    let body = format!("local.get 0 i32.const {} i32.mul local.set 0 ", n + 3).repeat(2000);
    let function = format!("(func (local i32) {body})");
    Bench::wat(&format!(r#"(module (func (export "_start")) {})"#, function.repeat(400)))
}

#[test]
fn a_compilation_is_not_waited_for() {
    let dir = TempDir::new();
    let path = dir.path().join("cache");
    let cache = Arc::new(ModuleCache::open(&path, Bytes::mib(64)).unwrap());
    let engine: AnyEngine = Arc::new(Compiled::new(Some(cache)));
    assert_eq!(exits(5).run(&engine).result, Ok(5));
    // Made before: that takes long as well.
    for bench in [large(0), large(1)] {
        bench.interrupt.raise(Cause::Timeout);
        assert_eq!(bench.run(&engine).failure().0, FailureCode::Timeout);
    }
    // As many as may be: nothing new is compiled now, what is kept still runs.
    let ran = exits(6).run(&engine);
    assert_eq!(ran.failure().0, FailureCode::Internal);
    assert!(ran.failure().1.contains("still busy"), "{}", ran.failure().1);
    assert_eq!(exits(5).run(&engine).result, Ok(5));
    let begin = Instant::now();
    while exits(6).run(&engine).result != Ok(6) {
        assert!(begin.elapsed() < PATIENCE, "the compilations do not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    // What they made was kept.
    while files(&path).iter().filter(|file| file.extension().is_some()).count() < 4 {
        assert!(begin.elapsed() < PATIENCE, "the compiled modules are not kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(large(0).run(&engine).result, Ok(0));
}
