//! A tracer that is stopped amid traffic, on any kernel: the live tests and the guests ask the same.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    scenario::{
        Ctx,
        load::{Load, Shape},
    },
    skipped,
    tracer::Tracer,
};

/// The order in which hooks are taken out may differ from one to the next.
const STOPS: usize = 4;
const AMID: Duration = Duration::from_millis(200);

/// Hooks are taken out one after the other, and those of functions take their time: what is left meanwhile must not tell of a
/// connection what the others would have told.
pub fn amid_traffic(port: u16) -> Result<()> {
    let ctx = Ctx::new(port)?;
    let mut load = Load::new(&ctx, false)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                load.one(Shape::KeepAlive)?;
            }
            Ok(())
        });
        let stops = (0..STOPS).try_for_each(|_| skipped::again(|| stop(port)));
        done.store(true, Ordering::Relaxed);
        traffic.join().expect("the load does not panic")?;
        stops
    })
}

/// The first record of one whose beginning was seen and that lacks something else, and the tracer's account.
fn stop(port: u16) -> Result<Option<(String, serde_json::Value)>> {
    let tracer = Tracer::start(&["--port", &port.to_string()])?;
    thread::sleep(AMID);
    let run = tracer.stop()?;
    let lines = run.by_time()?;
    let told = || lines.iter().filter(|line| line.is("connection"));
    ensure!(told().count() > 0, "no connection was told");
    let lacks = |value: &serde_json::Value| {
        !value["started"].is_null() && (value["complete"] == false || value["verdict"] != "ok")
    };
    let wrong = told().find(|line| lacks(&line.value));
    let wrong = wrong.map(|line| line.value.to_string());
    Ok(wrong.zip(Some(run.stats()?)))
}
