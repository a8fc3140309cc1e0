//! `codling completions` and `codling man`: made from the same table of flags as the help.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::exit::{CliError, Exit};
use super::{Cli, Context};

/// Print completions for a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Print the manual page
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page for each command into this directory instead
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs `codling completions`.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(args: &CompletionsArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "codling", &mut text);
    context.out.print_bytes(&text)?;
    Ok(Exit::Ok)
}

/// Runs `codling man`.
///
/// # Errors
/// Standard output or the directory cannot be written.
pub fn man(args: &ManArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let Some(dir) = &args.dir else {
        let page = main_page().map_err(render_failed)?;
        context.out.print_bytes(&page)?;
        return Ok(Exit::Ok);
    };
    let failed = |e| {
        CliError::caused(Exit::CannotCreate, format!("cannot write manual pages to {}", dir.display()), e)
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut waiting: Vec<clap::Command> = root.get_subcommands().cloned().collect();
    std::fs::write(dir.join("codling.1"), main_page().map_err(render_failed)?).map_err(failed)?;
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().cloned());
        let man = Man::new(command);
        let mut page = Vec::new();
        man.render(&mut page).map_err(render_failed)?;
        std::fs::write(dir.join(man.get_filename()), page).map_err(failed)?;
    }
    Ok(Exit::Ok)
}

fn render_failed(error: std::io::Error) -> CliError {
    CliError::caused(Exit::Internal, "cannot make the manual page", error)
}

/// What the flags do not say.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("BACALHAU_API_HOST", "host name, address or URL of the node's API, where --api-host does not say"),
    ("BACALHAU_API_PORT", "port of the node's API, where --api-port does not say"),
    ("BACALHAU_API_KEY", "token for the node's API, where --token-file does not name one"),
    ("BACALHAU_API_TLS_USETLS", "true: as --tls"),
    ("BACALHAU_API_TLS_CACERT", "file of authorities, where --cacert names none"),
    ("BACALHAU_API_TLS_INSECURE", "true: as --insecure"),
    ("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "proxies for nodes and results on other machines"),
    (
        "CODLING_DEVICE_TREE",
        "directory of the board's device tree, where /proc/device-tree is not: in a container",
    ),
    ("TERM", "no progress bar if it is 'dumb'"),
];

/// The page of the program: clap's sections, then exit statuses and environment.
fn main_page() -> Result<Vec<u8>, std::io::Error> {
    let man = Man::new(Cli::command().disable_help_subcommand(true));
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut extra = Roff::new();
    extra.control("SH", ["EXIT STATUS"]);
    for exit in Exit::ALL {
        extra.control("TP", []);
        extra.text([bold(exit.code().to_string())]);
        extra.text([roman(exit.meaning())]);
    }
    extra.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in ENVIRONMENT {
        extra.control("TP", []);
        extra.text([bold(*name)]);
        extra.text([roman(*meaning)]);
    }
    extra.to_writer(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{Scratch, run};

    #[test]
    fn the_page_lists_every_exit_status() {
        let page = run(&["man"], b"", &|_| None).expect(0).stdout();
        assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
        for exit in Exit::ALL {
            assert!(page.contains(&format!("\\fB{}\\fR\n", exit.code())), "{exit:?}");
        }
        assert!(page.contains("BACALHAU_API_KEY"));
    }

    #[test]
    fn one_page_for_each_command() {
        let scratch = Scratch::new();
        run(&["man", "--dir", &scratch.path("man1")], b"", &|_| None).expect(0);
        for name in
            ["codling.1", "codling-job.1", "codling-job-run.1", "codling-results-df.1", "codling-serve.1"]
        {
            let page = std::fs::read_to_string(scratch.path(&format!("man1/{name}"))).unwrap();
            assert!(page.contains(".SH NAME"), "{name}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in ["bash", "zsh", "fish"] {
            let text = run(&["completions", shell], b"", &|_| None).expect(0).stdout();
            assert!(text.contains("executions") && text.contains("id-only"), "{shell}");
        }
        run(&["completions", "tcsh"], b"", &|_| None).expect(64);
    }
}
