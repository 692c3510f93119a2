//! Parse, run, exit code.

use std::process::ExitCode;

use upstream_trace::{
    app, cli,
    exit::Code,
    explain,
    output::{self, console},
    verdict::playbook,
};

fn main() -> ExitCode {
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let done = match cli.command {
        Some(cli::Command::Explain(explain)) => {
            explain::run::run(explain.settle()).map(|()| Code::Ok)
        }
        Some(cli::Command::Doctor(doctor)) => app::doctor(doctor.json, &doctor.settle()),
        Some(cli::Command::Playbook) => console::print(&playbook::table()).map(|()| Code::Ok),
        Some(cli::Command::Schema) => console::print(&output::schema::pretty()).map(|()| Code::Ok),
        None => app::run(cli.trace.settle()).map(|()| Code::Ok),
    };
    match done {
        Ok(code) => ExitCode::from(code as u8),
        Err(failure) => {
            console::say(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// One line for a wrong command line; help and version as clap prints them.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Printing help to a closed pipe is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    // What is missing stands below the first line, one a line.
    let said: Vec<_> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let said = said.join(" ");
    let message = said.trim_start_matches("error: ");
    console::say(&format!("{message}; see --help"));
    ExitCode::from(Code::Usage as u8)
}
