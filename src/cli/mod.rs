//! The command line: arguments, printing, exit codes. Everything but `serve`, `config`, `doctor`, `first-boot`, `demo` and
//! `update` is a client of the HTTP API, so it works against any codling or Bacalhau node.
//!
//! Each command goes the same way: arguments (clap) to a checked request, to a call of the API, to what is shown, to
//! [`out::Out`], the only place that prints.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub mod answers;
pub mod client;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod first_boot;
pub mod job;
pub mod manual;
pub mod node;
mod older;
pub mod out;
pub mod progress;
mod republish;
pub mod results;
pub mod serve;
pub mod settings_args;
mod socket;
pub mod target;
pub mod text;
pub mod trust;
pub mod update;
pub mod wasm;

#[cfg(test)]
mod testing;

use exit::{CliError, Exit};
use out::{Format, Out};
use target::Env;

/// A small Bacalhau node for ARM boards, and its command line
#[derive(Debug, Parser)]
#[command(name = "codling", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// How to print data
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        help_heading = "Printing"
    )]
    pub output: Format,
    /// Print ids and data only: no notes, warnings or progress
    #[arg(long, short, global = true, help_heading = "Printing")]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  codling serve                            run a node
  codling job run --wait job.yaml          run a job and wait for its end
  codling wasm run --follow prog.wasm a b  run a WASM program, and print what it writes
  codling job get j-1a2b3c4d -o out        fetch, verify and unpack its result
  codling results df                       what is used, what is free, what goes next";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node until it is told to stop
    Serve(Box<serve::ServeArgs>),
    /// Run jobs, look at them, fetch their results
    Job(job::JobArgs),
    /// Run a WASM program as a job
    Wasm(wasm::WasmArgs),
    /// Look after the results that a node keeps
    Results(results::ResultsArgs),
    /// Show nodes
    Node(node::NodeArgs),
    /// Ask the node itself: alive, version, node
    Agent(node::AgentArgs),
    /// Show and check settings
    Config(config::ConfigArgs),
    /// Say what is good and what is not about this machine and its settings
    Doctor(Box<doctor::DoctorArgs>),
    /// Take settings over from the boot partition
    FirstBoot(first_boot::FirstBootArgs),
    /// Run the main job from start to finish on a sample
    Demo(demo::DemoArgs),
    /// Install signed versions of this program on a board, and go back to the one before
    Update(update::UpdateArgs),
    /// Print the versions of this program and of the node
    Version(node::VersionArgs),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Print the manual page
    Man(manual::ManArgs),
}

impl Command {
    const fn has_csv(&self) -> bool {
        matches!(
            self,
            Self::Results(results::ResultsArgs { command: results::ResultsCommand::Republish { .. }, .. })
        )
    }
}

/// How long to wait before asking again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks at a job that runs.
    pub poll: Duration,
    /// Before the first retry of a call that failed; doubled for each further one.
    pub retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { poll: Duration::from_millis(500), retry: Duration::from_millis(500) }
    }
}

/// What a command may use of its surroundings.
pub struct Context<'a> {
    /// Where it prints.
    pub out: Out,
    /// The environment.
    pub env: Env<'a>,
    /// How long it waits.
    pub pace: Pace,
    /// Standard input.
    pub stdin: RefCell<Box<dyn Read>>,
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    crate::sys::heap::set_up();
    let mut context = Context {
        out: Out::process(),
        env: &|name| std::env::var(name).ok(),
        pace: Pace::default(),
        stdin: RefCell::new(Box::new(std::io::stdin())),
    };
    ExitCode::from(run(std::env::args_os(), &mut context).code())
}

/// Runs one command line (the first argument is the program's name) and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>, context: &mut Context<'_>) -> Exit {
    let result = match Cli::try_parse_from(args) {
        Ok(cli) => {
            context.out.format = cli.output;
            context.out.quiet = cli.quiet;
            if cli.output == Format::Csv && !cli.command.has_csv() {
                let error = CliError::new(Exit::Usage, "this command prints no CSV");
                Err(error.hint("use --output json or yaml"))
            } else {
                dispatch(&cli.command, context)
            }
        }
        Err(error) => usage(&error, context),
    };
    match result {
        Ok(exit) => exit,
        Err(error) => {
            if let CliError::Failed(failed) = &error {
                context.out.error(failed);
            }
            error.exit()
        }
    }
}

fn dispatch(command: &Command, context: &Context<'_>) -> Result<Exit, CliError> {
    match command {
        Command::Serve(args) => serve::run(args, context),
        Command::Job(args) => job::run(args, context),
        Command::Wasm(args) => wasm::run(args, context),
        Command::Results(args) => results::run(args, context),
        Command::Node(args) => node::run(args, context),
        Command::Agent(args) => node::agent(args, context),
        Command::Config(args) => config::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::FirstBoot(args) => first_boot::run(args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Update(args) => update::run(args, context),
        Command::Version(args) => node::version(args, context),
        Command::Completions(args) => manual::completions(args, context),
        Command::Man(args) => manual::man(args, context),
    }
}

/// Help and version are data; anything else is a wrong command line, told in clap's own words.
fn usage(error: &clap::Error, context: &Context<'_>) -> Result<Exit, CliError> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            context.out.print(&text)?;
            Ok(Exit::Ok)
        }
        _ => {
            context.out.usage(&text);
            Ok(Exit::Usage)
        }
    }
}

/// Prints ids only, one a line: what `--quiet` leaves of a list.
fn print_ids<'a>(ids: impl Iterator<Item = &'a str>, context: &Context<'_>) -> Result<Exit, CliError> {
    for id in ids {
        context.out.line(id)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::io;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_table_of_flags_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_data_and_usage_errors_are_64() {
        let help = testing::run(&["--help"], b"", &|_| None).expect(0);
        assert!(help.stdout().contains("codling job run --wait job.yaml"), "{}", help.stdout());
        let version = testing::run(&["--version"], b"", &|_| None).expect(0);
        assert_eq!(version.stdout(), format!("codling {}\n", env!("CARGO_PKG_VERSION")));
        for wrong in [&["--nonsense"][..], &[], &["job"], &["job", "list", "--limit", "x"], &["job", "run"]] {
            let captured = testing::run(wrong, b"", &|_| None).expect(64);
            assert!(captured.stderr().contains("--help"), "{}", captured.stderr());
            assert_eq!(captured.stdout(), "");
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut context = Context {
            out: Out::to(Box::new(Closed), Box::new(io::sink())),
            env: &|_| None,
            pace: Pace::default(),
            stdin: RefCell::new(Box::new(io::empty())),
        };
        assert_eq!(run(["codling", "man"].map(Into::into), &mut context), Exit::Ok);
    }
}
