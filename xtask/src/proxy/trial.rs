//! One proxy, all upstreams, the tracer: plays requests and collects what `explain` says of the proxy's log.
//!
//! Must not know: what has to be said (that is `fault` and the tests).

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::fault::Fault;
use super::programs::Program;
use super::upstream::Upstream;
use crate::provision::Proxies;
use crate::tracer::{self, Tracer};

/// Records and log lines of the last request are on their way for less than this.
const SETTLE: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(10);

/// What was played and what was said.
#[derive(Debug)]
pub struct Trial {
    pub upstreams: Vec<Upstream>,
    /// The `explanation` lines.
    pub explanations: Vec<Value>,
    /// The `explained` line.
    pub account: Value,
    /// The tracer's own lines.
    pub records: Vec<Value>,
    /// How many logs have a line for each failed request.
    pub logs: usize,
}

/// A request by its path: `/FAULT/NUMBER`.
pub fn path(fault: Fault, number: u32) -> String {
    format!("/{}/{number}", fault.name())
}

/// Plays `requests` for each fault, all faults at once, and ten times as many healthy ones beside them.
pub fn play(program: Program, programs: &Proxies, dir: &Path, requests: u32) -> Result<Trial> {
    let faults = Fault::BAD.into_iter().chain([Fault::Healthy]);
    let upstreams = faults.map(Upstream::start).collect::<Result<Vec<_>>>()?;
    let ports: Vec<_> = upstreams
        .iter()
        .map(|upstream| upstream.address.port().to_string())
        .collect();
    let output = dir.join("records.json");
    let output = output.to_str().context("a path in UTF-8")?;
    let tracer = Tracer::start(&["--port", &ports.join(","), "--output", output])?;
    let proxy = program.start(programs, dir, &upstreams)?;
    let players: Vec<_> = upstreams
        .iter()
        .map(|upstream| {
            let (fault, address) = (upstream.fault, proxy.address);
            let count = if fault == Fault::Healthy {
                10 * requests
            } else {
                requests
            };
            thread::spawn(move || (0..count).try_for_each(|number| ask(address, fault, number)))
        })
        .collect();
    for player in players {
        let Ok(played) = player.join() else {
            bail!("a player panicked");
        };
        played?;
    }
    thread::sleep(SETTLE);
    let (logs, options) = (proxy.logs.clone(), proxy.options.clone());
    proxy.stop()?;
    tracer.stop()?;
    let said = Command::new(tracer::binary()?)
        .args(["explain", "--format", "json", "--records", output])
        .args(&options)
        .args(&logs)
        .output()?;
    ensure!(
        said.status.success(),
        "explain: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    let mut explanations = lines(&String::from_utf8_lossy(&said.stdout))?;
    let account = explanations.pop().context("explain said nothing")?;
    ensure!(
        account["type"] == "explained",
        "the last line is no account: {account}"
    );
    Ok(Trial {
        upstreams,
        explanations,
        account,
        records: lines(&std::fs::read_to_string(output)?)?,
        logs: logs.len(),
    })
}

fn lines(text: &str) -> Result<Vec<Value>> {
    let parsed = text
        .lines()
        .map(|line| serde_json::from_str(line).context(line.to_owned()));
    parsed.collect()
}

/// One request; healthy ones have to be answered, the others in whatever way.
fn ask(proxy: SocketAddr, fault: Fault, number: u32) -> Result<()> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let path = path(fault, number);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: upstream\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if fault == Fault::Healthy {
        read.with_context(|| path.clone())?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    Ok(())
}

impl Trial {
    /// The explanations of each request, by its path.
    pub fn by_path(&self) -> HashMap<&str, Vec<&Value>> {
        let mut found: HashMap<&str, Vec<&Value>> = HashMap::new();
        for explanation in &self.explanations {
            let request = explanation["request"].as_str().unwrap_or_default();
            let path = request.split(' ').nth(1).unwrap_or(request);
            found.entry(path).or_default().push(explanation);
        }
        found
    }
}
