//! Holds what `doctor` says against what a run then does, under the same conditions: the live tests and
//! the guests ask the same.

use std::{
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{confine::Host, tracer};

/// What it says without `CAP_SYS_PTRACE`, which a service has not.
pub const NO_EXECUTABLES: &str = "not seen on this host: the executables of processes of other users, or with more capabilities (that takes CAP_SYS_PTRACE)";

/// What the tracer is started with.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    pub host: Host,
    pub binary: &'a Path,
    /// `--btf FILE`, or nothing.
    pub args: &'a [&'a str],
}

impl Start<'_> {
    /// The tracer's command under these conditions.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = tracer::command(self.binary, args.iter().chain(self.args));
        self.host.confine(&mut command);
        command
    }

    fn output(&self, args: &[&str]) -> Result<Output> {
        self.command(args)
            .output()
            .context("cannot start the tracer")
    }
}

/// What `doctor` says, which is what a run does: the same hooks, the same words, the same code.
pub fn report(start: &Start<'_>) -> Result<Value> {
    let doctor = start.output(&["doctor", "--json"])?;
    let said = String::from_utf8_lossy(&doctor.stderr);
    ensure!(said.is_empty(), "doctor said {said}");
    let report: Value = serde_json::from_slice(&doctor.stdout).context("doctor --json")?;
    let code = report["exit_code"].as_i64().context("no exit_code")?;
    ensure!(
        doctor.status.code().map(i64::from) == Some(code),
        "doctor ended with {}, its exit_code is {code}",
        doctor.status
    );
    let run = start.output(&["--duration", "0"])?;
    let said = String::from_utf8(run.stderr)?;
    let expected = lines(&report)?;
    let said: Vec<_> = said
        .lines()
        .map(|line| line.strip_prefix("upstream-trace: ").unwrap_or(line))
        .collect();
    ensure!(
        said == expected,
        "doctor foretold {expected:#?}, the run said {said:#?}"
    );
    let traces = matches!(report["outcome"].as_str(), Some("full" | "degraded"));
    let ended = if traces { 0 } else { code };
    ensure!(
        run.status.code().map(i64::from) == Some(ended),
        "doctor says {}, {code}, but the run ended with {}",
        report["outcome"],
        run.status
    );
    tells_people(start, &report)?;
    Ok(report)
}

/// The text for people has all that matters, and the same code.
fn tells_people(start: &Start<'_>, report: &Value) -> Result<()> {
    let doctor = start.output(&["doctor"])?;
    let text = String::from_utf8(doctor.stdout)?;
    ensure!(
        doctor.status.code().map(i64::from) == report["exit_code"].as_i64(),
        "as text it ended with {}",
        doctor.status
    );
    let words = ["limits", "errors"]
        .into_iter()
        .flat_map(|name| texts(&report[name]));
    for word in words.chain(hooks(report)) {
        ensure!(text.contains(&word), "the text lacks {word:?}:\n{text}");
    }
    Ok(())
}

/// What a run has to say on standard error.
fn lines(report: &Value) -> Result<Vec<String>> {
    let mut errors = texts(&report["errors"]);
    if report["outcome"] == "cannot_run" {
        ensure!(!errors.is_empty(), "cannot run, and no error");
        errors.truncate(1);
        return Ok(errors);
    }
    ensure!(errors.is_empty(), "can run, with errors {errors:?}");
    let limits = texts(&report["limits"]);
    let full = report["outcome"] == "full";
    ensure!(
        full == limits.is_empty(),
        "{} with {limits:?}",
        report["outcome"]
    );
    ensure!(report["exit_code"] == if full { 0 } else { 8 }, "{report}");
    let hooks: Vec<_> = hooks(report).collect();
    let mut lines = vec![format!("attached {}", hooks.join(", "))];
    // Each reason once.
    let mut refused: Vec<(String, Vec<String>)> = Vec::new();
    for one in items(&report["roles"]).flat_map(|role| items(&role["refused"])) {
        let (hook, why) = (text(&one["hook"]), text(&one["why"]));
        match refused.iter_mut().find(|(known, _)| *known == why) {
            Some((_, hooks)) => hooks.push(hook),
            None => refused.push((why, vec![hook])),
        }
    }
    let refused: Vec<_> = refused
        .iter()
        .map(|(why, hooks)| format!("{} ({why})", hooks.join(", ")))
        .collect();
    if !refused.is_empty() {
        lines.push(format!("refused {}", refused.join("; ")));
    }
    lines.extend(limits);
    Ok(lines)
}

/// The hooks that serve a role, in the order in which they are attached.
pub fn hooks(report: &Value) -> impl Iterator<Item = String> {
    items(&report["roles"]).filter_map(|role| role["hook"].as_str().map(str::to_owned))
}

/// The strings of a list.
pub fn texts(list: &Value) -> Vec<String> {
    items(list).map(text).collect()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
