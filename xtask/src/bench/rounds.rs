//! The storms: with the kernel's BPF statistics on, and without for everything else.

use std::{path::Path, thread, time::Duration};

use anyhow::{Error, Result};

use super::{Plan, median, output::Records, say, tracer::Tracer};
use crate::{
    bpf::{self, Statistics},
    process, storm,
};

/// After this long a tracer has written all that a storm gave it to write.
pub(super) const DRAIN: Duration = Duration::from_millis(300);

/// What the kernel says about one tracer.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    /// Nanoseconds in BPF programs per connection; none for tracers without any.
    ns: Vec<f64>,
    /// Ours only.
    pub(super) records: Records,
}

impl Kernel {
    pub(super) fn ns(&self) -> Option<f64> {
        median(self.ns.clone())
    }
}

/// Storms while the kernel times BPF programs.
pub(super) fn kernel(
    rounds: u32,
    connections: u32,
    tracers: &[Tracer],
    directory: &Path,
) -> Result<Vec<Kernel>> {
    let mut results = vec![Kernel::default(); tracers.len()];
    for round in 1..=rounds {
        say(&format!("time in the kernel, round {round} of {rounds}"));
        for (tracer, result) in tracers.iter().zip(&mut results) {
            if !tracer.is_bpf() {
                continue;
            }
            let running = tracer.start(directory)?;
            let statistics = Statistics::enable()?;
            let run_time = || Ok::<_, Error>(bpf::held_by(running.child().id())?.run_time);
            let before = run_time()?;
            storm::run(connections)?;
            thread::sleep(DRAIN);
            let spent = run_time()?.saturating_sub(before);
            drop(statistics);
            if let Some(records) = running.stop()? {
                result.records.add(records);
            }
            let spent = spent.as_secs_f64() * 1e9;
            result.ns.push(spent / f64::from(connections));
        }
    }
    Ok(results)
}

/// What the storms say about one tracer.
#[derive(Clone, Debug, Default)]
pub(super) struct Storms {
    /// Storm rate while traced, by the mean of the untraced storms before and after.
    ratios: Vec<f64>,
    /// Microseconds of the tracer's user and system time per connection.
    cpu: Vec<f64>,
    /// Ours only.
    pub(super) records: Records,
}

impl Storms {
    pub(super) fn ratio(&self) -> Option<f64> {
        median(self.ratios.clone())
    }

    pub(super) fn cpu(&self) -> Option<f64> {
        median(self.cpu.clone())
    }
}

#[derive(Debug)]
pub(super) struct Throughput {
    /// Connections a second of a storm that nobody watched.
    pub(super) untraced: f64,
    pub(super) tracers: Vec<Storms>,
}

/// Storms for one measurement.
pub(super) const STORMS: u32 = 2;

/// Untraced and traced storms in turn, so that a drift of the machine meets all alike. The rate is that of the second of two,
/// because what went before tells in it: a machine that has been busy is up to a tenth faster than one that has been at rest, as
/// it is while a tracer is waited for.
pub(super) fn throughput(plan: &Plan, tracers: &[Tracer], directory: &Path) -> Result<Throughput> {
    let rate = || -> Result<f64> {
        storm::run(plan.connections)?;
        Ok(f64::from(plan.connections) / storm::run(plan.connections)?.as_secs_f64())
    };
    let mut untraced = vec![];
    let mut results = vec![Storms::default(); tracers.len()];
    let mut before = rate()?;
    for round in 1..=plan.rounds {
        say(&format!("throughput, round {round} of {}", plan.rounds));
        for (tracer, result) in tracers.iter().zip(&mut results) {
            let running = tracer.start(directory)?;
            let cpu_before = process::cpu_time(running.child())?;
            let traced = rate()?;
            thread::sleep(DRAIN);
            let cpu = process::cpu_time(running.child())?.saturating_sub(cpu_before);
            if let Some(records) = running.stop()? {
                result.records.add(records);
            }
            let after = rate()?;
            result.ratios.push(traced / f64::midpoint(before, after));
            let connections = f64::from(STORMS * plan.connections);
            result.cpu.push(cpu.as_secs_f64() * 1e6 / connections);
            untraced.push(after);
            before = after;
        }
    }
    Ok(Throughput {
        untraced: median(untraced).unwrap_or_default(),
        tracers: results,
    })
}
