//! Nothing is lost silently, nobody is blocked, and healthy connections are called healthy.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::scenario::Ctx;
use xtask::scenario::check::Line;
use xtask::scenario::load::{self, Load, Shape};
use xtask::skipped;
use xtask::tracer::Tracer;

use crate::PORT;
use crate::scenarios::AGAIN_PORT;

const SHAPES: [Shape; 3] = [Shape::KeepAlive, Shape::HalfClose, Shape::Idle];
/// Fewest events of a healthy connection, both ends: 5 transitions where it connected, 4 where it was accepted.
const EVENTS_AT_LEAST: u64 = 9;

/// `count` connections over each family, at the same time.
fn traffic(count: u64) -> Result<()> {
    let family = |port, v6| -> Result<()> {
        let ctx = Ctx::apart(port)?;
        let mut load = Load::new(&ctx, v6)?;
        for shape in SHAPES.into_iter().cycle().take(usize::try_from(count)?) {
            load.one(shape)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let v6 = scope.spawn(move || family(PORT + 1, true));
        family(PORT, false)?;
        v6.join().expect("it does not panic")
    })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

/// Events seen by the hooks = events delivered + all that was lost.
fn adds_up(stats: &Value, connections: u64) -> Result<u64> {
    println!("{stats}");
    let lost = stats["lost"]
        .as_object()
        .map(|causes| causes.values().map(number).sum());
    let lost: u64 = lost.unwrap_or(u64::MAX);
    let (seen, events) = (number(&stats["seen"]), number(&stats["events"]));
    ensure!(
        seen == events + lost,
        "{seen} events seen, {events} delivered, {lost} lost"
    );
    ensure!(
        seen >= connections * EVENTS_AT_LEAST,
        "{seen} events are too few for {connections} connections"
    );
    Ok(lost)
}

/// A ring of 64 KiB, and a tracer that cannot empty it for a while.
pub(crate) fn small_ring() -> Result<()> {
    let ports = format!("{PORT}-{}", PORT + 1);
    let tracer = Tracer::start(&["--port", &ports, "--ring-size", "64KiB"])?;
    traffic(500)?;
    tracer.signal(libc::SIGSTOP)?;
    traffic(1000)?;
    tracer.signal(libc::SIGCONT)?;
    traffic(500)?;
    let stats = tracer.stop()?.stats()?;
    let lost = adds_up(&stats, 4000)?;
    ensure!(
        lost > 0 && number(&stats["lost"]["ring_full"]) > 0,
        "the ring was never full"
    );
    Ok(())
}

/// More connections are open than may be followed: those that are given up are counted, the others are whole.
pub(crate) fn full_table() -> Result<()> {
    const FOLLOWED: usize = 128;
    const OPEN: usize = 3 * FOLLOWED;
    let (port, most) = (PORT.to_string(), FOLLOWED.to_string());
    let tracer = Tracer::start(&["--port", &port, "--max-connections", &most])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let open = || -> Result<_> {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        Ok((client, listener.accept()?.0))
    };
    let held: Vec<_> = (0..OPEN).map(|_| open()).collect::<Result<_>>()?;
    drop(held);
    thread::sleep(Duration::from_millis(100));
    let run = tracer.stop()?;
    let stats = run.stats()?;
    adds_up(&stats, u64::try_from(OPEN)?)?;
    ensure!(
        number(&stats["lost"]["table_full"]) > 0,
        "nothing was given up"
    );
    let lines = run.by_time()?;
    let whole = lines
        .iter()
        .filter(|line| line.is("connection") && line.value["complete"] == true)
        .count();
    println!("{whole} of {} ends are whole", 2 * OPEN);
    ensure!(
        (FOLLOWED / 2..=2 * OPEN).contains(&whole),
        "{whole} are whole"
    );
    Ok(())
}

/// Nobody reads standard output while traffic goes on.
pub(crate) fn paused_reader() -> Result<()> {
    const MIB: u64 = 1024 * 1024;
    let ports = format!("{PORT}-{}", PORT + 1);
    let tracer = Tracer::start_unread(&["--port", &ports])?;
    traffic(2000)?;
    let early = tracer.resident()?;
    traffic(6000)?;
    let late = tracer.resident()?;
    println!("resident: {} KiB, then {} KiB", early / 1024, late / 1024);
    ensure!(late < 64 * MIB, "{} MiB resident", late / MIB);
    ensure!(late < early + 8 * MIB, "grew from {early} to {late} bytes");
    tracer.resume();
    thread::sleep(Duration::from_millis(300));
    let run = tracer.stop()?;
    ensure!(run.status.success(), "{}", run.status);
    let stats = run.stats()?;
    adds_up(&stats, 16_000)?;
    ensure!(
        number(&stats["lost"]["output"]) > 0,
        "no output was dropped"
    );
    ensure!(
        number(&stats["lost"]["ring_full"]) == 0,
        "the kernel side was held up"
    );
    Ok(())
}

/// Keep-alive, half-close, idle; both families: no record with a flag, every one there and `ok`. Once more where one
/// is not there, but only if its end was kept from the hooks and that was counted.
pub(crate) fn healthy() -> Result<()> {
    skipped::again(missing)
}

/// How many records are not there; whatever else is wrong is an error.
fn missing() -> Result<Option<(String, Value)>> {
    const EACH: u64 = 10_000;
    let ports = format!("{PORT}-{}", PORT + 1);
    let tracer = Tracer::start(&["--port", &ports])?;
    traffic(EACH)?;
    load::use_memory_again(AGAIN_PORT)?;
    load::use_fallow_memory_again()?;
    thread::sleep(Duration::from_millis(100));
    let run = tracer.stop()?;
    let stats = run.stats()?;
    adds_up(&stats, 2 * EACH)?;
    let lines = run.by_time()?;
    let of = |role: &str| {
        lines
            .iter()
            .filter(|line| line.value["role"] == role)
            .count()
    };
    let ok = |role: &str| {
        let right = |line: &&Line| line.value["role"] == role && line.value["verdict"] == "ok";
        lines.iter().filter(right).count()
    };
    let flagged = lines
        .iter()
        .filter(|line| line.value["flag"].is_string())
        .count();
    let (clients, servers) = (of("client"), of("server"));
    let (ok_clients, ok_servers) = (ok("client"), ok("server"));
    println!(
        "{ok_clients} of {clients} clients and {ok_servers} of {servers} servers ok, {flagged} flagged"
    );
    let odd = lines
        .iter()
        .find(|line| line.is("connection") && line.value["verdict"] != "ok");
    if let Some(odd) = odd {
        println!("{}", odd.value);
    }
    let all = usize::try_from(2 * EACH)?;
    let missed = usize::try_from(skipped::missed_at_most(&stats)?)?;
    // A last segment may come late, see `check`: seldom.
    let resets = lines.iter().filter(|line| line.is("reset")).count();
    ensure!(resets <= all / 1000, "{resets} resets");
    ensure!(flagged == 0, "{flagged} healthy connections are flagged");
    ensure!(
        [ok_clients, ok_servers] == [clients, servers],
        "not all are ok"
    );
    let missing = [clients, servers].map(|there| all.checked_sub(there));
    let missing = missing.into_iter().sum::<Option<usize>>();
    ensure!(
        missing.is_some_and(|missing| missing <= missed),
        "{missing:?} are missing, {missed} events were missed at most"
    );
    Ok((missing != Some(0)).then(|| (format!("{missing:?} records are missing"), stats)))
}
