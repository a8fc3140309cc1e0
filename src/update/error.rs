//! Why an update is refused, or failed.

use std::io;
use std::path::{Path, PathBuf};

use super::state::{IllegalTransition, Slot};
use crate::model::Bytes;
use crate::store::StoreError;

/// Why an update is refused, or failed. The version that runs goes on in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This is no bundle, or not a whole one.
    #[error("the bundle is not usable: {0}")]
    Bundle(String),
    /// The manifest is not one.
    #[error("the bundle's manifest is not usable")]
    Manifest(#[from] serde_json::Error),
    /// The signature is by none of the keys.
    #[error("the bundle is signed by none of the {0} keys that are trusted here, or was altered")]
    Signature(usize),
    /// Nobody is trusted.
    #[error("no key is trusted yet: {} has no *.pub file", .0.display())]
    NoKeys(PathBuf),
    /// A key file that is none.
    #[error("{} holds no Ed25519 public key", .0.display())]
    BadKey(PathBuf),
    /// A file of the bundle is not what the manifest says.
    #[error("{0} in the bundle is not what its manifest says: it was altered or cut off")]
    Altered(String),
    /// A file of a slot is not what its manifest says.
    #[error("slot {slot} holds no version that works: {why}")]
    Broken {
        /// Which.
        slot: Slot,
        /// What is wrong.
        why: String,
    },
    /// For other processors.
    #[error("the bundle is for {bundle}, this board runs {here}")]
    Target {
        /// The bundle's target triple.
        bundle: String,
        /// That of this program.
        here: &'static str,
    },
    /// For other boards.
    #[error("the bundle is for {}, this board is {}", .bundle.join(", "), .here.as_deref().unwrap_or("not named"))]
    Board {
        /// The bundle's boards.
        bundle: Vec<String>,
        /// This one, if it says.
        here: Option<String>,
    },
    /// It cannot read what is there.
    #[error("the data directory holds schema {found}, version {version} knows only up to {knows}")]
    OlderSchema {
        /// Of the data.
        found: u32,
        /// The newest that the version knows.
        knows: u32,
        /// Which version.
        version: String,
    },
    /// It no longer reads what is there.
    #[error("the data directory holds schema {found}, version {version} reads only from {least} on")]
    NewerSchema {
        /// Of the data.
        found: u32,
        /// The oldest that the version reads.
        least: u32,
        /// Which version.
        version: String,
    },
    /// There would be no way back without a copy.
    #[error(
        "version {version} changes the databases from schema {found} to {becomes}, which the present one cannot read"
    )]
    Migration {
        /// Of the data.
        found: u32,
        /// What it would be.
        becomes: u32,
        /// Which version.
        version: String,
    },
    /// The disk is too small.
    #[error("{need} are needed in {}, {free} are free", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// For the files.
        need: Bytes,
        /// What is there.
        free: Bytes,
    },
    /// The disk is too small for a copy of the databases.
    #[error(
        "the databases are copied before a version changes them: {need} are needed in {}, {free} are free",
        path.display()
    )]
    NoRoomForCopy {
        /// Where.
        path: PathBuf,
        /// For the copy, the margin, and the version's files if they go to the same file system.
        need: Bytes,
        /// What is there.
        free: Bytes,
    },
    /// Another process.
    #[error("another update is at work in {}", .0.display())]
    Busy(PathBuf),
    /// One after the other.
    #[error("a version is on trial already")]
    TrialUnderWay,
    /// Nothing to do it to.
    #[error("no version was installed in {} yet", .0.display())]
    NothingInstalled(PathBuf),
    /// The node works on its databases.
    #[error("the databases can only be put back while no node works in {}", .0.display())]
    NodeRuns(PathBuf),
    /// There is no copy.
    #[error("no databases of before an update are kept in {}", .0.display())]
    NoCopy(PathBuf),
    /// The databases cannot be looked at.
    #[error("cannot tell the schema of the data directory")]
    Store(#[from] StoreError),
    /// `trial.json` is damaged.
    #[error("{} is damaged", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It cannot happen now.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A build without `tls`.
    #[error("this codling was built without what checks signatures")]
    CannotVerify,
}

impl UpdateError {
    /// What an I/O step on `path` failed with.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Store(_) => {
                "nothing was switched; run it as root, and see that the disk works"
            }
            Self::Bundle(_) | Self::Manifest(_) | Self::Altered(_) => {
                "fetch the bundle again, or make it again with scripts/bundle.sh"
            }
            Self::Signature(_) => "fetch it again; if its maker has a new key, put that into update-keys.d",
            Self::NoKeys(_) | Self::BadKey(_) => {
                "put what `openssl pkey -in KEY.pem -pubout` prints into update-keys.d, as NAME.pub"
            }
            Self::Broken { .. } => "apply a bundle: it fills the slot anew",
            Self::Target { .. } => "make the bundle for this board: scripts/bundle.sh --board BOARD",
            Self::Board { here: None, .. } => {
                "write the board's name (a folder of board-configs) to /etc/codling/board"
            }
            Self::Board { .. } => "make the bundle for this board: scripts/bundle.sh --board BOARD",
            Self::OlderSchema { .. } => {
                "take a newer version; with `rollback --restore`, kept databases come back, too"
            }
            Self::NewerSchema { .. } => "update to a version in between first",
            Self::Migration { .. } => {
                "with --allow-migration, a copy is kept, and comes back if the version fails"
            }
            Self::NoRoom { .. } => "make room there, and apply it again",
            Self::NoRoomForCopy { .. } => {
                "nothing was changed; `codling results df` says what takes the room: make some, and apply it again"
            }
            Self::Busy(_) => "wait for it to end",
            Self::TrialUnderWay => "wait for its end, or end it: `codling update rollback`",
            Self::NothingInstalled(_) => "install one with `codling update apply BUNDLE`",
            Self::NodeRuns(_) => "stop the node first: `systemctl stop codling`",
            Self::NoCopy(_) => "leave out --restore",
            Self::State { .. } => "remove it to go on with the version that `good` points to",
            Self::Illegal(_) => "`codling update status` says where it stands",
            Self::CannotVerify => "use a build with feature `tls`, or the board's own update tool",
        }
    }
}
