//! What is read again at SIGHUP: the file of the API's token, the certificate and its key.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Settings, read_token};
use crate::gate::{Tls, Token};
use crate::sys::Clock;

/// What can change while the node runs.
#[derive(Clone)]
pub(super) struct Reload {
    /// The token, and the file that it came from.
    token: Option<(Token, PathBuf)>,
    tls: Option<Tls>,
    clock: Arc<dyn Clock>,
}

impl Reload {
    pub(super) fn new(
        settings: &Settings,
        token: Option<&Token>,
        tls: Option<&Tls>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let file = settings.api.token_file.clone();
        Self { token: token.cloned().zip(file), tls: tls.cloned(), clock: Arc::clone(clock) }
    }

    /// Reads again at each SIGHUP. What cannot be used changes nothing.
    ///
    /// # Errors
    /// The signal cannot be listened for.
    pub(super) fn start(self) -> io::Result<()> {
        if io::stderr().is_terminal() {
            // The signal says that the terminal is gone, and the node goes with it.
            return Ok(());
        }
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::task::spawn_local(async move {
            while hangup.recv().await.is_some() {
                let this = self.clone();
                // Files are read elsewhere: a card that hangs must not stop the node.
                if tokio::task::spawn_blocking(move || this.now()).await.is_err() {
                    log::error!("reading files again failed");
                }
            }
        });
        Ok(())
    }

    fn now(&self) {
        if self.token.is_none() && self.tls.is_none() {
            log::info!("SIGHUP: there is no token file and no certificate to read again");
        }
        if let Some((token, path)) = &self.token {
            match read_token(path) {
                Ok((secret, _)) => say(path, token.replace(secret)),
                Err(error) => {
                    log::error!("{}: {error}; the token of before still counts", path.display());
                }
            }
        }
        if let Some(tls) = &self.tls {
            match tls.reload(self.clock.is_trusted().then(|| self.clock.now())) {
                Ok(changed) => say(tls.certificate(), changed),
                Err(error) => log::error!("{error}; the certificate of before is still used"),
            }
        }
    }
}

fn say(file: &Path, changed: bool) {
    let what = if changed { "what it holds counts now" } else { "as before" };
    log::info!("{} was read again: {what}", file.display());
}
