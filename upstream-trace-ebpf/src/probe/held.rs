//! `iter/task_file`: which process holds which socket, asked at start and where an owner is missing.
//!
//! proto: `int bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)`
//! since 5.8. Walks every file of every process of the reader's pid namespace, whatever its network
//! namespace. Records go through the ring, so that they are ordered with the events of the hooks; one
//! byte a file goes to the iterator's own output, so that a reader who asks for few bytes can drain the
//! ring between. And so that it comes back soon: a file whose owner closes it while it is looked at is
//! closed by the reader, when its system call ends.

use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{self, Copied, Direct, Memory, Struct},
        sock::{TcpSock, state},
    },
    listener,
    maps::set,
    story,
};

/// `SOCKFS_MAGIC`, `include/uapi/linux/magic.h`.
const SOCKFS_MAGIC: u64 = 0x534f_434b;

/// `struct bpf_iter__task_file` as the verifier presents it.
#[repr(C)]
pub struct Context {
    meta: *const *mut u8,
    task: *const u8,
    fd: u64,
    file: *mut u8,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn task_file(ctx: *const Context) -> i32 {
    // SAFETY: the verifier gives every iterator program a valid context.
    let task = unsafe { (*ctx).task };
    // SAFETY: as above.
    let file = unsafe { (*ctx).file };
    if let Some(task) = Struct::<Direct>::new(task)
        && let Some(open) = Struct::<Direct>::new(file.cast_const())
    {
        if set::HAS_SOCK_FROM_FILE() == 0 {
            held(task, by_its_file_system(open));
        } else {
            // SAFETY: `file` is a `struct file` that the iterator holds; NULL comes back for other files.
            let socket = unsafe { bpf_sock_from_file(file.cast()) };
            let socket = Struct::<Direct>::new(socket.cast_const().cast());
            let sk = socket.and_then(|socket| socket.follow(&mem::SOCKET_SK));
            if Copied::is_allowed() {
                // What lies below a socket of MPTCP's no type leads to. One way through the rest is enough for the verifier.
                let sk = sk.and_then(|sk| Struct::<Copied>::new(sk.address()));
                held(task, sk.and_then(TcpSock::had_by));
            } else {
                held(task, sk.and_then(TcpSock::direct));
            }
        }
        // SAFETY: as above.
        let meta = unsafe { (*ctx).meta };
        // SAFETY: the first member of `struct bpf_iter_meta` is the output to write to.
        let seq = unsafe { *meta };
        let mut byte = 0_u8;
        // SAFETY: one byte from the stack.
        unsafe { bpf_seq_write(seq.cast(), (&raw mut byte).cast(), 1) };
    }
    0
}

/// The socket of a file, without the helper: a file of the sockets' own file system has a `struct socket`
/// behind its `private_data`.
#[inline(always)]
fn by_its_file_system(file: Struct<Direct>) -> Option<TcpSock<Copied>> {
    let super_block = file.follow(&mem::FILE_INODE)?.follow(&mem::INODE_SB)?;
    if super_block.get::<u64>(&mem::SB_MAGIC)? != SOCKFS_MAGIC {
        return None;
    }
    let socket = Struct::<Copied>::new(file.get(&mem::FILE_PRIVATE)?)?;
    TcpSock::had_by(socket.follow(&mem::SOCKET_SK)?)
}

#[inline(always)]
fn held<M: Memory>(task: Struct<Direct>, sock: Option<TcpSock<M>>) {
    let Some(sock) = sock else {
        return;
    };
    let (Some(tuple), Some(tgid)) = (sock.tuple(), task.get::<u32>(&mem::TASK_TGID)) else {
        emit::unreadable();
        return;
    };
    let sk = sock.sk.address();
    if sock.sk.state() == Some(state::LISTEN) {
        listener::found(sk, &tuple);
    }
    if story::of(sk).is_some() {
        // Its owner is in its story, or will be.
        return;
    }
    let old = sock.sk.state().unwrap_or(0);
    let wanted = if old == state::LISTEN {
        filter::wants_listener(&tuple)
    } else {
        filter::wants(&tuple)
    };
    if !wanted || !filter::own_as(sk, task, tgid) {
        return;
    }
    if old == state::LISTEN {
        filter::mark_port(&tuple);
    }
    let what = What {
        kind: kind::HELD,
        old,
        new: 0,
    };
    emit::acted(what, sk, &tuple, Who::Holder(task, tgid));
}
