//! Packing: speed and size beside `gzip -6` (and `pigz -p2`, where it is installed: `apt-get install pigz`), and memory
//! for large and for many files.
//!
//! `cargo bench --bench pack` (add `-- --quick` for a short run). Prints figures, asserts none.
//!
//! The corpus is made of this machine's shared libraries and Rust sources, log lines and compressed data. The others
//! get the same tree as a tar file, in the same run. CPU time says what the work is, whatever else the machine does;
//! what several threads gain is seen in time on the wall alone, so that wants a quiet machine.

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

use codling::archive::{Level, PackOptions, Packed, Threads, pack};
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
        let threads = args[at + 2].parse().expect("a number of threads");
        println!("{}", memory_of(Path::new(&args[at + 1]), threads));
        return;
    }
    // For those who count instructions (instructions.sh).
    if let Some(at) = args.iter().position(|arg| arg == "--pack") {
        let _ = packed(
            Path::new(&args[at + 1]),
            Level::default(),
            args[at + 2].parse().expect("a number of threads"),
        );
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
    println!(
        "default level, {} rounds, medians; MB of input per second on the wall (and per CPU second)",
        size.rounds
    );
    println!("speed and size are against gzip -6: by CPU time for one thread, on the wall for two");
    println!(
        "corpus     MiB |    1 thread    |    2 threads   |    gzip -6     |    pigz -p2    | ratio | 1: CPU | 2: wall |   size"
    );
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

/// Seconds of one run after the other.
#[derive(Default)]
struct Runs {
    wall: Vec<f64>,
    cpu: Vec<f64>,
    /// Bytes that came out.
    size: u64,
}

impl Runs {
    fn run(&mut self, cpu: fn() -> f64, act: impl FnOnce() -> u64) {
        let (begin, cpu_before) = (Instant::now(), cpu());
        self.size = act();
        self.wall.push(begin.elapsed().as_secs_f64());
        self.cpu.push(cpu() - cpu_before);
    }

    fn medians(&self) -> (f64, f64) {
        (median(self.wall.clone()), median(self.cpu.clone()).max(0.01))
    }

    fn shown(&self, plain: u64) -> String {
        let (wall, cpu) = self.medians();
        let speed = |seconds: f64| plain as f64 / 1e6 / seconds;
        format!("{:6.1} ({:6.1})", speed(wall), speed(cpu))
    }
}

fn compare(dir: &Path, rounds: usize) {
    let tar = dir.with_extension("tar");
    let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir).arg(".").status();
    assert!(made.expect("tar is installed").success());
    let plain = fs::metadata(&tar).expect("made").len();
    let pigz =
        Command::new("pigz").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let [mut one, mut two, mut gzip, mut pigz_2] = std::array::from_fn(|_| Runs::default());
    for _ in 0..rounds {
        one.run(cpu_seconds, || packed(dir, Level::default(), 1).size.0);
        gzip.run(cpu_seconds_of_children, || compress(&tar, "gzip", &["-6", "-n", "-c"]));
        two.run(cpu_seconds, || packed(dir, Level::default(), 2).size.0);
        if pigz {
            pigz_2.run(cpu_seconds_of_children, || compress(&tar, "pigz", &["-p2", "-6", "-n", "-c"]));
        }
    }
    fs::remove_file(&tar).expect("it can be removed");
    assert_eq!(one.size, two.size);
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    println!(
        "{name:9} {:4} | {} | {} | {} | {} | {:5.3} | {:5.2}x | {:6.2}x | {:+5.1}%",
        plain / MIB,
        one.shown(plain),
        two.shown(plain),
        gzip.shown(plain),
        if pigz { pigz_2.shown(plain) } else { "not installed ".into() },
        plain as f64 / one.size as f64,
        gzip.medians().1 / one.medians().1,
        gzip.medians().0 / two.medians().0,
        (one.size as f64 / gzip.size as f64 - 1.0) * 100.0,
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
            packed_size = packed(&dir, level, 1).size.0;
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

fn packed(dir: &Path, level: Level, threads: u8) -> Packed {
    let options = PackOptions { level, threads: Threads::of(threads, 1), ..PackOptions::default() };
    pack(dir, &mut io::sink(), &options, &Interrupt::new()).expect("it can be packed")
}

/// Size of what another program makes of a file.
fn compress(file: &Path, program: &str, args: &[&str]) -> u64 {
    let mut child = Command::new(program)
        .args(args)
        .stdin(File::open(file).expect("made"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is installed");
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
    println!("\nmemory: rise of PSS while packing with 1, 2 and 4 threads, in KiB (a process for each)");
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
    let mut line = format!("{name:40}");
    for threads in ["1", "2", "4"] {
        let begin = Instant::now();
        let out =
            Command::new(&program).arg("--memory-of").arg(dir).arg(threads).output().expect("it runs again");
        let rise = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        line += &format!(" {rise:>6} ({:4.1} s)", begin.elapsed().as_secs_f64());
    }
    println!("{line}");
}

/// Packs with another thread watching.
fn memory_of(dir: &Path, threads: u8) -> u64 {
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
        let _ = packed(dir, Level::default(), threads);
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
