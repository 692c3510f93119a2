//! Upstreams that fail on purpose, each on a port and in a thread of its own.
//!
//! An upstream that sees the request notes the proxy's port beside the request's path: what the join has to find out.
//! Must not know: proxies, the tracer.

use std::collections::HashMap;
use std::ffi::c_int;
use std::io::{self, Read as _, Write as _};
use std::mem::size_of;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::fault::{Fault, Place, Speech};
use super::network::{self, LOCAL_PORTS, Network};
use super::programs::Route;
use super::talk::{Talk, Talker};
use super::worker::{self, Master};

/// The first of the ports; below the range that the kernel chooses from, as servers' ports are.
const PORT: u16 = 18_540;
/// A proxy that gives up closes its end; it is waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);
/// So that the other end has read what was sent before it is taken away by a reset.
const READ: Duration = Duration::from_millis(40);
/// The same where nothing else comes from the other end any more, an acknowledgement that was delayed least of all.
const ACKNOWLEDGED: Duration = Duration::from_millis(250);
/// How long a pooled connection lies idle before it is reset.
const IDLE: Duration = Duration::from_millis(300);
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A fatal alert in the record that carries it, as a TLS 1.2 or 1.3 server answers a hello.
const fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}
const UNEXPECTED_MESSAGE: [u8; 7] = alert(10);
const UNRECOGNIZED_NAME: [u8; 7] = alert(112);
const NO_APPLICATION_PROTOCOL: [u8; 7] = alert(120);

/// Who saw a request.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// The proxy's port.
    pub port: u16,
    /// The process that had the connection.
    pub pid: u32,
}

/// Each request that was seen, by path.
pub(super) type Seen = Arc<Mutex<HashMap<String, Note>>>;

pub(super) fn note(seen: &Seen, path: &str, note: Note) {
    let mut noted = seen.lock().unwrap_or_else(PoisonError::into_inner);
    noted.insert(path.to_owned(), note);
}

/// A running upstream.
#[derive(Debug)]
pub struct Upstream {
    pub fault: Fault,
    pub talk: Talk,
    pub address: SocketAddr,
    seen: Seen,
    /// What keeps a port taken, or a queue full.
    _held: Vec<OwnedFd>,
    _server: Option<Server>,
    _master: Option<Master>,
}

/// A thread that accepts.
#[derive(Debug)]
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: takes numbers only; the descriptor is open.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        // Its accept() fails now; it has nothing to say.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl Upstream {
    /// The port of the upstream that fails so.
    pub fn port(fault: Fault) -> u16 {
        PORT + fault as u16
    }

    /// Starts it where it belongs.
    pub fn start(fault: Fault, talk: Talk, network: &Network) -> Result<Self> {
        let place = fault.row().place;
        let address = SocketAddrV4::new(network::address(place), Self::port(fault));
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let (mut held, mut server, mut master) = (Vec::new(), None, None);
        match fault {
            Fault::WorkerKilled => master = Some(worker::killed(talk, address.into(), noted)?),
            Fault::Restarted => master = Some(worker::restarted(talk, address.into(), noted)?),
            Fault::Refused => held = vec![deaf(address)?],
            Fault::QueueFull => held = full(address)?,
            Fault::NoLocalPort => held = every_port(address)?,
            _ if place == Place::Nowhere => {}
            _ => server = Some(network.at(place, || serve(fault, talk, address, noted))?),
        }
        Ok(Self {
            fault,
            talk,
            address: address.into(),
            seen,
            _held: held,
            _server: server,
            _master: master,
        })
    }

    /// How a proxy gets there.
    pub fn route(&self) -> Route {
        Route {
            name: self.fault.row().name,
            servers: vec![self.address],
            speech: match (self.fault.speech(), self.talk) {
                (Speech::Plain, Talk::Grpc) => Speech::Http2,
                (speech, _) => speech,
            },
            keeps: self.fault == Fault::Healthy || self.fault.pause_ms().is_some(),
            retries: false,
        }
    }

    /// The proxy's port of the connection on which the request for `path` came, and whose that was here.
    pub fn note(&self, path: &str) -> Option<Note> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(path).copied()
    }

    /// Whether connections on which a call succeeds may look like those on which one fails: to gRPC one of HTTP/2 is closed by this upstream, whose
    /// own words may be its last, and by the client, which has its answer.
    pub fn may_be_ambiguous(&self) -> bool {
        self.talk == Talk::Grpc && self.fault == Fault::Restarted
    }

    /// Its processes.
    pub fn pids(&self) -> Vec<u32> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = seen.values().map(|note| note.pid);
        noted.chain([process::id()]).collect()
    }
}

/// A port that is taken, and on which nobody listens.
fn deaf(address: SocketAddrV4) -> Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("socket");
    }
    // SAFETY: a descriptor that was just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET.cast_unsigned().try_into()?,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>())?;
    // SAFETY: `name` is a whole address of `len` bytes that outlives the call.
    if unsafe { libc::bind(fd, (&raw const name).cast(), len) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("bind {address}"));
    }
    Ok(socket)
}

/// A listener that never accepts, its queue of one full.
fn full(address: SocketAddrV4) -> Result<Vec<OwnedFd>> {
    let listener = listen(address)?;
    // SAFETY: takes numbers only; the descriptor is open.
    if unsafe { libc::listen(listener.as_raw_fd(), 0) } != 0 {
        return Err(io::Error::last_os_error()).context("listen");
    }
    let mut held = vec![OwnedFd::from(listener)];
    let brief = Duration::from_millis(200);
    while let Ok(stream) = TcpStream::connect_timeout(&address.into(), brief) {
        held.push(stream.into());
    }
    Ok(held)
}

/// A listener to which every local port has a connection already.
fn every_port(address: SocketAddrV4) -> Result<Vec<OwnedFd>> {
    let listener = listen(address)?;
    let mut held = Vec::new();
    for _ in LOCAL_PORTS {
        let stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            // Somebody listens on one of them.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => break,
            Err(error) => return Err(error).context("a local port"),
        };
        let (accepted, _) = listener.accept()?;
        held.extend([OwnedFd::from(stream), accepted.into()]);
    }
    held.push(listener.into());
    Ok(held)
}

fn listen(address: SocketAddrV4) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("bind {address}"))
}

fn serve(fault: Fault, talk: Talk, address: SocketAddrV4, seen: Seen) -> Result<Server> {
    let listener = listen(address)?;
    let accepting = listener.try_clone()?;
    let thread = thread::spawn(move || {
        while let Ok((stream, _)) = accepting.accept() {
            if fault == Fault::ResetAfterAccept {
                reset(stream);
                continue;
            }
            let seen = Arc::clone(&seen);
            // What goes wrong here goes wrong in the proxy's log as well, and is seen there.
            thread::spawn(move || drop(play(fault, talk, stream, &seen)));
        }
    });
    Ok(Server {
        listener,
        thread: Some(thread),
    })
}

/// What an upstream says that does not understand the proxy, nor the proxy it.
const fn foreign(fault: Fault) -> Option<&'static [u8]> {
    match fault {
        Fault::PlainToTls => Some(&UNEXPECTED_MESSAGE),
        Fault::TlsName => Some(&UNRECOGNIZED_NAME),
        Fault::TlsProtocol => Some(&NO_APPLICATION_PROTOCOL),
        Fault::TlsToPlain | Fault::Http2ToHttp1 => Some(BAD_REQUEST),
        _ => None,
    }
}

/// One connection.
fn play(fault: Fault, talk: Talk, mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (port, pid) = (stream.peer_addr()?.port(), process::id());
    if let Some(words) = foreign(fault) {
        let _hello = stream.read(&mut [0; 16_384])?;
        return stream.write_all(words);
    }
    let mut talker = Talker::new(talk, stream)?;
    loop {
        let request = if fault == Fault::CloseUnread {
            talker.peek()?
        } else {
            talker.read()?
        };
        let Some(request) = request else {
            return Ok(());
        };
        note(seen, &request.path, Note { port, pid });
        match fault {
            Fault::Healthy | Fault::ResetInPath | Fault::LostInPath | Fault::ForgottenInPath => {
                talker.stream.write_all(&request.answer())?;
            }
            Fault::ResetAfterRequest => {
                reset(talker.stream);
                return Ok(());
            }
            Fault::ResetInHeaders => return reset_after(talker, &request.half_headers(), READ),
            Fault::ResetInBody => return reset_after(talker, &request.half_body(), READ),
            Fault::RacedByReset => return reset_after(talker, &request.answer(), ACKNOWLEDGED),
            Fault::ResetIdle => return reset_after(talker, &request.answer(), IDLE),
            Fault::ClosedUnanswered => return talker.close(&[]),
            Fault::ClosedInHeaders => return talker.close(&request.half_headers()),
            Fault::ClosedInBody => return talker.close(&request.half_body()),
            Fault::RacedByClose => return talker.stream.write_all(&request.answer()),
            // Until the proxy gives up.
            Fault::NoAnswer | Fault::ClientGone => {}
            _ => return Ok(()),
        }
    }
}

fn reset_after(mut talker: Talker, answer: &[u8], pause: Duration) -> io::Result<()> {
    talker.stream.write_all(answer)?;
    thread::sleep(pause);
    reset(talker.stream);
    Ok(())
}

/// Closes by a reset.
pub(super) fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = size_of::<libc::linger>();
    let fd: c_int = stream.as_raw_fd();
    #[expect(clippy::cast_possible_truncation, reason = "eight bytes")]
    // SAFETY: `linger` is whole and outlives the call; the descriptor is open.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            len as libc::socklen_t,
        )
    };
    debug_assert_eq!(set, 0);
    drop(stream);
}
