//! `inet_sk_error_report`: the owner of a socket is told of an error.
//!
//! proto: `inet_sk_error_report(const struct sock *sk)` since 5.14; absent before. Follows at once on the
//! change to `CLOSE` of a connection that the network or a timer ended. A program does not nest on one
//! CPU, so a packet or timer that interrupts the hook of that change keeps it from it; this one is then
//! the witness. It is the only one of an ICMP error that arrives while the owner is inside `connect()`: that is queued
//! and kept as a soft error, and the connection goes on. Errors are rare, so it costs nothing.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{self, Direct, Struct},
        sock::{TcpSock, state},
    },
    story,
};

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let Some(sock) = Struct::<Direct>::new(sk).and_then(TcpSock::direct) else {
        return 0;
    };
    if sock.sk.state() == Some(state::SYN_SENT) && !sock.sk.has_error() {
        return icmp(sock);
    }
    let Some(story) = story::of(sk) else {
        return 0;
    };
    // Without an error it was reported on another CPU already, and nothing is left to see here.
    if sock.sk.state() != Some(state::CLOSE) || !sock.sk.has_error() {
        return 0;
    }
    let what = What {
        kind: kind::STATE,
        old: story.state,
        new: state::CLOSE,
    };
    story::tell(story, sock);
    let Some(tuple) = sock.tuple() else {
        emit::unreadable();
        return 0;
    };
    emit::full(what, sock, &tuple, Who::Nobody);
    0
}

#[inline(always)]
fn icmp(sock: TcpSock<Direct>) -> i32 {
    let what = What {
        kind: kind::SYN_ICMP,
        old: state::SYN_SENT,
        new: state::SYN_SENT,
    };
    let sk = sock.sk.address();
    if let Some(story) = story::of(sk)
        && story::step(story, sk, what, sock.sk.get(&mem::SK_NUM))
    {
        return 0;
    }
    let Some(tuple) = sock.tuple() else {
        emit::unreadable();
        return 0;
    };
    if filter::wants(&tuple) && filter::owned(sk) {
        emit::base(what, sk, &tuple);
    }
    0
}
