//! The table, and what it says about the bars.

use anyhow::{Result, bail};

use super::{
    Memory, Plan, RECORDS_A_CONNECTION,
    rounds::{Kernel, STORMS, Storms, Throughput},
    tracer::{Kind, Tracer},
};

/// The bars: nothing slower or bigger than this is fit to be left on.
const MAX_KERNEL_NS: f64 = 3_000.0;
const MAX_KERNEL_OF_TCPLIFE: f64 = 1.0 / 7.0;
const MIN_THROUGHPUT: f64 = 0.95;
const MAX_CPU_OF_TCPLIFE: f64 = 1.0 / 5.0;
const MAX_RESIDENT_MIB: f64 = 64.0;
const MAX_START_OF_TCPLIFE: f64 = 2.0;

#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tracers: &'a [Tracer],
    pub(super) skipped: &'a [(&'static str, String)],
    pub(super) costs: &'a [Kernel],
    pub(super) storms: &'a Throughput,
    pub(super) starts: &'a [Option<f64>],
    pub(super) memory: Memory,
}

/// What one tracer's row says.
#[derive(Debug, Default)]
struct Row {
    kernel_ns: Option<f64>,
    cpu_us: Option<f64>,
    ratio: Option<f64>,
    start_ms: Option<f64>,
}

impl Report<'_> {
    /// Fails where a bar does, or where records are missing.
    pub(super) fn print_and_judge(&self) -> Result<()> {
        self.print_table();
        let mut failed = self.judge_records();
        if self.plan.judge {
            failed += self.judge_cost();
        } else {
            println!("bars       not judged: --smoke");
        }
        if failed > 0 {
            bail!("{failed} of the bars not reached");
        }
        Ok(())
    }

    fn print_table(&self) {
        println!(
            "\nstorm      connect, 64 B, 64 B, close on loopback; {} connections, {} rounds; untraced {:.0} connections/s",
            self.plan.connections, self.plan.rounds, self.storms.untraced
        );
        println!(
            "memory     upstream-trace with {} connections open: {:.1} MiB resident, {:.1} MiB at most\n",
            self.plan.held,
            mib(self.memory.resident_kib),
            mib(self.memory.peak_kib)
        );
        println!(
            "{:<16}{:>14}{:>16}{:>22}{:>12}{:>20}{:>7}",
            "tracer",
            "BPF ns/conn",
            "CPU us/conn",
            "traced/untraced",
            "start ms",
            "records",
            "lost"
        );
        for (index, tracer) in self.tracers.iter().enumerate() {
            let row = self.row(index);
            let records = self.storms.tracers.get(index).map(|storms| storms.records);
            let (records, lost) = match records.filter(|_| tracer.is_ours()) {
                Some(records) => (
                    format!("{} of {}", records.connections, self.expected()),
                    records.lost.to_string(),
                ),
                None => ("-".into(), "-".into()),
            };
            println!(
                "{:<16}{:>14}{:>16}{:>22}{:>12}{:>20}{:>7}",
                tracer.name,
                figure(row.kernel_ns, 0),
                figure(row.cpu_us, 2),
                figure(row.ratio, 3),
                figure(row.start_ms, 1),
                records,
                lost
            );
        }
        for (name, reason) in self.skipped {
            println!("{name:<16}skipped: {reason}");
        }
        println!();
    }

    fn row(&self, index: usize) -> Row {
        let storms = self.storms.tracers.get(index);
        Row {
            kernel_ns: self.costs.get(index).and_then(Kernel::ns),
            cpu_us: storms.and_then(Storms::cpu),
            ratio: storms.and_then(Storms::ratio),
            start_ms: self.starts.get(index).copied().flatten(),
        }
    }

    fn row_of(&self, kind: Kind) -> Option<Row> {
        let index = self.tracers.iter().position(|tracer| tracer.kind == kind)?;
        Some(self.row(index))
    }

    fn expected(&self) -> u64 {
        let storms = u64::from(self.plan.rounds * STORMS);
        u64::from(self.plan.connections) * storms * RECORDS_A_CONNECTION
    }

    /// How many bars failed.
    fn judge_records(&self) -> u32 {
        let records = self
            .tracers
            .iter()
            .zip(&self.storms.tracers)
            .find(|(tracer, _)| tracer.is_ours())
            .map(|(_, storms)| storms.records)
            .unwrap_or_default();
        // What the kernel kept from the hooks may be missing: a real machine keeps less than one event in a thousand.
        let missed = records.missed.min(self.expected() / 1000);
        let least = self.expected().saturating_sub(missed);
        let complete = (least..=self.expected()).contains(&records.connections);
        let text = format!("{} of {}", records.connections, self.expected());
        let lost = records.lost - missed;
        verdict("two records a connection", &text, complete)
            + verdict("nothing lost", &lost.to_string(), lost == 0)
    }

    /// How many bars failed.
    fn judge_cost(&self) -> u32 {
        let ours = self.row_of(Kind::Ours).unwrap_or_default();
        let tcplife = self.row_of(Kind::Tcplife).unwrap_or_default();
        let share = |ours: Option<f64>, tcplife: Option<f64>| Some(ours? / tcplife?);
        [
            at_most("BPF ns per connection", ours.kernel_ns, MAX_KERNEL_NS),
            at_most(
                "BPF time, by tcplife's",
                share(ours.kernel_ns, tcplife.kernel_ns),
                MAX_KERNEL_OF_TCPLIFE,
            ),
            bar(
                "storm rate, traced by untraced",
                ours.ratio,
                &format!("at least {MIN_THROUGHPUT}"),
                |value| value >= MIN_THROUGHPUT,
            ),
            at_most(
                "CPU time, by tcplife's",
                share(ours.cpu_us, tcplife.cpu_us),
                MAX_CPU_OF_TCPLIFE,
            ),
            at_most(
                "resident MiB",
                Some(mib(self.memory.resident_kib)),
                MAX_RESIDENT_MIB,
            ),
            at_most(
                "start, by tcplife's",
                share(ours.start_ms, tcplife.start_ms),
                MAX_START_OF_TCPLIFE,
            ),
        ]
        .into_iter()
        .sum()
    }
}

fn at_most(what: &str, value: Option<f64>, limit: f64) -> u32 {
    bar(what, value, &format!("at most {limit:.3}"), |value| {
        value <= limit
    })
}

fn bar(what: &str, value: Option<f64>, limit: &str, holds: impl Fn(f64) -> bool) -> u32 {
    let Some(value) = value else {
        println!("{:<11}{what}: no figure to compare with", "not judged");
        return 0;
    };
    verdict(what, &format!("{value:.3}, {limit}"), holds(value))
}

fn verdict(what: &str, text: &str, pass: bool) -> u32 {
    let word = if pass { "pass" } else { "FAIL" };
    println!("{word:<11}{what}: {text}");
    u32::from(!pass)
}

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
