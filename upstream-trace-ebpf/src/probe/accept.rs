//! `inet_csk_accept`: the process that takes a connection off the accept queue.
//!
//! proto: `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)` up to 6.9;
//! `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)` since 6.10. By fexit,
//! else by kretprobe; without either the owner is found later, by less.

use core::hint::black_box;

use aya_ebpf::{
    macros::{fexit, kretprobe},
    programs::{FExitContext, RetProbeContext},
};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{Copied, Direct, Memory, Struct},
        sock::{Sock, TcpSock},
    },
    maps::set,
    story,
};

#[fexit(function = "inet_csk_accept")]
pub fn inet_csk_accept_fexit(ctx: FExitContext) -> u32 {
    // The returned value stands behind the arguments. Two loads, each at an offset of its own: made into
    // one at an offset that depends on the setting, the verifier would refuse it.
    let sk: *const u8 = if set::ACCEPT_HAS_ARG_STRUCT() == 0 {
        black_box(ctx.arg(4))
    } else {
        black_box(ctx.arg(2))
    };
    if let Some(sk) = Struct::<Direct>::new(sk) {
        accepted(sk, TcpSock::direct);
    }
    0
}

#[kretprobe(function = "inet_csk_accept")]
pub fn inet_csk_accept_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(sk) = Struct::<Copied>::new(ctx.ret()) {
        accepted(sk, TcpSock::copied);
    }
    0
}

#[inline(always)]
fn accepted<M: Memory>(sk: Sock<M>, tcp: impl Fn(Sock<M>) -> Option<TcpSock<M>>) {
    let address = sk.address();
    // Only what is TCP's has a story.
    if let Some(place) = story::of(address) {
        return story::accept(&mut place.story, address);
    }
    let Some(sock) = tcp(sk) else {
        return;
    };
    let Some(tuple) = sock.tuple() else {
        return emit::unreadable();
    };
    if filter::wants(&tuple) && filter::own_as_current(address) {
        let old = sk.state().unwrap_or(0);
        emit::acted(
            What {
                kind: kind::ACCEPT,
                old,
                new: 0,
            },
            address,
            &tuple,
            Who::Current,
        );
    }
}
