//! The traffic that `bench` measures tracers with, on loopback.
//!
//! A storm is many connections, each: connect, 64 B request, 64 B reply, close by the client.
//! The ends live in child processes of their own, which are this program with a hidden verb, so
//! that neither shares a process with what measures. The children end by themselves when the
//! pipe to them is closed, whatever happened to their parent.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

pub const PORT: u16 = 8443;

const MESSAGE: usize = 64;

/// More than the cores of a small machine, so that no core waits for a reply.
const THREADS: u32 = 4;

/// Destination addresses to go through: each has its own 28,000 ports to wait in `TIME_WAIT`.
const ADDRESSES: u32 = 2_000;

/// The verb `storm-server`.
pub fn serve(threads: usize) -> Result<()> {
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT);
    let listener = TcpListener::bind(address)
        .with_context(|| format!("port {PORT} is needed for the storm and not free"))?;
    for _ in 0..threads {
        let listener = listener.try_clone().context("cannot share the listener")?;
        thread::spawn(move || {
            loop {
                // A connection that fails is the client's to report: it knows which one it was.
                if let Ok((stream, _)) = listener.accept() {
                    let _ = answer(stream);
                }
            }
        });
    }
    ready_until_closed()
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)?;
    // The client's FIN, so that this end is the second to close.
    let _ = stream.read(&mut message)?;
    Ok(())
}

/// The verb `storm-client`.
pub fn connect(connections: u32, threads: u32) -> Result<()> {
    let barrier = Arc::new(Barrier::new(usize::try_from(threads)? + 1));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || -> io::Result<()> {
                barrier.wait();
                (thread..connections)
                    .step_by(usize::try_from(threads).unwrap_or(1))
                    .try_for_each(|number| exchange(destination(number)))
            })
        })
        .collect();
    barrier.wait();
    let start = Instant::now();
    for worker in workers {
        match worker.join() {
            Ok(result) => result.context("a connection of the storm failed")?,
            Err(_) => bail!("a thread of the storm ended early"),
        }
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

fn destination(number: u32) -> SocketAddrV4 {
    let base = u32::from(Ipv4Addr::new(127, 0, 1, 0));
    SocketAddrV4::new(Ipv4Addr::from(base + number % ADDRESSES), PORT)
}

fn exchange(destination: SocketAddrV4) -> io::Result<()> {
    let mut message = [b'?'; MESSAGE];
    let mut stream = TcpStream::connect(destination)?;
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}

/// The verb `storm-hold`.
pub fn hold(address: Ipv4Addr, connections: u32) -> Result<()> {
    process::raise_open_files()?;
    let listener = TcpListener::bind((address, PORT))
        .with_context(|| format!("cannot listen on {address}:{PORT}"))?;
    let mut held = Vec::new();
    for number in 0..connections {
        let step = || -> io::Result<(TcpStream, TcpStream)> {
            let mut client = TcpStream::connect((address, PORT))?;
            let (mut server, _) = listener.accept()?;
            let mut message = [b'?'; MESSAGE];
            client.write_all(&message)?;
            server.read_exact(&mut message)?;
            server.write_all(&message)?;
            client.read_exact(&mut message)?;
            Ok((client, server))
        };
        held.push(step().with_context(|| format!("connection {number} to {address} failed"))?);
    }
    ready_until_closed()
}

fn ready_until_closed() -> Result<()> {
    println!("ready");
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("cannot read standard input")?;
    Ok(())
}

/// A child that said it is ready; closing its input ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
}

impl Server {
    pub fn start() -> Result<Self> {
        let mut server = Self::spawn(&["storm-server".into(), THREADS.to_string()])?;
        server.wait_ready()?;
        Ok(server)
    }

    fn spawn(args: &[String]) -> Result<Self> {
        let mut child = process::own_verb(args)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the storm")?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let output = self
            .child
            .stdout
            .take()
            .context("the child has an output")?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .context("cannot read from the storm")?;
        if line.trim() != "ready" {
            bail!("a process of the storm did not start");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// One storm against a running [`Server`]; returns how long the connections took.
pub fn run(connections: u32) -> Result<Duration> {
    let args = [
        "storm-client".into(),
        connections.to_string(),
        THREADS.to_string(),
    ];
    let output = process::own_verb(&args)?
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the storm")?;
    if !output.status.success() {
        bail!("the storm failed: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let nanoseconds = text.trim().parse().context("the storm printed no time")?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Opens that many connections, both ends here, over as many processes as the limits ask for.
pub fn hold_open(connections: u32) -> Result<Vec<Server>> {
    // Two descriptors a connection; and each address has some 28,000 ports to connect from.
    let files = process::hard_open_files()?.saturating_sub(64) / 2;
    let each = u32::try_from(files).unwrap_or(u32::MAX).clamp(1, 20_000);
    let mut servers = Vec::new();
    let mut left = connections;
    let mut address = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    while left > 0 {
        let count = left.min(each);
        let address_text = Ipv4Addr::from(address).to_string();
        servers.push(Server::spawn(&[
            "storm-hold".into(),
            address_text,
            count.to_string(),
        ])?);
        left -= count;
        address += 1;
    }
    for server in &mut servers {
        server.wait_ready()?;
    }
    Ok(servers)
}
