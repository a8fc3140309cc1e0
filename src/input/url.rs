//! Inputs that are downloaded.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::Duration;

use ureq::Agent;

use super::inline::percent_decoded;
use super::reach::{guarded, refusal};
use super::{BUFFER, Sink, cannot_write, failed, invalid, required};
use crate::engine::Mount;
use crate::engine::causes::{over_limit, stopped};
use crate::model::units::DISK_BLOCK;
use crate::model::{Bytes, Failure, SpecConfig};
use crate::sys::OverLimit;

/// Redirects that are followed.
const REDIRECTS_MAX: u32 = 10;
/// Time to find a server and to reach it, each.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Name of what a URL without a file name brings.
const NAMELESS: &str = "download";
/// Bytes of a file name (`NAME_MAX` of Linux).
const NAME_MAX: usize = 255;

/// Why an attempt brought nothing.
enum Trouble {
    /// It may go better the next time.
    Passing(String),
    /// It will not.
    Lasting(Failure),
}

/// The file at `target/<its name>`.
pub(super) fn fetch(source: &SpecConfig, target: &str, sink: &Sink) -> Result<Mount, Failure> {
    let url = required(source, "URL")?;
    let shown = shown(url);
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls") => {}
        Some("https") => return Err(failed(format!("{shown}: this build of codling has no TLS"))),
        _ => return Err(invalid(format!("{shown} is no URL that begins with http:// or https://"))),
    }
    let name = file_name(url);
    let host = sink.dir.join(&name);
    sink.create_dir()?;
    sink.charge(DISK_BLOCK)?;
    let mut file = File::create_new(&host).map_err(|e| cannot_write(&host, &e))?;
    let mut pause = sink.policy.backoff;
    let mut attempt = 0;
    loop {
        let mut taken = 0;
        let trouble = match download(url, &mut file, &mut taken, sink) {
            Ok(()) => break,
            Err(trouble) => trouble,
        };
        // Whatever went wrong after it was stopped went wrong for that reason.
        sink.check()?;
        let reason = match trouble {
            Trouble::Lasting(failure) => {
                return Err(Failure { message: format!("{shown}: {}", failure.message), ..failure });
            }
            Trouble::Passing(reason) => reason,
        };
        if attempt >= sink.policy.retries {
            let times = if attempt == 0 { String::new() } else { format!(" ({} attempts)", attempt + 1) };
            return Err(failed(format!("{shown}: {reason}{times}")));
        }
        attempt += 1;
        log::info!("{shown}: {reason}; next attempt in {pause:?}");
        if let Some(cause) = sink.interrupt.sleep(pause) {
            return Err(stopped(cause));
        }
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
        file.set_len(0).and_then(|()| file.rewind()).map_err(|e| cannot_write(&host, &e))?;
        sink.meter.release(Bytes(taken));
    }
    Ok(Mount {
        guest: format!("{}/{name}", target.trim_end_matches('/')),
        host,
        writable: false,
        handle: None,
    })
}

fn agent(sink: &Sink) -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("codling/", env!("CARGO_PKG_VERSION")))
        .max_redirects(REDIRECTS_MAX)
        .max_idle_connections(0)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(sink.policy.read_timeout))
        .timeout_per_write(Some(sink.policy.read_timeout))
        .build();
    if sink.policy.allow_local { Agent::new_with_config(config) } else { guarded(config) }
}

/// One attempt. `taken` is what it was charged.
fn download(url: &str, file: &mut File, taken: &mut u64, sink: &Sink) -> Result<(), Trouble> {
    let agent = agent(sink);
    // A read that waits for the server returns at once when the execution is stopped.
    let registration = {
        let agent = agent.clone();
        sink.interrupt.on_raise(move || agent.clone().shutdown())
    };
    let mut response = agent.get(url).call().map_err(|e| trouble(&e))?;
    let room = sink.meter.limit().minus(sink.meter.used());
    let announced = response.body().content_length().map(Bytes);
    if let Some(size) = announced.filter(|size| *size > room) {
        let over = OverLimit { asked: size, used: sink.meter.used(), limit: sink.meter.limit() };
        return Err(Trouble::Lasting(over_limit(over)));
    }
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; BUFFER];
    loop {
        let n =
            body.read(&mut buffer).map_err(|e| Trouble::Passing(format!("the download broke off: {e}")))?;
        if sink.interrupt.cause().is_some() {
            return Err(Trouble::Passing("stopped".into()));
        }
        let Some(part) = buffer.get(..n).filter(|part| !part.is_empty()) else { break };
        sink.charge(n as u64).map_err(Trouble::Lasting)?;
        *taken += n as u64;
        file.write_all(part).map_err(|e| Trouble::Lasting(cannot_write(sink.dir, &e)))?;
    }
    drop(registration);
    match announced {
        Some(size) if size.0 != *taken => {
            Err(Trouble::Passing(format!("{size} were announced and {} came", Bytes(*taken))))
        }
        _ => Ok(()),
    }
}

fn trouble(error: &ureq::Error) -> Trouble {
    use ureq::Error as E;
    if let Some(refused) = refusal(error) {
        let hint = "InputSources.AllowLocalAddresses=true on the node allows it, to every job";
        return Trouble::Lasting(failed(refused.to_string()).hint(hint));
    }
    match error {
        E::StatusCode(status @ 500..) => {
            Trouble::Passing(format!("the server answered with status {status}"))
        }
        E::StatusCode(status) => {
            Trouble::Lasting(failed(format!("the server answered with status {status}")))
        }
        E::TooManyRedirects => Trouble::Lasting(failed(format!("more than {REDIRECTS_MAX} redirects"))),
        E::HostNotFound => Trouble::Passing("its host was not found".into()),
        E::Io(_) | E::Timeout(_) | E::ConnectionFailed | E::Protocol(_) => {
            Trouble::Passing(error.to_string())
        }
        _ => Trouble::Lasting(failed(error.to_string())),
    }
}

/// The URL as it may stand in messages: passwords and signatures are left out.
fn shown(url: &str) -> String {
    let (before, query) = match url.find(['?', '#']) {
        Some(at) => (url.get(..at).unwrap_or(url), "?..."),
        None => (url, ""),
    };
    let plain = match before.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => before.to_owned(),
    };
    plain.chars().take(300).collect::<String>() + query
}

/// The last part of the URL's path as a file name.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path =
        path.split_once("://").map_or("", |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let name =
        String::from_utf8_lossy(&percent_decoded(last)).replace(|c: char| c == '/' || c.is_control(), "_");
    let mut name = name.trim().to_owned();
    while name.len() > NAME_MAX {
        name.pop();
    }
    if matches!(name.as_str(), "" | "." | "..") { NAMELESS.into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        for (url, name) in [
            ("http://h/a/b.csv", "b.csv"),
            ("http://h/a/b.csv?x=/y#z/w", "b.csv"),
            ("http://h/a/", "a"),
            ("http://h/", "download"),
            ("http://h", "download"),
            ("http://h/%2e%2e", "download"),
            ("http://h/..%2f..%2fetc%2fpasswd", ".._.._etc_passwd"),
            ("http://h/a%00b%0a", "a_b_"),
            ("http://h/m%C3%A4rz.csv", "m\u{e4}rz.csv"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
        let long = file_name(&format!("http://h/{}", "\u{e9}".repeat(300)));
        assert!(long.len() <= NAME_MAX && long.len() > NAME_MAX - 2);
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, text) in [
            ("http://u:p@h:1/a?sig=x", "http://h:1/a?..."),
            ("https://h/a@b", "https://h/a@b"),
            ("http://u:p@h", "http://h"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(shown(url), text);
        }
    }
}
