//! One proxy, all upstreams, the tracer: plays requests and collects what `explain` says of the proxy's log.
//!
//! Must not know: what has to be said (that is `fault` and the tests).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::fault::Fault;
use super::network::Network;
use super::programs::Program;
use super::upstream::{self, Upstream};
use crate::provision::Proxies;
use crate::random::Random;
use crate::scenario::load;
use crate::tracer::{self, Tracer};

/// Records and log lines of the last request are on their way for less than this.
pub(super) const SETTLE: Duration = Duration::from_millis(2_500);
/// Where sockets' memory is used again, so that the tracer notices what was kept from it.
pub(super) const MEMORY_PORT: u16 = 18_650;
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A client that goes away does it after this.
const CLIENT_PATIENCE: Duration = Duration::from_millis(100);
/// The longest pause between two requests of a kind. What ends within 30 ms of each other may not be told apart: a good part of them, and not most.
const PAUSE_MS: u64 = 80;
/// Proxies pass it on, so that a request is longer than what HTTP/2 says before the first.
const AGENT: &str = "upstream-trace/1 (a client of the tests, with a name that is longer than a client needs, so that a middlebox can tell its requests)";
/// Healthy requests for each that fails in a certain way.
const HEALTHY: u32 = 10;

/// What was played and what was said.
#[derive(Debug)]
pub struct Trial {
    pub program: Program,
    pub upstreams: Vec<Upstream>,
    pub played: Vec<Played>,
    /// The `explanation` lines.
    pub explanations: Vec<Value>,
    /// The `explained` line.
    pub account: Value,
    /// The tracer's own lines.
    pub records: Vec<Value>,
    /// How many logs have a line for each failed request.
    pub logs: usize,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Played {
    pub fault: Fault,
    pub path: String,
    /// The client got the whole answer.
    pub answered: bool,
}

/// A request by its path: `/FAULT/NUMBER`.
pub fn path(fault: Fault, number: u32) -> String {
    format!("/{}/{number}", fault.row().name)
}

/// The path of the request that was answered before, on the connection on which this one fails.
pub fn path_before(path: &str) -> String {
    format!("{path}/before")
}

/// Plays `requests` for each fault, all faults at once and with pauses by `seed`, and ten times as many healthy ones beside them.
pub fn play(
    program: Program,
    programs: &Proxies,
    dir: &Path,
    requests: u32,
    seed: u64,
) -> Result<Trial> {
    let network = Network::make(&programs.network, Upstream::port)?;
    network.with_the_proxy(|| play_there(program, programs, dir, &network, requests, seed))
}

fn play_there(
    program: Program,
    programs: &Proxies,
    dir: &Path,
    network: &Network,
    requests: u32,
    seed: u64,
) -> Result<Trial> {
    let bad: Vec<_> = Fault::bad()
        .filter(|fault| ends_with_its_request(program, *fault))
        .collect();
    let faults = || bad.iter().copied().chain([Fault::Healthy]);
    let ports: Vec<_> = faults()
        .map(Upstream::port)
        .chain([MEMORY_PORT])
        .map(|port| port.to_string())
        .collect();
    let output = dir.join("records.json");
    let output = output.to_str().context("a path in UTF-8")?;
    let upstreams = faults()
        .map(|fault| Upstream::start(fault, program.talk(), network))
        .collect::<Result<Vec<_>>>()?;
    // On a busy machine a thread may sleep for longer than it wants to, and a connection then seems idle.
    let ports = ports.join(",");
    let options = ["--port", &ports, "--idle-after", "2s", "--output", output];
    let tracer = Tracer::start(&options)?;
    let routes: Vec<_> = upstreams.iter().map(Upstream::route).collect();
    let proxy = program.start(programs, dir, &routes)?;
    let players: Vec<_> = faults()
        .map(|fault| {
            let (address, mut random) = (proxy.address, Random::new(seed ^ u64::from(fault as u8)));
            let count = if fault == Fault::Healthy {
                HEALTHY * requests
            } else {
                requests
            };
            thread::spawn(move || {
                let most = if fault == Fault::Healthy {
                    PAUSE_MS / u64::from(HEALTHY)
                } else {
                    PAUSE_MS
                };
                let one = |number| {
                    thread::sleep(Duration::from_millis(random.below(most)));
                    let path = path(fault, number);
                    let answered = ask(program, address, fault, &path).context(path.clone())?;
                    Ok(Played {
                        fault,
                        path,
                        answered,
                    })
                };
                (0..count).map(one).collect::<Result<Vec<_>>>()
            })
        })
        .collect();
    let mut played = Vec::new();
    for player in players {
        let Ok(done) = player.join() else {
            bail!("a player panicked");
        };
        played.extend(done?);
    }
    thread::sleep(SETTLE);
    load::use_memory_again(MEMORY_PORT)?;
    let (logs, options) = (proxy.logs.clone(), proxy.options.clone());
    proxy.stop()?;
    tracer.stop()?;
    let (explanations, account) = explain(output, &logs, &options)?;
    Ok(Trial {
        program,
        upstreams,
        played,
        explanations,
        account,
        records: lines(&std::fs::read_to_string(output)?)?,
        logs: logs.len(),
    })
}

/// Whether the connection does. One of HTTP/2 that a proxy has made may outlive it, or end before it because of what it says of itself.
const fn ends_with_its_request(program: Program, fault: Fault) -> bool {
    use Fault::{LostInPath, NoAnswer, RacedByClose, ResetIdle};
    let outlives = matches!(fault, LostInPath | NoAnswer | RacedByClose | ResetIdle);
    !(outlives && matches!(program, Program::GrpcByEnvoy))
}

/// What `explain` says of the logs, and its account.
pub(super) fn explain(
    records: &str,
    logs: &[PathBuf],
    options: &[String],
) -> Result<(Vec<Value>, Value)> {
    let said = Command::new(tracer::binary()?)
        .args(["explain", "--format", "json", "--records", records])
        .args(options)
        .args(logs)
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
    Ok((explanations, account))
}

pub(super) fn lines(text: &str) -> Result<Vec<Value>> {
    let parsed = text
        .lines()
        .map(|line| serde_json::from_str(line).context(line.to_owned()));
    parsed.collect()
}

/// One request, and where the fault wants it another one before; whether it was answered.
fn ask(program: Program, proxy: SocketAddr, fault: Fault, path: &str) -> Result<bool> {
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(proxy)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut stream = connect()?;
    if let Some(pause) = fault.pause_ms() {
        let before = path_before(path);
        ensure!(exchange(&mut stream, &before, true)?, "{before} failed");
        thread::sleep(Duration::from_millis(pause));
        if !program.logs_second_requests() {
            stream = connect()?;
        }
    }
    if fault == Fault::ClientGone {
        request(&mut stream, path, false)?;
        thread::sleep(CLIENT_PATIENCE);
        upstream::reset(stream);
        return Ok(false);
    }
    // What goes wrong here is that it is not answered.
    let answered = exchange(&mut stream, path, false).unwrap_or(false);
    if let (true, Some(pause)) = (answered, fault.pause_ms()) {
        // The connection that was made for it fails as well, when nobody needs it.
        thread::sleep(Duration::from_millis(pause));
    }
    Ok(answered)
}

fn request(stream: &mut TcpStream, path: &str, keep: bool) -> io::Result<()> {
    let connection = if keep { "keep-alive" } else { "close" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: upstream\r\nUser-Agent: {AGENT}\r\nConnection: {connection}\r\n\r\n"
    );
    // In one piece: small ones wait for each other's acknowledgement.
    stream.write_all(request.as_bytes())
}

/// Whether the whole answer of a healthy upstream came.
pub(super) fn exchange(stream: &mut TcpStream, path: &str, keep: bool) -> io::Result<bool> {
    request(stream, path, keep)?;
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut some)? {
            0 => break,
            len => answer.extend_from_slice(&some[..len]),
        }
    }
    Ok(is_whole(&answer) && answer.starts_with(b"HTTP/1.1 200 "))
}

/// An answer with all of the body that its headers announce.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((headers, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = headers.lines();
    let len = lines.find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    len == Some(body.len())
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
