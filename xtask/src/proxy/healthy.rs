//! Nothing fails: one service of two servers that answer 503 now and then and drain in turn, behind a proxy that retries and is reloaded.
//!
//! Must not know: what has to be said of it (that is the tests').

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::fault::Speech;
use super::grpc;
use super::network::Network;
use super::programs::{Program, Route, Running};
use super::talk::{ANSWER, Talk};
use super::trial::{MEMORY_PORT, PATIENCE, SETTLE, exchange, explain, lines};
use super::upstream::Upstream;
use crate::provision::Proxies;
use crate::scenario::load;
use crate::tracer::Tracer;

const NAME: &str = "service";
/// Of its two servers.
const PORTS: [u16; 2] = [18_600, 18_601];
const CLOSING: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
/// One answer in so many is 503: more than there are clients, so that it is never two in a row for one of them.
const UNAVAILABLE_EVERY: u64 = 97;
/// Each server drains for as long, then the other, then none.
const DRAIN: Duration = Duration::from_millis(300);
/// Each with one request at a time.
pub const CLIENTS: usize = 8;
/// Requests of a client on one connection.
const KEPT: usize = 25;
/// An Envoy that has been relieved is gone after this, and only then may the next one come.
const RELOAD: Duration = Duration::from_secs(4);

/// What was played and what was said.
#[derive(Debug)]
pub struct Healthy {
    pub requests: usize,
    pub reloads: usize,
    /// Requests that were not answered with 200.
    pub failed: usize,
    pub explanations: Vec<Value>,
    pub account: Value,
    pub records: Vec<Value>,
    /// How long the requests took.
    pub took: Duration,
}

/// Plays at least so many requests, and as many more as one reload takes.
pub fn play(program: Program, programs: &Proxies, dir: &Path, requests: usize) -> Result<Healthy> {
    let network = Network::make(&programs.network, Upstream::port)?;
    network.with_the_proxy(|| play_there(program, programs, dir, requests))
}

fn play_there(
    program: Program,
    programs: &Proxies,
    dir: &Path,
    requests: usize,
) -> Result<Healthy> {
    let (servers, _running) = match program.talk() {
        Talk::Http1 => (serve()?, None),
        Talk::Grpc => {
            let (addresses, servers) = grpc::serve(&programs.grpc, dir, &PORTS)?;
            (addresses, Some(servers))
        }
    };
    let output = dir.join("records.json");
    let output = output.to_str().context("a path in UTF-8")?;
    let ports = PORTS.iter().chain([&MEMORY_PORT]);
    let ports = ports.map(u16::to_string).collect::<Vec<_>>().join(",");
    let tracer = Tracer::start(&["--port", &ports, "--output", output])?;
    let route = Route {
        name: NAME,
        servers,
        speech: match program.talk() {
            Talk::Http1 => Speech::Plain,
            Talk::Grpc => Speech::Http2,
        },
        keeps: true,
        retries: true,
    };
    let mut proxy = program.start(programs, dir, &[route])?;
    let (began, address) = (Instant::now(), proxy.address);
    let (done, failed, over) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let reloads = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| client(address, &done, &failed, &over)))
            .collect();
        let reloads = reload(&mut proxy, || done.load(Ordering::Relaxed) >= requests);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        reloads
    })?;
    let took = began.elapsed();
    thread::sleep(SETTLE);
    load::use_memory_again(MEMORY_PORT)?;
    let (logs, options) = (proxy.logs.clone(), proxy.options.clone());
    proxy.stop()?;
    tracer.stop()?;
    let (explanations, account) = explain(output, &logs, &options)?;
    Ok(Healthy {
        requests: done.into_inner(),
        reloads,
        failed: failed.into_inner(),
        explanations,
        account,
        records: lines(&std::fs::read_to_string(output)?)?,
        took,
    })
}

/// Reloads again and again, at least once, until enough was played; how often.
fn reload(proxy: &mut Running, enough: impl Fn() -> bool) -> Result<usize> {
    let mut reloads = 0;
    loop {
        thread::sleep(RELOAD / 8);
        reloads += usize::from(proxy.reload()?);
        let began = Instant::now();
        while began.elapsed() < RELOAD {
            thread::sleep(RELOAD / 100);
        }
        if enough() {
            return Ok(reloads);
        }
    }
}

fn client(
    address: SocketAddr,
    done: &AtomicUsize,
    failed: &AtomicUsize,
    over: &AtomicBool,
) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for number in 0..KEPT {
            let path = format!("/{NAME}/{number}");
            let keep = number + 1 < KEPT;
            match exchange(&mut stream, &path, keep) {
                Ok(true) => done.fetch_add(1, Ordering::Relaxed),
                // A connection that was kept may be closed by now, by a proxy that is relieved.
                Ok(false) | Err(_) if number > 0 => break,
                Ok(false) | Err(_) => failed.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
    Ok(())
}

/// Starts the servers, which run until the process ends.
fn serve() -> Result<Vec<SocketAddr>> {
    let (began, count) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let start = |(number, port)| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let count = Arc::clone(&count);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || drop(answer(stream, number, began, &count)));
            }
        });
        Ok(address)
    };
    PORTS.into_iter().enumerate().map(start).collect()
}

fn answer(
    mut stream: TcpStream,
    server: usize,
    began: Instant,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut request = [0; 4096];
    while stream.read(&mut request)? > 0 {
        let turn = began.elapsed().as_millis() / DRAIN.as_millis() % 3;
        if turn == server as u128 {
            // The end is announced, so that nobody sends another request.
            return stream.write_all(CLOSING);
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        let unavailable = number.is_multiple_of(UNAVAILABLE_EVERY);
        stream.write_all(if unavailable { UNAVAILABLE } else { ANSWER })?;
    }
    Ok(())
}
