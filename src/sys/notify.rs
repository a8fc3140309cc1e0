//! What the service manager is told: systemd's `sd_notify(3)` protocol, one datagram for each message.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say, which `variable` looks up.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        match open(&name) {
            Ok(socket) => Self { socket: Some(socket), watchdog: watchdog(&variable) },
            Err(error) => {
                log::warn!(
                    "the service manager is not told anything: NOTIFY_SOCKET {}: {error}",
                    name.display()
                );
                Self::default()
            }
        }
    }

    /// How often it wants a sign of life, if it wants any; half of that is when to give it.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends assignments, one on each line: `READY=1`, `STATUS=...`. Never blocks.
    pub fn tell(&self, text: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            log::warn!("the service manager was not told '{}': {error}", text.replace('\n', " "));
        }
    }
}

/// A path, or `@` and a name that is in no file system.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The watchdog's time, if it is meant for this process.
fn watchdog(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| variable(name)?.to_str()?.trim().parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        Notifier::new(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn both_kinds_of_address_are_reached() {
        let unique = uuid::Uuid::new_v4();
        let path = std::env::temp_dir().join(format!("codling-notify-{unique}"));
        let socket = UnixDatagram::bind(&path).unwrap();
        notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).tell("READY=1\nSTATUS=up");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=up");
        std::fs::remove_file(&path).unwrap();

        let name = format!("codling-notify-{unique}");
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).tell("STOPPING=1");
        assert_eq!(heard(&socket), "STOPPING=1");
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        for name in ["", "relative", "/nowhere/at/all", "vsock:2:1234"] {
            let notifier = notifier(&[("NOTIFY_SOCKET", name)]);
            notifier.tell("READY=1");
            assert_eq!(notifier.watchdog(), None);
        }
    }

    #[test]
    fn the_watchdog_is_for_this_process_or_for_nobody() {
        let own = std::process::id().to_string();
        for (micros, pid, wanted) in [
            ("60000000", None, Some(60)),
            ("60000000", Some(own.as_str()), Some(60)),
            ("60000000", Some("1"), None),
            ("0", None, None),
            ("soon", None, None),
        ] {
            let mut variables = vec![("NOTIFY_SOCKET", "@codling-nobody"), ("WATCHDOG_USEC", micros)];
            variables.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            assert_eq!(notifier(&variables).watchdog(), wanted.map(Duration::from_secs), "{micros} {pid:?}");
        }
    }
}
