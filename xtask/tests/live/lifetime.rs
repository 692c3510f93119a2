//! Connections that outlive the tracer at one end or the other.

use anyhow::{Context as _, Result, ensure};
use xtask::scenario::Ctx;
use xtask::scenario::load::{Load, Shape};
use xtask::tracer::Tracer;

use crate::{PORT, wait_for};

/// Found by the scan at the start: whose they are is known, when they began is not.
pub(crate) fn older_than_the_tracer() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let mut load = Load::new(&ctx, false)?;
    let pids = [("client", load.client_pid()), ("server", load.server_pid())];
    let open = load.open()?;
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    open.finish(Shape::KeepAlive)?;
    let lines = wait_for(&tracer, 2, |line| line.is("connection"))?;
    for (role, pid) in pids {
        let line = lines.iter().find(|line| line.value["role"] == role);
        let record = &line
            .with_context(|| format!("no record of the {role}"))?
            .value;
        println!("{record}");
        ensure!(
            record["process"]["attribution"] == "snapshot",
            "{role}: attribution"
        );
        ensure!(record["process"]["pid"] == pid, "{role}: pid is not {pid}");
        ensure!(record["started"].is_null(), "{role}: started");
        ensure!(record["complete"] == false, "{role}: complete");
        ensure!(record["verdict"] == "ok", "{role}: verdict");
    }
    Ok(())
}

/// One that is still open when the tracer is told to stop is no finished connection.
pub(crate) fn still_open_at_the_end() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let mut load = Load::new(&ctx, false)?;
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    load.one(Shape::KeepAlive)?;
    let open = load.open()?;
    let run = tracer.stop()?;
    open.finish(Shape::KeepAlive)?;
    let lines = run.by_time()?;
    let records = lines.iter().filter(|line| line.is("connection")).count();
    ensure!(
        records == 2,
        "{records} records for one finished connection"
    );
    Ok(())
}
