//! Actors: child processes that make the system calls they are told to make, one at a time.
//!
//! A scenario is a script for several processes, and its order has to be exact. So the processes
//! do not run code of their own: each waits for a request on a socket, makes that one system call
//! and answers with its result. What the script does next happens after it, whatever the scheduler
//! does. The loop in the child neither allocates nor takes a lock, which makes it safe to fork from
//! a program with threads, and needs no second executable.
//!
//! Must not know: what the calls are for (that is `net` and `netns`).

use std::ffi::{CString, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Room for everything that one call points at.
const SCRATCH: usize = 2048;
/// Longest that a call may take; the longest wait that a scenario asks for is some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Make the system call `number`.
const CALL: u64 = 0;
/// Fork; the answer carries the new process's channel.
const FORK: u64 = 1;
/// The answer carries a copy of the descriptor `args[0]`.
const HAND_OVER: u64 = 2;
/// The request carries a descriptor; the answer is its number.
const TAKE: u64 = 3;

/// No padding: it crosses the channel byte by byte.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    op: u64,
    number: i64,
    args: [i64; 6],
    /// Bit `n`: `args[n]` is an offset into `scratch`, to be replaced by the address there.
    pointers: u64,
    scratch: [u8; SCRATCH],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Reply {
    /// Result, or the negated errno.
    value: i64,
    /// Where `scratch` is in the actor, for structures that hold pointers.
    base: u64,
    scratch: [u8; SCRATCH],
}

/// One system call to be: arguments in order.
#[derive(Clone, Debug)]
pub(super) struct Call {
    name: &'static str,
    number: i64,
    args: [i64; 6],
    count: usize,
    pointers: u64,
    scratch: Vec<u8>,
}

impl Call {
    pub(super) fn new(name: &'static str, number: c_long) -> Self {
        Self {
            name,
            number,
            args: [0; 6],
            count: 0,
            pointers: 0,
            scratch: Vec::new(),
        }
    }

    fn push(mut self, value: i64, pointer: bool) -> Self {
        self.args[self.count] = value;
        self.pointers |= u64::from(pointer) << self.count;
        self.count += 1;
        self
    }

    /// An argument that is a number.
    pub(super) fn value(self, value: impl Into<i64>) -> Self {
        self.push(value.into(), false)
    }

    /// An argument that points at `bytes`.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        let offset = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        self.scratch
            .resize(self.scratch.len().next_multiple_of(8), 0);
        assert!(
            self.scratch.len() <= SCRATCH,
            "{} points at too much",
            self.name
        );
        self.push(i64::try_from(offset).expect("within SCRATCH"), true)
    }

    /// An argument that points at `len` zero bytes, for the call to fill.
    pub(super) fn space(self, len: usize) -> Self {
        self.bytes(&vec![0; len])
    }

    /// An argument that points at `text` and a NUL.
    pub(super) fn text(self, text: &str) -> Self {
        let text = CString::new(text).expect("no NUL in it");
        self.bytes(text.as_bytes_with_nul())
    }
}

/// What a call came back with.
#[derive(Debug)]
pub(super) struct Answer {
    who: String,
    call: &'static str,
    value: i64,
    scratch: Box<[u8]>,
}

impl Answer {
    /// The result of a call that has to succeed.
    pub(super) fn ok(self) -> Result<i64> {
        Ok(self.full()?.0)
    }

    /// The same, and the memory that its pointers pointed into.
    pub(super) fn full(self) -> Result<(i64, Box<[u8]>)> {
        match self.errno() {
            None => Ok((self.value, self.scratch)),
            Some(errno) => bail!("{}: {}: {errno}", self.who, self.call),
        }
    }

    /// For a call that has to fail with `errno`.
    pub(super) fn fails_with(&self, errno: c_int) -> Result<()> {
        let expected = io::Error::from_raw_os_error(errno);
        match self.errno() {
            Some(got) if got.raw_os_error() == Some(errno) => Ok(()),
            Some(got) => bail!("{}: {}: {got}, expected {expected}", self.who, self.call),
            None => bail!("{}: {} succeeded, expected {expected}", self.who, self.call),
        }
    }

    pub(super) fn errno(&self) -> Option<io::Error> {
        let errno = i32::try_from(-self.value)
            .ok()
            .filter(|errno| (1..4096).contains(errno))?;
        Some(io::Error::from_raw_os_error(errno))
    }
}

/// A child process that does what it is told. Killed and waited for when dropped.
#[derive(Debug)]
pub struct Actor {
    name: String,
    pid: libc::pid_t,
    channel: OwnedFd,
}

impl Actor {
    /// Forks the first actor off this process, from which all others are forked: it stays as small
    /// as it is now, however much memory the caller comes to hold.
    pub(super) fn first() -> Result<Self> {
        let (ours, theirs) = channel().context("socketpair")?;
        match fork(0) {
            0 => {
                let channel = theirs.as_raw_fd();
                // Other children's channels and the caller's files, so that nobody waits for this
                // process to close them.
                if channel > 3 {
                    close_range(3, channel - 1);
                }
                close_range(channel + 1, c_int::MAX);
                serve(channel)
            }
            pid if pid > 0 => {
                let pid = libc::pid_t::try_from(pid).context("pid")?;
                let mut actor = Self {
                    name: "zygote".into(),
                    pid,
                    channel: ours,
                };
                actor.rename("ut-zygote")?;
                Ok(actor)
            }
            failed => bail!("fork: {}", io::Error::from_raw_os_error(errno_of(failed))),
        }
    }

    /// A copy of this process with all its descriptors, under another name.
    pub fn fork(&mut self, name: &str) -> Result<Self> {
        self.tell(
            &Request {
                op: FORK,
                ..blank()
            },
            None,
        )?;
        let (reply, channel) = self.hear("fork")?;
        let answer = self.answer("fork", &reply);
        let pid = libc::pid_t::try_from(answer.ok()?).context("pid")?;
        let channel = channel.context("the fork came without its channel")?;
        let mut actor = Self {
            name: name.into(),
            pid,
            channel,
        };
        actor.rename(name)?;
        Ok(actor)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Makes one system call and waits for its end.
    pub(super) fn call(&mut self, call: &Call) -> Result<Answer> {
        self.begin(call)?.finish()
    }

    /// Starts a system call that may block until another actor does something.
    pub(super) fn begin(&mut self, call: &Call) -> Result<Pending<'_>> {
        let mut request = Request {
            op: CALL,
            number: call.number,
            args: call.args,
            pointers: call.pointers,
            ..blank()
        };
        request.scratch[..call.scratch.len()].copy_from_slice(&call.scratch);
        self.tell(&request, None)?;
        Ok(Pending {
            actor: self,
            call: call.name,
        })
    }

    /// Address of the scratch memory in this process.
    pub(super) fn scratch_address(&mut self) -> Result<u64> {
        let call = Call::new("getpid", libc::SYS_getpid);
        self.begin(&call)?;
        Ok(self.hear(call.name)?.0.base)
    }

    /// Gives `receiver` a copy of the descriptor `fd`; its number there.
    pub(super) fn hand_over(&mut self, fd: i64, receiver: &mut Self) -> Result<i64> {
        let mut request = Request {
            op: HAND_OVER,
            ..blank()
        };
        request.args[0] = fd;
        self.tell(&request, None)?;
        let handed = self.hear("sendmsg")?.1.context("no descriptor came")?;
        receiver.tell(
            &Request {
                op: TAKE,
                ..blank()
            },
            Some(handed.as_raw_fd()),
        )?;
        let reply = receiver.hear("recvmsg")?.0;
        drop(handed);
        receiver.answer("recvmsg", &reply).ok()
    }

    /// Ends it by SIGKILL and waits until the kernel has closed all it had open.
    pub fn kill(self) {
        drop(self);
    }

    /// Ends it by SIGKILL in the middle of a call.
    fn end(&self) {
        // SAFETY: plain system call; the pid is a child of ours that nobody has waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        loop {
            // SAFETY: a null status is allowed.
            let waited = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) };
            if waited >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                break;
            }
        }
    }

    fn rename(&mut self, name: &str) -> Result<()> {
        let call = Call::new("prctl", libc::SYS_prctl)
            .value(libc::PR_SET_NAME)
            .text(name);
        self.call(&call)?.ok()?;
        Ok(())
    }

    fn answer(&self, call: &'static str, reply: &Reply) -> Answer {
        Answer {
            who: self.name.clone(),
            call,
            value: reply.value,
            scratch: reply.scratch.into(),
        }
    }

    fn tell(&self, request: &Request, handed: Option<RawFd>) -> Result<()> {
        let sent = send_message(self.channel.as_raw_fd(), request, handed);
        ensure!(
            sent >= 0,
            "{}: cannot be told anything: {}",
            self.name,
            last_error()
        );
        Ok(())
    }

    fn hear(&self, call: &str) -> Result<(Reply, Option<OwnedFd>)> {
        let mut ready = libc::pollfd {
            fd: self.channel.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let patience = c_int::try_from(PATIENCE.as_millis()).expect("some seconds");
        loop {
            // SAFETY: one valid pollfd.
            let polled = unsafe { libc::poll(&raw mut ready, 1, patience) };
            if polled > 0 {
                break;
            }
            ensure!(
                polled < 0,
                "{}: {call} did not end in {PATIENCE:?}",
                self.name
            );
            let error = last_error();
            ensure!(error.kind() == io::ErrorKind::Interrupted, "poll: {error}");
        }
        let mut reply = Reply {
            value: 0,
            base: 0,
            scratch: [0; SCRATCH],
        };
        let (read, handed) = receive_message(self.channel.as_raw_fd(), &mut reply);
        let expected = isize::try_from(size_of::<Reply>()).expect("small");
        ensure!(
            read == expected,
            "{}: ended in the middle of {call}",
            self.name
        );
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        let handed = handed.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok((reply, handed))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.end();
    }
}

/// A call that may still be running.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    actor: &'a mut Actor,
    call: &'static str,
}

impl Pending<'_> {
    /// Waits for its end.
    pub(super) fn finish(self) -> Result<Answer> {
        let (reply, _) = self.actor.hear(self.call)?;
        Ok(self.actor.answer(self.call, &reply))
    }
}

fn blank() -> Request {
    Request {
        op: CALL,
        number: 0,
        args: [0; 6],
        pointers: 0,
        scratch: [0; SCRATCH],
    }
}

fn last_error() -> io::Error {
    io::Error::last_os_error()
}

fn errno_of(value: i64) -> i32 {
    i32::try_from(-value).unwrap_or(libc::EINVAL)
}

fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let made = socketpair(&mut ends);
    if made < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made both descriptors.
    let ours = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let theirs = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((ours, theirs))
}

// From here on: what runs in the child too. No allocation, no lock, no panic.

fn socketpair(ends: &mut [c_int; 2]) -> c_int {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }
}

fn fork(flags: c_int) -> i64 {
    let flags = c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no new stack this is fork(); the child keeps to calls that
    // need no lock.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }
}

fn close_range(first: c_int, last: c_int) {
    // SAFETY: the child uses none of the descriptors in that range.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

fn close(fd: c_int) {
    // SAFETY: only called on descriptors that the child owns.
    unsafe { libc::close(fd) };
}

/// One descriptor in flight; laid out as `CMSG_SPACE(sizeof(int))` is.
#[repr(C, align(8))]
struct Control {
    header: libc::cmsghdr,
    fd: c_int,
    padding: c_int,
}

impl Control {
    /// `CMSG_LEN(sizeof(int))`.
    const LEN: usize = size_of::<libc::cmsghdr>() + size_of::<c_int>();

    fn new(fd: c_int) -> Self {
        let header = libc::cmsghdr {
            cmsg_len: Self::LEN,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        Self {
            header,
            fd,
            padding: 0,
        }
    }
}

fn message<T>(io: &mut libc::iovec, body: *mut T, control: Option<&mut Control>) -> libc::msghdr {
    io.iov_base = body.cast();
    io.iov_len = size_of::<T>();
    let (at, len) = control.map_or((std::ptr::null_mut(), 0), |control| {
        (
            std::ptr::from_mut(control).cast::<c_void>(),
            size_of::<Control>(),
        )
    });
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: io,
        msg_iovlen: 1,
        msg_control: at,
        msg_controllen: len,
        msg_flags: 0,
    }
}

fn send_message<T>(channel: RawFd, body: &T, handed: Option<RawFd>) -> isize {
    let mut io = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let mut control = Control::new(handed.unwrap_or(-1));
    let control = handed.is_some().then_some(&mut control);
    let header = message(&mut io, std::ptr::from_ref(body).cast_mut(), control);
    // SAFETY: the header points at live memory, which sendmsg only reads.
    unsafe { libc::sendmsg(channel, &raw const header, libc::MSG_NOSIGNAL) }
}

fn receive_message<T>(channel: RawFd, body: &mut T) -> (isize, Option<RawFd>) {
    let mut io = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let mut control = Control::new(-1);
    control.header.cmsg_len = 0;
    let mut header = message(&mut io, std::ptr::from_mut(body), Some(&mut control));
    // SAFETY: the header points at live memory; every bit pattern is a valid request or reply.
    let read = unsafe { libc::recvmsg(channel, &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let handed = (read >= 0 && control.header.cmsg_len == Control::LEN).then_some(control.fd);
    (read, handed)
}

fn errno() -> i64 {
    // No allocation in it.
    i64::from(
        io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EINVAL),
    )
}

/// The child's whole life.
fn serve(mut channel: RawFd) -> ! {
    die_with_parent();
    let mut request = blank();
    loop {
        let (read, handed) = receive_message(channel, &mut request);
        if read != size_of::<Request>().cast_signed() {
            // SAFETY: ends the process without running anything of the parent's.
            unsafe { libc::_exit(0) };
        }
        let base = request.scratch.as_mut_ptr();
        let mut reply = Reply {
            value: 0,
            base: base.addr() as u64,
            scratch: [0; SCRATCH],
        };
        let mut answered = None;
        match request.op {
            FORK => {
                let mut ends = [-1; 2];
                reply.value = if socketpair(&mut ends) < 0 {
                    -errno()
                } else {
                    0
                };
                if reply.value == 0 {
                    // A sibling, so that whoever drives us can wait for it.
                    reply.value = fork(libc::CLONE_PARENT);
                    if reply.value == 0 {
                        close(channel);
                        close(ends[0]);
                        channel = ends[1];
                        die_with_parent();
                        continue;
                    }
                    if reply.value < 0 {
                        reply.value = -errno();
                    }
                    close(ends[1]);
                    answered = Some(ends[0]);
                }
            }
            HAND_OVER => answered = c_int::try_from(request.args[0]).ok(),
            TAKE => reply.value = handed.map_or(-i64::from(libc::EBADF), i64::from),
            _ => {
                reply.value = system_call(&request, base);
                reply.scratch = request.scratch;
            }
        }
        send_message(channel, &reply, answered);
        if let (FORK, Some(end)) = (request.op, answered) {
            close(end);
        }
    }
}

fn system_call(request: &Request, base: *mut u8) -> i64 {
    let mut arg = request.args;
    for (at, arg) in arg.iter_mut().enumerate() {
        if request.pointers & (1 << at) != 0 {
            *arg += base.expose_provenance().cast_signed() as i64;
        }
    }
    // SAFETY: the caller of `Actor::call` names a call whose pointers point into the scratch
    // memory; the process exists to make that call and holds nothing that it could harm.
    let value = unsafe {
        libc::syscall(
            request.number,
            arg[0],
            arg[1],
            arg[2],
            arg[3],
            arg[4],
            arg[5],
        )
    };
    if value == -1 { -errno() } else { value }
}

fn die_with_parent() {
    let signal = c_long::from(libc::SIGKILL);
    // SAFETY: takes numbers only. If the parent is gone already, the channel says so.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) };
}
