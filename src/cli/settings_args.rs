//! Flags that set settings.

use std::path::PathBuf;

use clap::Args;

/// Settings of a node on the command line; they come before environment and files.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// Settings file, or Key=Value; may be given several times
    #[arg(long = "config", short = 'c', value_name = "FILE|KEY=VALUE")]
    pub config: Vec<String>,
    /// Directory of all that the node keeps
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address on which the API listens
    #[arg(long, value_name = "HOST")]
    pub api_host: Option<String>,
    /// Port on which the API listens
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Name of the node
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}
