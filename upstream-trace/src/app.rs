//! A run from its start to its end, and `doctor`, which is its start: what is made, and in which order.
//!
//! Must not know: what becomes of an event.

use std::time::Duration;

use rustix::rand::GetRandomFlags;

use crate::{
    cgroup, clock,
    doctor::Report,
    exit::{Code, Failure},
    join::engine::{Context, Engine},
    kernel::host,
    output::console::{print, say},
    printer::{self, Printer},
    proc,
    settings::Settings,
    stop::{Stop, runtime},
    survey::Survey,
    tracer::Tracer,
};

/// Runs until told to stop.
pub fn run(mut settings: Settings) -> Result<(), Failure> {
    settings.wanted.cgroups = cgroup::find(&settings.cgroups, &settings.containers)?;
    runtime()?.block_on(trace(settings))
}

/// Says what a run would find here: attaches, lets go, tells. The code says how much of a node is seen.
pub fn doctor(json: bool, settings: &Settings) -> Result<Code, Failure> {
    // As a run has them open: it must not have fewer descriptors left than this.
    let _held = (runtime()?, printer::open(settings)?);
    let mut survey = Survey::look(settings)?;
    drop(survey.attach(settings));
    let report = Report::new(&survey);
    print(&if json { report.json() } else { report.text() })?;
    Ok(report.code)
}

async fn trace(settings: Settings) -> Result<(), Failure> {
    // First: whoever is told to stop while it starts, stops when it has started.
    let mut stop = Stop::listen()?;
    let mut survey = Survey::look(&settings)?;
    if survey.host.has_proc && survey.host.is_in_first_pid_namespace {
        are_processes(&settings.wanted.pids)?;
    }
    survey.check()?;
    // Opened before anything is attached: a wrong path costs the kernel nothing.
    let output = printer::open(&settings)?;
    let (loaded, attached) = survey.attach(&settings)?;
    let since = clock::monotonic();
    for line in Report::new(&survey).short() {
        say(&line);
    }
    if settings.duration == Some(Duration::ZERO) {
        return Ok(());
    }
    // Before the printer starts: that empties the file, and whoever cannot trace leaves what is in it.
    let run = random()?;
    let mut printer = Printer::start(&settings, output)?;
    give_memory_back();
    let context = Context {
        run,
        own_comm: proc::own_comm(),
        tick_ns: survey.host.tick_ns,
        idle_after_us: u64::try_from(settings.idle_after.as_micros()).unwrap_or(u64::MAX),
        reasons: survey.reasons,
        drop_reasons: survey.drop_reasons,
        counts_syn_retransmits: attached.counts_syn_retransmits,
        sees_all_resets: attached.sees_all_resets,
        sees_both_ends: !settings.wanted.by_owner(),
        knows_listeners: loaded.scans()
            && !settings.wanted.by_owner()
            && settings.wanted.networks.is_empty(),
        local_ports: survey.host.local_ports.clone(),
        since,
        events: settings.events,
        wanted: settings.wanted.clone(),
    };
    let engine = Engine::new(context, settings.max_connections as usize);
    let mut tracer = Tracer::new(loaded, engine, settings.ring_size);
    tracer.take_stock(&mut printer)?;
    say("tracing");
    tracer.follow(&settings, &mut printer, &mut stop).await?;
    if let Some(untaken) = printer.finish()? {
        say(&untaken);
    }
    Ok(())
}

/// Each has to be the pid of a process, or nothing of it would ever be seen.
fn are_processes(pids: &[u32]) -> Result<(), Failure> {
    pids.iter().try_for_each(|&pid| {
        host::process(pid).map_err(|why| Failure::new(Code::Usage, format!("--pid {pid}: {why}")))
    })
}

/// Returns to the system what reading the kernel's types took: more than everything else at rest.
fn give_memory_back() {
    // SAFETY: takes no pointer and may be called at any time (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

fn random() -> Result<u64, Failure> {
    let mut bytes = [0_u8; 8];
    // So few are given at once, or not at all.
    rustix::rand::getrandom(&mut bytes[..], GetRandomFlags::empty()).map_err(|error| {
        let message = format!("cannot get a random number (getrandom): {error}");
        Failure::new(Code::Failure, message)
    })?;
    Ok(u64::from_ne_bytes(bytes))
}
