//! Filters: which connections are traced, and which records are printed.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::scenario::load::{Load, Shape};
use xtask::scenario::{self, Ctx};
use xtask::tracer::Tracer;

use crate::{PORT, wait_for};

/// Two single ports and a range; either end's port counts.
pub(crate) fn ports() -> Result<()> {
    let wanted = [PORT + 1, PORT + 3, PORT + 6, PORT + 7, PORT + 8];
    let single = format!("{},{}", wanted[0], wanted[1]);
    let range = format!("{}-{}", wanted[2], wanted[4]);
    let tracer = Tracer::start(&["--port", &single, "--port", &range])?;
    for port in PORT..PORT + 10 {
        Load::new(&Ctx::new(port)?, false)?.one(Shape::KeepAlive)?;
    }
    wait_for(&tracer, 2 * wanted.len(), |line| line.is("connection"))?;
    let lines = tracer.stop()?.by_time()?;
    let of = |role: &str, end: &str| -> Vec<_> {
        let lines = lines.iter().filter(|line| line.value["role"] == role);
        lines
            .filter_map(|line| line.value[end]["port"].as_u64())
            .collect()
    };
    let wanted: Vec<_> = wanted.iter().copied().map(u64::from).collect();
    let (clients, servers) = (of("client", "remote"), of("server", "local"));
    ensure!(
        clients == wanted && servers == wanted,
        "traced {clients:?} and {servers:?}"
    );
    Ok(())
}

pub(crate) fn networks() -> Result<()> {
    for (cidr, family) in [
        ("::1", "ipv6"),
        ("::/64", "ipv6"),
        ("127.0.0.0/8", "ipv4"),
        ("127.0.0.1/32", "ipv4"),
    ] {
        let ports = format!("{PORT}-{}", PORT + 1);
        let tracer = Tracer::start(&["--port", &ports, "--cidr", cidr])?;
        Load::new(&Ctx::new(PORT)?, false)?.one(Shape::KeepAlive)?;
        Load::new(&Ctx::new(PORT + 1)?, true)?.one(Shape::KeepAlive)?;
        wait_for(&tracer, 2, |line| line.is("connection"))?;
        let lines = tracer.stop()?.by_time()?;
        let families: Vec<_> = lines
            .iter()
            .filter(|line| line.is("connection"))
            .filter_map(|line| line.value["family"].as_str())
            .collect();
        ensure!(families == [family; 2], "--cidr {cidr}: {families:?}");
    }
    Ok(())
}

/// The owner's, whichever end it is; the other end belongs to somebody else.
pub(crate) fn pids() -> Result<()> {
    const COUNT: usize = 5;
    let ctx = Ctx::new(PORT)?;
    let mut load = Load::new(&ctx, false)?;
    let mut other = Load::new(&Ctx::new(PORT + 1)?, false)?;
    for (pid, role) in [(load.client_pid(), "client"), (load.server_pid(), "server")] {
        let tracer = Tracer::start(&["--pid", &pid.to_string()])?;
        for _ in 0..COUNT {
            load.one(Shape::KeepAlive)?;
            other.one(Shape::KeepAlive)?;
        }
        wait_for(&tracer, COUNT, |line| line.is("connection"))
            .with_context(|| format!("--pid of the {role}"))?;
        let lines = tracer.stop()?.by_time()?;
        let records: Vec<_> = lines.iter().filter(|line| line.is("connection")).collect();
        let right = records
            .iter()
            .filter(|line| line.value["role"] == role && line.value["process"]["pid"] == pid);
        let right = right.count();
        ensure!(
            right == COUNT && records.len() == COUNT,
            "--pid of the {role}: {right} right of {} records for {COUNT} connections",
            records.len()
        );
    }
    Ok(())
}

/// `--flagged`, `--failed`, `--verdict`, `--ignore`: the same traffic each time.
pub(crate) fn records() -> Result<()> {
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &[],
            &[
                "closed_before_response",
                "local_abort",
                "ok",
                "probe",
                "refused",
                "reset_mid_stream",
            ],
        ),
        (&["--flagged"], &["probe", "refused"]),
        (
            &["--failed"],
            &[
                "closed_before_response",
                "local_abort",
                "probe",
                "refused",
                "reset_mid_stream",
            ],
        ),
        (&["--verdict", "refused"], &["refused"]),
        (
            &["--verdict", "refused", "--verdict", "ok"],
            &["ok", "refused"],
        ),
        (
            &["--failed", "--ignore", "probe,local_abort"],
            &["closed_before_response", "refused", "reset_mid_stream"],
        ),
    ];
    let traffic = [
        "healthy",
        "refused",
        "health_check",
        "closed_without_answer",
        "client_aborts_answered",
    ];
    let ctx = Ctx::new(PORT)?;
    for (args, expected) in cases {
        let port = PORT.to_string();
        let tracer = Tracer::start(&[&["--port", &port], args].concat())?;
        for name in traffic {
            scenario::find(name)
                .context("no such scenario")?
                .play(&ctx)?;
        }
        thread::sleep(Duration::from_millis(100));
        let lines = tracer.stop()?.by_time()?;
        let verdicts: BTreeSet<_> = lines
            .iter()
            .filter(|line| line.is("connection"))
            .filter_map(|line| line.value["verdict"].as_str())
            .collect();
        ensure!(
            verdicts.iter().eq(expected),
            "{args:?} printed {verdicts:?}"
        );
    }
    Ok(())
}
