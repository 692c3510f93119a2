//! Parse, run, exit code.

use std::{iter, process::ExitCode};

use upstream_trace::{
    app, cli,
    exit::{Code, Failure},
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
    code(done)
}

fn code(done: Result<Code, Failure>) -> ExitCode {
    match done {
        Ok(code) => ExitCode::from(code as u8),
        Err(failure) => {
            console::say(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// One line for a wrong command line; help and version as clap spells them.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let text = error.render();
        let styled = if output::wants_colour() {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        return code(console::print(&styled).map(|()| Code::Ok));
    }
    console::say(&in_one_line(&error.to_string()));
    ExitCode::from(Code::Usage as u8)
}

/// What clap says in several lines: what is missing stands below the first one, one a line, and then what may have been meant.
fn in_one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim);
    let said: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let said = said.join(" ");
    let message = said.trim_start_matches("error: ");
    let tips = lines.filter_map(|line| line.strip_prefix("tip: "));
    let similar = tips.filter(|tip| tip.contains(" exist"));
    let parts = iter::once(message).chain(similar).chain(["see --help"]);
    parts.collect::<Vec<_>>().join("; ")
}
