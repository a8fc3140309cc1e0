//! Updates through the built binary: signed tars, refusals, the trial with a real node, the way back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use redb::{Database, TableDefinition};
use serde_json::{Value, json};
use sha2::Digest;

use crate::jobs;
use crate::node::{CODLING, Dir, Node, refused, text};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("codling-meta");

/// A board's root, a key that is trusted there, and a node's data.
struct Board {
    dir: Dir,
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", text(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Board {
    /// One that trusts a key and calls itself pi-4, with nothing installed.
    fn new() -> Self {
        let board = Self { dir: Dir::new() };
        let keys = board.root().join("etc/codling/update-keys.d");
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(board.root().join("etc/codling/board"), "pi-4\n").unwrap();
        for name in ["key", "other"] {
            openssl(&["genpkey", "-algorithm", "ed25519", "-out", path(&board.key(name))]);
        }
        let public = keys.join("key.pub");
        openssl(&["pkey", "-in", path(&board.key("key")), "-pubout", "-out", path(&public)]);
        board
    }

    /// One with version 1 installed.
    fn with_version_1() -> Self {
        let board = Self::new();
        board.ok(&["apply", &board.bundle("1", &program())]);
        board
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn data(&self) -> PathBuf {
        self.root().join("var/lib/codling")
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join(&format!("{name}.pem"))
    }

    fn bundle(&self, version: &str, program: &[u8]) -> String {
        self.bundle_of(version, program, "key", &[])
    }

    /// A bundle as scripts/bundle.sh makes it, with other values in its manifest; returns its path.
    fn bundle_of(&self, version: &str, program: &[u8], key: &str, set: &[(&str, Value)]) -> String {
        let dir = self.dir.join(&format!("bundle-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&dir).unwrap();
        let digest = sha2::Sha256::digest(program).iter().map(|b| format!("{b:02x}")).collect::<String>();
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut manifest = json!({
            "format": 1, "product": "codling", "version": version, "target": target, "boards": ["pi-4"],
            "schema": 1, "least_schema": 1,
            "files": [{ "name": "codling", "size": program.len(), "sha256": digest }],
        });
        set.iter().for_each(|(name, value)| manifest[name] = value.clone());
        std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        std::fs::write(dir.join("codling"), program).unwrap();
        let (json, signature) = (dir.join("manifest.json"), dir.join("manifest.sig"));
        let key = self.key(key);
        openssl(&[
            "pkeyutl",
            "-sign",
            "-rawin",
            "-inkey",
            path(&key),
            "-in",
            path(&json),
            "-out",
            path(&signature),
        ]);
        let tar = dir.join("bundle.tar");
        let members = ["manifest.json", "manifest.sig", "codling"];
        let made = Command::new("tar")
            .args(["--format=ustar", "-cf", path(&tar), "-C", path(&dir)])
            .args(members)
            .status();
        assert!(made.unwrap().success());
        path(&tar).to_owned()
    }

    fn update(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&*CODLING);
        command.arg("update").args(args).arg("--root").arg(self.root());
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.update(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// It must fail with that status; returns what it said.
    fn fails(&self, args: &[&str], status: i32) -> String {
        let output = self.update(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
        assert!(said.contains("hint: "), "the next step: {said}");
        said
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--output", "json"])).unwrap()
    }

    /// The version that is started next.
    fn current(&self) -> String {
        let manifest = self.root().join("opt/codling/current/manifest.json");
        let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        manifest["version"].as_str().unwrap().to_owned()
    }

    /// Starts what `current` leads to, as the unit does.
    fn start(&self) -> Node {
        self.ok(&["guard"]);
        Node::start(&self.data(), &[])
    }

    fn confirm(&self, node: &Node, timeout: &str) -> Output {
        let (host, port) = node.api.split_once("://").unwrap().1.rsplit_once(':').unwrap();
        self.update(&["confirm", "--timeout", timeout, "--api-host", host, "--api-port", port])
    }
}

/// A program that only has to be told from others.
fn program() -> Vec<u8> {
    b"#!/bin/sh\nexit 1\n".repeat(200)
}

#[test]
fn a_version_that_runs_a_job_stays_and_can_be_left_again() {
    let board = Board::with_version_1();
    assert!(board.ok(&["apply", &board.bundle("2", &program())]).contains("on trial in slot b"));
    assert_eq!(board.current(), "2");
    let node = board.start();
    let output = board.confirm(&node, "100s");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(board.status()["Last"]["Version"], "2");
    // The gate's job went all the way.
    let jobs = text(&node.cli(&["job", "list", "--output", "json"]).stdout);
    assert!(jobs.contains("codling-self-test") && jobs.contains("Completed"), "{jobs}");
    assert!(board.ok(&["rollback", "--from", "7"]).is_empty(), "it does not run");
    assert!(board.ok(&["rollback"]).contains("version 1 in slot a"));
    assert_eq!(board.current(), "1");
    assert_eq!(board.ok(&["rollback", "--from", "2"]), "", "nothing to do");
    assert_eq!(board.current(), "1");
}

#[test]
fn a_version_that_is_not_healthy_goes_back() {
    let board = Board::with_version_1();
    board.ok(&["apply", &board.bundle("2", &program())]);
    board.ok(&["guard"]);
    // Nobody listens there.
    let said = board.fails(&["confirm", "--timeout", "1s", "--api-port", "1"], 69);
    assert!(said.contains("goes back: cannot see the node ready"), "{said}");
    assert_eq!(board.current(), "1");
    let said = text(&board.update(&["confirm"]).stderr);
    assert!(said.contains("2 went back"), "{said}");
    // Nor does anybody get it by asking for the other one.
    assert!(board.fails(&["rollback"], 65).contains("2 went back"));
    // One that was started and went down, again and again.
    board.ok(&["apply", &board.bundle("3", &program())]);
    for _ in 0..3 {
        board.ok(&["guard"]);
        assert_eq!(board.current(), "3");
    }
    board.ok(&["guard"]);
    assert_eq!(board.current(), "1");
    assert!(board.status()["Last"]["Reason"].as_str().unwrap().contains("started 3 times"));
}

#[test]
fn a_node_that_is_ready_and_runs_no_job_is_not_healthy() {
    let board = Board::with_version_1();
    board.ok(&["apply", &board.bundle("2", &program())]);
    board.ok(&["guard"]);
    // The gate's job asks for more than the node has.
    let node = Node::start(&board.data(), &["-c", "Compute.AllocatedCapacity.CPU=1m"]);
    let output = board.confirm(&node, "3s");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
    assert_eq!(board.current(), "1");
}

#[test]
fn what_does_not_fit_is_refused_and_what_runs_goes_on() {
    let board = Board::with_version_1();
    let (program, none) = (program(), []);
    let other = board.bundle_of("2", &program, "other", &none);
    assert!(board.fails(&["apply", &other], 77).contains("none of the 1 keys"));
    let arch = board.bundle_of("2", &program, "key", &[("target", json!("riscv64gc-unknown-linux-gnu"))]);
    assert!(board.fails(&["apply", &arch], 65).contains("riscv64gc"));
    let pi_3 = board.bundle_of("2", &program, "key", &[("boards", json!(["pi-3"]))]);
    assert!(board.fails(&["apply", &pi_3], 65).contains("for pi-3, this board is pi-4"));
    assert!(board.fails(&["apply", &pi_3, "--board", "pi-5"], 65).contains("this board is pi-5"));
    let product = board.bundle_of("2", &program, "key", &[("product", json!("kernel"))]);
    assert!(board.fails(&["apply", &product], 65).contains("kernel"));
    let format = board.bundle_of("2", &program, "key", &[("format", json!(2))]);
    assert!(board.fails(&["apply", &format], 65).contains("format 2"));
    // Every part of a good one, altered; and cut off.
    let good = board.bundle("2", &program);
    let whole = std::fs::read(&good).unwrap();
    let bad = board.dir.join("bad.tar");
    for (at, status) in [(520, 77), (512 * 3 + 9, 77), (512 * 5 + 100, 65), (512 * 9, 65)] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        std::fs::write(&bad, &altered).unwrap();
        board.fails(&["apply", path(&bad)], status);
    }
    std::fs::write(&bad, &whole[..3000]).unwrap();
    board.fails(&["apply", path(&bad)], 65);
    std::fs::write(&bad, "no tar").unwrap();
    board.fails(&["apply", path(&bad)], 65);
    board.fails(&["apply", "/nonexistent.tar"], 74);
    board.fails(&["apply", "/dev/zero"], 65);
    assert_eq!((board.current().as_str(), &board.status()["State"]["phase"]), ("1", &json!("settled")));
    // One after the other.
    board.ok(&["apply", &good]);
    assert!(board.fails(&["apply", &good], 75).contains("on trial already"));
    let lock = std::fs::File::open(board.root().join("opt/codling/lock")).unwrap();
    lock.lock().unwrap();
    board.fails(&["guard"], 75);
    drop(lock);
    std::fs::remove_file(board.root().join("etc/codling/update-keys.d/key.pub")).unwrap();
    assert!(board.fails(&["apply", &good], 78).contains("no key is trusted"));
}

#[test]
fn a_full_file_system_is_noticed_before_anything_is_written() {
    let board = Board::with_version_1();
    let home = board.root().join("opt/codling");
    let small = format!("{}/small", path(&board.dir.0));
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs", &small]).status();
    assert!(mounted.unwrap().success());
    let copied = Command::new("cp").arg("-a").arg(&home).arg(&small).status();
    assert!(copied.unwrap().success());
    std::fs::rename(&home, board.dir.join("away")).unwrap();
    std::os::unix::fs::symlink(format!("{small}/codling"), &home).unwrap();
    let said = board.fails(&["apply", &board.bundle("2", &program())], 74);
    assert!(said.contains("are free"), "{said}");
    assert_eq!(board.current(), "1");
    assert!(!Path::new(&small).join("codling/slots/b").exists());
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
}

#[test]
fn databases_that_cannot_be_copied_for_want_of_room_are_not_changed() {
    let board = Board::with_version_1();
    let data = board.data();
    std::fs::create_dir_all(&data).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs", path(&data)]).status();
    assert!(mounted.unwrap().success());
    let small = ["-c", "Results.Quota=8MiB", "-c", "Results.MinFree=0", "-c", "Store.Reserve=64KiB"];
    let node = Node::start(&data, &small);
    let id = node.submit(&jobs::hello("kept"));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
    assert!(node.stop().success());
    let config = board.root().join("etc/codling/config.yaml");
    std::fs::write(&config, "Store:\n  Reserve: 4MiB\n").unwrap();
    let next = board.bundle_of("2", &program(), "key", &[("schema", json!(2))]);
    // Room for the copy, but not for what the settings want beside it.
    let filler = data.join("filler");
    let free = || rustix::fs::statvfs(&data).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    let fill = |left: u64| {
        let _ = std::fs::remove_file(&filler);
        std::fs::write(&filler, vec![1; usize::try_from(free() - left).unwrap()]).unwrap();
    };
    fill(4 << 20);
    let said = board.fails(&["apply", &next, "--allow-migration"], 74);
    assert!(said.contains("are needed in") && said.contains("4.0 MiB are free"), "{said}");
    assert!(said.contains("codling results df"), "{said}");
    assert_eq!((board.current().as_str(), &board.status()["State"]["phase"]), ("1", &json!("settled")));
    assert!(!board.root().join("opt/codling/slots/b").exists() && !data.join("before-update").exists());
    // With less of it, the update is taken; what comes in between costs the trial, and no databases.
    std::fs::write(&config, "Store:\n  Reserve: 0\n").unwrap();
    board.ok(&["apply", &next, "--allow-migration"]);
    assert_eq!(board.current(), "2");
    fill(1 << 16);
    board.ok(&["guard"]);
    assert_eq!(board.current(), "1");
    let reason = board.status()["Last"]["Reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("could not be kept") && reason.contains("64.0 KiB are free"), "{reason}");
    assert!(!data.join("before-update").exists());
    std::fs::remove_file(&filler).unwrap();
    let node = Node::start(&data, &small);
    assert_eq!(node.state(&id), "Completed");
    assert!(node.stop().success());
    assert!(Command::new("umount").arg(&data).status().unwrap().success());
}

/// Gives a database another schema.
fn set_schema(file: &Path, schema: &str) {
    let database = Database::open(file).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", schema).unwrap();
    write.commit().unwrap();
}

#[test]
fn a_version_that_does_not_read_the_databases_is_refused() {
    let board = Board::with_version_1();
    assert!(Node::start(&board.data(), &[]).stop().success());
    let jobs = board.data().join("orchestrator/jobs.db");
    set_schema(&jobs, "7");
    let before = std::fs::read(&jobs).unwrap();
    let older = board.bundle("2", &program());
    let said = board.fails(&["apply", &older, "--allow-migration"], 65);
    assert!(said.contains("holds schema 7, version 2 knows only up to 1"), "{said}");
    let newer = [("schema", json!(9)), ("least_schema", json!(8))];
    let newer = board.bundle_of("3", &program(), "key", &newer);
    let said = board.fails(&["apply", &newer, "--allow-migration"], 65);
    assert!(said.contains("reads only from 8 on"), "{said}");
    assert!(std::fs::read(&jobs).unwrap() == before, "untouched");
    assert_eq!(board.current(), "1");
    // The program itself refuses them, too, whatever was installed around it.
    let (status, log) = refused(&board.data(), &[], &[]);
    assert!(!status.success() && log.contains("schema 7"), "{log}");
}

#[test]
fn databases_come_back_with_the_version_that_reads_them() {
    let board = Board::with_version_1();
    let node = Node::start(&board.data(), &[]);
    let id = node.submit(&jobs::hello("kept"));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
    assert!(node.stop().success());
    let next = board.bundle_of("2", &program(), "key", &[("schema", json!(2))]);
    assert!(board.fails(&["apply", &next], 65).contains("--allow-migration"));
    board.ok(&["apply", &next, "--allow-migration"]);
    board.ok(&["guard"]);
    // What the new version makes of them.
    set_schema(&board.data().join("orchestrator/jobs.db"), "2");
    let (status, _) = refused(&board.data(), &[], &[]);
    assert!(!status.success(), "the old version cannot read them");
    board.fails(&["confirm", "--timeout", "1s", "--api-port", "1"], 69);
    board.ok(&["guard"]);
    assert_eq!(board.current(), "1");
    let node = Node::start(&board.data(), &[]);
    assert_eq!(node.state(&id), "Completed");
}

#[test]
fn databases_are_not_replaced_under_a_node_that_works_with_them() {
    let board = Board::with_version_1();
    board.ok(&[
        "apply",
        &board.bundle_of("2", &program(), "key", &[("schema", json!(2))]),
        "--allow-migration",
    ]);
    let node = board.start();
    // While it runs, the rest is left to the next start.
    board.fails(&["confirm", "--timeout", "1s", "--api-port", "1"], 69);
    assert_eq!((board.current().as_str(), &board.status()["State"]["phase"]), ("1", &json!("back")));
    board.fails(&["guard"], 75);
    assert!(node.stop().success());
    board.ok(&["guard"]);
    assert_eq!(board.status()["State"]["phase"], "settled");
}

#[test]
fn the_units_of_an_updating_board_are_read_by_systemd() {
    let dir = Dir::new();
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    for name in ["codling.service", "ota/codling-update-check.service", "ota/codling-ota.conf"] {
        let unit = std::fs::read_to_string(packaging.join(name)).unwrap();
        // systemd-analyze looks whether programs are there.
        let unit = ["/usr/bin/codling", "/opt/codling/good/codling", "/opt/codling/current/codling"]
            .iter()
            .fold(unit, |unit, program| unit.replace(program, &CODLING));
        let to = match name.strip_prefix("ota/") {
            Some("codling-ota.conf") => dir.join("codling.service.d/ota.conf"),
            Some(name) => dir.join(name),
            None => dir.join(name),
        };
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, unit).unwrap();
    }
    for unit in ["codling.service", "codling-update-check.service"] {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", path(&dir.join(unit))])
            .env("SYSTEMD_UNIT_PATH", format!("{}:", path(&dir.0)))
            .output()
            .unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{unit}: {said}");
    }
}
