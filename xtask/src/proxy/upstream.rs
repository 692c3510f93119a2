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
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::fault::Fault;

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
}

impl Upstream {
    /// Starts it on a free port.
    pub fn start(fault: Fault) -> Result<Self> {
        let seen = Seen::default();
        let (address, held) = match fault {
            Fault::Refused => deaf()?,
            Fault::QueueFull => full()?,
            _ => (serve(fault, Arc::clone(&seen))?, Vec::new()),
        };
        Ok(Self {
            fault,
            address,
            seen,
            _held: held,
        })
    }

    /// The proxy's port of the connection on which the request for `path` came.
    pub fn port_of(&self, path: &str) -> Option<u16> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(path).copied()
    }
}

/// A port that is taken, and on which nobody listens.
fn deaf() -> Result<(SocketAddr, Vec<OwnedFd>)> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("socket");
    }
    // SAFETY: a descriptor that was just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let any = libc::sockaddr_in {
        sin_family: libc::AF_INET.cast_unsigned().try_into()?,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
        },
        sin_zero: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>())?;
    // SAFETY: `any` is a whole address of `len` bytes that outlives the call.
    if unsafe { libc::bind(fd, (&raw const any).cast(), len) } != 0 {
        return Err(io::Error::last_os_error()).context("bind");
    }
    let mut bound = any;
    let mut size = len;
    // SAFETY: `bound` has room for `size` bytes, and both outlive the call.
    if unsafe { libc::getsockname(fd, (&raw mut bound).cast(), &raw mut size) } != 0 {
        return Err(io::Error::last_os_error()).context("getsockname");
    }
    let port = u16::from_be(bound.sin_port);
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    Ok((address.into(), vec![socket]))
}

/// A listener that never accepts, its queue of one full.
fn full() -> Result<(SocketAddr, Vec<OwnedFd>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // SAFETY: takes numbers only; the descriptor is open.
    if unsafe { libc::listen(listener.as_raw_fd(), 0) } != 0 {
        return Err(io::Error::last_os_error()).context("listen");
    }
    let address = listener.local_addr()?;
    let mut held = vec![OwnedFd::from(listener)];
    let brief = Duration::from_millis(200);
    while let Ok(stream) = TcpStream::connect_timeout(&address, brief) {
        held.push(stream.into());
    }
    Ok((address, held))
}

fn serve(fault: Fault, seen: Seen) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if fault == Fault::ResetAfterAccept {
                reset(stream);
                continue;
            }
            let seen = Arc::clone(&seen);
            // What goes wrong here goes wrong in the proxy's log as well, and is seen there.
            thread::spawn(move || drop(play(fault, stream, &seen)));
        }
    });
    Ok(address)
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
            Fault::ResetAfterRequest => return Ok(reset(stream)),
            Fault::ResetInBody => {
                stream.write_all(HALF)?;
                // So that the proxy has read it before the reset takes it away.
                thread::sleep(Duration::from_millis(40));
                return Ok(reset(stream));
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
