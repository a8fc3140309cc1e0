//! Packing: speed and size beside `gzip -6`, and memory for large and for many files.
//!
//! `cargo bench --bench pack` (add `-- --quick` for a short run). Prints figures, asserts none.
//!
//! The corpus is made of this machine's shared libraries and Rust sources, log lines and compressed data. `gzip -6`
//! gets the same tree as a tar file, in the same run. CPU time is what counts: the machine may have other work.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a program that prints figures, for machines where what it needs is there"
)]

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codling::archive::{Level, PackOptions, Packed, pack};
use codling::sys::Interrupt;

const MIB: u64 = 1 << 20;

struct Size {
    /// Of each of the four parts of the corpus.
    part: u64,
    rounds: usize,
    large: u64,
    files: u32,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--memory-of") {
        println!("{}", memory_of(Path::new(&args[at + 1])));
        return;
    }
    let size = if args.iter().any(|arg| arg == "--quick") {
        Size { part: 8 * MIB, rounds: 1, large: 256 * MIB, files: 10_000 }
    } else {
        Size { part: 64 * MIB, rounds: 5, large: 4096 * MIB, files: 100_000 }
    };
    let scratch = std::env::temp_dir().join(format!("codling-bench-{}", std::process::id()));
    fs::create_dir(&scratch).expect("a temporary directory");
    speed(&scratch, &size);
    levels(&scratch, &size);
    memory(&scratch, &size);
    fs::remove_dir_all(&scratch).expect("it can be removed");
}

// ---- speed -------------------------------------------------------------------------------------------------------

fn speed(scratch: &Path, size: &Size) {
    println!("one thread, default level, {} rounds, medians", size.rounds);
    println!("corpus      MiB | codling MB/CPU s    ratio | gzip -6 MB/CPU s    ratio | speed   size");
    let parts = scratch.join("mixed");
    make_corpus(&parts, size.part);
    let mut names: Vec<PathBuf> =
        fs::read_dir(&parts).expect("made").map(|entry| entry.expect("readable").path()).collect();
    names.sort();
    names.push(parts);
    for dir in names {
        compare(&dir, size.rounds);
    }
}

fn compare(dir: &Path, rounds: usize) {
    let tar = dir.with_extension("tar");
    let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir).arg(".").status();
    assert!(made.expect("tar is installed").success());
    let plain = fs::metadata(&tar).expect("made").len();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_size, mut their_size) = (0, 0);
    for _ in 0..rounds {
        let begin = cpu_seconds();
        our_size = packed(dir, Level::default()).size.0;
        ours.push(cpu_seconds() - begin);
        let begin = cpu_seconds_of_children();
        their_size = gzip(&tar);
        theirs.push(cpu_seconds_of_children() - begin);
    }
    fs::remove_file(&tar).expect("it can be removed");
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let speed = |seconds: f64| plain as f64 / 1e6 / seconds.max(0.01);
    let ratio = |size: u64| plain as f64 / size as f64;
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{name:10} {:4} | {:16.1} {:8.3} | {:16.1} {:8.3} | {:4.2}x {:+5.1}%",
        plain / MIB,
        speed(ours),
        ratio(our_size),
        speed(theirs),
        ratio(their_size),
        theirs / ours,
        (our_size as f64 / their_size as f64 - 1.0) * 100.0,
    );
}

fn levels(scratch: &Path, size: &Size) {
    let dir = scratch.join("mixed");
    println!("\nlevels, mixed corpus: level, MB per CPU s, MiB");
    for level in 0..=9 {
        let level = Level::try_from(level).expect("0 to 9");
        let mut plain = 0;
        let mut seconds = Vec::new();
        let mut packed_size = 0;
        for _ in 0..size.rounds.min(3) {
            let begin = cpu_seconds();
            packed_size = packed(&dir, level).size.0;
            seconds.push(cpu_seconds() - begin);
            plain = 4 * size.part;
        }
        let seconds = median(seconds).max(0.01);
        println!(
            "{} {:8.1} {:8.1}",
            level.get(),
            plain as f64 / 1e6 / seconds,
            packed_size as f64 / MIB as f64
        );
    }
}

fn packed(dir: &Path, level: Level) -> Packed {
    let options = PackOptions { level, ..PackOptions::default() };
    pack(dir, &mut io::sink(), &options, &Interrupt::new()).expect("it can be packed")
}

/// Size of what `gzip -6` makes of a file.
fn gzip(file: &Path) -> u64 {
    let mut child = Command::new("gzip")
        .args(["-6", "-n", "-c"])
        .stdin(File::open(file).expect("made"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is installed");
    let size = io::copy(&mut child.stdout.take().expect("piped"), &mut io::sink()).expect("it writes");
    assert!(child.wait().expect("it ends").success());
    size
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// User and system time of this process, from fields 14 and 15 of its stat; ticks are hundredths on Linux.
fn cpu_seconds() -> f64 {
    stat_fields(11)
}

/// The same of its children that have ended.
fn cpu_seconds_of_children() -> f64 {
    stat_fields(13)
}

fn stat_fields(first: usize) -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind_name
        .split_whitespace()
        .skip(first)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    ticks as f64 / 100.0
}

// ---- corpus ------------------------------------------------------------------------------------------------------

fn make_corpus(dir: &Path, part: u64) {
    gather(&dir.join("libraries"), &[PathBuf::from("/usr/lib"), PathBuf::from("/lib")], part, |name| {
        name.contains(".so")
    });
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut sources = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    sources.extend(home.map(|home| home.join("registry/src")));
    gather(&dir.join("text"), &sources, part, |name| {
        [".rs", ".md", ".toml", ".txt"].iter().any(|ending| name.ends_with(ending))
    });
    logs(&dir.join("logs"), part);
    media(&dir.join("media"), part);
}

/// Copies files until there is enough.
fn gather(to: &Path, from: &[PathBuf], enough: u64, wanted: impl Fn(&str) -> bool) {
    fs::create_dir_all(to).expect("it can be made");
    let mut waiting: Vec<PathBuf> = from.iter().rev().cloned().collect();
    let mut have = 0;
    let mut number = 0;
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            let mut inner: Vec<PathBuf> =
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            inner.sort_by(|a, b| b.cmp(a));
            waiting.extend(inner);
        } else if metadata.is_file() && wanted(&path.file_name().unwrap_or_default().to_string_lossy()) {
            let mut bytes = Vec::new();
            let read = File::open(&path).and_then(|file| file.take(enough - have).read_to_end(&mut bytes));
            if read.is_ok() {
                fs::write(to.join(format!("{number:05}")), &bytes).expect("it can be written");
                number += 1;
                have += bytes.len() as u64;
            }
        }
        if have >= enough {
            break;
        }
    }
    if have < enough {
        println!("({} has only {} MiB on this machine)", to.display(), have / MIB);
    }
}

/// The lines of a busy service.
fn logs(to: &Path, size: u64) {
    fs::create_dir_all(to).expect("it can be made");
    let mut noise = Noise::new(5);
    let mut out = BufWriter::new(File::create(to.join("service.log")).expect("it can be made"));
    let mut written = 0;
    let mut millis = 1_700_000_000_000_u64;
    while written < size {
        millis += noise.below(300);
        let level = ["INFO", "INFO", "INFO", "WARN", "DEBUG", "ERROR"][noise.below(6) as usize];
        let what = match noise.below(4) {
            0 => format!(
                "http: {} /api/v1/orchestrator/jobs/{:08x} from 10.0.{}.{} status={} took={}us",
                ["GET", "PUT", "DELETE"][noise.below(3) as usize],
                noise.below(1 << 32),
                noise.below(4),
                noise.below(256),
                [200, 200, 200, 404, 500][noise.below(5) as usize],
                noise.below(90_000),
            ),
            1 => format!("store: commit of {} changes in {}us", noise.below(50), noise.below(30_000)),
            2 => format!(
                "sensor s{:02}: temperature={}.{:02} voltage=3.{:03}",
                noise.below(40),
                15 + noise.below(15),
                noise.below(100),
                noise.below(400),
            ),
            _ => format!(
                "camera: frame {} box=({},{},{},{})",
                millis / 40,
                noise.below(1920),
                noise.below(1080),
                noise.below(400),
                noise.below(400),
            ),
        };
        let line = format!("{}.{:03} {level} {what}\n", millis / 1000, millis % 1000);
        out.write_all(line.as_bytes()).expect("it can be written");
        written += line.len() as u64;
    }
    out.flush().expect("it can be written");
}

/// What does not compress: half noise, half the output of a compressor, in files like pictures.
fn media(to: &Path, size: u64) {
    fs::create_dir_all(to).expect("it can be made");
    let mut noise = Noise::new(3);
    let mut have = 0;
    let mut number = 0;
    while have < size {
        let length = 200_000 + noise.below(3_000_000);
        let mut bytes = noise.bytes(length);
        if number % 2 == 0 {
            // Skewed bytes, as samples of a sensor are, squeezed by somebody else's program.
            bytes.iter_mut().for_each(|byte| *byte = byte.leading_zeros() as u8 * 16 + (*byte & 15));
            let mut child = Command::new("gzip")
                .args(["-1", "-c"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("gzip is installed");
            let mut stdin = child.stdin.take().expect("piped");
            let feeding = std::thread::spawn(move || stdin.write_all(&bytes));
            bytes = Vec::new();
            child.stdout.take().expect("piped").read_to_end(&mut bytes).expect("it writes");
            feeding.join().expect("no panic").expect("it reads");
            child.wait().expect("it ends");
        }
        bytes.truncate((size - have) as usize);
        fs::write(to.join(format!("picture-{number:04}")), &bytes).expect("it can be written");
        number += 1;
        have += bytes.len() as u64;
    }
}

/// xorshift64: the same numbers on every machine.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        std::iter::repeat_with(|| (self.next() >> 24) as u8).take(length as usize).collect()
    }
}

// ---- memory ------------------------------------------------------------------------------------------------------

fn memory(scratch: &Path, size: &Size) {
    println!("\nmemory: rise of PSS while packing, in KiB (a process for each)");
    let large = scratch.join("large");
    fs::create_dir(&large).expect("it can be made");
    File::create(large.join("holes")).and_then(|file| file.set_len(size.large)).expect("a sparse file");
    report(&format!("one file of {} MiB", size.large / MIB), &large);
    report("the mixed corpus", &scratch.join("mixed"));
    let many = scratch.join("many");
    fs::create_dir(&many).expect("it can be made");
    for n in 0..size.files {
        fs::write(many.join(format!("measurement-{n:06}.json")), format!("{{\"n\":{n}}}"))
            .expect("it can be written");
    }
    report(&format!("{} small files in one directory", size.files), &many);
}

fn report(name: &str, dir: &Path) {
    let program = std::env::current_exe().expect("Linux");
    let begin = Instant::now();
    let out = Command::new(program).arg("--memory-of").arg(dir).output().expect("it runs again");
    let rise = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    println!("{name:40} {rise:>6}   ({:.1} s)", begin.elapsed().as_secs_f64());
}

/// Packs with a second thread watching.
fn memory_of(dir: &Path) -> u64 {
    let done = AtomicBool::new(false);
    let peak = AtomicU64::new(0);
    let sample = || peak.fetch_max(pss(), Ordering::SeqCst);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                sample();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        sample();
        let before = pss();
        let _ = packed(dir, Level::default());
        sample();
        done.store(true, Ordering::SeqCst);
        watcher.join().expect("no panic");
        peak.load(Ordering::SeqCst).saturating_sub(before)
    })
}

/// KiB of this process.
fn pss() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
