//! Connections that are older than the tracer, on any kernel: the live tests and the guests ask the same.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

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
    of(Load::new(&Ctx::new(port)?, false)?, start)
}

/// The same of MPTCP's sockets, and of a listener of MPTCP's that takes plain TCP, as those of Go's servers are since 1.24.
pub fn multipath_are_found(port: u16) -> Result<()> {
    let load = Load::multipath(&Ctx::new(port)?)?;
    of(load, || Tracer::start(&["--port", &port.to_string()]))
}

fn of(mut load: Load, start: impl FnOnce() -> Result<Tracer>) -> Result<()> {
    let (client, server) = (load.client_pid(), load.server_pid());
    let open = load.open()?;
    let tracer = start()?;
    open.finish(Shape::KeepAlive)?;
    let records = wait_for(&tracer, 2)?;
    for (role, pid) in [("client", client), ("server", server)] {
        let record = of_role(&records, role)?;
        let found = &record["process"];
        ensure!(found["attribution"] == "snapshot", "attribution: {record}");
        ensure!(found["pid"] == pid, "pid is not {pid}: {record}");
        ensure!(record["started"].is_null(), "started: {record}");
        ensure!(record["complete"] == false, "complete: {record}");
        ensure!(record["verdict"] == "ok", "verdict: {record}");
    }
    load.unaccepted()?;
    let records = wait_for(&tracer, 4)?;
    let record = of_role(&records[2..], "server")?;
    let found = &record["process"];
    ensure!(found["attribution"] == "listener", "attribution: {record}");
    ensure!(found["pid"] == server, "pid is not {server}: {record}");
    ensure!(record["verdict"] == "never_accepted", "verdict: {record}");
    Ok(())
}

/// So many records, waited for.
fn wait_for(tracer: &Tracer, count: usize) -> Result<Vec<Value>> {
    let began = Instant::now();
    loop {
        let lines = tracer.so_far()?;
        let mut records: Vec<_> = lines.into_iter().map(|line| line.value).collect();
        records.retain(|record| record["type"] == "connection");
        if records.len() == count {
            return Ok(records);
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "not {count} records: {records:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn of_role<'a>(records: &'a [Value], role: &str) -> Result<&'a Value> {
    let found = records.iter().find(|record| record["role"] == role);
    found.with_context(|| format!("no record of the {role}"))
}
