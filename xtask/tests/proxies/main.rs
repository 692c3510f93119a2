//! The real Envoy, NGINX, HAProxy and gRPC client, the real tracer, and upstreams that fail on purpose: `explain` has to join every failed line of
//! each proxy's log to the one right connection, and to accuse no healthy request.
//!
//! Needs root. Nothing is skipped: a proxy that is missing and cannot be installed fails its test by name.
//! `UPSTREAM_TRACE_REQUESTS` sets how many requests fail in each way (4; 18 are more than 500 for each proxy), `UPSTREAM_TRACE_SEED` their pauses,
//! `UPSTREAM_TRACE_HEALTHY` how many more are played that do not fail (3,000). `sudo` keeps none of these.

use std::collections::HashSet;
use std::env;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::{Arguments, Failed, Trial as Test};
use serde_json::Value;
use tempfile::TempDir;
use xtask::provision;
use xtask::proxy::{
    fault::{By, Fault, Place},
    healthy,
    programs::Program,
    talk::Talk,
    trial::{self, Played, Trial},
    upstream::{Note, Upstream},
    worker,
};
use xtask::skipped;
use xtask::workspace::Workspace;

/// Failed requests for each fault.
const REQUESTS: u32 = 4;
/// Healthy requests for each proxy.
const HEALTHY: usize = 3_000;
/// What is wrong that is shown.
const SHOWN: usize = 50;
/// Of so many failed requests one may be ambiguous.
const MOST_SURE: u64 = 8;
const SURE: [&str; 4] = ["exact", "unique", "nearest", "order"];

/// A call that was not answered in time is told of before its connection is closed. `explain` waits for that no longer: later, any healthy one may be meant.
const CLOSED_LATE: SignedDuration = SignedDuration::from_millis(30);

/// What the kernel cannot tell apart over HTTP/2: within a jiffy of a request both ends say something of themselves, and that is payload as well.
const BLURRED: [[&str; 2]; 2] = [
    ["reset_before_response", "reset_mid_stream"],
    ["closed_before_response", "ok"],
];

fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    if let [verb, role, talk, address] = words.as_slice()
        && verb == worker::VERB
    {
        return upstream(role, talk, address);
    }
    let mut arguments = Arguments::from_args();
    // What a test sees in the kernel is everybody's.
    arguments.test_threads = Some(1);
    let tests = Program::ALL.into_iter().flat_map(|program| {
        [
            test(program, "is_explained", explained),
            test(program, "is_not_accused", not_accused),
        ]
    });
    libtest_mimic::run(&arguments, tests.collect()).exit_code()
}

fn test(program: Program, what: &str, run: fn(Program) -> Result<()>) -> Test {
    let name = format!("{}_{what}", program.name());
    Test::test(name, move || {
        run(program).map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// This program as one of the upstreams.
fn upstream(role: &str, talk: &str, address: &str) -> ExitCode {
    let address = address.parse().context("address");
    match address.and_then(|address| worker::run(role, talk, address)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", worker::VERB);
            ExitCode::FAILURE
        }
    }
}

fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &'static str,
) -> Result<Option<T>> {
    let text = env::var(name).ok();
    text.map(|text| text.parse().context(name)).transpose()
}

/// What is wrong with a run, and where its files are, beside the tracer's account.
fn wrong(what: &[String], files: TempDir, records: &[Value]) -> Option<(String, Value)> {
    if what.is_empty() {
        return None;
    }
    let stats = records.iter().rfind(|record| record["type"] == "stats");
    let shown: Vec<_> = what.iter().take(SHOWN).map(String::as_str).collect();
    let said = format!(
        "{} wrong, files in {}:\n{}",
        what.len(),
        files.keep().display(),
        shown.join("\n")
    );
    Some((said, stats.cloned().unwrap_or_default()))
}

fn explained(program: Program) -> Result<()> {
    let programs = provision::for_proxies(&Workspace::locate()?)?;
    let requests = setting("UPSTREAM_TRACE_REQUESTS")?.unwrap_or(REQUESTS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    let seed = setting("UPSTREAM_TRACE_SEED")?.unwrap_or_else(|| u64::from(now));
    skipped::again(|| {
        let dir = tempfile::tempdir()?;
        let trial = trial::play(program, &programs, dir.path(), requests, seed)?;
        let failed = trial.played.iter().filter(|request| !request.answered);
        println!(
            "{}: {} of {} requests failed, UPSTREAM_TRACE_SEED={seed}: {}",
            program.name(),
            failed.count(),
            trial.played.len(),
            trial.account
        );
        Ok(wrong(&complaints(&trial), dir, &trial.records))
    })
}

/// HAProxy 2.6 gives up requests by itself, some in a million of them and then up to all that it has at that moment: it closes connections that it
/// has just made, before the answer comes. Its log says that the client had left (`CH--`, answered with 400) or nothing, where it tries again.
/// That is so, and no accusation of anybody else; where more connections than these end like that in a run, it is not HAProxy's.
const GIVEN_UP: usize = 2 * healthy::CLIENTS;

/// Whether the proxy itself gave up a request, as its log or the record of either end says.
fn given_up(program: Program, said: &Value) -> bool {
    let by_client = said["flags"] == "CH--";
    let by_itself = said["reset"]["sender"]["comm"] == "haproxy";
    program == Program::Haproxy && (by_itself || by_client)
}

/// The port that both ends of a connection know as the client's.
fn client_port(record: &Value) -> &Value {
    let end = if record["role"] == "client" {
        "local"
    } else {
        "remote"
    };
    &record[end]["port"]
}

/// Many requests, none of which fails: no record is flagged, no line of a log explained.
fn not_accused(program: Program) -> Result<()> {
    let programs = provision::for_proxies(&Workspace::locate()?)?;
    let requests = setting("UPSTREAM_TRACE_HEALTHY")?.unwrap_or(HEALTHY);
    skipped::again(|| {
        let dir = tempfile::tempdir()?;
        let played = healthy::play(program, &programs, dir.path(), requests)?;
        let flagged = played.records.iter();
        let flagged = flagged.filter(|record| !record["flag"].is_null());
        let (own, flagged): (Vec<_>, Vec<_>) =
            flagged.partition(|record| given_up(program, record));
        let flagged = flagged.iter().map(|record| format!("flagged: {record}"));
        let mut wrong: Vec<_> = flagged.collect();
        let ports: HashSet<_> = own.iter().map(|record| client_port(record)).collect();
        println!(
            "{}: {} requests in {:.1} s, {} reloads, {} records, {} flagged, {} connections given up",
            program.name(),
            played.requests,
            played.took.as_secs_f64(),
            played.reloads,
            played.records.len(),
            wrong.len(),
            ports.len(),
        );
        if ports.len() > GIVEN_UP {
            wrong.extend(own.iter().map(|record| format!("given up: {record}")));
        }
        let explained = played.explanations.iter();
        // The wait for the proxy makes a connection without a request.
        let explained = explained.filter(|explanation| explanation["request"] != "<BADREQ>");
        let (own, explained): (Vec<_>, Vec<_>) =
            explained.partition(|explanation| given_up(program, explanation));
        let explained = explained.iter();
        wrong.extend(explained.map(|explanation| format!("explained: {explanation}")));
        if played.failed > own.len() || played.account["unknown"] != 0 {
            wrong.push(format!("{} failed; {}", played.failed, played.account));
        }
        Ok(self::wrong(&wrong, dir, &played.records))
    })
}

/// Everything that is not as it has to be.
fn complaints(trial: &Trial) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found = trial.by_path();
    let mut taken = HashSet::new();
    for request in &trial.played {
        let Played {
            fault,
            path,
            answered,
        } = request;
        if fault.fails() == Some(*answered) {
            wrong.push(format!("{path}: answered: {answered}"));
        }
        let explanations = found.remove(path.as_str()).unwrap_or_default();
        let expected = if *answered { 0 } else { trial.logs };
        if explanations.len() != expected {
            wrong.push(format!(
                "{path}: {} lines instead of {expected}",
                explanations.len()
            ));
        }
        let upstream = trial
            .upstreams
            .iter()
            .find(|upstream| upstream.fault == *fault);
        for explanation in explanations {
            let right = upstream
                .context("no upstream")
                .and_then(|upstream| right(upstream, path, explanation, &trial.records));
            if let Err(error) = right {
                wrong.push(format!("{path}: {error:#}: {explanation}"));
            }
            let Some(id) = explanation["records"][0]["id"].as_str() else {
                continue;
            };
            // The nearest of several may be another's.
            if explanation["sureness"] == "ambiguous" {
                continue;
            }
            if !taken.insert((explanation["log"].to_string(), id)) {
                wrong.push(format!(
                    "{path}: a connection that another request has already"
                ));
            }
        }
    }
    // A connection without a request, which the wait for the proxy makes, is no request that was played.
    let others = found.keys().filter(|path| path.starts_with('/'));
    wrong.extend(others.map(|path| format!("{path} is explained, but did not fail")));
    for upstream in &trial.upstreams {
        wrong.extend(accused(upstream, &trial.records));
    }
    if trial.program == Program::Envoy {
        wrong.extend(alike(trial));
    }
    if trial.account["unknown"] != 0 || trial.account["records_unknown"] != 0 {
        wrong.push(format!("lines that were not understood: {}", trial.account));
    }
    let count = |what: &Value| what.as_u64().unwrap_or_default();
    let ambiguous = count(&trial.account["found"]["ambiguous"]);
    if ambiguous * MOST_SURE > count(&trial.account["failed"]) {
        wrong.push(format!("{ambiguous} are ambiguous: {}", trial.account));
    }
    wrong
}

/// Six faults that are one to Envoy, `connection_termination`.
const TERMINATIONS: [Fault; 6] = [
    Fault::ResetAfterAccept,
    Fault::ResetAfterRequest,
    Fault::CloseUnread,
    Fault::ClosedUnanswered,
    Fault::RacedByReset,
    Fault::WorkerKilled,
];

/// Those of them that are explained alike.
fn alike(trial: &Trial) -> Vec<String> {
    let found = trial.by_path();
    let hints = |fault| {
        let played = trial.played.iter().filter(move |one| one.fault == fault);
        let explanations = played.filter_map(|one| found.get(one.path.as_str()));
        let sure = explanations
            .flatten()
            .filter(|one| one["sureness"] != "ambiguous");
        let hints = sure.map(|one| one["hint"].as_str());
        hints.flatten().collect::<HashSet<_>>()
    };
    let mut wrong = Vec::new();
    for (index, &fault) in TERMINATIONS.iter().enumerate() {
        for &other in &TERMINATIONS[..index] {
            for hint in hints(fault).intersection(&hints(other)) {
                wrong.push(format!(
                    "{other:?} and {fault:?} are explained alike: {hint}"
                ));
            }
        }
    }
    wrong
}

/// Records of this upstream's connections that say what is not true, whether a line of the log leads there or not.
fn accused(upstream: &Upstream, records: &[Value]) -> Vec<String> {
    let port = upstream.address.port();
    let own = records
        .iter()
        .filter(|record| record["remote"]["port"] == port);
    let in_path = upstream.fault.row().by == By::Path;
    let healthy = upstream.fault.fails() == Some(false);
    let mut wrong = Vec::new();
    let certain = |record: &&Value| record["reset"]["origin"] == "in_path";
    if in_path && !own.clone().any(|record| certain(&record)) {
        let fault = upstream.fault;
        wrong.push(format!("{fault:?}: nobody says that it was in the path"));
    }
    for record in own {
        if record["reset"]["origin"] == "in_path" && !in_path {
            wrong.push(format!("nothing was in the path: {record}"));
        }
        if healthy && !record["flag"].is_null() {
            wrong.push(format!("healthy, but flagged: {record}"));
        }
    }
    wrong
}

/// Whether the client was kept from its processor between the line and its close of the connection between these ports.
fn is_closed_late(explanation: &Value, ports: [u16; 2], records: &[Value]) -> Result<bool> {
    let time = |of: &Value| -> Result<Timestamp> { Ok(of.as_str().context("time")?.parse()?) };
    let mut own = records.iter();
    let own = own.find(|one| {
        one["role"] == "client" && [&one["local"]["port"], &one["remote"]["port"]] == ports
    });
    let own = own.context("the connection has no record")?;
    let mut events = own["timeline"].as_array().into_iter().flatten();
    let close = events.find(|event| event["to"] == "FIN_WAIT1" || event["to"] == "LAST_ACK");
    let close = close.and_then(|event| event["at_us"].as_i64());
    let closed = close.with_context(|| format!("the client has not closed: {own}"))?;
    let closed = time(&own["started"])? + SignedDuration::from_micros(closed);
    Ok(closed > time(&explanation["time"])? + CLOSED_LATE)
}

/// One explanation.
fn right(upstream: &Upstream, path: &str, explanation: &Value, records: &[Value]) -> Result<()> {
    let row = upstream.fault.row();
    ensure!(
        !explanation["hint"].as_str().unwrap_or_default().is_empty(),
        "no hint"
    );
    let sureness = explanation["sureness"].as_str().unwrap_or_default();
    if row.verdicts.is_empty() {
        // A log without the reason is silent about a connect() that made no connection as well.
        let silent = row.place == Place::Nowhere && explanation["said"].is_null();
        ensure!(
            sureness == if silent { "none" } else { "elsewhere" },
            "it has no connection"
        );
        return Ok(());
    }
    let before = || upstream.note(&trial::path_before(path));
    let note = upstream.note(path).or_else(before);
    if let ("none", Fault::NoAnswer, Some(note)) = (sureness, upstream.fault, &note)
        && is_closed_late(explanation, [note.port, upstream.address.port()], records)?
    {
        return Ok(());
    }
    let records = explanation["records"].as_array().context("records")?;
    // Threads may have written about two that failed within a moment in another order: one of those that are shown is its own.
    if sureness == "ambiguous" {
        let seen = |note: Note| {
            records
                .iter()
                .any(|record| record["local"]["port"] == note.port)
        };
        ensure!(note.is_none_or(seen), "not among those that are shown");
        if upstream.may_be_ambiguous() {
            return Ok(());
        }
    }
    let verdict = explanation["verdict"].as_str().unwrap_or_default();
    let mut right = row.verdicts.to_vec();
    if upstream.talk == Talk::Grpc {
        right.extend(upstream.fault.right_in_http2());
        let all = BLURRED
            .iter()
            .filter(|all| right.iter().any(|one| all.contains(one)));
        right = [right.clone(), all.flatten().copied().collect()].concat();
    }
    let disagree = sureness == "ambiguous" && explanation["verdict"].is_null();
    ensure!(
        disagree || right.contains(&verdict),
        "verdict {verdict} instead of {right:?}"
    );
    if sureness == "ambiguous" {
        return Ok(());
    }
    ensure!(SURE.contains(&sureness), "not sure");
    let [record] = records.as_slice() else {
        bail!("{} records", records.len());
    };
    ensure!(
        record["remote"]["port"] == upstream.address.port(),
        "another upstream"
    );
    if let Some(note) = note {
        ensure!(
            record["local"]["port"] == note.port,
            "another connection: the upstream saw port {}",
            note.port
        );
    }
    let (reset, sender) = (&record["reset"], &explanation["sender"]);
    let received = reset["direction"] == "received";
    let by_them = reset["origin"] == "peer_on_node";
    match row.by {
        By::Nobody => ensure!(!received, "a reset"),
        By::Host => ensure!(received && by_them && sender.is_null(), "sender"),
        By::Path => ensure!(
            received && reset["origin"] == "in_path" && sender.is_null(),
            "sender"
        ),
        By::Upstream => {
            let pid = note.map_or_else(std::process::id, |note| note.pid);
            ensure!(received && by_them && sender["pid"] == pid, "sender");
        }
        By::Perhaps => {
            let known = |pid: u64| upstream.pids().iter().any(|known| u64::from(*known) == pid);
            ensure!(!received || by_them, "origin");
            ensure!(
                !received || sender.is_null() || sender["pid"].as_u64().is_some_and(known),
                "sender"
            );
        }
    }
    Ok(())
}
