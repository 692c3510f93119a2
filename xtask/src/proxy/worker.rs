//! Upstreams that are processes of their own, because they are killed: a master that starts workers, one after the other.
//!
//! Each is this program again, with the verb [`VERB`]. Workers say `PID PORT PATH` of each request on standard output. Must not know:
//! proxies, what is said of a fault.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{self, Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::talk::{Talk, Talker};
use super::upstream::{Note, Seen, note};
use crate::process::own_verb;

/// The verb that a program which starts such upstreams has to hand to [`run`].
pub const VERB: &str = "upstream-worker";
/// Lives until it has a request.
const KILLED: &str = "killed";
/// Lives for [`LIFE`].
const RESTARTED: &str = "restarted";
const WORKER: &str = "worker";
const SERVER: &str = "server";
const LIFE: Duration = Duration::from_millis(150);
const DOWN: Duration = Duration::from_millis(50);
const WORK: Duration = Duration::from_millis(30);

/// A running master, killed with its workers when dropped.
#[derive(Debug)]
pub(super) struct Master {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Master {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _status = self.child.wait();
        // The last worker's end closes the pipe.
        let _ended = self.reader.take().map(JoinHandle::join);
    }
}

/// Workers that are killed with a request unread.
pub(super) fn killed(talk: Talk, address: SocketAddr, seen: Seen) -> Result<Master> {
    master(KILLED, talk, address, seen)
}

/// A server that is killed while it works and started again a little later.
pub(super) fn restarted(talk: Talk, address: SocketAddr, seen: Seen) -> Result<Master> {
    master(RESTARTED, talk, address, seen)
}

fn master(role: &str, talk: Talk, address: SocketAddr, seen: Seen) -> Result<Master> {
    let mut child = command(role, talk, address)?
        .stdout(Stdio::piped())
        .spawn()?;
    let said = child.stdout.take().context("its standard output")?;
    let mut lines = BufReader::new(said).lines();
    // It listens before it says so; the lines behind are requests.
    lines.next().context("the upstream did not start")??;
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ');
            let mut number = || words.next()?.parse::<u32>().ok();
            let (pid, port) = (number(), number().and_then(|port| port.try_into().ok()));
            if let (Some(pid), Some(port), Some(path)) = (pid, port, words.next()) {
                note(&seen, path, Note { port, pid });
            }
        }
    });
    Ok(Master {
        child,
        reader: Some(reader),
    })
}

fn command(role: &str, talk: Talk, address: SocketAddr) -> Result<Command> {
    let talk = talk.name();
    own_verb(&[VERB, role, talk, &address.to_string()].map(str::to_owned))
}

/// What follows [`VERB`] on the command line.
pub fn run(role: &str, talk: &str, address: SocketAddr) -> Result<()> {
    let talk = Talk::named(talk).context("no such language")?;
    match role {
        KILLED => {
            let listener = TcpListener::bind(address)?;
            println!("ready");
            loop {
                let listener = listener.as_fd().try_clone_to_owned()?;
                let mut worker = command(WORKER, talk, address)?;
                worker.stdin(Stdio::from(listener)).status()?;
            }
        }
        RESTARTED => {
            println!("ready");
            loop {
                let mut server = command(SERVER, talk, address)?.spawn()?;
                thread::sleep(LIFE);
                server.kill()?;
                server.wait()?;
                thread::sleep(DOWN);
            }
        }
        WORKER => {
            let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
            let (stream, from) = listener.accept()?;
            let talker = Talker::new(talk, stream)?;
            if let Some(request) = talker.peek()? {
                say(from.port(), &request.path);
            }
            let own = libc::pid_t::try_from(process::id())?;
            // SAFETY: takes numbers only; it is this process itself.
            unsafe { libc::kill(own, libc::SIGKILL) };
            bail!("survived SIGKILL")
        }
        SERVER => {
            let listener = TcpListener::bind(address)?;
            // It may be killed before it has a request.
            say(0, &format!("started-{}", process::id()));
            // One at a time, so that others wait in the queue.
            loop {
                let (stream, from) = listener.accept()?;
                // The proxy may have gone.
                let _served = serve(talk, stream, from);
            }
        }
        _ => bail!("no such role: {role}"),
    }
}

fn serve(talk: Talk, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    let mut talker = Talker::new(talk, stream)?;
    let Some(request) = talker.read()? else {
        return Ok(());
    };
    say(from.port(), &request.path);
    thread::sleep(WORK);
    talker.stream.write_all(&request.answer())
}

fn say(port: u16, path: &str) {
    println!("{} {port} {path}", process::id());
}
