//! A tracer that is stopped amid traffic, on any kernel: the live tests and the guests ask the same.

use std::{
    net::{Ipv4Addr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    scenario::{
        Ctx,
        check::Line,
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
                let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port + 1));
                ensure!(refused.is_err(), "somebody listens on port {}", port + 1);
            }
            Ok(())
        });
        let stops = (0..STOPS).try_for_each(|_| skipped::again(|| stop(port)));
        done.store(true, Ordering::Relaxed);
        traffic.join().expect("the load does not panic")?;
        stops
    })
}

/// A client's and a server's end of one that is older than the tracer.
const OLDER: usize = 2;

/// The first record that lacks something, but for those of the connection that was open at the start, and the tracer's account.
fn stop(port: u16) -> Result<Option<(String, serde_json::Value)>> {
    let tracer = Tracer::start(&["--port", &format!("{port}-{}", port + 1)])?;
    thread::sleep(AMID);
    let run = tracer.stop()?;
    let lines = run.by_time()?;
    let told = || lines.iter().filter(|line| line.is("connection"));
    ensure!(told().count() > 0, "no connection was told");
    let lacks = |line: &&Line| {
        let verdict = line.value["verdict"].as_str();
        line.value["complete"] == false || !matches!(verdict, Some("ok" | "refused"))
    };
    let older = told().filter(|line| line.value["started"].is_null());
    let wrong = told().filter(lacks).nth(older.count().min(OLDER));
    let wrong = wrong.map(|line| line.value.to_string());
    Ok(wrong.zip(Some(run.stats()?)))
}
