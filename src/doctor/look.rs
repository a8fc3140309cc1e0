//! Reading the facts. Whatever cannot be read is not known; only what the running machine alone can answer is asked,
//! and not for long.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::node::sockets;
use super::{Access, Answer, Data, Facts, Given, Identity, Live};
use crate::agent;
use crate::config::{self, CliOverrides, Env, Host, Loaded, ProcessEnv, ServiceEnv, Settings};
use crate::engine;
use crate::model::{Bytes, Timestamp};
use crate::sys::mounts::Place;
use crate::sys::survey::{Listeners, Survey, is_locked};
use crate::sys::{DeviceTree, DiskProbe, Machine, StatVfs, device_tree, kernel_time};

/// What is to be looked at.
#[derive(Debug)]
pub struct Wanted {
    /// Where the machine's files begin.
    pub root: PathBuf,
    /// Settings of the command line.
    pub overrides: CliOverrides,
}

/// How long the node itself may take to answer.
const ASK: Duration = Duration::from_secs(2);

/// And an orchestrator, to let itself be connected to.
const CONNECT: Duration = Duration::from_secs(3);

/// Most orchestrators that are tried.
const ORCHESTRATORS_MAX: usize = 4;

/// Of an answer, this much is read.
const ANSWER_MAX: u64 = 16 * 1024;

/// Most results that are counted.
const FILES_MAX: usize = 100_000;

/// Looks.
#[must_use]
pub fn look(wanted: &Wanted) -> Facts {
    let root = &*wanted.root;
    let here = root == Path::new("/");
    let machine = if here {
        Machine::detect().with_tree(DeviceTree::named(std::env::var_os(device_tree::VARIABLE)))
    } else {
        Machine::at(root, 1)
    };
    let (loaded, hidden, wrong) = settings(wanted);
    let data = data(root, &loaded.settings, here);
    let resolved = data.space.map(|space| config::resolve(&loaded.settings, &machine, space));
    let listeners = Listeners::of(root);
    let live = here.then(|| live(&loaded, &listeners));
    Facts {
        identity: identity(root, &loaded.settings, &machine),
        survey: Survey::of(root),
        engines: engine::engines(None).iter().map(|engine| engine.name()).collect(),
        settings: Given { loaded, resolved, hidden, wrong },
        machine,
        data,
        listeners,
        live,
    }
}

/// The settings that were given; without any, those of the installed service, or else those of this user.
fn settings(wanted: &Wanted) -> (Loaded, Vec<PathBuf>, Vec<String>) {
    let mut overrides = wanted.overrides.clone();
    let service = wanted.root.join(ServiceEnv::FILE.trim_start_matches('/'));
    let none = overrides.files.is_empty() && !overrides.settings.iter().any(|s| s.key == "DataDir");
    let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    if none && service.symlink_metadata().map_or_else(denied, |_| true) {
        overrides.files.push(service.clone());
    }
    let as_service = overrides.files.contains(&service);
    // Of another root, this user's directory and variables say nothing either.
    let env: &dyn Env = if as_service || wanted.root != Path::new("/") { &ServiceEnv } else { &ProcessEnv };
    let is_hidden = |file: &&PathBuf| fs::File::open(file).is_err_and(denied);
    let hidden: Vec<PathBuf> = overrides.files.iter().filter(is_hidden).cloned().collect();
    overrides.files.retain(|file| !hidden.contains(file));
    match config::load(&overrides, env) {
        Ok(loaded) => (loaded, hidden, Vec::new()),
        Err(error) => {
            let wrong = error.findings.iter().map(ToString::to_string).collect();
            (defaults(&overrides, env), hidden, wrong)
        }
    }
}

/// What is in force where nothing that was given can be used: the defaults, in the data directory that was named.
fn defaults(overrides: &CliOverrides, env: &dyn Env) -> Loaded {
    let named = overrides.settings.iter().filter(|setting| setting.key == "DataDir").cloned().collect();
    let named = CliOverrides { files: Vec::new(), settings: named };
    config::load(&named, env).unwrap_or_else(|_| Loaded::defaults(env))
}

fn data(root: &Path, settings: &Settings, here: bool) -> Data {
    let beneath = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let dir = &settings.data_dir;
    let nearest = dir.ancestors().find(|dir| beneath(dir).is_dir()).unwrap_or(Path::new("/"));
    let there = beneath(nearest);
    // Links lead to where the bytes are; those of another root are taken as they stand.
    let real = if here { there.canonicalize().unwrap_or_else(|_| there.clone()) } else { nearest.to_owned() };
    let access = match rustix::fs::access(&there, rustix::fs::Access::WRITE_OK) {
        Err(rustix::io::Errno::ROFS) => Access::ReadOnly,
        Err(_) => Access::Denied,
        Ok(()) => Access::Yes,
    };
    Data {
        exists: nearest == dir,
        place: Place::of(root, &real),
        // Whether one could write to another root's files here says nothing about there.
        access: if here { access } else { Access::Yes },
        space: StatVfs::new(&there).space().ok(),
        used: used(&[
            beneath(&settings.publisher.directory),
            beneath(&dir.join("compute")),
            beneath(&dir.join("orchestrator")),
            beneath(&settings.cache_dir()),
        ]),
        in_use: here && is_locked(root, &dir.join("lock")),
        nearest: nearest.to_owned(),
    }
}

/// What the files of these directories take together; nothing if one of them cannot be looked into.
fn used(dirs: &[PathBuf]) -> Option<Bytes> {
    let mut sum = Bytes::ZERO;
    for dir in dirs {
        match fs::read_dir(dir) {
            Ok(entries) => {
                let sizes = entries.take(FILES_MAX).flatten().filter_map(|entry| entry.metadata().ok());
                sum = sizes.fold(sum, |sum, meta| sum.plus(Bytes(meta.len())));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(sum)
}

fn identity(root: &Path, settings: &Settings, machine: &Machine) -> Identity {
    let file = settings.identity_file();
    let path = root.join(file.strip_prefix("/").unwrap_or(&file));
    match agent::Identity::load(&path) {
        Ok(Some(identity)) => Identity::Kept(identity.id),
        Ok(None) => agent::lasting_name(settings, machine).map_or(Identity::Random, Identity::Coming),
        Err(agent::IdentityError::Io { cause, .. }) if cause.kind() == ErrorKind::PermissionDenied => {
            Identity::Hidden
        }
        Err(error) => Identity::Damaged(error.to_string()),
    }
}

fn live(loaded: &Loaded, listeners: &Listeners) -> Live {
    let settings = &loaded.settings;
    let addresses = sockets(settings).map(|(_, host, port, _)| address(host, port));
    let api =
        addresses[0].filter(|address| address.port() != 0 && listeners.holds(address.ip(), address.port()));
    Live {
        now: Timestamp::from_system(SystemTime::now()),
        synchronised: kernel_time::is_synchronised(),
        api: match api {
            Some(_) if settings.api.tls.is_some() => Answer::Other,
            Some(address) => ask(address),
            None => Answer::Unasked,
        },
        orchestrators: loaded
            .orchestrators()
            .into_iter()
            .take(ORCHESTRATORS_MAX)
            .map(|(host, port)| (format!("{host}:{port}"), connect(&host, port).err()))
            .collect(),
        sockets: addresses.map(|address| address.map(|address| address.ip())),
    }
}

fn address(host: &Host, port: u16) -> Option<SocketAddr> {
    match host {
        Host::Ip(ip) => Some(SocketAddr::new(*ip, port)),
        Host::Name(name) => (name.as_str(), port).to_socket_addrs().ok()?.next(),
    }
}

/// Asks whoever listens there whether it is a node, and how it does.
fn ask(address: SocketAddr) -> Answer {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, address.port()), ASK)?;
        stream.set_read_timeout(Some(ASK))?;
        stream.set_write_timeout(Some(ASK))?;
        stream.write_all(b"GET /readyz?verbose HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        // What came before it took too long counts.
        let _ = stream.take(ANSWER_MAX).read_to_end(&mut bytes);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = answer().unwrap_or_default();
    if !text.starts_with("HTTP/1.1 ") || !text.contains("crash-loop") {
        return Answer::Other;
    }
    let failed: Vec<String> =
        text.lines().filter_map(|line| Some(line.strip_prefix("[-]")?.trim().to_owned())).collect();
    if failed.is_empty() { Answer::Ready } else { Answer::Unready(failed) }
}

fn connect(host: &str, port: u16) -> Result<(), String> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "it has no address".to_owned();
    for address in addresses.take(2) {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}
