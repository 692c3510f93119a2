//! `cargo xtask faults`: what Envoy says about upstreams that fail in different ways, beside what `explain` says. A table for docs/explain.md.
//!
//! Must not know: how either comes about.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::fault::Fault;
use super::programs::Program;
use super::trial;
use crate::provision::Proxies;

/// Plays each fault once and prints a row for each of which Envoy's log has a line.
pub fn run(programs: &Proxies) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let trial = trial::play(Program::Envoy, programs, dir.path(), 1, 0)?;
    let found = trial.by_path();
    println!(
        "| what happens | Envoy's log | `upstream-trace explain` | reset by | why (kernel) | next |"
    );
    println!("|---|---|---|---|---|---|");
    let failing = Fault::bad().filter(|fault| fault.fails() == Some(true));
    for fault in failing {
        let path = trial::path(fault, 0);
        let all = found.get(path.as_str()).map_or(&[][..], Vec::as_slice);
        let explanation = all
            .iter()
            .find(|explanation| explanation["format"] == "istio");
        let explanation = explanation.with_context(|| format!("no explanation of {path}"))?;
        let records = explanation["records"].as_array().map_or(0, Vec::len);
        let expected = usize::from(!fault.row().verdicts.is_empty());
        ensure!(records == expected, "{explanation}");
        println!("{}", row(fault, explanation));
    }
    Ok(())
}

fn row(fault: Fault, explanation: &Value) -> String {
    // Even in code, a bar would end the column.
    let word = |value: &Value| value.as_str().unwrap_or("-").replace('|', "\\|");
    let reset = &explanation["records"][0]["reset"];
    let sender = match (reset["direction"].as_str(), reset["origin"].as_str()) {
        (None, _) => "-",
        (Some("sent"), _) => "the proxy",
        (_, Some("peer_on_node")) => "the upstream",
        (_, Some("in_path")) => "neither end",
        _ => "?",
    };
    let verdict = match explanation["verdict"].as_str() {
        Some(verdict) => format!("`{verdict}`"),
        None => "no connection behind it".to_owned(),
    };
    format!(
        "| {} | `{} {}` | {verdict} | {sender} | {} | {} |",
        fault.row().story,
        word(&explanation["flags"]),
        word(&explanation["said"])
            .split(';')
            .next()
            .unwrap_or_default(),
        word(&reset["reason"]),
        word(&explanation["hint"]),
    )
}
