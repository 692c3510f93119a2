//! Connections that are older than the tracer, on any kernel: the live tests and the guests ask the same.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    scenario::{
        Ctx,
        load::{Load, Shape},
    },
    tracer::Tracer,
};

/// A guest may be emulated.
const PATIENCE: Duration = Duration::from_secs(5);

/// By a tracer as it is started.
pub fn are_found(port: u16) -> Result<()> {
    are_found_by(port, || Tracer::start(&["--port", &port.to_string()]))
}

/// They are found by the scan at the start: whose they are is known, when they began is not.
pub fn are_found_by(port: u16, start: impl FnOnce() -> Result<Tracer>) -> Result<()> {
    let ctx = Ctx::new(port)?;
    let mut load = Load::new(&ctx, false)?;
    let pids = [("client", load.client_pid()), ("server", load.server_pid())];
    let open = load.open()?;
    let tracer = start()?;
    open.finish(Shape::KeepAlive)?;
    let began = Instant::now();
    let lines = loop {
        let lines = tracer.so_far()?;
        if lines.iter().filter(|line| line.is("connection")).count() == 2 {
            break lines;
        }
        ensure!(began.elapsed() < PATIENCE, "no two records: {lines:?}");
        thread::sleep(Duration::from_millis(20));
    };
    for (role, pid) in pids {
        let line = lines.iter().find(|line| line.value["role"] == role);
        let record = &line
            .with_context(|| format!("no record of the {role}"))?
            .value;
        let found = &record["process"];
        ensure!(found["attribution"] == "snapshot", "attribution: {record}");
        ensure!(found["pid"] == pid, "pid is not {pid}: {record}");
        ensure!(record["started"].is_null(), "started: {record}");
        ensure!(record["complete"] == false, "complete: {record}");
        ensure!(record["verdict"] == "ok", "verdict: {record}");
    }
    Ok(())
}
