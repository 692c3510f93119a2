//! Sockets in an actor's hands: each method is one step of a scenario.
//!
//! Blocking steps end because an earlier step made them end; where the kernel acts on its own (an
//! acknowledgement, a timer) a step polls the kernel's own account of the socket.

use std::ffi::c_int;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::{Actor, Answer, Call, Pending};

/// Longest wait for the kernel to get somewhere by itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// `TCP_REPAIR`, `include/uapi/linux/tcp.h`.
const TCP_REPAIR: c_int = 19;
/// Offset of `tcpi_unacked` in `struct tcp_info`; of a listener: how many wait to be accepted.
const TCPI_UNACKED: usize = 24;
/// Offset of `tcpi_options` in `struct tcp_info`, and its bit for data that was in the SYN.
const TCPI_OPTIONS: usize = 5;
const TCPI_OPT_SYN_DATA: u8 = 32;

/// A socket: a descriptor of one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sock(pub(super) i64);

/// `enum tcp_state`, as far as scenarios wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    Closing = 11,
}

/// `sockaddr_in` or `sockaddr_in6`.
pub(super) fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.extend(u16::try_from(libc::AF_INET).expect("small").to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        IpAddr::V6(ip) => {
            bytes.extend(u16::try_from(libc::AF_INET6).expect("small").to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

fn parse_sockaddr(bytes: &[u8]) -> Result<SocketAddr> {
    let family = c_int::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ip: IpAddr = match family {
        libc::AF_INET => <[u8; 4]>::try_from(&bytes[4..8])?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(&bytes[8..24])?.into(),
        other => bail!("address family {other}"),
    };
    Ok(SocketAddr::new(ip, port))
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn connecting(sock: Sock, to: SocketAddr) -> Call {
    let to = sockaddr(to);
    let len = i64::try_from(to.len()).expect("small");
    Call::new("connect", libc::SYS_connect)
        .value(sock.0)
        .bytes(&to)
        .value(len)
}

impl Actor {
    pub(super) fn socket(&mut self, family: &SocketAddr, flags: c_int) -> Result<Sock> {
        self.socket_of(family, flags, 0)
    }

    /// A socket of another protocol than the usual for streams.
    pub(super) fn socket_of(
        &mut self,
        family: &SocketAddr,
        flags: c_int,
        protocol: c_int,
    ) -> Result<Sock> {
        let domain = if family.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags;
        let call = Call::new("socket", libc::SYS_socket)
            .value(domain)
            .value(kind)
            .value(protocol);
        Ok(Sock(self.call(&call)?.ok()?))
    }

    pub(super) fn bind(&mut self, sock: Sock, to: SocketAddr) -> Result<()> {
        let to = sockaddr(to);
        let len = i64::try_from(to.len()).expect("small");
        let call = Call::new("bind", libc::SYS_bind)
            .value(sock.0)
            .bytes(&to)
            .value(len);
        self.call(&call)?.ok()?;
        Ok(())
    }

    /// A socket that listens on `address`.
    pub(super) fn listen(&mut self, address: SocketAddr, backlog: c_int) -> Result<Sock> {
        let sock = self.socket(&address, 0)?;
        self.listen_on(sock, address, backlog)?;
        Ok(sock)
    }

    pub(super) fn listen_on(
        &mut self,
        sock: Sock,
        address: SocketAddr,
        backlog: c_int,
    ) -> Result<()> {
        self.set(sock, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        self.bind(sock, address)
            .with_context(|| format!("on {address}"))?;
        self.set_backlog(sock, backlog)
    }

    /// `listen()`, which also changes the backlog of a socket that listens already.
    pub(super) fn set_backlog(&mut self, sock: Sock, backlog: c_int) -> Result<()> {
        let call = Call::new("listen", libc::SYS_listen)
            .value(sock.0)
            .value(backlog);
        self.call(&call)?.ok()?;
        Ok(())
    }

    /// Takes the connection of `from` out of the queue.
    pub(super) fn accept(&mut self, listener: Sock, from: SocketAddr) -> Result<Sock> {
        let len = 28_u32.to_ne_bytes();
        let call = Call::new("accept4", libc::SYS_accept4)
            .value(listener.0)
            .space(28)
            .bytes(&len)
            .value(libc::SOCK_CLOEXEC);
        let (sock, scratch) = self.call(&call)?.full()?;
        let peer = parse_sockaddr(&scratch)?;
        ensure!(
            peer.port() == from.port(),
            "accepted {peer}, a stranger, instead of {from}"
        );
        Ok(Sock(sock))
    }

    /// Whatever waits at `listener`, this is why it is not accepted.
    pub(super) fn accept_fails(&mut self, listener: Sock, errno: i32) -> Result<()> {
        let call = Call::new("accept4", libc::SYS_accept4)
            .value(listener.0)
            .value(0)
            .value(0)
            .value(libc::SOCK_CLOEXEC);
        self.call(&call)?.fails_with(errno)
    }

    /// From here on no file can be opened: the lowest number that is free is one too many.
    pub(super) fn have_no_more_files(&mut self) -> Result<()> {
        let open = format!("/proc/{}/fd", self.pid());
        let is_open = |number: &u64| Path::new(&open).join(number.to_string()).is_symlink();
        let limit = (0..1 << 20)
            .find(|number| !is_open(number))
            .context("a free number")?;
        let limit = [limit; 2].map(u64::to_ne_bytes).concat();
        let call = Call::new("prlimit64", libc::SYS_prlimit64)
            .value(0)
            .value(i64::from(libc::RLIMIT_NOFILE))
            .bytes(&limit)
            .value(0);
        self.call(&call)?.ok()?;
        Ok(())
    }

    /// A socket connected to `to`.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<Sock> {
        let sock = self.socket(&to, 0)?;
        self.connect_on(sock, to)?.ok()?;
        Ok(sock)
    }

    pub(super) fn connect_on(&mut self, sock: Sock, to: SocketAddr) -> Result<Answer> {
        self.call(&connecting(sock, to))
    }

    /// A blocking `connect()` that is left waiting.
    pub(super) fn connect_pending(&mut self, sock: Sock, to: SocketAddr) -> Result<Pending<'_>> {
        self.begin(&connecting(sock, to))
    }

    /// A socket whose `connect()` has been started and not waited for.
    pub(super) fn connect_start(&mut self, to: SocketAddr) -> Result<Sock> {
        let sock = self.socket(&to, libc::SOCK_NONBLOCK)?;
        self.connect_on(sock, to)?.fails_with(libc::EINPROGRESS)?;
        Ok(sock)
    }

    /// What became of it: waits until the socket is writable, then asks for its error.
    pub(super) fn connect_result(&mut self, sock: Sock) -> Result<c_int> {
        let mut poll = Vec::new();
        poll.extend(c_int::try_from(sock.0)?.to_ne_bytes());
        poll.extend(libc::POLLOUT.to_ne_bytes());
        poll.extend([0; 2]);
        let mut timeout = Vec::new();
        timeout.extend(PATIENCE.as_secs().to_ne_bytes());
        timeout.extend(0_u64.to_ne_bytes());
        let call = Call::new("ppoll", libc::SYS_ppoll)
            .bytes(&poll)
            .value(1)
            .bytes(&timeout);
        let ready = self.call(&call.value(0).value(0))?.ok()?;
        ensure!(ready == 1, "connect() undecided after {PATIENCE:?}");
        let error = self.number(sock, libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok(error.cast_signed())
    }

    /// `connect(AF_UNSPEC)`: dissolves the connection, the socket can be used again.
    pub(super) fn disconnect(&mut self, sock: Sock) -> Result<()> {
        let call = Call::new("connect", libc::SYS_connect)
            .value(sock.0)
            .space(16)
            .value(16);
        self.call(&call)?.ok()?;
        Ok(())
    }

    pub(super) fn send(&mut self, sock: Sock, bytes: &[u8]) -> Result<()> {
        let sent = self.call(&sending(sock, bytes))?.ok()?;
        ensure!(
            usize::try_from(sent)? == bytes.len(),
            "sent only {sent} bytes"
        );
        Ok(())
    }

    /// Connects and sends `bytes` with the SYN.
    pub(super) fn send_first(&mut self, sock: Sock, to: SocketAddr, bytes: &[u8]) -> Result<()> {
        let to = sockaddr(to);
        let call = Call::new("sendto", libc::SYS_sendto).value(sock.0);
        let call = call.bytes(bytes).value(i64::try_from(bytes.len())?);
        let call = call.value(libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL);
        let call = call.bytes(&to).value(i64::try_from(to.len())?);
        self.call(&call)?.ok()?;
        Ok(())
    }

    /// Whether the other end took what came with the SYN.
    pub(super) fn sent_in_syn(&mut self, sock: Sock) -> Result<bool> {
        let info = self.get(sock, libc::IPPROTO_TCP, libc::TCP_INFO, 104)?;
        Ok(info[TCPI_OPTIONS] & TCPI_OPT_SYN_DATA != 0)
    }

    /// Reads exactly `expected`.
    pub(super) fn receive(&mut self, sock: Sock, expected: &[u8]) -> Result<()> {
        let (read, scratch) = self.call(&receiving(sock, expected.len()))?.full()?;
        let read = &scratch[..usize::try_from(read)?];
        ensure!(
            read == expected,
            "read {} bytes, expected {}",
            read.len(),
            expected.len()
        );
        Ok(())
    }

    /// Reads the orderly end.
    pub(super) fn receive_end(&mut self, sock: Sock) -> Result<()> {
        let read = self.call(&receiving(sock, 64))?.ok()?;
        ensure!(read == 0, "read {read} bytes, expected the end");
        Ok(())
    }

    /// Is told `errno` when reading.
    pub(super) fn receive_fails(&mut self, sock: Sock, errno: c_int) -> Result<()> {
        self.call(&receiving(sock, 64))?.fails_with(errno)
    }

    pub(super) fn shutdown(&mut self, sock: Sock, how: c_int) -> Result<()> {
        let call = Call::new("shutdown", libc::SYS_shutdown)
            .value(sock.0)
            .value(how);
        self.call(&call)?.ok()?;
        Ok(())
    }

    pub(super) fn close(&mut self, sock: Sock) -> Result<()> {
        self.call(&Call::new("close", libc::SYS_close).value(sock.0))?
            .ok()?;
        Ok(())
    }

    /// Closes with a reset: `SO_LINGER` on, for no time.
    pub(super) fn abort(&mut self, sock: Sock) -> Result<()> {
        self.linger0(sock)?;
        self.close(sock)
    }

    pub(super) fn linger0(&mut self, sock: Sock) -> Result<()> {
        let mut linger = Vec::new();
        linger.extend(1_i32.to_ne_bytes());
        linger.extend(0_i32.to_ne_bytes());
        self.set_bytes(sock, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
    }

    /// Closes without a word to the other end, as a crash of the machine would.
    pub(super) fn vanish(&mut self, sock: Sock) -> Result<()> {
        self.set(sock, libc::IPPROTO_TCP, TCP_REPAIR, 1)?;
        self.close(sock)
    }

    pub(super) fn set(&mut self, sock: Sock, level: c_int, option: c_int, to: c_int) -> Result<()> {
        self.set_bytes(sock, level, option, &to.to_ne_bytes())
    }

    fn set_bytes(&mut self, sock: Sock, level: c_int, option: c_int, to: &[u8]) -> Result<()> {
        let len = i64::try_from(to.len()).expect("small");
        let call = Call::new("setsockopt", libc::SYS_setsockopt).value(sock.0);
        let call = call.value(level).value(option).bytes(to).value(len);
        self.call(&call)?.ok()?;
        Ok(())
    }

    /// An option that is a number.
    pub(super) fn number(&mut self, sock: Sock, level: c_int, option: c_int) -> Result<u32> {
        Ok(word(&self.get(sock, level, option, 4)?, 0))
    }

    fn get(&mut self, sock: Sock, level: c_int, option: c_int, len: usize) -> Result<Box<[u8]>> {
        let room = u32::try_from(len).expect("small").to_ne_bytes();
        let call = Call::new("getsockopt", libc::SYS_getsockopt).value(sock.0);
        let call = call.value(level).value(option).space(len).bytes(&room);
        Ok(self.call(&call)?.full()?.1)
    }

    /// From now on everything that arrives for this socket is lost, as if a wire were cut. On a
    /// listener, for those that it makes as well.
    pub(super) fn deafen(&mut self, sock: Sock) -> Result<()> {
        // struct sock_fprog, a pointer to one instruction, and that: BPF_RET | BPF_K, 0 bytes.
        let base = self.scratch_address()?;
        let mut program = Vec::new();
        program.extend(1_u64.to_ne_bytes());
        program.extend((base + 16).to_ne_bytes());
        program.extend(6_u64.to_ne_bytes());
        let call = Call::new("setsockopt", libc::SYS_setsockopt).value(sock.0);
        let call = call.value(libc::SOL_SOCKET).value(libc::SO_ATTACH_FILTER);
        self.call(&call.bytes(&program).value(16))?.ok()?;
        Ok(())
    }

    /// Undoes [`Actor::deafen`].
    pub(super) fn listen_again(&mut self, sock: Sock) -> Result<()> {
        self.set(sock, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
    }

    pub(super) fn local(&mut self, sock: Sock) -> Result<SocketAddr> {
        let len = 28_u32.to_ne_bytes();
        let call = Call::new("getsockname", libc::SYS_getsockname).value(sock.0);
        let (_, scratch) = self.call(&call.space(28).bytes(&len))?.full()?;
        parse_sockaddr(&scratch)
    }

    /// Waits until the kernel has the socket in `state`.
    pub(super) fn wait_state(&mut self, sock: Sock, state: State) -> Result<()> {
        poll(&format!("state {state:?}"), || self.is_in(sock, state))
    }

    pub(super) fn is_in(&mut self, sock: Sock, state: State) -> Result<bool> {
        let info = self.get(sock, libc::IPPROTO_TCP, libc::TCP_INFO, 104)?;
        Ok(info[0] == state as u8)
    }

    /// Waits until `count` connections wait to be accepted.
    pub(super) fn wait_queued(&mut self, listener: Sock, count: u32) -> Result<()> {
        poll(&format!("{count} in the accept queue"), || {
            let info = self.get(listener, libc::IPPROTO_TCP, libc::TCP_INFO, 104)?;
            Ok(word(&info, TCPI_UNACKED) == count)
        })
    }

    /// Waits until at least `count` bytes wait to be read.
    pub(super) fn wait_unread(&mut self, sock: Sock, count: usize) -> Result<()> {
        self.wait_queue(sock, libc::FIONREAD, |waiting| waiting >= count)
    }

    /// Waits until everything sent has been acknowledged.
    pub(super) fn wait_acked(&mut self, sock: Sock) -> Result<()> {
        self.wait_queue(sock, libc::TIOCOUTQ, |waiting| waiting == 0)
    }

    fn wait_queue(
        &mut self,
        sock: Sock,
        which: libc::Ioctl,
        enough: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let call = Call::new("ioctl", libc::SYS_ioctl).value(sock.0);
        let call = call.value(i64::try_from(which)?).space(8);
        poll("the socket's queue", || {
            let (_, scratch) = self.call(&call)?.full()?;
            Ok(enough(usize::try_from(word(&scratch, 0))?))
        })
    }

    /// Acknowledges at once what the kernel would have acknowledged a little later.
    pub(super) fn acknowledge(&mut self, sock: Sock) -> Result<()> {
        self.set(sock, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)
    }

    /// Waits until a connection that nobody holds any more is in one of `states`.
    pub(super) fn wait_orphan(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        states: &[State],
    ) -> Result<()> {
        self.wait_table(Some(local), remote, states)?;
        Ok(())
    }

    /// Waits until the kernel has forgotten a connection that this end closed first.
    pub(super) fn wait_forgotten(&self, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        let left = [State::FinWait2, State::TimeWait];
        poll("a closed connection to be forgotten", || {
            Ok(!self.has_orphan(local, remote, &left)?)
        })
    }

    /// Waits until something here is connecting to `remote`; its local port.
    pub(super) fn wait_connecting(&self, remote: SocketAddr) -> Result<u16> {
        self.wait_table(None, remote, &[State::SynSent])
    }

    /// Whether there is such a connection.
    pub(super) fn has_orphan(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        states: &[State],
    ) -> Result<bool> {
        Ok(self.in_table(Some(local), remote, states)?.is_some())
    }

    /// Waits for a line in the table of this actor's network namespace; its local port.
    fn wait_table(
        &self,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        states: &[State],
    ) -> Result<u16> {
        let mut found = None;
        let from = local.map_or("any address".to_owned(), |local| local.to_string());
        poll(&format!("{from} to {remote} to be in {states:?}"), || {
            found = self.in_table(local, remote, states)?;
            Ok(found.is_some())
        })?;
        found.context("poll() ended without it")
    }

    fn in_table(
        &self,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        states: &[State],
    ) -> Result<Option<u16>> {
        let table = if remote.is_ipv4() { "tcp" } else { "tcp6" };
        let path = format!("/proc/{}/net/{table}", self.pid());
        let states: Vec<_> = states
            .iter()
            .map(|state| format!("{:02X}", *state as u8))
            .collect();
        let port = |word: &str| u16::from_str_radix(word.rsplit_once(':')?.1, 16).ok();
        let table = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        Ok(table.lines().find_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let ours = words.next().and_then(port)?;
            let theirs = words.next().and_then(port)?;
            let state = words.next()?;
            let here = local.is_none_or(|local| local.port() == ours);
            let matches = here && theirs == remote.port() && states.iter().any(|s| s == state);
            matches.then_some(ours)
        }))
    }
}

fn sending(sock: Sock, bytes: &[u8]) -> Call {
    Call::new("sendto", libc::SYS_sendto)
        .value(sock.0)
        .bytes(bytes)
        .value(i64::try_from(bytes.len()).expect("small"))
        .value(libc::MSG_NOSIGNAL)
        .value(0)
        .value(0)
}

fn receiving(sock: Sock, len: usize) -> Call {
    Call::new("recvfrom", libc::SYS_recvfrom)
        .value(sock.0)
        .space(len)
        .value(i64::try_from(len).expect("small"))
        .value(libc::MSG_WAITALL)
        .value(0)
        .value(0)
}

/// Asks until the answer is yes.
pub(super) fn poll(what: &str, mut asked: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !asked()? {
        ensure!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// The pause between two things that must not fall into the same tick of the kernel's clock, by
/// which the order of the last payloads is known: `CONFIG_HZ` is 100 at the least.
pub(super) fn next_tick() {
    thread::sleep(Duration::from_millis(22));
}
