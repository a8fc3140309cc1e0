//! Files: what a program finds, and what it cannot reach.

use std::os::unix::fs::symlink;

use super::*;

over_engines!(
    everyday_file_work,
    links_and_times,
    inputs_are_read_only,
    writable_inputs_reach_the_host,
    outputs_by_path_and_by_name,
    one_file_as_a_mount,
    mounts_show_in_listings_and_stay,
    nothing_is_renamed_across_mounts,
    listings_with_any_buffer,
    no_tree_grows_too_deep,
    no_path_leads_out,
    a_link_swapped_under_the_guest,
    devices_and_fifos_are_not_opened,
    mounts_that_cannot_be,
);

// Error numbers of WASI, as the probe prints them.
const ACCES: &str = "err 2";
const BUSY: &str = "err 10";
const EXIST: &str = "err 20";
const INVAL: &str = "err 28";
const ISDIR: &str = "err 31";
const NAMETOOLONG: &str = "err 37";
const NOENT: &str = "err 44";
const NOTDIR: &str = "err 54";
const NOTEMPTY: &str = "err 55";
const ROFS: &str = "err 69";
const XDEV: &str = "err 75";
const NOTCAPABLE: &str = "err 76";

/// Runs commands, each with what it is to print.
fn check(bench: Bench, engine: &AnyEngine, script: &[(&str, &str)]) -> Ran {
    let mut bench = bench;
    let commands: Vec<_> = script.iter().map(|(command, _)| *command).collect();
    bench.parameters = commands.join(" ; ").split(' ').map(str::to_owned).collect();
    let ran = bench.run(engine);
    let got: Vec<_> = commands.iter().copied().zip(ran.lines()).collect();
    assert_eq!(got, script);
    ran
}

fn everyday_file_work(engine: &AnyEngine) {
    let script = [
        ("mkdirs /a/b", "ok"),
        ("mkdir /a/b", EXIST),
        ("write /a/b/f hello", "ok"),
        ("append /a/b/f -more", "ok"),
        ("read /a/b/f", "hello-more"),
        ("size /a/b/f", "10"),
        ("modify /a/b/f 0 HELL", "ok"),
        ("read /a/b/f", "HELLo-more"),
        ("modify a/b/f 12 z", "ok"),
        ("size a/./b/../b/f", "13"),
        ("truncate /a/b/f 4", "ok"),
        ("read /a/b/f", "HELL"),
        ("new /a/b/f x", EXIST),
        ("new /a/g x", "ok"),
        ("write /a/b x", ISDIR),
        ("write /none/f x", NOENT),
        ("read /a/g/f", NOTDIR),
        ("read /a/none", NOENT),
        ("ls /a", "b/ g"),
        ("kind /a", "dir"),
        ("kind /a/g", "file"),
        ("rmdir /a", NOTEMPTY),
        ("rm /a", ISDIR),
        ("rmdir /a/g", NOTDIR),
        ("mv /a/b /a/c", "ok"),
        ("mv /a/c/f /a/g", "ok"),
        ("ls /a", "c/ g"),
        ("cp /a/g /a/h", "4"),
        ("sync /a/h", "ok"),
        ("renumber /a/g /a/h", "HELL"),
        ("rm /a/h", "ok"),
        ("rmall /a", "ok"),
        ("ls /", ""),
    ];
    let ran = check(Bench::new(PROBE), engine, &script);
    // All is gone again: only the streams are charged.
    let printed = ran.stdout.len() as u64;
    assert_eq!(ran.meter.used(), Scratch::COST.plus(Bytes(printed)));
}

fn links_and_times(engine: &AnyEngine) {
    let script = [
        ("mkdir /d", "ok"),
        ("write /d/f text", "ok"),
        ("ln d/f d/g", "ok"),
        ("ln d/f d/g", EXIST),
        ("rm /d/f", "ok"),
        ("read /d/g", "text"),
        ("symlink g d/l", "ok"),
        ("symlink ../d/g d/m", "ok"),
        ("symlink g d/l", EXIST),
        ("read /d/l", "text"),
        ("read /d/m", "text"),
        ("lkind /d/l", "link"),
        ("readlink /d/m", "../d/g"),
        ("readlink /d/g", INVAL),
        ("symlink none d/n", "ok"),
        ("read /d/n", NOENT),
        ("write /d/n through", "ok"),
        ("read /d/none", "through"),
        ("symlink loop d/loop", "ok"),
        ("read /d/loop", "err 32"),
        ("symlink /etc/passwd d/p", NOTCAPABLE),
        ("touch d/g 1000000", "1000000"),
        ("touch d/l 2000000", "2000000"),
        ("rmall /d", "ok"),
    ];
    let ran = check(Bench::new(PROBE), engine, &script);
    let printed = ran.stdout.len() as u64;
    assert_eq!(ran.meter.used(), Scratch::COST.plus(Bytes(printed)));
}

fn inputs_are_read_only(engine: &AnyEngine) {
    let bench = Bench::new(PROBE);
    let host = bench.host("in");
    std::fs::write(host.join("f"), "input").unwrap();
    std::fs::create_dir(host.join("d")).unwrap();
    symlink("f", host.join("l")).unwrap();
    let script = [
        ("ls /in", "d/ f l"),
        ("read /in/f", "input"),
        ("read /in/l", "input"),
        ("write /in/f x", ROFS),
        ("append /in/f x", ROFS),
        ("truncate /in/f 0", ROFS),
        ("write /in/new x", ROFS),
        ("mkdir /in/new", ROFS),
        ("rm /in/f", ROFS),
        ("rmdir /in/d", ROFS),
        ("mv /in/f /in/g", ROFS),
        ("mv /in/f /g", XDEV),
        ("ln in/f in/g", ROFS),
        ("ln in/f g", XDEV),
        ("symlink f in/g", ROFS),
        ("touch in/f 5", ROFS),
        ("allocate /in/f 5", ROFS),
        ("read /in/f", "input"),
    ];
    let _ran = check(bench.input("/in", &host, false), engine, &script);
    assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "input");
    assert_eq!(std::fs::read_dir(host).unwrap().count(), 3);
}

fn writable_inputs_reach_the_host(engine: &AnyEngine) {
    let mut bench = Bench::new(PROBE);
    bench.disk = Bytes::mib(1);
    let host = bench.host("in");
    std::fs::write(host.join("big"), vec![b'x'; 8 << 20]).unwrap();
    let script = [
        ("write /data/big y", "ok"),
        ("write /data/new z", "ok"),
        ("sync /data/new", "ok"),
        ("ls /data", "big new"),
        ("rm /data/new", "ok"),
    ];
    let ran = check(bench.input("/data", &host, true), engine, &script);
    assert_eq!(std::fs::read_to_string(host.join("big")).unwrap(), "y");
    assert_eq!(std::fs::read_dir(host).unwrap().count(), 1);
    // What was there before was never charged, and earned nothing when it was cut.
    assert!(ran.meter.used() > Scratch::COST, "{}", ran.meter.used());
}

fn outputs_by_path_and_by_name(engine: &AnyEngine) {
    let bench = Bench::new(PROBE).output("results", "/srv/out").output("logs", "/logs");
    let script = [
        ("ls /", "logs/ results/ srv/"),
        ("write /srv/out/a by-path", "ok"),
        ("write /results/b by-name", "ok"),
        ("mkdir /srv/out/d", "ok"),
        ("write /logs/l log", "ok"),
        ("ls /results", "a b d/"),
        ("mv /srv/out/a /results/c", "ok"),
        ("write /elsewhere lost", "ok"),
    ];
    let ran = check(bench, engine, &script);
    assert_eq!(ran.result_file("results/b"), "by-name");
    assert_eq!(ran.result_file("results/c"), "by-path");
    assert_eq!(ran.result_file("logs/l"), "log");
    let mut names: Vec<_> =
        std::fs::read_dir(ran.scratch.result()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["exitCode", "logs", "results", "stderr", "stdout"]);

    // A name that is something else already is left alone; the whole tree can be an output.
    let bench = Bench::new(PROBE).output("a", "/b").output("b", "/x");
    let ran =
        check(bench, engine, &[("write /b/f one", "ok"), ("write /x/f two", "ok"), ("read /a/f", "one")]);
    assert_eq!((ran.result_file("a/f"), ran.result_file("b/f")), ("one".into(), "two".into()));
    let ran = check(Bench::new(PROBE).output("all", "/"), engine, &[("write /f x", "ok"), ("ls /", "f")]);
    assert_eq!(ran.result_file("all/f"), "x");
}

fn one_file_as_a_mount(engine: &AnyEngine) {
    let bench = Bench::new(PROBE);
    let host = bench.host("in");
    std::fs::write(host.join("f"), "input").unwrap();
    let script = [
        ("read /data/file.txt", "input"),
        ("ls /data", "file.txt"),
        ("kind /data/file.txt", "file"),
        ("size /data/file.txt", "5"),
        ("append /data/file.txt x", ROFS),
        ("read /data/file.txt/x", NOTDIR),
        ("rm /data/file.txt", BUSY),
        ("mv /data /other", BUSY),
        ("write /data/beside x", "ok"),
        ("append /rw -more", "ok"),
        ("read /rw", "input-more"),
    ];
    let bench = bench.input("/data/file.txt", &host.join("f"), false).input("/rw", &host.join("f"), true);
    let _ran = check(bench, engine, &script);
    assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "input-more");
}

fn mounts_show_in_listings_and_stay(engine: &AnyEngine) {
    let bench = Bench::new(PROBE);
    let (one, two) = (bench.host("one"), bench.host("two"));
    std::fs::write(one.join("f"), "1").unwrap();
    std::fs::write(two.join("f"), "2").unwrap();
    let script = [
        ("ls /", "deep/"),
        ("ls /deep", "er/"),
        // A mount below another is reached, though it is not listed: nothing is created in an input.
        ("ls /deep/er", "f"),
        ("read /deep/er/f", "1"),
        ("read /deep/er/below/f", "2"),
        ("read /deep/../deep/er/below/../f", "1"),
        ("rmdir /deep/er", BUSY),
        ("rmdir /deep", BUSY),
        ("mv /deep /shallow", BUSY),
        ("mkdir /deep/er", EXIST),
        ("ls /", "deep/"),
    ];
    check(bench.input("/deep/er", &one, false).input("/deep/er/below/", &two, false), engine, &script);
}

fn nothing_is_renamed_across_mounts(engine: &AnyEngine) {
    let bench = Bench::new(PROBE).output("out", "/out");
    let script = [
        ("write /f x", "ok"),
        ("mv /f /out/f", XDEV),
        ("ln f out/f", XDEV),
        ("cp /f /out/f", "1"),
        ("mv /out/f /g", XDEV),
        ("ls /", "f out/"),
    ];
    check(bench, engine, &script);
}

fn listings_with_any_buffer(engine: &AnyEngine) {
    let bench = Bench::new(PROBE);
    let host = bench.host("in");
    for i in 0..600 {
        std::fs::write(host.join(format!("{i:03}")), "").unwrap();
    }
    let names = "600 000 001 002 003 004 005 006 007 008 009 ";
    let script = [
        ("readdir in 64", names),
        ("readdir in 100", names),
        ("readdir in 4096", names),
        ("readdir in 1000000", names),
        ("readdir in 20", "the buffer holds no entry"),
    ];
    check(bench.input("/in", &host, false), engine, &script);
}

fn no_tree_grows_too_deep(engine: &AnyEngine) {
    let deep = |first: &str, n: usize| format!("/{first}{}", "/d".repeat(n - 1));
    let commands = [
        (format!("mkdirs {}", deep("a", 120)), "ok"),
        (format!("mkdir {}", deep("a", 121)), NAMETOOLONG),
        (format!("mkdirs {}", deep("b", 70)), "ok"),
        (format!("mkdirs {}", deep("c", 60)), "ok"),
        // What lies below would lie at 60 + 70.
        (format!("mv /b {}/b", deep("c", 60)), NAMETOOLONG),
        (format!("mv {} {}/b", deep("b", 20), deep("c", 60)), "ok"),
        (format!("mv {} /top", deep("a", 2)), "ok"),
        (format!("mv {} /b/other", deep("c", 30)), "ok"),
        (format!("write {}/{} x", deep("b", 3), "n".repeat(256)), NAMETOOLONG),
        (format!("write {}/{} x", deep("b", 3), "n".repeat(255)), "ok"),
    ];
    let script: Vec<_> = commands.iter().map(|(command, said)| (command.as_str(), *said)).collect();
    check(Bench::new(PROBE), engine, &script);
}

fn no_path_leads_out(engine: &AnyEngine) {
    let bench = Bench::new(PROBE);
    let (host, secret) = (bench.host("in"), bench.host("secret"));
    std::fs::write(secret.join("key"), "secret").unwrap();
    symlink(&secret, host.join("absolute")).unwrap();
    symlink("../secret", host.join("relative")).unwrap();
    symlink(secret.join("key"), host.join("key")).unwrap();
    symlink("/proc/self/root", host.join("magic")).unwrap();
    let script = [
        ("raw-open ../secret/key", NOTCAPABLE),
        ("raw-open in/../../secret/key", NOTCAPABLE),
        ("raw-open /etc/passwd", NOENT),
        ("raw-open /../etc/passwd", NOTCAPABLE),
        ("read /etc/passwd", NOENT),
        ("read /in/absolute/key", NOTCAPABLE),
        ("read /in/relative/key", NOTCAPABLE),
        ("read /in/key", NOTCAPABLE),
        ("ls /in/magic", NOTCAPABLE),
        ("ls /in/absolute", NOTCAPABLE),
        ("kind /in/absolute", NOTCAPABLE),
        ("lkind /in/absolute", "link"),
        // A link of the guest's own: within its mount, or nowhere.
        ("symlink ../../../../etc/passwd escape", "ok"),
        ("read /escape", NOTCAPABLE),
        ("write /escape x", NOTCAPABLE),
        ("append /escape x", NOTCAPABLE),
        ("touch escape 5", NOTCAPABLE),
        ("symlink in link-to-mount", "ok"),
        ("ls /link-to-mount", ""),
        ("mkdirs /escape/d", NOTCAPABLE),
    ];
    let _ran = check(bench.input("/in", &host, false), engine, &script);
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);
}

fn a_link_swapped_under_the_guest(engine: &AnyEngine) {
    let mut bench = Bench::new(PROBE);
    let (host, secret) = (bench.host("in"), bench.host("secret"));
    for (dir, text) in [(host.join("d"), "allowed"), (secret.clone(), "secret")] {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("f"), text).unwrap();
    }
    symlink(&secret, host.join("evil")).unwrap();
    bench.parameters = "race /in/d/f allowed 3000".split(' ').map(str::to_owned).collect();
    let running = bench.input("/in", &host, false).start(engine);
    let (real, evil, spare) = (host.join("d"), host.join("evil"), host.join("spare"));
    // Exchanged over and over until the guest is through.
    while std::fs::metadata(running.scratch.exit_code()).is_err() {
        std::fs::rename(&real, &spare).unwrap();
        std::fs::rename(&evil, &real).unwrap();
        std::fs::rename(&real, &evil).unwrap();
        std::fs::rename(&spare, &real).unwrap();
    }
    assert_eq!(running.end().lines(), ["ok"]);
}

fn devices_and_fifos_are_not_opened(engine: &AnyEngine) {
    let bench = Bench::new(PROBE);
    let host = bench.host("in");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, host.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(host.join("socket")).unwrap();
    let script = [
        ("read /in/fifo", ACCES),
        ("write /in/fifo x", ACCES),
        ("read /in/socket", ACCES),
        ("kind /in/fifo", "other"),
    ];
    check(bench.input("/in", &host, true), engine, &script);
}

fn mounts_that_cannot_be(engine: &AnyEngine) {
    let refuse = |guest: &str, code: FailureCode, said: &str| {
        let bench = Bench::new(PROBE);
        let (one, two) = (bench.host("one"), bench.host("two"));
        let ran = bench.input("/a", &one, false).input(guest, &two, false).run(engine);
        let (found, message) = ran.failure();
        assert!(found == code && message.contains(said), "{message}");
    };
    refuse("/a/", FailureCode::InvalidJob, "something else is mounted there");
    refuse("/x/../a", FailureCode::InvalidJob, "must not contain '..'");
    refuse(&"x".repeat(300), FailureCode::InvalidJob, "not a file name");
    refuse(&"/xx".repeat(2000), FailureCode::InvalidJob, "too long");
    let ran = Bench::new(PROBE).input("/a", Path::new("/nonexistent"), false).run(engine);
    assert_eq!(ran.failure().0, FailureCode::Internal);
    assert!(ran.failure().1.contains("/nonexistent"), "{}", ran.failure().1);
    let ran = Bench::new(PROBE).input("/a", Path::new("/dev/null"), false).run(engine);
    assert!(ran.failure().1.contains("neither a directory nor a regular file"), "{}", ran.failure().1);
}
