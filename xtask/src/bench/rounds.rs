//! The storms: with the kernel's BPF statistics on, and without for everything else.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use super::{
    Plan,
    bpf::{Programs, Statistics},
    median,
    output::Records,
    say,
    tracer::Tracer,
};
use crate::{process, storm};

/// After this long a tracer has written all that a storm gave it to write.
pub(super) const DRAIN: Duration = Duration::from_millis(300);

/// Nanoseconds in BPF programs per connection, by tracer; none for those without any.
pub(super) fn kernel(
    plan: &Plan,
    tracers: &[Tracer],
    directory: &Path,
) -> Result<Vec<Option<f64>>> {
    let mut samples = vec![Vec::new(); tracers.len()];
    for round in 1..=plan.kernel_rounds {
        say(&format!(
            "time in the kernel, round {round} of {}",
            plan.kernel_rounds
        ));
        for (tracer, samples) in tracers.iter().zip(&mut samples) {
            if !tracer.is_bpf() {
                continue;
            }
            let running = tracer.start(directory)?;
            let statistics = Statistics::enable()?;
            let before = Programs::of(running.child())?.run_time;
            storm::run(plan.connections)?;
            thread::sleep(DRAIN);
            let after = Programs::of(running.child())?.run_time;
            drop(statistics);
            running.stop()?;
            let spent = after.saturating_sub(before).as_secs_f64() * 1e9;
            samples.push(spent / f64::from(plan.connections));
        }
    }
    Ok(samples.into_iter().map(median).collect())
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

/// Untraced and traced storms in turn, so that a drift of the machine meets all alike.
pub(super) fn throughput(plan: &Plan, tracers: &[Tracer], directory: &Path) -> Result<Throughput> {
    let rate = || -> Result<f64> {
        Ok(f64::from(plan.connections) / storm::run(plan.connections)?.as_secs_f64())
    };
    let mut untraced = vec![];
    let mut results = vec![Storms::default(); tracers.len()];
    // The first storm finds caches and ports cold.
    rate()?;
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
            let connections = f64::from(plan.connections);
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
