//! `tcp_connect`: the SYN is about to leave and the local port is known.
//!
//! proto: `int tcp_connect(struct sock *sk)`; 5.10 to 7.2 alike. By fentry, else by kprobe; without
//! either the local port is known from the next event of the socket on.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What},
    filter,
    kernel::{
        mem::{self, Copied, Direct, Memory, Struct},
        sock::{Sock, TcpSock, state},
    },
    story,
};

#[fentry(function = "tcp_connect")]
pub fn tcp_connect_fentry(ctx: FEntryContext) -> u32 {
    if let Some(sk) = Struct::<Direct>::new(ctx.arg(0)) {
        connecting(sk, TcpSock::direct);
    }
    0
}

#[kprobe(function = "tcp_connect")]
pub fn tcp_connect_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<*const u8>(0)
        && let Some(sk) = Struct::<Copied>::new(sk)
    {
        connecting(sk, TcpSock::copied);
    }
    0
}

#[inline(always)]
fn connecting<M: Memory>(sk: Sock<M>, tcp: impl Fn(Sock<M>) -> Option<TcpSock<M>>) {
    let address = sk.address();
    // Only what is TCP's has a story.
    if let Some(place) = story::of(address) {
        return story::know_port(&mut place.story, || sk.get(&mem::SK_NUM));
    }
    let Some(sock) = tcp(sk) else {
        return;
    };
    let Some(tuple) = sock.tuple() else {
        return emit::unreadable();
    };
    if filter::wants(&tuple) && filter::owned(address) {
        let what = What {
            kind: kind::CONNECT,
            old: state::SYN_SENT,
            new: 0,
        };
        emit::base(what, address, &tuple);
    }
}
