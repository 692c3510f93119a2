//! `io_uring` in an actor's hands: one operation, given to the kernel and waited for.
//!
//! A ring is memory that an actor shares with the kernel. An actor only makes system calls, so it reads and
//! writes that memory through a pipe. Each operation has a ring of its own and is the first entry there.
//! Must not know: what the operation is for.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Result, ensure};

use super::net::{Sock, poll, sockaddr, word};
use super::process::{Actor, Call};

/// `IORING_OP_ACCEPT` and so on: `include/uapi/linux/io_uring.h`, as all of these.
const ACCEPT: u8 = 13;
const CONNECT: u8 = 16;
/// `IOSQE_ASYNC`.
const ASYNC: u8 = 1 << 4;
/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: i64 = 1;
/// `IORING_OFF_SQ_RING`, where the completions are as well since 5.4, and `IORING_OFF_SQES`.
const RINGS: i64 = 0;
const ENTRIES: i64 = 0x1000_0000;
/// Size of `struct io_uring_params`; offsets of `sq_off.tail` and `cq_off.cqes` in it.
const PARAMS: usize = 120;
const TAIL: usize = 44;
const COMPLETIONS: usize = 100;
/// Size of `struct io_uring_sqe`.
const ENTRY: usize = 64;
/// Size of `struct io_uring_cqe`; offset of `res` in it.
const COMPLETION: usize = 16;
const RESULT: usize = 8;
/// Entries of a ring, of which the second is room for an address.
const COUNT: i64 = 2;
/// More than such a ring takes, or its entries.
const ROOM: i64 = 4096;

/// Whether this process may have a ring: the kernel can be built without, `kernel.io_uring_disabled` and
/// seccomp can forbid it.
pub(super) fn is_allowed() -> bool {
    let mut params = [0_u64; PARAMS / 8];
    // SAFETY: the call reads and writes one `struct io_uring_params`, which `params` has the size of.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, COUNT, params.as_mut_ptr()) };
    let Ok(ring @ 0..) = i32::try_from(ring) else {
        return false;
    };
    // SAFETY: the kernel has just made this descriptor for us alone.
    drop(unsafe { OwnedFd::from_raw_fd(ring) });
    true
}

/// Who makes the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The thread that asks for it.
    Caller,
    /// A thread that the kernel adds to the process, `iou-wrk-PID`.
    Worker,
}

/// An operation that the kernel has been given.
#[derive(Debug)]
pub(super) struct Submitted {
    ring: i64,
    /// Where its completion will be.
    completion: i64,
    /// Both ends, to read and to write.
    pipe: [i64; 2],
}

impl Actor {
    /// Connects; 0 or the negated errno.
    pub(super) fn ring_connect(&mut self, sock: Sock, to: SocketAddr, by: By) -> Result<i32> {
        let submitted = self.ring_connect_pending(sock, to, by)?;
        self.ring_result(&submitted)
    }

    /// A `connect()` that is left waiting.
    pub(super) fn ring_connect_pending(
        &mut self,
        sock: Sock,
        to: SocketAddr,
        by: By,
    ) -> Result<Submitted> {
        self.submit(CONNECT, sock, &sockaddr(to), by)
    }

    /// An `accept()` that is left waiting; the new socket or the negated errno.
    pub(super) fn ring_accept_pending(&mut self, listener: Sock, by: By) -> Result<Submitted> {
        self.submit(ACCEPT, listener, &[], by)
    }

    /// Waits until the operation has ended.
    pub(super) fn ring_result(&mut self, submitted: &Submitted) -> Result<i32> {
        self.enter(submitted.ring, 0, 1)?;
        let [output, input] = submitted.pipe;
        let len = i64::try_from(COMPLETION)?;
        let write = Call::new("write", libc::SYS_write).value(input);
        self.call(&write.value(submitted.completion).value(len))?
            .ok()?;
        let read = Call::new("read", libc::SYS_read).value(output);
        let (_, completion) = self.call(&read.space(COMPLETION).value(len))?.full()?;
        Ok(word(&completion, RESULT).cast_signed())
    }

    /// Gives the kernel one operation on `sock`, with the address that it is about.
    fn submit(&mut self, operation: u8, sock: Sock, address: &[u8], by: By) -> Result<Submitted> {
        let params = Call::new("io_uring_setup", libc::SYS_io_uring_setup).value(COUNT);
        let (ring, params) = self.call(&params.space(PARAMS))?.full()?;
        let rings = self.map(ring, RINGS)?;
        let entries = self.map(ring, ENTRIES)?;
        let (_, pipe) = self
            .call(&Call::new("pipe2", libc::SYS_pipe2).space(8).value(0))?
            .full()?;
        let pipe = [word(&pipe, 0), word(&pipe, 4)].map(i64::from);

        let mut entry = [0; 2 * ENTRY];
        let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[operation, if by == By::Worker { ASYNC } else { 0 }]);
        put(4, &i32::try_from(sock.0)?.to_ne_bytes());
        if !address.is_empty() {
            put(8, &address.len().to_ne_bytes());
            put(16, &(entries + i64::try_from(ENTRY)?).to_ne_bytes());
            put(ENTRY, address);
        }
        self.put(pipe, entries, &entry)?;
        // The array of indexes into the entries is all zeros, as it has to be.
        let tail = rings + i64::from(word(&params, TAIL));
        self.put(pipe, tail, &1_u32.to_ne_bytes())?;

        self.enter(ring, 1, 0)?;
        if by == By::Worker {
            self.wait_worker()?;
        }
        Ok(Submitted {
            ring,
            completion: rings + i64::from(word(&params, COMPLETIONS)),
            pipe,
        })
    }

    /// Maps a part of a ring; its address.
    fn map(&mut self, ring: i64, part: i64) -> Result<i64> {
        let call = Call::new("mmap", libc::SYS_mmap).value(0).value(ROOM);
        let call = call.value(libc::PROT_READ | libc::PROT_WRITE);
        let call = call.value(libc::MAP_SHARED | libc::MAP_POPULATE);
        self.call(&call.value(ring).value(part))?.ok()
    }

    /// Writes to an address of this process, by way of a pipe.
    fn put(&mut self, [output, input]: [i64; 2], at: i64, bytes: &[u8]) -> Result<()> {
        let len = i64::try_from(bytes.len())?;
        let write = Call::new("write", libc::SYS_write).value(input);
        self.call(&write.bytes(bytes).value(len))?.ok()?;
        let read = Call::new("read", libc::SYS_read).value(output);
        let read = self.call(&read.value(at).value(len))?.ok()?;
        ensure!(read == len, "only {read} bytes of {len} written to a ring");
        Ok(())
    }

    fn enter(&mut self, ring: i64, submit: i64, complete: i64) -> Result<()> {
        let call = Call::new("io_uring_enter", libc::SYS_io_uring_enter).value(ring);
        let call = call.value(submit).value(complete).value(GETEVENTS);
        let submitted = self.call(&call.value(0).value(0))?.ok()?;
        ensure!(submitted == submit, "the kernel took no operation");
        Ok(())
    }

    /// Waits until the process has a worker. It stays for some seconds.
    fn wait_worker(&self) -> Result<()> {
        poll("a worker of io_uring", || self.has_worker())
    }

    /// Whether the kernel has added a worker to this process.
    pub(super) fn has_worker(&self) -> Result<bool> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // It may be gone by now.
            let name = std::fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
            if name.starts_with("iou-wrk-") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
