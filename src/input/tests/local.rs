use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

impl Bench {
    /// Allows a pattern below the directory of this test.
    fn allow(mut self, pattern: &str, writable: bool) -> Self {
        let pattern = format!("{}/{pattern}", self.dir.path().display());
        self.policy.local.push(AllowedPath::new(&pattern, writable));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn make(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::write(self.path(name).join("f"), name).unwrap();
        self.path(name)
    }
}

fn source(path: &Path) -> Value {
    json!({ "SourcePath": path })
}

#[test]
fn an_allowed_directory() {
    let bench = Bench::new().allow("data/**", false);
    let dir = bench.make("data/x");
    for kind in ["localDirectory", "local"] {
        let mount = bench.fetch(kind, "/in", source(&dir)).unwrap();
        assert_eq!((mount.guest.as_str(), &mount.host, mount.writable), ("/in", &dir, false));
        assert!(mount.handle.unwrap().metadata().unwrap().is_dir());
    }
    let mount = bench.fetch("local", "/in/f", source(&dir.join("f"))).unwrap();
    assert!(mount.handle.unwrap().metadata().unwrap().is_file());
    assert_eq!(bench.meter.used(), Bytes::ZERO, "nothing is copied");
}

#[test]
fn what_is_not_allowed_is_named_with_the_key() {
    let bench = Bench::new().allow("data/*", false);
    let (data, other) = (bench.make("data/x"), bench.make("other"));
    for path in [other.clone(), bench.path("data"), data.join("f"), bench.path("none"), "/etc/passwd".into()]
    {
        let failure = bench.fetch("local", "/in", source(&path)).unwrap_err();
        assert_eq!(failure.code, FailureCode::InputFailed);
        assert!(failure.message.contains(&format!("{} may not be read", path.display())), "{failure:?}");
        assert_eq!(
            failure.hint,
            format!("add '{}' to Compute.AllowListedLocalPaths of the node", path.display())
        );
    }
    let failure = bench.fetch("local", "/in", json!({"SourcePath": data, "ReadWrite": true})).unwrap_err();
    assert!(failure.message.contains("may not be written to"), "{failure:?}");
    assert!(failure.hint.contains("/x:rw'"), "{failure:?}");
    let nothing = Bench::new();
    let dir = nothing.make("data");
    assert!(nothing.fetch("local", "/in", source(&dir)).is_err(), "nothing is allowed unless it is listed");
    assert_eq!(bench.refused("local", json!({"SourcePath": "data/x"})).0, FailureCode::InvalidJob);
}

#[test]
fn no_escape_by_dots_or_links() {
    let bench = Bench::new().allow("data/**", true);
    let (dir, secret) = (bench.make("data/x"), bench.make("secret"));
    symlink(&secret, dir.join("link")).unwrap();
    symlink("../../secret/f", dir.join("file")).unwrap();
    symlink(bench.path("nowhere"), dir.join("dangling")).unwrap();
    let escapes = [
        "link",
        "link/f",
        "file",
        "../../secret",
        "../../secret/f",
        "dangling",
        "dangling/x",
        "none/../../..",
    ];
    for name in escapes {
        for params in
            [json!({"SourcePath": dir.join(name)}), json!({"SourcePath": dir.join(name), "ReadWrite": true})]
        {
            let failure = bench.fetch("local", "/in", params).unwrap_err();
            assert_eq!(failure.code, FailureCode::InputFailed, "{name}");
        }
    }
    assert!(!bench.path("nowhere").exists());
    // The other way round: what the list names may be a link.
    symlink(&secret, bench.path("alias")).unwrap();
    let bench = bench.allow("alias/**", false);
    let mount = bench.fetch("local", "/in", source(&bench.path("alias"))).unwrap();
    assert_eq!(mount.host, secret);
}

#[test]
fn a_link_swapped_between_check_and_use() {
    let bench = Bench::new().allow("data/**", false);
    let (dir, secret) = (bench.make("data/x"), bench.make("secret"));
    let (evil, spare) = (bench.path("evil"), bench.path("spare"));
    symlink(&secret, &evil).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (done, dir) = (Arc::clone(&done), dir.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                fs::rename(&dir, &spare).unwrap();
                fs::rename(&evil, &dir).unwrap();
                fs::rename(&dir, &evil).unwrap();
                fs::rename(&spare, &dir).unwrap();
            }
        })
    };
    let mut opened = 0;
    for _ in 0..2000 {
        let Ok(mount) = bench.fetch("local", "/in", source(&dir)) else { continue };
        let entry = cap_std::fs::Dir::from_std_file(mount.handle.unwrap().try_clone().unwrap());
        assert_eq!(entry.read_to_string("f").unwrap(), "data/x");
        opened += 1;
    }
    done.store(true, Ordering::SeqCst);
    swapping.join().unwrap();
    assert!(opened > 0);
}

#[test]
fn writing_and_creating() {
    let bench = Bench::new().allow("data/**", true);
    bench.make("data");
    let fetch = |params: Value| bench.fetch("local", "/in", params);
    let new = bench.path("data/new/deep");
    assert!(fetch(json!({"SourcePath": new})).is_err());
    assert!(fetch(json!({"SourcePath": new, "ReadWrite": true, "CreateAs": "noCreate"})).is_err());
    assert!(!new.exists());
    for word in [json!(true), json!("true")] {
        let mount = fetch(json!({"SourcePath": new, "ReadWrite": word})).unwrap();
        assert!(mount.writable && new.is_dir());
    }
    let file = bench.path("data/new/file");
    let mount = fetch(json!({"SourcePath": file, "ReadWrite": true, "CreateAs": "file"})).unwrap();
    assert!(mount.writable && file.is_file());
    std::io::Write::write_all(&mut &*mount.handle.unwrap(), b"x").unwrap();
    assert!(!fetch(json!({"SourcePath": file, "ReadWrite": "false"})).unwrap().writable);
    for params in
        [json!({"SourcePath": file, "ReadWrite": "perhaps"}), json!({"SourcePath": file, "CreateAs": "x"})]
    {
        assert_eq!(fetch(params).unwrap_err().code, FailureCode::InvalidJob);
    }
}

#[test]
fn what_is_neither_directory_nor_file() {
    let bench = Bench::new().allow("data/**", true);
    let dir = bench.make("data");
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for name in ["socket", "fifo"] {
        let (_, message) = bench.refused("local", source(&dir.join(name)));
        assert!(message.contains("neither a directory nor a regular file"), "{message}");
    }
}
