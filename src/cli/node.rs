//! `codling node`, `codling agent` and `codling version`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::answers::{Amounts, NodeInfo, NodeState, Version, read, short_id};
use super::client::{Client, segment};
use super::exit::{CliError, Exit};
use super::target::ConnectArgs;
use super::text::{Table, fields};
use crate::model::Bytes;
use crate::model::units::format_duration;
use crate::wire::answers::ResultAddresses;

/// Show nodes
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// What to show; without it, the node that is asked.
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What to show of nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes that the asked one knows
    List {
        /// Print whole ids
        #[arg(long)]
        wide: bool,
    },
    /// Show one node
    Describe {
        /// Id of the node, or its beginning
        id: String,
    },
}

/// Ask the node itself
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// What to ask.
    #[command(subcommand)]
    pub command: AgentCommand,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What to ask the node.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum AgentCommand {
    /// Whether it is alive
    Alive,
    /// Which version it is
    Version,
    /// What it can do and what it does
    Node,
}

/// Print the versions of this program and of the node
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Do not ask the node
    #[arg(long)]
    pub client: bool,
    /// Which node to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Runs `codling node`.
///
/// # Errors
/// The node does not answer, or there is no such node.
pub fn run(args: &NodeArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let client = Client::new(args.connect.target(context.env)?);
    match &args.command {
        None => own(&client, context),
        Some(NodeCommand::List { wide }) => list(&client, *wide, context),
        Some(NodeCommand::Describe { id }) => {
            let what = format!("describe node {id}");
            let path = format!("orchestrator/nodes/{}", segment(id));
            let answer = client.get(&path, &[]).map_err(|e| e.doing(&what))?;
            let node = answer.get("Node").unwrap_or(&answer);
            let state: NodeState = read(&client, node).map_err(|e| e.doing(&what))?;
            context.out.show(node, || describe(&state))?;
            Ok(Exit::Ok)
        }
    }
}

fn list(client: &Client, wide: bool, context: &Context<'_>) -> Result<Exit, CliError> {
    let answer = client.get("orchestrator/nodes", &[]).map_err(|e| e.doing("list nodes"))?;
    let empty = Value::Array(Vec::new());
    let nodes = answer.get("Nodes").filter(|n| !n.is_null()).unwrap_or(&empty);
    let states: Vec<NodeState> = read(client, nodes).map_err(|e| e.doing("list nodes"))?;
    if context.out.quiet {
        return super::print_ids(states.iter().map(|s| s.info.id.as_str()), context);
    }
    context.out.show(nodes, || {
        let mut table = Table::new(&["ID", "TYPE", "STATUS", "CPU", "MEMORY", "DISK", "RUNNING", "WAITING"]);
        for state in &states {
            let id = if wide { &state.info.id } else { short_id(&state.info.id) };
            let (mut row, info) = (vec![id.to_owned(), state.info.kind.clone(), status(state)], &state.info);
            if let Some(compute) = &info.compute {
                let (free, all) = (&compute.available_capacity, &compute.max_capacity);
                row.push(format!("{:.1} / {:.1}", free.cpu, all.cpu));
                row.push(format!("{} / {}", Bytes(free.memory), Bytes(all.memory)));
                row.push(format!("{} / {}", Bytes(free.disk), Bytes(all.disk)));
                row.push(compute.running_executions.to_string());
                row.push(compute.enqueued_executions.to_string());
            }
            table.row(&row);
        }
        table.render()
    })?;
    Ok(Exit::Ok)
}

fn status(state: &NodeState) -> String {
    let connection = match state.connection_state.status.as_str() {
        "" => &state.connection,
        status => status,
    };
    [state.membership.as_str(), connection]
        .iter()
        .filter(|s| !s.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(", ")
}

fn describe(state: &NodeState) -> String {
    let info = &state.info;
    let labels: Vec<String> = info.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut pairs = vec![
        ("ID", info.id.clone()),
        ("Type", info.kind.clone()),
        ("Version", info.version.git_version.clone()),
        ("Status", status(state)),
        ("Labels", labels.join(", ")),
    ];
    if let Some(compute) = &info.compute {
        let amounts = |a: &Amounts| {
            format!("{:.1} CPU, {} memory, {} disk, {} GPU", a.cpu, Bytes(a.memory), Bytes(a.disk), a.gpu)
        };
        pairs.extend([
            ("Engines", compute.execution_engines.join(", ")),
            ("Publishers", compute.publishers.join(", ")),
            ("Sources", compute.storage_sources.join(", ")),
            ("Capacity", amounts(&compute.max_capacity)),
            ("Available", amounts(&compute.available_capacity)),
            ("Running", compute.running_executions.to_string()),
            ("Waiting", compute.enqueued_executions.to_string()),
        ]);
    }
    if let Some(results) = &state.codling_results {
        pairs.extend(addresses(results));
    }
    if !info.disk_warning.is_empty() {
        pairs.push(("Warning", info.disk_warning.clone()));
    }
    fields(&pairs)
}

/// Where results are fetched from, what is wrong with that, and what else there would be.
fn addresses(results: &ResultAddresses) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("Results", format!("{} ({})", results.url, results.reason)),
        ("  served on", results.bind.clone()),
    ];
    if let Some(seconds) = results.link_lifetime_seconds {
        let lifetime = format_duration(Duration::from_secs(seconds));
        pairs.push(("  links", format!("signed, good for {lifetime}")));
    }
    pairs.extend(results.warning.iter().map(|warning| ("  warning", warning.clone())));
    pairs.extend(results.alternatives.iter().map(|other| {
        let what = if other.usable { &other.url } else { &other.address };
        let label = if other.usable { "  or" } else { "  not" };
        (label, format!("{what} ({}: {})", other.interface, other.reason))
    }));
    pairs.extend(
        results.former.iter().map(|former| ("  formerly", format!("{}, now {}", former.url, former.now))),
    );
    pairs
}

/// Runs `codling agent`.
///
/// # Errors
/// The node does not answer.
pub fn agent(args: &AgentArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let client = Client::new(args.connect.target(context.env)?);
    let address = &client.target().address;
    match args.command {
        AgentCommand::Alive => {
            let what = format!("ask {address} whether it is alive");
            let answer = client.get("agent/alive", &[]).map_err(|e| e.doing(&what))?;
            let status = answer.get("Status").and_then(Value::as_str).unwrap_or_default();
            context.out.show(&answer, || fields(&[("Status", status)]))?;
            if status.eq_ignore_ascii_case("ok") {
                return Ok(Exit::Ok);
            }
            Err(CliError::new(Exit::Unavailable, format!("the node at {address} is not well: '{status}'")))
        }
        AgentCommand::Version => {
            let what = format!("ask {address} for its version");
            let answer = client.get("agent/version", &[]).map_err(|e| e.doing(&what))?;
            let version: Version = read(&client, &answer).map_err(|e| e.doing(&what))?;
            context.out.show(&answer, || fields(&version_fields(&version)))?;
            Ok(Exit::Ok)
        }
        AgentCommand::Node => own(&client, context),
    }
}

/// The node that is asked.
fn own(client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("ask {} what it can do", client.target().address);
    let answer = client.get("agent/node", &[]).map_err(|e| e.doing(&what))?;
    // Bacalhau 1.4 nests the node under Info, 1.9 does not, codling sends both.
    let mut state: NodeState = read(client, &answer).map_err(|e| e.doing(&what))?;
    if state.info.id.is_empty() {
        state.info = read::<NodeInfo>(client, &answer).map_err(|e| e.doing(&what))?;
    }
    context.out.show(&answer, || describe(&state))?;
    Ok(Exit::Ok)
}

fn version_fields(version: &Version) -> [(&'static str, String); 4] {
    [
        ("Version", version.git_version.clone()),
        ("Commit", version.git_commit.clone()),
        ("Built", version.build_date.clone()),
        ("Platform", format!("{}/{}", version.os, version.arch)),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    client: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Version>,
}

/// Runs `codling version`. That no node answers is worth a note, not a failure.
///
/// # Errors
/// Standard output cannot be written, or the connection's settings are wrong.
pub fn version(args: &VersionArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let client_version = Version {
        git_version: concat!("v", env!("CARGO_PKG_VERSION")).into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        ..Version::default()
    };
    let mut server = None;
    if !args.client {
        let client = Client::new(args.connect.target(context.env)?);
        match client.get("agent/version", &[]).and_then(|answer| read::<Version>(&client, &answer)) {
            Ok(version) => server = Some(version),
            Err(error) => context.out.note(&format!("no version of a node: {error}")),
        }
    }
    let versions = Versions { client: client_version, server };
    context.out.show(&versions, || {
        let mut pairs = vec![("Client", versions.client.git_version.as_str())];
        if let Some(server) = &versions.server {
            pairs.push(("Node", server.git_version.as_str()));
        }
        fields(&pairs)
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{Reply, Server, run};

    const NODE: &str = r#"{"Info":{"NodeID":"n-edge","NodeType":"Compute","Labels":{"zone":"a"},
        "BacalhauVersion":{"GitVersion":"v9"},"ComputeNodeInfo":{"ExecutionEngines":["wasm"],"Publishers":["local"],
        "StorageSources":null,"MaxCapacity":{"CPU":4,"Memory":1073741824},"AvailableCapacity":{"CPU":3.5},
        "RunningExecutions":1}},"Membership":"APPROVED","Connection":"CONNECTED","NodeID":"n-edge"}"#;

    fn server() -> Server {
        Server::start(|request| match request.path() {
            "/api/v1/orchestrator/nodes" => Reply::json(format!(r#"{{"NextToken":"","Nodes":[{NODE}]}}"#)),
            "/api/v1/orchestrator/nodes/n-edge" => Reply::json(format!(r#"{{"Node":{NODE}}}"#)),
            "/api/v1/agent/node" => Reply::json(NODE),
            "/api/v1/agent/alive" => Reply::json(r#"{"Status":"OK"}"#),
            "/api/v1/agent/version" => {
                Reply::json(r#"{"GitVersion":"v9.9.9","GOOS":"linux","GOARCH":"arm64"}"#)
            }
            _ => Reply::new(404, r#"{"Message":"no such thing"}"#),
        })
    }

    #[test]
    fn nodes_are_listed_and_described() {
        let server = server();
        assert_eq!(
            server.run(&["node", "list"]).expect(0).stdout(),
            "ID      TYPE     STATUS               CPU        MEMORY         DISK       RUNNING  WAITING\n\
             n-edge  Compute  APPROVED, CONNECTED  3.5 / 4.0  0 B / 1.0 GiB  0 B / 0 B  1        0\n"
        );
        assert_eq!(server.run(&["--quiet", "node", "list"]).expect(0).stdout(), "n-edge\n");
        let described = server.run(&["node", "describe", "n-edge"]).expect(0).stdout();
        assert!(described.contains("Labels      zone=a\n"), "{described}");
        assert_eq!(described, server.run(&["agent", "node"]).expect(0).stdout());
        assert_eq!(described, server.run(&["node"]).expect(0).stdout());
        let missing = server.run(&["node", "describe", "x/y"]).expect(66);
        assert_eq!(missing.stderr(), "error: cannot describe node x/y: no such thing\n");
    }

    #[test]
    fn a_codling_node_says_where_its_results_are() {
        let server = Server::start(|_| {
            Reply::json(NODE.replacen(
                '{',
                r#"{"CodlingResults":{"URL":"http://10.0.0.5:6001","Reason":"private: eth0, on the default route",
                    "Bind":"0.0.0.0:6001","Setting":"private","Warning":"beware","LinkLifetimeSeconds":3600,
                    "Alternatives":[
                      {"Address":"10.0.0.6","Interface":"wlan0","Usable":true,"URL":"http://10.0.0.6:6001","Reason":"wireless"},
                      {"Address":"172.17.0.1","Interface":"docker0","Usable":false,"Reason":"containers"}],
                    "Former":[{"URL":"http://pi:7000","Now":"http://10.0.0.5:6001"}]},"#,
                1,
            ))
        });
        let shown = server.run(&["node"]).expect(0).stdout();
        let (_, shown) = shown.split_once("Results").unwrap();
        assert_eq!(
            format!("Results{shown}"),
            "Results      http://10.0.0.5:6001 (private: eth0, on the default route)\n\
             \x20 served on  0.0.0.0:6001\n\
             \x20 links      signed, good for 1h\n\
             \x20 warning    beware\n\
             \x20 or         http://10.0.0.6:6001 (wlan0: wireless)\n\
             \x20 not        172.17.0.1 (docker0: containers)\n\
             \x20 formerly   http://pi:7000, now http://10.0.0.5:6001\n"
        );
        let json = server.run(&["node", "--output", "json"]).expect(0).stdout();
        let node: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(node["CodlingResults"]["Alternatives"][1]["Reason"], "containers");
    }

    #[test]
    fn versions_with_and_without_a_node() {
        let server = server();
        let own = format!("Client  v{}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(server.run(&["version"]).expect(0).stdout(), format!("{own}Node    v9.9.9\n"));
        assert_eq!(server.run(&["version", "--client"]).expect(0).stdout(), own);
        let nobody = |name: &str| (name == "BACALHAU_API_PORT").then(|| "1".to_owned());
        let alone = run(&["version"], b"", &nobody).expect(0);
        assert_eq!(alone.stdout(), own);
        assert!(alone.stderr().contains("cannot reach a node at 127.0.0.1:1"), "{}", alone.stderr());
        let json = server.run(&["--output", "json", "agent", "version"]).expect(0).stdout();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["GitVersion"], "v9.9.9");
    }

    #[test]
    fn alive_or_not() {
        assert_eq!(server().run(&["agent", "alive"]).expect(0).stdout(), "Status  OK\n");
        let nobody = |name: &str| (name == "BACALHAU_API_PORT").then(|| "1".to_owned());
        let dead = run(&["agent", "alive"], b"", &nobody).expect(69);
        assert!(dead.stderr().contains("hint: start a node with 'codling serve'"), "{}", dead.stderr());
    }
}
