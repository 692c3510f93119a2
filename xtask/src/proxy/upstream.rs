//! Upstreams that fail on purpose, each on a port and in a thread of its own.
//!
//! An upstream that sees the request notes the proxy's port beside the request's path: what the join has to find out.
//! Must not know: proxies, the tracer.

use std::collections::HashMap;
use std::ffi::c_int;
use std::io::{self, Read as _, Write as _};
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::fault::Fault;

/// The first of the ports; below the range that the kernel chooses from, as servers' ports are.
const PORT: u16 = 18_540;
/// A proxy that gives up closes its end; it is waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello\n";

/// The proxy's port of each request that was seen, by path.
type Seen = Arc<Mutex<HashMap<String, u16>>>;

/// A running upstream.
#[derive(Debug)]
pub struct Upstream {
    pub fault: Fault,
    pub address: SocketAddr,
    seen: Seen,
    /// What keeps a port taken, or a queue full.
    _held: Vec<OwnedFd>,
    _server: Option<Server>,
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
    /// Starts it on the port of this fault.
    pub fn start(fault: Fault) -> Result<Self> {
        let seen = Seen::default();
        let port = PORT + fault as u16;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let (held, server) = match fault {
            Fault::Refused => (vec![deaf(address)?], None),
            Fault::QueueFull => (full(address)?, None),
            _ => {
                let server = serve(fault, address, Arc::clone(&seen))?;
                (Vec::new(), Some(server))
            }
        };
        Ok(Self {
            fault,
            address: address.into(),
            seen,
            _held: held,
            _server: server,
        })
    }

    /// The proxy's port of the connection on which the request for `path` came.
    pub fn port_of(&self, path: &str) -> Option<u16> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(path).copied()
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

fn listen(address: SocketAddrV4) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("bind {address}"))
}

fn serve(fault: Fault, address: SocketAddrV4, seen: Seen) -> Result<Server> {
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
            thread::spawn(move || drop(play(fault, stream, &seen)));
        }
    });
    Ok(Server {
        listener,
        thread: Some(thread),
    })
}

/// One connection.
fn play(fault: Fault, mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; 4096];
    loop {
        let len = if fault == Fault::CloseUnread {
            stream.peek(&mut request)?
        } else {
            stream.read(&mut request)?
        };
        let text = String::from_utf8_lossy(&request[..len]);
        let Some(path) = text.split(' ').nth(1) else {
            return Ok(());
        };
        let port = stream.peer_addr()?.port();
        let mut noted = seen.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(path.to_owned(), port);
        drop(noted);
        match fault {
            Fault::Healthy => stream.write_all(ANSWER)?,
            Fault::ResetAfterRequest => {
                reset(stream);
                return Ok(());
            }
            Fault::ResetInBody => {
                stream.write_all(HALF)?;
                // So that the proxy has read it before the reset takes it away.
                thread::sleep(Duration::from_millis(40));
                reset(stream);
                return Ok(());
            }
            // Until the proxy gives up.
            Fault::NoAnswer => {}
            _ => return Ok(()),
        }
    }
}

fn reset(stream: TcpStream) {
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
