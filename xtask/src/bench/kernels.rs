//! `cargo xtask bench --kernels LIST`: what tracing costs on other kernels, by what tcplife costs there.
//!
//! An emulated guest counts instructions, by one CPU, which say nothing of a real machine's nanoseconds: only ratios
//! are compared. Must not know: how a guest is run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Directory, RECORDS_A_CONNECTION, isolate,
    output::Records,
    rounds, say,
    tracer::{Kind, Tracer},
};
use crate::{
    build,
    matrix::{self, Kernels},
    provision, storm,
    workspace::{self, Profile, Workspace},
};

/// How much of everything: a guest plays a storm in some seconds.
const ROUNDS: u32 = 5;
const CONNECTIONS: u32 = 3_000;

/// What a kernel's ratio may be of that on this machine.
const MAX_OF_HOST: f64 = 1.5;

/// Nanoseconds in BPF programs per connection, both ends traced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Costs {
    release: String,
    ours: f64,
    tcplife: f64,
    /// Ours: of connections, and events that were lost.
    records: u64,
    lost: u64,
}

impl Costs {
    fn ratio(&self) -> f64 {
        self.ours / self.tcplife
    }

    fn print(&self, name: &str) {
        let (ours, tcplife) = (self.ours, self.tcplife);
        let release = &self.release;
        let ratio = self.ratio();
        let (records, lost) = (self.records, self.lost);
        println!(
            "{name:<14}{release:<26}{ours:>16.0}{tcplife:>16.0}{ratio:>10.3}{records:>10}{lost:>7}"
        );
    }
}

pub(super) fn run(workspace: &Workspace, kernels: &Kernels) -> Result<()> {
    let tcplife = provision::for_comparison()?;
    let binary = build::tracer(workspace, Profile::Release)?;
    say("this machine");
    let host = on_host(&binary)?;
    let guests = matrix::measure(workspace, kernels, &tcplife, ROUNDS)?;

    println!(
        "\nstorm      connect, 64 B, 64 B, close on loopback; {CONNECTIONS} connections; emulated kernels: instructions\n"
    );
    println!(
        "{:<14}{:<26}{:>16}{:>16}{:>10}{:>10}{:>7}",
        "kernel", "", "BPF ns/conn", "tcplife's", "ratio", "records", "lost"
    );
    host.print("this machine");
    let bar = MAX_OF_HOST * host.ratio();
    let mut failed = Vec::new();
    for (name, costs) in &guests {
        match costs {
            Ok(costs) => costs.print(name),
            Err(error) => println!("{name:<14}not measured: {error:#}"),
        }
        if !costs.as_ref().is_ok_and(|costs| costs.ratio() <= bar) {
            failed.push(*name);
        }
    }
    println!("\nbar        ratio at most {bar:.3}: {MAX_OF_HOST} times that on this machine");
    if failed.is_empty() {
        println!("pass       on all of them");
        return Ok(());
    }
    println!("FAIL       on {}", failed.join(", "));
    bail!("a bar not reached on {} kernels", failed.len());
}

/// In a process of its own: it has to be root, and it leaves its namespaces.
fn on_host(binary: &Path) -> Result<Costs> {
    let program = std::env::current_exe().context("cannot find my own executable")?;
    let mut command = workspace::as_root(program)?;
    command.arg("costs").arg(binary);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = output.output().context("cannot start myself")?;
    ensure!(output.status.success(), "it failed on this machine");
    serde_json::from_slice(&output.stdout).context("what it cost on this machine")
}

/// The verb `costs`.
pub fn print(workspace: &Workspace, binary: PathBuf) -> Result<()> {
    let costs = measure(binary, workspace.target.join("bench"), ROUNDS)?;
    println!("{}", serde_json::to_string(&costs)?);
    Ok(())
}

/// Measures on the kernel that runs.
pub fn measure(binary: PathBuf, directory: PathBuf, rounds: u32) -> Result<Costs> {
    isolate::enter()?;
    let directory = Directory::make(directory)?;
    let tracers: Vec<_> = Tracer::all(binary)
        .into_iter()
        .filter(|tracer| matches!(tracer.kind, Kind::Ours | Kind::Tcplife))
        .collect();
    let server = storm::Server::start()?;
    let costs = rounds::kernel(rounds, CONNECTIONS, &tracers, &directory.0)?;
    drop(server);
    let mut ns = Vec::new();
    let mut records = Records::default();
    for (tracer, cost) in tracers.iter().zip(&costs) {
        records.add(cost.records);
        let time = cost.ns().filter(|time| *time > 0.0);
        ns.push(time.with_context(|| format!("{} ran no program", tracer.name))?);
    }
    let [ours, tcplife] = ns[..] else {
        bail!("{} tracers instead of two", ns.len());
    };
    // The kernel keeps some events from their hooks; with more of them missing it would be the cost of something else.
    let expected = u64::from(rounds * CONNECTIONS) * RECORDS_A_CONNECTION;
    ensure!(
        records.connections >= expected * 99 / 100,
        "{} records of {expected}, {} events lost",
        records.connections,
        records.lost
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(Costs {
        release: release.trim().to_owned(),
        ours,
        tcplife,
        records: records.connections,
        lost: records.lost,
    })
}
