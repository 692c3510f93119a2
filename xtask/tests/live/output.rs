//! The lines themselves: their schema, their numbers, how soon they come.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::scenario::check::{Line, timestamp};
use xtask::scenario::feature::Features;
use xtask::scenario::{self, Ctx};
use xtask::tracer::{self, Run, Tracer};

use crate::PORT;

fn play_all(args: &[&str]) -> Result<Run> {
    let ctx = Ctx::new(PORT)?;
    let port = PORT.to_string();
    let tracer = Tracer::start(&[&["--port", &port], args].concat())?;
    for scenario in scenario::quick(Features::here()?) {
        scenario.play(&ctx)?;
    }
    thread::sleep(Duration::from_millis(100));
    tracer.stop()
}

pub(crate) fn schema() -> Result<()> {
    let output = tracer::command(&tracer::binary()?, ["schema"]).output()?;
    ensure!(output.status.success(), "schema: {}", output.status);
    let schema: Value = serde_json::from_slice(&output.stdout).context("schema")?;
    let validator = jsonschema::validator_for(&schema).context("the schema is not one")?;
    let run = play_all(&["--events", "--stats-interval", "100ms"])?;
    let mut kinds = BTreeSet::new();
    for arrival in &run.lines {
        let line: Value = serde_json::from_str(&arrival.text).context("a line")?;
        if let Some(error) = validator.iter_errors(&line).next() {
            anyhow::bail!("{error} at {}: {line}", error.instance_path());
        }
        ensure!(line["schema"] == "upstream-trace/1", "{line}");
        ensure!(
            line["time"].as_str().and_then(timestamp).is_some(),
            "{line}"
        );
        kinds.insert(line["type"].as_str().context("type")?.to_owned());
    }
    println!("{} lines fit the schema", run.lines.len());
    let all = ["connection", "event", "reset", "stats"];
    ensure!(kinds.iter().eq(all.iter()), "types printed: {kinds:?}");
    Ok(())
}

pub(crate) fn sequence() -> Result<()> {
    let run = play_all(&["--stats-interval", "100ms"])?;
    let mut before = None;
    for arrival in &run.lines {
        let line: Value = serde_json::from_str(&arrival.text).context("a line")?;
        let seq = line["seq"].as_u64().context("seq")?;
        ensure!(
            before.is_none_or(|before| seq == before + 1),
            "{seq} after {before:?}"
        );
        before = Some(seq);
    }
    ensure!(before.is_some(), "nothing was printed");
    Ok(())
}

/// From the end of a connection to its line at the other end of the pipe.
pub(crate) fn latency() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    for _ in 0..3 {
        for scenario in scenario::quick(Features::here()?) {
            scenario.play(&ctx)?;
        }
    }
    thread::sleep(Duration::from_millis(150));
    let run = tracer.stop()?;
    let mut delays = Vec::new();
    for arrival in &run.lines {
        let line = Line::parse(&arrival.text).context("a line")?;
        if line.is("connection") {
            let delay = arrival.at.duration_since(line.time).unwrap_or_default();
            delays.push((delay, line));
        }
    }
    delays.sort_by_key(|(delay, _)| *delay);
    let (worst, line) = delays.last().context("no record came")?;
    let median = delays[delays.len() / 2].0;
    println!(
        "{} records: median {median:?}, worst {worst:?}",
        delays.len()
    );
    ensure!(
        *worst < Duration::from_millis(100),
        "{worst:?} for {}",
        line.value
    );
    Ok(())
}

/// `--format text`: the verdict and the reason are in it, and no escape sequence in a pipe.
pub(crate) fn text() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let tracer = Tracer::start(&["--port", &PORT.to_string(), "--format", "text"])?;
    scenario::find("close_unread")
        .context("no such scenario")?
        .play(&ctx)?;
    thread::sleep(Duration::from_millis(100));
    let run = tracer.stop()?;
    ensure!(run.status.success(), "{}", run.status);
    let text: Vec<_> = run.lines.iter().map(|line| line.text.as_str()).collect();
    let text = text.join("\n");
    println!("{text}");
    for word in [
        "reset_before_response",
        "TCP_ABORT_ON_CLOSE",
        "ut-server",
        "ut-client",
    ] {
        ensure!(text.contains(word), "does not say {word}");
    }
    ensure!(!text.contains('\u{1b}'), "colours in a pipe");
    Ok(())
}
