//! What settings must be to each other, and to the node's files.

use std::time::Duration;

use super::build::Mode;
use super::load::Values;
use super::report::{Finding, Findings, Origin};
use super::settings::{Settings, StorePlace};
use super::values::{Advertise, Host, Scale, Secret, clip};
use crate::model::Bytes;

/// Says everything that is to be said about them.
pub(super) fn apply(settings: &Settings, values: &Values, mode: Mode, findings: &mut Findings) {
    roles(values, findings);
    sockets(values, settings, mode, findings);
    stores(values, findings);
    places(settings, values, findings);
    amounts(values, settings, findings);
}

fn roles(values: &Values, findings: &mut Findings) {
    for key in ["Compute.Enabled", "Orchestrator.Enabled"] {
        if !values.bool(key) {
            let message = "off: a node with one role alone is not possible yet";
            let hint = "leave both on (--node-type requester,compute, or no key for it): both run in one process, \
                        and this node is its own orchestrator";
            findings.push(Finding::error(key, &values.origin(key), message).hint(hint));
        }
    }
}

fn sockets(values: &Values, settings: &Settings, mode: Mode, findings: &mut Findings) {
    let api = &settings.api;
    if !api.host.is_loopback() && api.token.is_none() && values.is_default("API.Auth.TokenFile") {
        let origin = values.origin("API.Host");
        let message = format!("{} lets other machines use the API, and no token is set", api.host);
        let hint = "set API.Auth.TokenFile (or BACALHAU_API_AUTH_TOKEN_FILE) to a file that holds one, or \
                    BACALHAU_API_AUTH_TOKEN to the token itself, e.g. of `openssl rand -hex 32`; \
                    or listen on 127.0.0.1";
        // A file need not say everything: the token may well come from the environment.
        let finding = match mode {
            Mode::Start => Finding::error("API.Host", &origin, message),
            Mode::Check => Finding::warning("API.Host", &origin, message),
        };
        findings.push(finding.hint(hint));
    }
    if api.token.as_ref().is_some_and(Secret::is_weak) {
        let key = if values.is_default("API.Auth.Token") { "API.Auth.TokenFile" } else { "API.Auth.Token" };
        let weak = Finding::warning(key, &values.origin(key), "the token is short enough to be guessed");
        findings.push(weak.hint("take 16 characters or more, e.g. of `openssl rand -hex 32`"));
    }
    if let Origin::Flag(_) = values.origin("API.Auth.Token") {
        let key = "API.Auth.Token";
        let shown = Finding::warning(
            key,
            &values.origin(key),
            "everybody on this machine sees it in the list of processes",
        );
        findings.push(shown.hint("set API.Auth.TokenFile, or BACALHAU_API_AUTH_TOKEN in the environment"));
    }
    let publisher = &settings.publisher;
    unreachable_results(values, settings, findings);
    let all = |host: &Host| matches!(host, Host::Ip(ip) if ip.is_unspecified());
    let meet = api.host == publisher.bind || all(&api.host) || all(&publisher.bind);
    if api.port != 0 && api.port == publisher.port && meet {
        let key = "Publishers.Types.Local.Port";
        let message = format!("{} is the port of the API too", api.port);
        findings.push(Finding::error(key, &values.origin(key), message).hint("give them different ports"));
    }
}

/// The API, or the URLs of results, are for other machines, and the results themselves are not.
fn unreachable_results(values: &Values, settings: &Settings, findings: &mut Findings) {
    let (api, publisher) = (&settings.api, &settings.publisher);
    if !publisher.bind.is_loopback() {
        return;
    }
    let named = match &publisher.advertise {
        Advertise::Word(_) => true,
        // Another port is that of a proxy on this machine, and so is the port of a base URL.
        Advertise::Host(host, port) => !host.is_loopback() && port.is_none_or(|port| port == publisher.port),
        Advertise::Url(_) => false,
        Advertise::Asked => !api.host.is_loopback(),
    };
    if named {
        let key = "Publishers.Types.Local.Bind";
        let message =
            format!("results are served on {} only: other machines cannot fetch them", publisher.bind);
        let finding = Finding::warning(key, &values.origin(key), message);
        findings.push(finding.hint("set it to an address of this machine, or 0.0.0.0"));
    }
}

fn stores(values: &Values, findings: &mut Findings) {
    let of = |word: &str| {
        let keys = ["Store.Compute.Type", "Store.Jobs.Type"];
        keys.into_iter().filter(|key| values.text(key).as_deref() == Some(word)).collect::<Vec<_>>()
    };
    if let Some(first) = of("boltdb").first() {
        let message = "boltdb is the old name of the durable store, which is redb";
        findings.push(Finding::warning(first, &values.origin(first), message));
    }
    let memory = of("memory");
    if let Some(first) = memory.first() {
        let what = match (memory.len(), *first) {
            (2, _) => "jobs and executions are",
            (_, "Store.Jobs.Type") => "jobs are",
            _ => "executions are",
        };
        let message = format!("{what} kept in memory and lost when the node stops");
        findings.push(Finding::warning(first, &values.origin(first), message));
    }
}

/// Files that would be swept away, or written by two.
fn places(settings: &Settings, values: &Values, findings: &mut Findings) {
    let results = &settings.publisher.directory;
    let mut swept = vec![settings.scratch_dir(), settings.cache_dir()];
    let key = "Publishers.Types.Local.Directory";
    let taken = ["compute", "orchestrator"].map(|name| settings.data_dir.join(name));
    if settings.data_dir.starts_with(results)
        || swept.iter().chain(&taken).any(|dir| results.starts_with(dir))
    {
        let message = format!("{} holds other files of the node", results.display());
        findings
            .push(Finding::error(key, &values.origin(key), message).hint("give it a directory of its own"));
    }
    swept.push(results.clone());
    let mut files = Vec::new();
    for (key, place) in
        [("Store.Compute.Path", &settings.store.executions), ("Store.Jobs.Path", &settings.store.jobs)]
    {
        let StorePlace::Redb(path) = place else { continue };
        if swept.iter().any(|dir| path.starts_with(dir)) {
            let message = format!("{} is where the node deletes files", path.display());
            findings.push(Finding::error(key, &values.origin(key), message).hint("put it somewhere else"));
        }
        if files.contains(&path) {
            let message = format!("{} is the file of the other store", path.display());
            findings.push(Finding::error(key, &values.origin(key), message).hint("give each its own"));
        }
        files.push(path);
    }
}

/// Numbers that make no sense, or only with others.
fn amounts(values: &Values, settings: &Settings, findings: &mut Findings) {
    let nothing = |scale: &Scale<Bytes>| match scale {
        Scale::Amount(bytes) => *bytes == Bytes::ZERO,
        Scale::Percent(percent) => *percent <= 0.0,
    };
    let key = "Results.Quota";
    if nothing(&settings.results.quota) && !values.is_default(key) {
        let none = Finding::error(key, &values.origin(key), "nothing could be kept, and nothing could run");
        findings.push(none.hint("give a size (2GiB) or a part of the file system (50%)"));
    }
    let key = "Results.MaxSize";
    if settings.results.max_size.as_ref().is_some_and(nothing) {
        let none = Finding::error(key, &values.origin(key), "no result could be kept");
        findings.push(none.hint("give a size (1GiB), a part of the file system (25%), or nothing at all"));
    }
    let key = "Store.FlushInterval";
    if settings.store.flush_after > MAX_FLUSH {
        findings.push(Finding::error(key, &values.origin(key), "longer than an hour"));
    }
    let key = "InputSources.ReadTimeout";
    if settings.inputs.read_timeout.is_zero() {
        findings.push(Finding::error(key, &values.origin(key), "no input can be fetched in no time"));
    }
    for (group, defaults) in
        [("JobDefaults.Batch", &settings.job_defaults.batch), ("JobDefaults.Ops", &settings.job_defaults.ops)]
    {
        let Some(publisher) = &defaults.publisher else { continue };
        if !publisher.trim().eq_ignore_ascii_case("local") {
            let key = format!("{group}.Task.Publisher.Type");
            let message =
                format!("there is no publisher '{}': jobs that name none are refused", clip(publisher));
            findings.push(
                Finding::warning(&key, &values.origin(&key), message).hint("local is the one there is"),
            );
        }
    }
    let Some(longest) = settings.compute.max_execution_timeout else { return };
    for (group, defaults) in
        [("JobDefaults.Batch", &settings.job_defaults.batch), ("JobDefaults.Ops", &settings.job_defaults.ops)]
    {
        let key = format!("{group}.Task.Timeouts.ExecutionTimeout");
        if defaults.execution_timeout > longest {
            let message = "longer than Compute.MaxExecutionTimeout, which counts";
            findings.push(Finding::warning(&key, &values.origin(&key), message));
        }
    }
}

/// What may be lost in a power cut is never older than this.
const MAX_FLUSH: Duration = Duration::from_secs(3600);
