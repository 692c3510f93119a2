//! Every scenario against its expectation: one by one, then all in random order under load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Failed, Trial};
use xtask::scenario::check::{Complaint, Line, check, describe, within, wrong};
use xtask::scenario::feature::Features;
use xtask::scenario::load::{self, Load, Shape};
use xtask::scenario::{self, Ctx, Played, Scenario};
use xtask::skipped;
use xtask::tracer::Tracer;

use crate::{PORT, setting};

/// What plays at a time; each player has a port of its own.
const PLAYERS: u16 = 4;
pub(crate) const LOAD_PORT: u16 = PORT + PLAYERS;
/// Not traced.
pub(crate) const AGAIN_PORT: u16 = LOAD_PORT + 1;
/// Repetitions of each scenario, where nothing else is asked for.
const REPETITIONS: u64 = 200;
/// A scenario that waits for the kernel's timers is played this much less often.
const SLOW_DIVISOR: u64 = 50;
/// Wrong plays that are shown in full.
const SHOWN: usize = 5;

/// One test for each.
pub(crate) fn each(kernel: Features) -> Vec<Trial> {
    let one = |scenario: &'static Scenario| {
        let run =
            move || once(scenario, kernel).map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(format!("scenario::{}", scenario.name), run)
            .with_ignored_flag(!scenario.is_playable(kernel))
    };
    scenario::all().map(one).collect()
}

fn once(scenario: &Scenario, kernel: Features) -> Result<()> {
    skipped::again(|| {
        let tracer = Tracer::start(&["--port", &format!("{PORT}-{LOAD_PORT}")])?;
        let played = scenario.play(&Ctx::new(PORT)?)?;
        // Longer than a record may take.
        thread::sleep(Duration::from_millis(100));
        if !check(scenario, &played, &tracer.so_far()?, kernel).is_empty() {
            load::use_memory_again(LOAD_PORT)?;
        }
        let run = tracer.stop()?;
        let wrong = wrong(scenario, &played, &run.by_time()?, kernel);
        Ok(wrong.zip(Some(run.stats()?)))
    })
}

/// All scenarios, many times, in random order, several at a time, beside healthy traffic.
pub(crate) fn random_order() -> Result<()> {
    let repetitions = setting("UPSTREAM_TRACE_REPS")?.unwrap_or(REPETITIONS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    let seed = setting("UPSTREAM_TRACE_SEED")?.unwrap_or_else(|| u64::from(now));
    let kernel = Features::here()?;
    let deck = shuffled(repetitions, seed, kernel)?;
    println!("{} plays, UPSTREAM_TRACE_SEED={seed}", deck.len());

    let ports = format!("{PORT}-{LOAD_PORT}");
    let tracer = Tracer::start(&["--port", &ports])?;
    let (deck, next) = (&deck[..], &AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let (plays, healthy) = thread::scope(|scope| {
        let load = scope.spawn(|| healthy_load(&done));
        let players: Vec<_> = (0..PLAYERS)
            .map(|player| scope.spawn(move || play(PORT + player, deck, next)))
            .collect();
        let mut plays = Vec::new();
        for player in players {
            plays.push(player.join().expect("a player does not panic"));
        }
        done.store(true, Ordering::Relaxed);
        (plays, load.join().expect("the load does not panic"))
    });
    load::use_memory_again(AGAIN_PORT)?;
    load::use_fallow_memory_again()?;
    let plays: Result<Vec<_>> = plays.into_iter().collect();
    let plays: Vec<_> = plays?.into_iter().flatten().collect();
    let healthy = healthy?;
    thread::sleep(Duration::from_millis(100));
    let run = tracer.stop()?;
    let stats = run.stats()?;
    let lines = run.by_time()?;

    let mut unsure = 0;
    let mut wrong: BTreeMap<&str, usize> = BTreeMap::new();
    let mut what: BTreeMap<String, usize> = BTreeMap::new();
    let mut shown = String::new();
    for (scenario, played) in &plays {
        let near = within(&lines, played);
        let complaints = check(scenario, played, near, kernel);
        if is_unsure(&complaints) {
            unsure += 1;
            continue;
        }
        if !complaints.is_empty() {
            if wrong.values().sum::<usize>() < SHOWN {
                shown += &describe(scenario, played, near, &complaints);
            }
            *wrong.entry(scenario.name).or_insert(0) += 1;
            for complaint in complaints {
                *what.entry(complaint.what).or_insert(0) += 1;
            }
        }
    }
    let unhealthy = lines
        .iter()
        .filter(|line| of_load(line) && line.value["verdict"] != "ok");
    let unhealthy = unhealthy.count();
    let of_load = lines.iter().filter(|line| of_load(line)).count();
    println!(
        "{} plays beside {healthy} healthy connections, {unsure} unsure; {stats}",
        plays.len()
    );
    // Only what the tracer has counted as kept from its hooks may be missing, and not more than that usually is.
    let missed = skipped::missed(&stats)?;
    ensure!(
        missed <= 3 + plays.len() as u64 / 1000,
        "{missed} events were kept from their hooks"
    );
    let missed = skipped::missed_at_most(&stats)?;
    ensure!(
        unsure <= missed * u64::from(PLAYERS),
        "{unsure} resets that neither end sent are in doubt, for {missed} events at most"
    );
    ensure!(
        !plays.is_empty() && healthy > 0,
        "nothing was played, or beside nothing"
    );
    ensure!(
        wrong.values().sum::<usize>() as u64 <= missed,
        "wrong of {}: {wrong:?}, in {what:?} (UPSTREAM_TRACE_SEED={seed})\n{shown}",
        plays.len()
    );
    ensure!(
        unhealthy == 0,
        "{unhealthy} healthy connections of the load are not ok"
    );
    let whole = 2 * healthy as u64;
    ensure!(
        (whole.saturating_sub(missed)..=whole).contains(&(of_load as u64)),
        "{of_load} lines for {healthy} healthy connections"
    );
    Ok(())
}

/// Whether nothing is wrong but that a reset which neither end sent may have been sent by one of them: so it may, for all
/// that the tracer knows, where a hook was skipped while the play went on. One player plays one at a time.
fn is_unsure(complaints: &[Complaint]) -> bool {
    let of_origin = |complaint: &Complaint| match complaint.what.rsplit_once(".reset.") {
        Some((_, "origin")) => complaint.got == r#""unknown""#,
        Some((_, "confidence")) => complaint.got == "null",
        _ => false,
    };
    !complaints.is_empty() && complaints.iter().all(of_origin)
}

fn of_load(line: &Line) -> bool {
    let ports = [&line.value["local"]["port"], &line.value["remote"]["port"]];
    line.is("connection") && ports.iter().any(|&port| *port == LOAD_PORT)
}

/// The first player is where we are, the others apart. Where a play cannot be played to its end, nobody goes
/// on.
fn play<'a>(
    port: u16,
    deck: &[&'a Scenario],
    next: &AtomicUsize,
) -> Result<Vec<(&'a Scenario, Played)>> {
    let ctx = match port {
        PORT => Ctx::new(port)?,
        _ => Ctx::apart(port)?,
    };
    let mut plays = Vec::new();
    while let Some(&scenario) = deck.get(next.fetch_add(1, Ordering::Relaxed)) {
        let played = scenario.play(&ctx);
        if played.is_err() {
            next.store(deck.len(), Ordering::Relaxed);
        }
        plays.push((scenario, played?));
    }
    Ok(plays)
}

fn healthy_load(done: &AtomicBool) -> Result<usize> {
    let ctx = Ctx::apart(LOAD_PORT)?;
    let mut load = Load::new(&ctx, false)?;
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        load.one([Shape::KeepAlive, Shape::HalfClose, Shape::Idle][count % 3])?;
        count += 1;
        thread::sleep(Duration::from_millis(2));
    }
    Ok(count)
}

/// Every scenario as often as asked for, in random order.
fn shuffled(repetitions: u64, seed: u64, kernel: Features) -> Result<Vec<&'static Scenario>> {
    let mut deck = Vec::new();
    let only = std::env::var("UPSTREAM_TRACE_ONLY").ok();
    let wanted = |name: &str| {
        let only = only.as_deref();
        only.is_none_or(|only| only.split(',').any(|other| other == name))
    };
    let playable = scenario::all().filter(|scenario| scenario.is_playable(kernel));
    for scenario in playable.filter(|scenario| wanted(scenario.name)) {
        let divisor = if scenario.slow { SLOW_DIVISOR } else { 1 };
        let times = repetitions.div_ceil(divisor);
        deck.extend(std::iter::repeat_n(
            scenario,
            usize::try_from(times).context("too many")?,
        ));
    }
    scenario::shuffle(&mut deck, seed);
    Ok(deck)
}
