//! `codling update confirm`: the gate that a version on trial has to pass.

use std::time::{Duration, Instant};

use super::{ConfirmArgs, failed};
use crate::cli::Context;
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::target::{ConnectArgs, Target};
use crate::config::{CliOverrides, ProcessEnv, load};
use crate::update::{Confirmed, Slots, State};

use super::health;

/// Before the node is tried again: at first, and at most. Each try of one that is ready costs it a job.
const POLL: Duration = Duration::from_millis(250);
const POLL_MAX: Duration = Duration::from_secs(4);

/// Waits for the version on trial to be healthy, and says so.
pub(super) fn run(slots: &Slots, args: &ConfirmArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let deadline = Instant::now() + args.timeout;
    if !started(slots, deadline)? {
        return ended(slots, context);
    }
    let target = target(args, context)?;
    let healthy = judge(slots, &Client::new(target), context, deadline)?;
    let Some(healthy) = healthy else { return ended(slots, context) };
    match slots.confirm(healthy).map_err(failed("write down how the version on trial did"))? {
        Confirmed::Good => {
            context.out.line("the version on trial is healthy, and stays")?;
            Ok(Exit::Ok)
        }
        Confirmed::Back(reason) => Err(CliError::new(
            Exit::Unavailable,
            format!("the version on trial is not healthy, and goes back: {reason}"),
        )
        .hint("restart the service: it starts the version of before")),
        Confirmed::Nothing => ended(slots, context),
    }
}

/// Waits for the first start of the version on trial: who answers before that is the old one. False: there is none on
/// trial.
fn started(slots: &Slots, deadline: Instant) -> Result<bool, CliError> {
    loop {
        match slots.state().map_err(failed("tell where the update stands"))? {
            Some(State::Trial { starts: 1.., .. }) => return Ok(true),
            Some(State::Trial { .. }) if Instant::now() < deadline => std::thread::sleep(POLL),
            Some(State::Trial { .. }) => {
                return Err(CliError::new(Exit::TryAgain, "the version on trial was not started yet")
                    .hint("restart the service; without systemd, run `codling update guard` before it"));
            }
            _ => return Ok(false),
        }
    }
}

/// Tries the node until it is healthy or its time is over. None: the trial has ended meanwhile.
fn judge(
    slots: &Slots,
    client: &Client,
    context: &Context<'_>,
    deadline: Instant,
) -> Result<Option<Result<(), String>>, CliError> {
    let mut pause = POLL;
    loop {
        let why = match health::check(client, context, deadline) {
            Ok(note) => {
                note.iter().for_each(|note| context.out.note(note));
                return Ok(Some(Ok(())));
            }
            Err(why) => why,
        };
        match slots.state().map_err(failed("tell where the update stands"))? {
            Some(State::Trial { .. }) if Instant::now() < deadline => {
                std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
                pause = (pause * 2).min(POLL_MAX);
            }
            Some(State::Trial { .. }) => return Ok(Some(Err(why))),
            _ => return Ok(None),
        }
    }
}

/// There is no trial, or no longer.
fn ended(slots: &Slots, context: &Context<'_>) -> Result<Exit, CliError> {
    if let Some(State::Back { reason, .. }) = slots.state().map_err(failed("tell where the update stands"))? {
        return Err(CliError::new(Exit::NotFound, format!("the version on trial went back: {reason}"))
            .hint("restart the service: it starts the version of before"));
    }
    match slots.last() {
        Some(last) if !last.confirmed => Err(CliError::new(
            Exit::NotFound,
            format!("no version is on trial; {} went back: {}", last.version, last.reason),
        )),
        _ => {
            context.out.line("no version is on trial")?;
            Ok(Exit::Ok)
        }
    }
}

/// Where the node's API is: as its settings say, or the flags.
fn target(args: &ConfirmArgs, context: &Context<'_>) -> Result<Target, CliError> {
    let Some(file) = &args.config else { return args.connect.target(context.env) };
    let mut overrides = CliOverrides::default();
    overrides.add(&file.to_string_lossy());
    let settings = load(&overrides, &ProcessEnv).map_err(|e| crate::cli::serve::wrong_settings(&e))?.settings;
    let host = settings.api.host.to_string();
    let connect = ConnectArgs {
        api_host: Some(args.connect.api_host.clone().unwrap_or(host)),
        api_port: args.connect.api_port.or(Some(settings.api.port)),
        tls: settings.api.tls.is_some() || args.connect.tls,
        // Of the machine itself: whoever is in between has won already.
        insecure: settings.api.tls.is_some(),
        token_file: args.connect.token_file.clone().or(settings.api.token_file),
        ..args.connect.clone()
    };
    // Of the environment, the token alone: the settings say the rest.
    connect.target(&|name| (context.env)(name).filter(|_| name == "BACALHAU_API_KEY"))
}
