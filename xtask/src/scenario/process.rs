//! Actors: child processes that make the system calls they are told to make, one at a time.
//!
//! A scenario is a script for several processes, and its order has to be exact. So the processes
//! do not run code of their own: each waits for a request on a socket, makes that one system call
//! and answers with its result. What the script does next happens after it, whatever the scheduler
//! does. What runs in the child ([`child`]) neither allocates nor takes a lock, which makes it safe to
//! fork from a program with threads, and needs no second executable.
//!
//! Must not know: what the calls are for (that is `net` and `netns`).

mod child;

use std::ffi::{CString, c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use child::{
    CALL, FORK, HAND_OVER, Reply, Request, SCRATCH, TAKE, blank, close_range, fork,
    receive_message, send_message, serve, socketpair,
};

/// Longest that a call may take; the longest wait that a scenario asks for is some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

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

    /// The name that the kernel knows it by.
    pub(super) fn name(&self) -> &str {
        &self.name
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

    /// Lets it end by itself and waits until the kernel has closed all it had open.
    pub(super) fn exit(mut self, status: c_int) -> Result<()> {
        self.begin(&Call::new("exit_group", libc::SYS_exit_group).value(status))?;
        let pid = libc::id_t::try_from(self.pid)?;
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // It stays a zombie, so that nobody else has its id when it is dropped.
        let how = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
        // SAFETY: `info` is valid for writes of a siginfo_t.
        let waited = unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), how) };
        ensure!(waited == 0, "waitid: {}", io::Error::last_os_error());
        Ok(())
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
