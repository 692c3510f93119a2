//! `cargo xtask bench`: what tracing costs on this machine, us beside others, against the bars.
//!
//! Needs root. Changes nothing that outlives it: BPF statistics are on only while a descriptor
//! is open, tracefs is mounted in a mount namespace of its own, every child ends with it.

mod isolate;
pub mod kernels;
mod output;
mod report;
mod rounds;
mod start;
mod tracer;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};

use self::{report::Report, tracer::Tracer};
use crate::{
    build,
    matrix::Kernels,
    process, storm,
    workspace::{self, Profile, Workspace},
};

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Small counts and one round, no bar judged: shows only that everything runs
    #[arg(long)]
    smoke: bool,
    /// Interleaved rounds of the storm; figures are their medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only the time in BPF, by tcplife's, on these kernels: `5.10,6.12`, or `all`
    #[arg(long, value_parser = Kernels::parse, conflicts_with_all = ["smoke", "rounds"])]
    kernels: Option<Kernels>,
}

/// Both ends of a loopback connection are connections of their own.
const RECORDS_A_CONNECTION: u64 = 2;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: u32,
    /// Connections in a storm.
    connections: u32,
    /// The same with the kernel's BPF statistics on: more and shorter, because a machine that is shared
    /// changes its pace within seconds.
    kernel_rounds: u32,
    kernel_connections: u32,
    starts: u32,
    /// Connections open while memory is read.
    held: u32,
    judge: bool,
}

impl Plan {
    fn new(options: &Options) -> Self {
        if options.smoke {
            Self {
                rounds: 1,
                connections: 500,
                kernel_rounds: 1,
                kernel_connections: 500,
                starts: 1,
                held: 1_000,
                judge: false,
            }
        } else {
            Self {
                rounds: options.rounds,
                connections: 30_000,
                kernel_rounds: options.rounds.saturating_mul(2),
                kernel_connections: 6_000,
                starts: 31,
                held: 100_000,
                judge: true,
            }
        }
    }
}

pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if let Some(kernels) = &options.kernels {
        return kernels::run(workspace, kernels);
    }
    let plan = Plan::new(options);
    let binary = build::tracer(workspace, Profile::Release)?;
    workspace::become_root()?;
    isolate::enter()?;
    let directory = Directory::make(workspace.target.join("bench"))?;
    let directory = directory.0.as_path();

    let mut tracers = Vec::new();
    let mut skipped = Vec::new();
    for tracer in Tracer::all(binary) {
        say(&format!("trying {}", tracer.name));
        match tracer.try_out(directory) {
            Ok(()) => tracers.push(tracer),
            Err(error) if tracer.is_ours() => return Err(error).context("our tracer does not run"),
            Err(error) => skipped.push((tracer.name, format!("{error:#}"))),
        }
    }

    let server = storm::Server::start()?;
    let costs = rounds::kernel(
        plan.kernel_rounds,
        plan.kernel_connections,
        &tracers,
        directory,
    )?;
    let storms = rounds::throughput(&plan, &tracers, directory)?;
    drop(server);
    let starts = start::measure(&plan, &tracers)?;
    let memory = memory(&plan, &tracers, directory)?;

    let report = Report {
        plan: &plan,
        tracers: &tracers,
        skipped: &skipped,
        costs: &costs,
        storms: &storms,
        starts: &starts,
        memory,
    };
    report.print_and_judge()
}

/// What the tracers write goes beside the build, on a real file system; gone when we are.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    /// Takes the place of what an interrupted run left.
    fn make(path: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Our resident set with many connections open.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident_kib: u64,
    peak_kib: u64,
}

fn memory(plan: &Plan, tracers: &[Tracer], directory: &Path) -> Result<Memory> {
    say(&format!("memory: opening {} connections", plan.held));
    let ours = tracers
        .iter()
        .find(|tracer| tracer.is_ours())
        .context("ours is always among the tracers")?;
    let running = ours.start(directory)?;
    let held = storm::hold_open(plan.held)?;
    thread::sleep(rounds::DRAIN);
    let memory = Memory {
        resident_kib: process::memory_kib(running.child(), "VmRSS")?,
        peak_kib: process::memory_kib(running.child(), "VmHWM")?,
    };
    drop(held);
    running.stop()?;
    Ok(memory)
}

fn say(what: &str) {
    eprintln!("xtask: bench: {what}");
}

/// The middle of the values, or of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }
}
