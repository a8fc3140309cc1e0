//! `codling update`: signed versions of this program on a board, two slots, a trial, the way back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use super::exit::{CliError, Exit};
use super::target::ConnectArgs;
use super::text::fields;
use crate::config::{CliOverrides, ProcessEnv, load};
use crate::model::Bytes;
use crate::model::units::parse_duration;
use crate::sys::RealFiles;
use crate::update::keys::Keys;
use crate::update::{Board, Bundle, Databases, Last, STARTS_MAX, Slot, Slots, State, UpdateError};

mod confirm;
mod health;

/// Install signed versions of this program on a board, and go back to the one before
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UpdateCommand,
    /// Directory that stands for /: the slots are in DIR/opt/codling, the keys in DIR/etc/codling/update-keys.d
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Data directory of the node [default: var/lib/codling below the root]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What this board is: a folder of board-configs [default: the word in etc/codling/board below the root]
    #[arg(long, global = true, value_name = "BOARD")]
    pub board: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum UpdateCommand {
    /// Check a bundle, install it beside the version that runs, and put it on trial from the next start on
    Apply {
        /// The bundle: a signed tar as scripts/bundle.sh makes it
        #[arg(value_name = "BUNDLE.tar")]
        bundle: PathBuf,
        /// Take a version that changes the databases: they are copied first, and come back with the old version
        #[arg(long)]
        allow_migration: bool,
    },
    /// Before each start of the service: count the start of a version on trial, finish what a power cut left undone
    Guard,
    /// Wait until the version on trial is ready and has run a job; it stays then, otherwise the old one comes back
    Confirm(ConfirmArgs),
    /// Go back to the other version
    Rollback {
        /// With the databases that were kept before an update; what came later is lost
        #[arg(long)]
        restore: bool,
        /// Only if this version runs or is on trial; otherwise there is nothing to do
        #[arg(long, value_name = "VERSION")]
        from: Option<String>,
    },
    /// Show both slots, and where an update stands
    Status,
}

/// How a version on trial is judged.
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// How long it may take until it is ready and its job has run
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "120s")]
    pub timeout: Duration,
    /// The node's settings file, which says where its API is and how to get in
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// A version in a slot.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InSlot {
    slot: Slot,
    version: String,
    whole: bool,
}

/// What `status` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Slot>,
    slots: Vec<InSlot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
    databases_kept: bool,
}

/// A board's places, as flags and files name them.
struct Here {
    slots: Slots,
    databases: Databases,
    board: Option<String>,
    keys: PathBuf,
}

impl Here {
    fn of(args: &UpdateArgs) -> Result<Self, CliError> {
        let data_dir = args.data_dir.clone().unwrap_or_else(|| args.root.join("var/lib/codling"));
        let databases = Databases::new(data_dir).with_reserve(reserve(&args.root));
        let board = match &args.board {
            Some(name) => Some(name.clone()),
            None => board_name(&args.root.join("etc/codling/board"))?,
        };
        Ok(Self {
            slots: Slots::new(Arc::new(RealFiles), &args.root, databases.clone()),
            databases,
            board,
            keys: args.root.join("etc/codling/update-keys.d"),
        })
    }

    fn board(&self) -> Result<Board, CliError> {
        let schema = self.slots.schema().map_err(failed("look at the databases"))?;
        Ok(Board { target: Board::TARGET, name: self.board.clone(), schema })
    }
}

/// The first word of a file, if it is there.
fn board_name(path: &Path) -> Result<Option<String>, CliError> {
    match crate::config::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).split_whitespace().next().map(str::to_owned)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::caused(Exit::Io, format!("cannot read {}", path.display()), error)),
    }
}

/// `Store.Reserve` as the board's settings say. What is wrong with them, the node says at its start.
fn reserve(root: &Path) -> Bytes {
    let file = root.join("etc/codling/config.yaml");
    if !file.is_file() {
        return Bytes::ZERO;
    }
    let overrides = CliOverrides { files: vec![file], ..CliOverrides::default() };
    load(&overrides, &ProcessEnv).map_or(Bytes::ZERO, |loaded| loaded.settings.store.reserve)
}

/// The error of a command that wanted to do `what`.
fn failed(what: &str) -> impl FnOnce(UpdateError) -> CliError {
    move |error| {
        let hint = error.hint();
        CliError::caused(exit(&error), format!("cannot {what}"), error).hint(hint)
    }
}

const fn exit(error: &UpdateError) -> Exit {
    use UpdateError as E;
    match error {
        E::Bundle(_) | E::Manifest(_) | E::Altered(_) | E::Broken { .. } | E::State { .. } => Exit::Data,
        E::Target { .. } | E::Board { .. } => Exit::Data,
        E::OlderSchema { .. } | E::NewerSchema { .. } | E::Migration { .. } => Exit::Data,
        E::Signature(_) => Exit::Denied,
        E::NoKeys(_) | E::BadKey(_) => Exit::Config,
        E::NoRoom { .. } | E::NoRoomForCopy { .. } | E::Io { .. } | E::Store(_) => Exit::Io,
        E::Busy(_) | E::TrialUnderWay | E::NodeRuns(_) => Exit::TryAgain,
        E::NothingInstalled(_) | E::NoCopy(_) => Exit::NotFound,
        E::CannotVerify => Exit::Unavailable,
        E::Illegal(_) => Exit::Usage,
    }
}

/// Runs `codling update`.
///
/// # Errors
/// The bundle is refused, a step failed, or the version on trial went back.
pub fn run(args: &UpdateArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let here = Here::of(args)?;
    match &args.command {
        UpdateCommand::Apply { bundle, allow_migration } => apply(&here, bundle, *allow_migration, context),
        UpdateCommand::Guard => guard(&here, context),
        UpdateCommand::Confirm(args) => confirm::run(&here.slots, args, context),
        UpdateCommand::Rollback { restore, from } => roll_back(&here, *restore, from.as_deref(), context),
        UpdateCommand::Status => status(&here, context),
    }
}

fn apply(here: &Here, path: &Path, allow_migration: bool, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("apply {}", path.display());
    if !cfg!(feature = "tls") {
        return Err(failed(&what)(UpdateError::CannotVerify));
    }
    let keys = Keys::load(&here.keys).map_err(failed(&what))?;
    let bundle =
        Bundle::open(path, &|bytes, signature| keys.verify(bytes, signature)).map_err(failed(&what))?;
    // Others than whoever updates must be able to run it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let state = here.slots.apply(&bundle, &here.board()?, allow_migration).map_err(failed(&what))?;
    let version = &bundle.manifest().version;
    context.out.line(&match state {
        State::Settled { slot } => format!("version {version} is installed in slot {slot}"),
        state => format!(
            "version {version} is on trial in slot {}: restart the service, and it has to become healthy",
            state.current()
        ),
    })?;
    Ok(Exit::Ok)
}

fn guard(here: &Here, context: &Context<'_>) -> Result<Exit, CliError> {
    match here.slots.guard().map_err(failed("count the start of a version on trial"))? {
        Some(State::Trial { from, starts, .. }) => {
            let slot = from.other();
            context
                .out
                .note(&format!("the version in slot {slot} is on trial, start {starts} of {STARTS_MAX}"));
        }
        Some(State::Settled { slot }) => context.out.note(&format!("the version in slot {slot} is started")),
        _ => {}
    }
    Ok(Exit::Ok)
}

fn roll_back(
    here: &Here,
    restore: bool,
    from: Option<&str>,
    context: &Context<'_>,
) -> Result<Exit, CliError> {
    if let Some(from) = from {
        let state = here.slots.state().map_err(failed("tell where updates stand"))?;
        let current = state.and_then(|state| here.slots.manifest(state.current()));
        if current.is_none_or(|manifest| manifest.version != from) {
            context.out.note(&format!("version {from} does not run: nothing to do"));
            return Ok(Exit::Ok);
        }
    }
    let settled = matches!(here.slots.state(), Ok(Some(State::Settled { .. })));
    // Only who keeps the databases that are there needs to read them; they may be what is wrong.
    let board = if settled && !restore {
        here.board()?
    } else {
        Board { target: Board::TARGET, name: here.board.clone(), schema: crate::store::SCHEMA }
    };
    let state = here.slots.roll_back(&board, restore).map_err(failed("go back"))?;
    let slot = state.good();
    let version = here.slots.manifest(slot).map(|manifest| manifest.version).unwrap_or_default();
    context
        .out
        .line(&format!("version {version} in slot {slot} runs from the next start of the service on"))?;
    Ok(Exit::Ok)
}

fn status(here: &Here, context: &Context<'_>) -> Result<Exit, CliError> {
    let state = here.slots.state().map_err(failed("tell where updates stand"))?;
    let slots: Vec<InSlot> = Slot::ALL
        .into_iter()
        .filter_map(|slot| {
            let version = here.slots.manifest(slot)?.version;
            Some(InSlot { slot, version, whole: here.slots.verify(slot).is_ok() })
        })
        .collect();
    let current = state.as_ref().map(State::current);
    let databases_kept = here.databases.has_copy();
    let status = Status { state, current, slots, last: here.slots.last(), databases_kept };
    context.out.show(&status, || describe(&status))?;
    Ok(Exit::Ok)
}

fn describe(status: &Status) -> String {
    let state = match &status.state {
        None => "no version was installed yet".to_owned(),
        Some(State::Settled { slot }) => format!("slot {slot} runs"),
        Some(State::Trial { from, starts, .. }) => {
            format!("slot {} is on trial, started {starts} of {STARTS_MAX} times", from.other())
        }
        Some(State::Good { slot }) => format!("slot {slot} was found good; the next start writes that down"),
        Some(State::Back { slot, reason, .. }) => format!("back to slot {slot} at the next start: {reason}"),
    };
    let version = |slot: Slot| match status.slots.iter().find(|found| found.slot == slot) {
        None => "empty".to_owned(),
        Some(found) if found.whole => found.version.clone(),
        Some(found) => format!("{} (damaged)", found.version),
    };
    let last = match &status.last {
        None => "none".to_owned(),
        Some(last) if last.confirmed => format!("version {} stayed", last.version),
        Some(last) => format!("version {} went back: {}", last.version, last.reason),
    };
    let kept = if status.databases_kept { "those of before an update" } else { "none" };
    fields(&[
        ("State", state),
        ("Slot a", version(Slot::A)),
        ("Slot b", version(Slot::B)),
        ("Last update", last),
        ("Databases kept", kept.to_owned()),
    ])
}
