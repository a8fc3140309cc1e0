//! A guest that does what its arguments say and prints what came of it, one line each: for tests of the sandbox.
//!
//! Arguments are commands separated by `;`. A command that fails prints `err <errno>`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn fd_allocate(fd: i32, offset: u64, len: u64) -> i32;
    fn fd_pwrite(fd: i32, iovecs: *const [usize; 2], count: usize, offset: u64, out: *mut usize) -> i32;
    fn fd_readdir(fd: i32, buffer: *mut u8, len: usize, cookie: u64, out: *mut usize) -> i32;
    fn fd_renumber(from: i32, to: i32) -> i32;
    fn path_filestat_set_times(
        fd: i32, flags: i32, path: *const u8, len: usize, atim: u64, mtim: u64, set: i32,
    ) -> i32;
    fn path_link(
        fd: i32, flags: i32, path: *const u8, len: usize, new_fd: i32, new_path: *const u8, new_len: usize,
    ) -> i32;
    fn path_symlink(target: *const u8, target_len: usize, fd: i32, path: *const u8, len: usize) -> i32;
    fn path_open(
        fd: i32, lookup: i32, path: *const u8, len: usize, oflags: i32, base: u64, inheriting: u64, flags: i32,
        out: *mut i32,
    ) -> i32;
}

/// The one directory that the host hands over.
const ROOT: i32 = 3;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    for command in args[1..].split(|a| a == ";") {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match run(&words) {
            Ok(text) => println!("{text}"),
            Err(error) => println!("err {}", error.raw_os_error().map_or(error.to_string(), |n| n.to_string())),
        }
    }
}

fn done(result: io::Result<()>) -> io::Result<String> {
    result.map(|()| "ok".into())
}

fn raw(errno: i32) -> io::Result<String> {
    if errno == 0 { Ok("ok".into()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn run(words: &[&str]) -> io::Result<String> {
    match words {
        ["echo", rest @ ..] => Ok(rest.join(" ")),
        ["args"] => Ok(format!("{:?}", std::env::args().collect::<Vec<_>>())),
        ["env", name] => Ok(std::env::var(name).unwrap_or_else(|_| "unset".into())),
        ["envs"] => Ok(format!("{:?}", std::env::vars().collect::<Vec<_>>())),
        ["stdin"] => io::read_to_string(io::stdin()),
        ["tty"] => Ok(format!("{} {}", io::stdin().is_terminal(), io::stdout().is_terminal())),
        ["stderr", text] => done(writeln!(io::stderr(), "{text}")),
        ["exit", code] => std::process::exit(code.parse().expect("a number")),
        ["panic"] => panic!("as told"),
        ["spin"] => spin(),
        ["alloc", mib] => Ok(format!("{}", allocate(number(mib)))),
        ["recurse"] => Ok(format!("{}", recurse(1))),
        ["sleep", ms] => {
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(number(ms)));
            Ok(format!("{}", begin.elapsed() >= Duration::from_millis(number(ms))))
        }
        ["now"] => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
            Ok(now.as_secs().to_string())
        }
        ["flood", mib] => flood(number(mib)),
        _ => files(words),
    }
}

fn files(words: &[&str]) -> io::Result<String> {
    match words {
        ["write", path, text] => done(fs::write(path, text)),
        ["append", path, text] => done(OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())),
        ["new", path, text] => done(File::create_new(path)?.write_all(text.as_bytes())),
        ["modify", path, at, text] => {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            file.seek(SeekFrom::Start(number(at)))?;
            done(file.write_all(text.as_bytes()))
        }
        ["read", path] => fs::read_to_string(path),
        ["size", path] => Ok(fs::metadata(path)?.len().to_string()),
        ["kind", path] => fs::metadata(path).map(|m| kind(m.file_type())),
        ["lkind", path] => fs::symlink_metadata(path).map(|m| kind(m.file_type())),
        ["ls", path] => list(path),
        ["mkdir", path] => done(fs::create_dir(path)),
        ["mkdirs", path] => done(fs::create_dir_all(path)),
        ["rmdir", path] => done(fs::remove_dir(path)),
        ["rm", path] => done(fs::remove_file(path)),
        ["rmall", path] => done(fs::remove_dir_all(path)),
        ["mv", from, to] => done(fs::rename(from, to)),
        ["cp", from, to] => fs::copy(from, to).map(|n| n.to_string()),
        ["readlink", path] => Ok(fs::read_link(path)?.display().to_string()),
        ["truncate", path, size] => done(OpenOptions::new().write(true).open(path)?.set_len(number(size))),
        ["sync", path] => done(OpenOptions::new().write(true).open(path)?.sync_all()),
        ["many", dir, count] => many(dir, number(count)),
        ["open-many", path, count] => {
            let mut open = Vec::new();
            for _ in 0..number(count) {
                match File::open(path) {
                    Ok(file) => open.push(file),
                    Err(error) => return Ok(format!("{} then {:?}", open.len(), error.raw_os_error())),
                }
            }
            Ok(open.len().to_string())
        }
        ["unlink-open", path, mib] => unlink_open(path, number(mib)),
        _ => raw_calls(words),
    }
}

fn raw_calls(words: &[&str]) -> io::Result<String> {
    match words {
        ["ln", from, to] => {
            raw(unsafe { path_link(ROOT, 0, from.as_ptr(), from.len(), ROOT, to.as_ptr(), to.len()) })
        }
        ["symlink", target, link] => {
            raw(unsafe { path_symlink(target.as_ptr(), target.len(), ROOT, link.as_ptr(), link.len()) })
        }
        ["touch", path, seconds] => {
            let nanos = number(seconds) * 1_000_000_000;
            raw(unsafe { path_filestat_set_times(ROOT, 1, path.as_ptr(), path.len(), nanos, nanos, 5) })?;
            let time = fs::metadata(path)?.modified()?.duration_since(SystemTime::UNIX_EPOCH);
            Ok(time.map_err(io::Error::other)?.as_secs().to_string())
        }
        ["allocate", path, size] => {
            let file = OpenOptions::new().write(true).open(path)?;
            raw(unsafe { fd_allocate(file.as_raw_fd(), 0, number(size)) })
        }
        ["pwrite", path, at, len] => {
            let file = OpenOptions::new().write(true).open(path)?;
            let data = vec![b'x'; number(len) as usize];
            let iovec = [data.as_ptr() as usize, data.len()];
            let mut written = 0;
            raw(unsafe { fd_pwrite(file.as_raw_fd(), &iovec, 1, number(at), &mut written) })?;
            Ok(written.to_string())
        }
        ["readdir", path, size] => readdir(path, number(size) as usize),
        ["renumber", from, to] => {
            let (a, b) = (File::open(from)?, File::open(to)?);
            raw(unsafe { fd_renumber(a.as_raw_fd(), b.as_raw_fd()) })?;
            std::mem::forget(a);
            io::read_to_string(b)
        }
        // Straight to the host, without libc's own handling of absolute paths and `..`.
        ["raw-open", path] => {
            let mut fd = 0;
            let open = |fd| unsafe { path_open(ROOT, 1, path.as_ptr(), path.len(), 0, 2, 2, 0, fd) };
            raw(open(&mut fd))
        }
        // Opens and reads over and over, and says whether ever anything but `wanted` came.
        ["race", path, wanted, count] => {
            for _ in 0..number(count) {
                if let Ok(text) = fs::read_to_string(path)
                    && text != *wanted
                {
                    return Ok(format!("got '{text}'"));
                }
            }
            Ok("ok".into())
        }
        _ => Ok(format!("unknown command {words:?}")),
    }
}

fn kind(kind: fs::FileType) -> String {
    match kind {
        _ if kind.is_dir() => "dir",
        _ if kind.is_file() => "file",
        _ if kind.is_symlink() => "link",
        _ => "other",
    }
    .into()
}

fn list(path: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let mark = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{mark}", entry.file_name().display()));
    }
    names.sort();
    Ok(names.join(" "))
}

fn many(dir: &str, count: u64) -> io::Result<String> {
    for i in 0..count {
        fs::write(format!("{dir}/{i}"), "")?;
    }
    Ok(count.to_string())
}

fn flood(mib: u64) -> io::Result<String> {
    let line = vec![b'x'; 1 << 16];
    for _ in 0..mib * 16 {
        io::stdout().write_all(&line)?;
    }
    Ok("flooded".into())
}

fn unlink_open(path: &str, mib: u64) -> io::Result<String> {
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
    fs::remove_file(path)?;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    file.seek(SeekFrom::Start(0))?;
    io::copy(&mut file.take(u64::MAX), &mut io::sink()).map(|n| n.to_string())
}

/// All names with a buffer of that size, entry by entry with their cookies, as libc does.
fn readdir(path: &str, size: usize) -> io::Result<String> {
    let mut fd = 0;
    raw(unsafe { path_open(ROOT, 1, path.as_ptr(), path.len(), 2, 1 << 14, 0, 0, &mut fd) })?;
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let (mut buffer, mut used) = (vec![0; size], 0);
        raw(unsafe { fd_readdir(fd, buffer.as_mut_ptr(), size, cookie, &mut used) })?;
        let (mut rest, before) = (&buffer[..used], cookie);
        while let Some((head, tail)) = rest.split_at_checked(24) {
            let len = u32::from_le_bytes(head[16..20].try_into().expect("four bytes")) as usize;
            let Some((name, next)) = tail.split_at_checked(len) else { break };
            cookie = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
            names.push(String::from_utf8_lossy(name).into_owned());
            rest = next;
        }
        if used < size {
            names.retain(|name| name != "." && name != "..");
            names.sort();
            return Ok(format!("{} {}", names.len(), names.join(" ").chars().take(40).collect::<String>()));
        }
        if cookie == before {
            return Ok("the buffer holds no entry".into());
        }
    }
}

fn allocate(mib: u64) -> usize {
    let mut blocks = Vec::new();
    for i in 0..mib {
        blocks.push(vec![i as u8 | 1; 1 << 20]);
    }
    blocks.iter().filter(|block| block[block.len() - 1] != 0).count()
}

#[expect(unconditional_recursion, reason = "what it is for")]
fn recurse(n: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(n + 1)) + 1)
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}
