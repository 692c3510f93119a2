//! The actor's side: what runs in the child, and what crosses the channel.
//!
//! Everything here is called between `fork()` and the end of the process in a program that may have
//! had threads: no allocation, no lock, no panic.
//! Must not know: what the calls are for.

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::RawFd;

/// Room for everything that one call points at.
pub(super) const SCRATCH: usize = 2048;

/// Make the system call `number`.
pub(super) const CALL: u64 = 0;
/// Fork; the answer carries the new process's channel.
pub(super) const FORK: u64 = 1;
/// The answer carries a copy of the descriptor `args[0]`.
pub(super) const HAND_OVER: u64 = 2;
/// The request carries a descriptor; the answer is its number.
pub(super) const TAKE: u64 = 3;

/// No padding: it crosses the channel byte by byte.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Request {
    pub(super) op: u64,
    pub(super) number: i64,
    pub(super) args: [i64; 6],
    /// Bit `n`: `args[n]` is an offset into `scratch`, to be replaced by the address there.
    pub(super) pointers: u64,
    pub(super) scratch: [u8; SCRATCH],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Reply {
    /// Result, or the negated errno.
    pub(super) value: i64,
    /// Where `scratch` is in the actor, for structures that hold pointers.
    pub(super) base: u64,
    pub(super) scratch: [u8; SCRATCH],
}

pub(super) fn blank() -> Request {
    Request {
        op: CALL,
        number: 0,
        args: [0; 6],
        pointers: 0,
        scratch: [0; SCRATCH],
    }
}

pub(super) fn socketpair(ends: &mut [c_int; 2]) -> c_int {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }
}

pub(super) fn fork(flags: c_int) -> i64 {
    let flags = c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no new stack this is fork(); the child keeps to calls that
    // need no lock.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }
}

pub(super) fn close_range(first: c_int, last: c_int) {
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

pub(super) fn send_message<T>(channel: RawFd, body: &T, handed: Option<RawFd>) -> isize {
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

pub(super) fn receive_message<T>(channel: RawFd, body: &mut T) -> (isize, Option<RawFd>) {
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
pub(super) fn serve(mut channel: RawFd) -> ! {
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
