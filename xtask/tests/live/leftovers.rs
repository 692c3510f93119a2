//! Nothing of a tracer stays in the kernel, however it ends, and two do not disturb each other.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::bpf::{self, Object};
use xtask::scenario::feature::Features;
use xtask::scenario::{self, Ctx, Played, Scenario, check, load};
use xtask::skipped;
use xtask::tracer::{Run, Tracer};

use crate::scenarios::LOAD_PORT;
use crate::{PORT, setting};

/// Starts and stops, where nothing else is asked for.
const STARTS: u64 = 1000;

/// What a running tracer has in the kernel: programs and maps at the least.
fn objects(tracer: &Tracer) -> Result<Vec<Object>> {
    let objects = bpf::held_by(tracer.pid())?.objects;
    ensure!(
        objects.iter().any(Object::is_program),
        "no program: {objects:?}"
    );
    ensure!(objects.iter().any(Object::is_map), "no map: {objects:?}");
    Ok(objects)
}

pub(crate) fn killed() -> Result<()> {
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    let objects = objects(&tracer)?;
    for object in &objects {
        ensure!(object.exists()?, "{object:?} is not there while it runs");
    }
    tracer.signal(libc::SIGKILL)?;
    let run = tracer.wait()?;
    ensure!(!run.status.success(), "{}", run.status);
    bpf::are_gone(objects)
}

pub(crate) fn started_and_stopped_many_times() -> Result<()> {
    let starts = setting("UPSTREAM_TRACE_STARTS")?.unwrap_or(STARTS);
    let before = kernel_memory()?;
    let mut all = Vec::new();
    for _ in 0..starts {
        let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
        all.extend(objects(&tracer)?);
        let run = tracer.stop()?;
        ensure!(run.status.success(), "{}", run.status);
    }
    println!("{starts} starts made {} objects", all.len());
    bpf::are_gone(all)?;
    let after = kernel_memory()?;
    println!("the kernel's memory: {before} KiB, then {after} KiB");
    // One that is not given back has 12 MiB in one map alone.
    let grown = after.saturating_sub(before);
    ensure!(
        grown < 4 * 1024 * starts,
        "grew by {grown} KiB in {starts} starts"
    );
    Ok(())
}

/// Where maps and programs lie.
fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok(kib("VmallocUsed:")? + kib("SUnreclaim:")? + kib("Percpu:")?)
}

/// Each of two has every line, whoever came first and whoever goes first.
pub(crate) fn two_at_once() -> Result<()> {
    let ports = format!("{PORT}-{LOAD_PORT}");
    let kernel = Features::here()?;
    let first = Tracer::start(&["--port", &ports])?;
    let second = Tracer::start(&["--port", &ports])?;
    let ctx = Ctx::new(PORT)?;
    let quick = scenario::quick(kernel);
    let plays: Result<Vec<_>> = quick.map(|one| Ok((one, one.play(&ctx)?))).collect();
    let mut plays = plays?;
    load::use_memory_again(LOAD_PORT)?;
    thread::sleep(Duration::from_millis(100));
    all_right("the first", &plays, &first.stop()?, kernel)?;
    let refused = scenario::find("refused").context("no such scenario")?;
    plays.push((refused, refused.play(&ctx)?));
    load::use_memory_again(LOAD_PORT)?;
    thread::sleep(Duration::from_millis(100));
    all_right("the second", &plays, &second.stop()?, kernel)
}

/// But for what the tracer itself has counted as kept from its hooks.
fn all_right(who: &str, plays: &[(&Scenario, Played)], run: &Run, kernel: Features) -> Result<()> {
    let missed = skipped::missed_at_most(&run.stats()?)?;
    let lines = run.by_time()?;
    let mut wrong = Vec::new();
    for (scenario, played) in plays {
        wrong.extend(check::wrong(scenario, played, &lines, kernel));
    }
    println!(
        "{who}: {} plays, {} wrong, {missed} events missed at most",
        plays.len(),
        wrong.len()
    );
    ensure!(wrong.len() as u64 <= missed, "{who}: {}", wrong.concat());
    Ok(())
}
