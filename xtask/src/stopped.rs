//! A tracer that is started and stopped amid traffic, on any kernel: the live tests and the guests ask the same.

use std::{
    net::{Ipv4Addr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    scenario::{
        Ctx,
        check::Line,
        load::{Load, Shape},
    },
    skipped,
    tracer::Tracer,
};

/// Where among the hooks' removals a connection is hit is chance.
const STOPS: usize = 4;
const AMID: Duration = Duration::from_millis(200);

/// Hooks are taken out one after the other, those of functions slowly: of what happens meanwhile nothing is told, rather than half.
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

/// What is wrong, and the tracer's account.
fn stop(port: u16) -> Result<Option<(String, Value)>> {
    let tracer = Tracer::start(&["--port", &format!("{port}-{}", port + 1)])?;
    thread::sleep(AMID);
    let run = tracer.stop()?;
    let lines = run.by_time()?;
    let stats = run.stats()?;
    // What began while the hooks were put in, one after the other, is told as far as it was seen.
    let began = |line: &&Line| line.is("connection") && !line.value["started"].is_null();
    let since = lines.iter().skip_while(|line| !began(line));
    ensure!(since.clone().count() > 0, "no connection was told");
    let half = since.clone().find(|line| began(line) && !is_whole(line));
    let nobodys = || {
        since
            .clone()
            .find(|line| line.is("reset") && line.value["peer_id"].is_null())
    };
    let wrong = half.or_else(nobodys);
    let wrong = wrong.map(|line| (line.value.to_string(), stats.clone()));
    if wrong.is_none() {
        ensure!(
            skipped::missed(&stats)? < 3,
            "what happened during the stop was taken for kept from its hooks: {stats}"
        );
    }
    Ok(wrong)
}

fn is_whole(line: &Line) -> bool {
    let record = &line.value;
    record["complete"] == true
        && !record["process"].is_null()
        && match record["verdict"].as_str() {
            Some("ok") => !record["peer"].is_null(),
            Some("refused") => record["reset"]["reason"] == "NO_SOCKET",
            _ => false,
        }
}
