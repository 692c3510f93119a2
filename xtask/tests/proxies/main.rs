//! The real Envoy, NGINX and HAProxy, the real tracer, and upstreams that fail on purpose: `explain` has to join every failed line of
//! each proxy's log to the one right connection, and to accuse no healthy request.
//!
//! Needs root. Nothing is skipped: a proxy that is missing and cannot be installed fails its test by name.
//! `UPSTREAM_TRACE_REQUESTS` sets how many requests fail in each way (63: 504 for each proxy).

use std::collections::HashSet;
use std::env;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial as Test};
use serde_json::Value;
use xtask::provision;
use xtask::proxy::{
    fault::Fault,
    programs::Program,
    trial::{self, Trial},
};
use xtask::workspace::Workspace;

/// Failed requests for each fault.
const REQUESTS: u32 = 63;
const SURE: [&str; 4] = ["exact", "unique", "nearest", "order"];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // What a test sees in the kernel is everybody's.
    arguments.test_threads = Some(1);
    let tests = Program::ALL.map(|program| {
        Test::test(format!("{}_is_explained", program.name()), move || {
            explained(program).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    libtest_mimic::run(&arguments, tests.into()).exit_code()
}

fn explained(program: Program) -> Result<()> {
    let programs = provision::for_proxies(&Workspace::locate()?)?;
    let requests = match env::var("UPSTREAM_TRACE_REQUESTS") {
        Ok(text) => text.parse().context("UPSTREAM_TRACE_REQUESTS")?,
        Err(_) => REQUESTS,
    };
    let dir = tempfile::tempdir()?;
    let trial = trial::play(program, &programs, dir.path(), requests)?;
    let wrong = complaints(&trial, requests);
    if !wrong.is_empty() {
        let kept = dir.keep();
        let shown: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
        bail!(
            "{} wrong, files in {}:\n{}\naccount: {}",
            wrong.len(),
            kept.display(),
            shown.join("\n"),
            trial.account
        );
    }
    println!("{}: {}", program.name(), trial.account);
    Ok(())
}

/// Everything that is not as it has to be.
fn complaints(trial: &Trial, requests: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found = trial.by_path();
    let mut taken = HashSet::new();
    for upstream in trial
        .upstreams
        .iter()
        .filter(|upstream| upstream.fault != Fault::Healthy)
    {
        for number in 0..requests {
            let path = trial::path(upstream.fault, number);
            let explanations = found.remove(path.as_str()).unwrap_or_default();
            if explanations.len() != trial.logs {
                wrong.push(format!(
                    "{path}: {} lines instead of {}",
                    explanations.len(),
                    trial.logs
                ));
            }
            let (fault, port) = (upstream.fault, upstream.port_of(&path));
            for explanation in explanations {
                if let Err(error) = right(fault, port, upstream.address.port(), explanation) {
                    wrong.push(format!("{path}: {error:#}: {explanation}"));
                }
                let id = explanation["records"][0]["id"].to_string();
                if !taken.insert((explanation["log"].to_string(), id)) {
                    wrong.push(format!(
                        "{path}: a connection that another request has already"
                    ));
                }
            }
        }
    }
    // A connection without a request, which the wait for the proxy makes, is no request that was played.
    let others = found.keys().filter(|path| path.starts_with('/'));
    wrong.extend(others.map(|path| format!("{path} is explained, but did not fail")));
    let healthy = trial
        .upstreams
        .iter()
        .find(|upstream| upstream.fault == Fault::Healthy);
    let healthy = healthy.map(|upstream| upstream.address.port());
    let to_healthy = trial
        .records
        .iter()
        .filter(|record| record["remote"]["port"].as_u64() == healthy.map(u64::from));
    wrong.extend(
        to_healthy
            .filter(|record| !record["flag"].is_null())
            .map(|record| format!("healthy, but flagged: {record}")),
    );
    if trial.account["unknown"] != 0 || trial.account["records_unknown"] != 0 {
        wrong.push(format!("lines that were not understood: {}", trial.account));
    }
    wrong
}

/// One explanation; `port` is the proxy's own, where the upstream saw it.
fn right(fault: Fault, port: Option<u16>, upstream: u16, explanation: &Value) -> Result<()> {
    let sureness = explanation["sureness"].as_str().unwrap_or_default();
    ensure!(SURE.contains(&sureness), "not sure");
    let records = explanation["records"].as_array().context("records")?;
    let [record] = records.as_slice() else {
        bail!("{} records", records.len());
    };
    let verdict = explanation["verdict"].as_str().unwrap_or_default();
    ensure!(
        fault.verdicts().contains(&verdict),
        "verdict {verdict} instead of {:?}",
        fault.verdicts()
    );
    ensure!(record["remote"]["port"] == upstream, "another upstream");
    if let Some(port) = port {
        ensure!(
            record["local"]["port"] == port,
            "another connection: the upstream saw port {port}"
        );
    }
    if fault.upstream_resets() {
        ensure!(explanation["origin"] == "peer_on_node", "origin");
        ensure!(explanation["sender"]["pid"] == std::process::id(), "sender");
    }
    ensure!(
        !explanation["hint"].as_str().unwrap_or_default().is_empty(),
        "no hint"
    );
    Ok(())
}
