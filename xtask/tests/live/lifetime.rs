//! Connections that outlive the tracer at one end or the other.

use anyhow::{Result, ensure};
use xtask::older;
use xtask::scenario::Ctx;
use xtask::scenario::load::{Load, Shape};
use xtask::tracer::Tracer;

use crate::PORT;

pub(crate) fn older_than_the_tracer() -> Result<()> {
    older::are_found(PORT)
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
