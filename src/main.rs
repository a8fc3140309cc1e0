//! The codling program.

use std::process::ExitCode;

fn main() -> ExitCode {
    codling::cli::main()
}
