//! Flags that set settings: those of Bacalhau 1.9, and those of 1.4 that a board's unit file may still have.

use clap::Args;

use crate::config::CliOverrides;

/// Settings of a node on the command line; they come before environment and files.
///
/// Values are checked with all others, so that one answer tells everything that is wrong.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// Settings file, or Key=Value; may be given several times
    #[arg(long = "config", short = 'c', value_name = "FILE|KEY=VALUE")]
    pub config: Vec<String>,
    /// Directory of all that the node keeps
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Name of the node when it first starts
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Address on which the API listens
    #[arg(long, value_name = "HOST")]
    pub api_host: Option<String>,
    /// Port on which the API listens
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<String>,
    /// What is logged: trace, debug, info, warn, error
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Run jobs (with --orchestrator; both are on if neither is given)
    #[arg(long)]
    pub compute: bool,
    /// Accept and schedule jobs (with --compute)
    #[arg(long)]
    pub orchestrator: bool,

    /// Roles: requester,compute
    #[arg(long, value_name = "ROLES", value_delimiter = ',', help_heading = OLD)]
    pub node_type: Vec<String>,
    /// As --data-dir
    #[arg(long, value_name = "DIR", help_heading = OLD)]
    pub repo: Option<String>,
    /// As --api-host
    #[arg(long, value_name = "HOST", help_heading = OLD)]
    pub host: Option<String>,
    /// As --api-port
    #[arg(long, value_name = "PORT", help_heading = OLD)]
    pub port: Option<String>,
    /// Certificate of the API and the results server (PEM)
    #[arg(long, value_name = "FILE", help_heading = OLD)]
    pub tlscert: Option<String>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "FILE", help_heading = OLD)]
    pub tlskey: Option<String>,
    /// What stands in the URLs of results: host, host:port or base URL
    #[arg(long, value_name = "ADDRESS", help_heading = OLD)]
    pub local_publisher_address: Option<String>,
    /// Port on which results are served
    #[arg(long, value_name = "PORT", help_heading = OLD)]
    pub local_publisher_port: Option<String>,
    /// Directory of the results
    #[arg(long, value_name = "DIR", help_heading = OLD)]
    pub local_publisher_directory: Option<String>,
    /// Store of executions: redb, or memory (lost at restart)
    #[arg(long, value_name = "TYPE", help_heading = OLD)]
    pub compute_execution_store_type: Option<String>,
    /// File of executions
    #[arg(long, value_name = "FILE", help_heading = OLD)]
    pub compute_execution_store_path: Option<String>,
    /// Store of jobs: redb, or memory (lost at restart)
    #[arg(long, value_name = "TYPE", help_heading = OLD)]
    pub requester_job_store_type: Option<String>,
    /// File of jobs
    #[arg(long, value_name = "FILE", help_heading = OLD)]
    pub requester_job_store_path: Option<String>,
}

const OLD: &str = "Options of Bacalhau 1.4";

impl SettingsArgs {
    /// The same as values of keys.
    #[must_use]
    pub fn overrides(&self) -> CliOverrides {
        let mut overrides = CliOverrides::default();
        for argument in &self.config {
            overrides.add(argument);
        }
        for (flag, key, value) in [
            ("--data-dir", "DataDir", &self.data_dir),
            ("--repo", "DataDir", &self.repo),
            ("--name", "Name", &self.name),
            ("--api-host", "API.Host", &self.api_host),
            ("--host", "API.Host", &self.host),
            ("--api-port", "API.Port", &self.api_port),
            ("--port", "API.Port", &self.port),
            ("--log-level", "Logging.Level", &self.log_level),
            ("--tlscert", "API.TLS.CertFile", &self.tlscert),
            ("--tlskey", "API.TLS.KeyFile", &self.tlskey),
            ("--local-publisher-address", "Publishers.Types.Local.Address", &self.local_publisher_address),
            ("--local-publisher-port", "Publishers.Types.Local.Port", &self.local_publisher_port),
            (
                "--local-publisher-directory",
                "Publishers.Types.Local.Directory",
                &self.local_publisher_directory,
            ),
            ("--compute-execution-store-type", "Store.Compute.Type", &self.compute_execution_store_type),
            ("--compute-execution-store-path", "Store.Compute.Path", &self.compute_execution_store_path),
            ("--requester-job-store-type", "Store.Jobs.Type", &self.requester_job_store_type),
            ("--requester-job-store-path", "Store.Jobs.Path", &self.requester_job_store_path),
        ] {
            if let Some(value) = value {
                overrides.set(key, value, flag);
            }
        }
        if !self.node_type.is_empty() {
            overrides.set("Node.Type", self.node_type.join(","), "--node-type");
        }
        // In 1.9, one of these switches the other role off.
        if self.compute || self.orchestrator {
            let flag = if self.compute { "--compute" } else { "--orchestrator" };
            overrides.set("Compute.Enabled", self.compute.to_string(), flag);
            overrides.set("Orchestrator.Enabled", self.orchestrator.to_string(), flag);
        }
        overrides
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::config::kind::Kind;
    use crate::config::{FakeEnv, Origin, StorePlace, keys, load};

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn overrides(arguments: &[&str]) -> CliOverrides {
        Serve::try_parse_from(["serve"].iter().chain(arguments)).unwrap().settings.overrides()
    }

    fn env() -> FakeEnv {
        FakeEnv::of(&[("HOME", "/nonexistent")])
    }

    fn error(arguments: &[&str]) -> String {
        load(&overrides(arguments), &env()).unwrap_err().to_string()
    }

    #[test]
    fn the_flags_are_those_of_the_table() {
        let own: BTreeSet<String> = Serve::command()
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(|name| format!("--{name}"))
            .filter(|name| name != "--config" && name != "--help")
            .collect();
        let table: BTreeSet<String> =
            keys::all().flat_map(|key| key.flags).map(|f| (*f).to_owned()).collect();
        assert_eq!(own, table);
    }

    #[test]
    fn each_flag_sets_its_key() {
        for key in keys::all() {
            for flag in key.flags {
                let value = match (*flag, key.kind) {
                    ("--compute" | "--orchestrator", _) => None,
                    ("--node-type", _) => Some("requester,compute"),
                    ("--api-host" | "--host" | "--local-publisher-address", _) => Some("127.0.0.2"),
                    (_, Kind::Port) => Some("77"),
                    ("--name", _) => Some("edge"),
                    ("--log-level", _) => Some("warn"),
                    (flag, _) if flag.ends_with("-type") => Some("memory"),
                    _ => Some("/x/y"),
                };
                let mut arguments = vec![*flag];
                arguments.extend(value);
                if value.is_none() {
                    arguments = vec!["--compute", "--orchestrator"];
                }
                match *flag {
                    "--tlscert" => arguments.extend(["--tlskey", "/x"]),
                    "--tlskey" => arguments.extend(["--tlscert", "/x"]),
                    _ => {}
                }
                let loaded = load(&overrides(&arguments), &env()).unwrap();
                let origin = loaded.origin(key.path).unwrap();
                assert!(
                    matches!(origin, Origin::Flag(given) if arguments.contains(&given.as_str())),
                    "{flag}: {origin}"
                );
            }
        }
    }

    #[test]
    fn old_and_new_spellings_reach_the_settings() {
        let loaded = load(
            &overrides(&[
                "--repo=/srv/b",
                "--host",
                "localhost",
                "--port=0",
                "--node-type",
                "requester,compute",
                "--local-publisher-port=7001",
                "--local-publisher-address=https://board.lan/r",
                "--compute-execution-store-type=BoltDB",
                "--requester-job-store-path=/srv/jobs.db",
                "-c",
                "Results.Quota=1GiB",
            ]),
            &env(),
        )
        .unwrap();
        let settings = &loaded.settings;
        assert_eq!(settings.data_dir.to_str(), Some("/srv/b"));
        assert_eq!((settings.api.port, settings.publisher.port), (0, 7001));
        assert_eq!(settings.store.executions, StorePlace::Redb("/srv/b/compute/executions.db".into()));
        assert_eq!(settings.store.jobs, StorePlace::Redb("/srv/jobs.db".into()));
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    }

    #[test]
    fn one_key_given_twice_is_refused() {
        let said = error(&["--api-host=127.0.0.1", "-c", "api.host=127.0.0.2"]);
        assert!(said.contains("API.Host: given by -c and by --api-host"), "{said}");
        assert!(
            error(&["--data-dir=/a", "--repo=/b"]).contains("DataDir: given by --data-dir and by --repo")
        );
    }

    #[test]
    fn one_role_alone_is_refused_with_what_to_do() {
        for arguments in
            [&["--compute"] as &[_], &["--node-type=compute"], &["-c", "Orchestrator.Enabled=false"]]
        {
            let said = error(arguments);
            assert!(said.contains("Orchestrator.Enabled: off") && said.contains("leave both on"), "{said}");
        }
        assert!(error(&["--node-type=requester"]).contains("Compute.Enabled: off"));
        assert!(error(&["--node-type=edge"]).contains("'edge' is not one of compute, requester"));
    }
}
