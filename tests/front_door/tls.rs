//! API and results over TLS, with certificates as `openssl` makes them and clients as people have them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::jobs;
use crate::node::{CODLING, Dir, Node, PATIENCE, eventually, refused, signal, text};

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", text(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A certificate of its own authority for this machine, and its key.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn make(dir: &Dir, name: &str, kind: &[&str]) -> Self {
        let (cert, key) = (dir.join(&format!("{name}.pem")), dir.join(&format!("{name}.key")));
        let subject = format!("/CN={name}");
        let fixed = ["req", "-x509", "-nodes", "-days", "2", "-subj", &subject];
        let names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
        let names = [&names[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat();
        let files = ["-keyout", path(&key), "-out", path(&cert)];
        openssl(&[&fixed[..], kind, &names, &files].concat());
        Self { cert, key }
    }

    fn ec(dir: &Dir, name: &str) -> Self {
        Self::make(dir, name, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
    }

    fn settings(&self) -> [String; 4] {
        let key = |name: &str, path: &Path| format!("API.TLS.{name}={}", path.display());
        ["-c".into(), key("CertFile", &self.cert), "-c".into(), key("KeyFile", &self.key)]
    }

    fn node(&self, dir: &Dir, extra: &[&str]) -> Node {
        let settings = self.settings();
        let mut all: Vec<&str> = settings.iter().map(String::as_str).collect();
        all.extend(extra);
        Node::start(&dir.join("data"), &all)
    }
}

/// What curl says to that; it must work.
fn curl(args: &[&str]) -> Vec<u8> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(args);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "curl {args:?}: {}", text(&output.stderr));
    output.stdout
}

fn address(url: &str) -> &str {
    url.split_once("://").unwrap().1
}

/// The command line against the node, speaking TLS.
fn cli(node: &Node, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = node.command(args);
    command.env("BACALHAU_API_TLS_USETLS", "true").envs(env.iter().copied()).output().unwrap()
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The serial number of the certificate that new connections get.
fn serial(node: &Node) -> String {
    let client = Command::new("openssl")
        .args(["s_client", "-connect", address(&node.api)])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let mut x509 = Command::new("openssl")
        .args(["x509", "-noout", "-serial"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    x509.stdin.take().unwrap().write_all(&client.stdout).unwrap();
    text(&x509.wait_with_output().unwrap().stdout)
}

#[test]
fn a_job_from_submission_to_files_over_tls_with_resume() {
    let dir = Dir::new();
    let pair = Pair::ec(&dir, "board");
    let node = pair.node(&dir, &[]);
    assert!(node.api.starts_with("https://") && node.results.starts_with("https://"));
    let trusted = [("BACALHAU_API_TLS_CACERT", path(&pair.cert))];
    let file = dir.join("job.json");
    std::fs::write(&file, jobs::noise(3).to_string()).unwrap();
    let id = ok(&cli(&node, &["job", "run", path(&file), "--wait", "--id-only"], &trusted));
    let id = id.trim();
    let described = ok(&cli(&node, &["--output", "json", "job", "describe", id], &trusted));
    assert!(described.contains("Completed"), "{described}");

    let results = format!("{}/api/v1/orchestrator/jobs/{id}/results", node.api);
    let results: serde_json::Value =
        serde_json::from_slice(&curl(&["--cacert", path(&pair.cert), &results])).unwrap();
    let url = results["Items"][0]["Params"]["URL"].as_str().unwrap();
    assert!(url.starts_with("https://"), "{url}");
    let whole = curl(&["--cacert", path(&pair.cert), url]);
    assert!(whole.len() > 3 << 20);
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "--silent"]] {
        let again = curl(&[&["--cacert", path(&pair.cert)], &version[..], &[url]].concat());
        assert!(again == whole, "{version:?}");
    }
    // Cut off and taken up again, by curl and by our own.
    let part = dir.join("part");
    std::fs::write(&part, &whole[..1_000_003]).unwrap();
    curl(&["--cacert", path(&pair.cert), "-C", "-", "-o", path(&part), url]);
    assert!(std::fs::read(&part).unwrap() == whole);
    let out = dir.join("got");
    ok(&cli(&node, &["job", "get", id, "-o", path(&out)], &trusted));
    assert_eq!(std::fs::read(out.join("stdout")).unwrap().len(), 3 << 20);
}

#[test]
fn the_command_line_trusts_whom_it_is_told_to() {
    let dir = Dir::new();
    let (pair, other) = (Pair::ec(&dir, "board"), Pair::ec(&dir, "other"));
    let node = pair.node(&dir, &[]);
    let list = ["job", "list"];
    ok(&cli(&node, &[&list[..], &["--cacert", path(&pair.cert)]].concat(), &[]));
    ok(&cli(&node, &[&list[..], &["--insecure"]].concat(), &[]));
    ok(&cli(&node, &list, &[("BACALHAU_API_TLS_INSECURE", "1")]));
    let by_flag = node.command(&["job", "list", "--tls", "--cacert", path(&pair.cert)]).output().unwrap();
    ok(&by_flag);
    for untrusted in
        [cli(&node, &list, &[]), cli(&node, &list, &[("BACALHAU_API_CACERT", path(&other.cert))])]
    {
        let said = text(&untrusted.stderr);
        assert_eq!(untrusted.status.code(), Some(76), "{said}");
        assert!(said.contains("--cacert") && said.contains("certificate"), "{said}");
    }
    // What `openssl req -x509` makes if it is not told otherwise.
    let authority = dir.join("authority.pem");
    let plain = ["req", "-x509", "-nodes", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"];
    let kind = ["-newkey", "ed25519", "-keyout", path(&other.key), "-out", path(&authority)];
    openssl(&[&plain[..], &kind].concat());
    let second = Dir::new();
    let wrong = Pair { cert: authority.clone(), key: other.key.clone() }.node(&second, &[]);
    let said = text(&cli(&wrong, &[&list[..], &["--cacert", path(&authority)]].concat(), &[]).stderr);
    assert!(said.contains("basicConstraints=critical,CA:FALSE"), "{said}");
    // Plain HTTP to a port with TLS, and the other way round: both say what to do.
    let plain = node.command(&list).output().unwrap();
    let said = text(&plain.stderr);
    assert!(!plain.status.success() && said.contains("speaks TLS") && said.contains("--tls"), "{said}");
    let without = Node::start(&dir.join("plain"), &[]);
    let said = text(&cli(&without, &[&list[..], &["--insecure"]].concat(), &[]).stderr);
    assert!(said.contains("leave out --tls"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let dir = Dir::new();
    let (pair, other) = (Pair::ec(&dir, "board"), Pair::ec(&dir, "other"));
    let encrypted = dir.join("encrypted.key");
    openssl(&["pkey", "-in", path(&pair.key), "-aes128", "-passout", "pass:x", "-out", path(&encrypted)]);
    let (junk, damaged, huge) = (dir.join("junk"), dir.join("damaged.pem"), dir.join("huge"));
    std::fs::write(&junk, "not PEM\n").unwrap();
    std::fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    std::fs::write(&huge, vec![b'x'; 200_000]).unwrap();
    let missing = PathBuf::from("/nonexistent/cert.pem");
    for (cert, key, named, wanted) in [
        (&pair.cert, &other.key, &other.key, "is not that of the certificate"),
        (&pair.cert, &encrypted, &encrypted, "encrypted key; decrypt it"),
        (&pair.cert, &junk, &junk, "holds no private key in PEM form"),
        (&pair.cert, &pair.cert, &pair.cert, "holds no private key in PEM form"),
        (&junk, &pair.key, &junk, "holds no certificate in PEM form"),
        (&pair.key, &pair.key, &pair.key, "holds no certificate in PEM form"),
        (&damaged, &pair.key, &damaged, "the certificate is damaged"),
        (&huge, &pair.key, &huge, "more than 128 KiB"),
        (&missing, &pair.key, &missing, "cannot be read"),
    ] {
        let settings = Pair { cert: cert.clone(), key: key.clone() }.settings();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let (status, log) = refused(&dir.join("data"), &settings, &[]);
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(log.contains(wanted) && log.contains(path(named)), "{wanted}: {log}");
    }
    let (status, log) = refused(&dir.join("data"), &["--tlscert", path(&pair.cert)], &[]);
    assert!(status.code() == Some(78) && log.contains("API.TLS.KeyFile is not set"), "{log}");
}

#[test]
fn every_usual_key_works_and_an_old_certificate_is_only_warned_about() {
    let dir = Dir::new();
    let rsa = Pair::make(&dir, "rsa", &["-newkey", "rsa:2048"]);
    let ed = Pair::make(&dir, "ed", &["-newkey", "ed25519"]);
    let expired = dir.join("expired.pem");
    let (csr, key) = (dir.join("csr"), dir.join("expired.key"));
    let new = ["req", "-new", "-nodes", "-subj", "/CN=x", "-newkey", "ec", "-pkeyopt"];
    openssl(
        &[&new[..], &["ec_paramgen_curve:secp384r1", "-keyout", path(&key), "-out", path(&csr)]].concat(),
    );
    let extensions = dir.join("extensions");
    std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1\n").unwrap();
    let sign = ["x509", "-req", "-in", path(&csr), "-key", path(&key), "-days", "-1"];
    openssl(&[&sign[..], &["-extfile", path(&extensions), "-out", path(&expired)]].concat());
    for pair in [&rsa, &ed] {
        let node = pair.node(&dir, &[]);
        curl(&["--cacert", path(&pair.cert), &format!("{}/livez", node.api)]);
    }
    let mut node = Pair { cert: expired, key }.node(&dir, &[]);
    curl(&["--insecure", &format!("{}/livez", node.api)]);
    let log = node.log_so_far();
    assert!(log.contains("the certificate expired at"), "{log}");
}

#[test]
fn a_new_certificate_is_used_from_sighup_on_and_a_bad_one_is_not() {
    let dir = Dir::new();
    let (pair, next) = (Pair::ec(&dir, "board"), Pair::ec(&dir, "next"));
    let mut node = pair.node(&dir, &[]);
    // A connection that is open stays so: one request before, one after.
    let mut open = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", address(&node.api)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ask = |close: bool| {
        let close = if close { "Connection: close\r\n" } else { "" };
        let stdin = open.stdin.as_mut().unwrap();
        write!(stdin, "GET /livez HTTP/1.1\r\nHost: a\r\n{close}\r\n").unwrap();
        stdin.flush().unwrap();
    };
    ask(false);
    let before = serial(&node);
    std::fs::copy(&next.cert, &pair.cert).unwrap();
    signal(node.pid(), "HUP");
    let line = node.wait_log("the certificate of before is still used");
    assert!(line.contains(path(&pair.key)), "the key is still that of the other: {line}");
    assert_eq!(serial(&node), before);
    std::fs::copy(&next.key, &pair.key).unwrap();
    signal(node.pid(), "HUP");
    node.wait_log("what it holds counts now");
    assert_ne!(serial(&node), before);
    ask(true);
    let mut all = String::new();
    open.stdout.take().unwrap().read_to_string(&mut all).unwrap();
    open.wait().unwrap();
    assert_eq!(all.matches("HTTP/1.1 200").count(), 2, "{all}");
}

/// KiB of memory that only this process has.
fn anonymous(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn connections(node: &Node) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    fds.flatten()
        .filter(|fd| {
            std::fs::read_link(fd.path())
                .is_ok_and(|to| to.starts_with("socket:") || path(&to).starts_with("socket:"))
        })
        .count()
}

#[test]
fn half_open_and_hostile_handshakes_cost_little_and_end() {
    let dir = Dir::new();
    let pair = Pair::ec(&dir, "board");
    let node = pair.node(&dir, &[]);
    let livez = format!("{}/livez", node.api);
    let ask = || curl(&["--cacert", path(&pair.cert), &livez]);
    ask();
    let (memory, sockets) = (anonymous(&node), connections(&node));
    // The beginning of a handshake message of 64 KiB that never ends; one byte; nothing; what is no TLS at all.
    let record = |body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], body].concat()
    };
    let mut hello = vec![1, 0, 0xff, 0xff];
    hello.resize(16 << 10, 0);
    let kinds: [Vec<u8>; 6] = [
        record(&hello),
        [record(&hello), record(&vec![0; 16 << 10]), record(&vec![0; 16 << 10])].concat(),
        vec![22],
        Vec::new(),
        vec![0xff; 20_000],
        [22, 3, 3, 0xff, 0xff].repeat(1000),
    ];
    let mut open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(address(&node.api)).unwrap();
        // It may be turned away before it has said anything.
        let _ = stream.write_all(&kinds[n % kinds.len()]);
        open.push(stream);
        if n % 50 == 0 {
            ask();
        }
    }
    ask();
    let grown = anonymous(&node).saturating_sub(memory);
    assert!(grown < 8 << 10, "200 half-open handshakes cost {grown} KiB");
    // The node ends them all by itself.
    for mut stream in open {
        stream.set_read_timeout(Some(*PATIENCE)).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    ask();
    eventually("the sockets to be given back", || (connections(&node) <= sockets).then_some(()));
    // A whole TLS session, and nonsense inside it.
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", address(&node.api)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ = client.stdin.take().unwrap().write_all(&b"x".repeat(100_000));
    let mut answer = Vec::new();
    client.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    client.wait().unwrap();
    assert!(text(&answer).starts_with("HTTP/1.1 4"), "{}", text(&answer));
    ask();
    assert!(Path::new(&*CODLING).exists());
}

#[test]
fn logs_are_followed_over_tls() {
    let dir = Dir::new();
    let (pair, other) = (Pair::ec(&dir, "board"), Pair::ec(&dir, "other"));
    let node = pair.node(&dir, &[]);
    let trusted = [("BACALHAU_API_TLS_CACERT", path(&pair.cert))];
    let file = dir.join("job.json");
    std::fs::write(&file, jobs::counts_after(1, 60_000).to_string()).unwrap();
    let wanted: String = (1..=60_000).map(|n| format!("{n:08}\n")).collect();
    let followed = cli(&node, &["job", "run", path(&file), "--follow"], &trusted);
    assert!(ok(&followed) == wanted, "{}", text(&followed.stderr));
    let said = text(&followed.stderr);
    let id = said.lines().find_map(|line| line.strip_prefix("job ")).unwrap().split(' ').next().unwrap();
    for env in [trusted, [("BACALHAU_API_TLS_INSECURE", "1")]] {
        assert!(ok(&cli(&node, &["job", "logs", id], &env)) == wanted);
    }
    for env in [&[][..], &[("BACALHAU_API_CACERT", path(&other.cert))]] {
        let untrusted = cli(&node, &["job", "logs", id], env);
        assert_eq!(untrusted.status.code(), Some(76), "{}", text(&untrusted.stderr));
    }
    // Live, until somebody stops it.
    let stays = dir.join("stays.json");
    std::fs::write(&stays, jobs::talks_on("on\n", 1).to_string()).unwrap();
    let id = ok(&cli(&node, &["job", "run", path(&stays), "--id-only"], &trusted));
    let mut command = node.command(&["job", "logs", "-f", id.trim()]);
    command.env("BACALHAU_API_TLS_USETLS", "true").envs(trusted).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"on\n");
    ok(&cli(&node, &["job", "stop", id.trim()], &trusted));
    assert!(child.wait().unwrap().success());
}
