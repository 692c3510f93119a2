//! gRPC's own client, in the place of a proxy or before one, and its own server: `gateway.py` and `server.py`.
//!
//! Must not know: what goes wrong, what is said of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::fault::Speech;
use super::programs::{OUTPUT, PATIENCE, Route, spawn};
use crate::provision::Grpc;
use crate::tracer;

/// Starts a client at `address` whose calls go to the upstreams, or all to `proxy`.
pub(super) fn client(
    grpc: &Grpc,
    dir: &Path,
    address: SocketAddr,
    routes: &[Route],
    proxy: Option<SocketAddr>,
) -> Result<(Child, Vec<&'static str>)> {
    let routes = routes.iter().map(|route| {
        let server = proxy.or_else(|| route.servers.first().copied());
        let server = server.with_context(|| format!("no server for {}", route.name))?;
        let tls = proxy.is_none() && route.speech == Speech::Tls;
        let there = json!({"server": server, "tls": tls, "keeps": route.keeps});
        Ok((route.name.to_owned(), there))
    });
    let routes = Value::from(routes.collect::<Result<Map<_, _>>>()?);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let args = [host, port, routes.to_string()];
    let child = python(grpc, dir, "gateway.py", include_str!("gateway.py"), &args)?;
    Ok((child, vec![OUTPUT]))
}

/// Servers that answer, ended when dropped.
#[derive(Debug)]
pub(super) struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}

/// Starts one on each of these ports of loopback, and waits until they listen.
pub(super) fn serve(grpc: &Grpc, dir: &Path, ports: &[u16]) -> Result<(Vec<SocketAddr>, Servers)> {
    let (mut addresses, mut servers) = (Vec::new(), Servers(Vec::new()));
    for &port in ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let script = include_str!("server.py");
        let child = python(grpc, dir, "server.py", script, &[address.to_string()])?;
        servers.0.push(child);
        addresses.push(address);
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < PATIENCE, "gRPC's server does not listen");
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok((addresses, servers))
}

fn python(grpc: &Grpc, dir: &Path, name: &str, script: &str, args: &[String]) -> Result<Child> {
    let path = dir.join(name);
    fs::write(&path, script)?;
    let mut command = tracer::command(&grpc.python, [&path]);
    spawn(command.args(args).env("PYTHONPATH", &grpc.packages), dir)
}
