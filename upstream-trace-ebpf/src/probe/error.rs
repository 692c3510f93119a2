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
        mem::{Direct, Struct},
        skb,
        sock::{TcpSock, state},
    },
    story,
};

use super::icmp;

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let Some(sock) = Struct::<Direct>::new(sk).and_then(TcpSock::direct) else {
        return 0;
    };
    if sock.sk.state() == Some(state::SYN_SENT) && !sock.sk.has_error() {
        return queued(sock);
    }
    let Some(place) = story::of(sk) else {
        return 0;
    };
    // Without an error it was reported on another CPU already, and nothing is left to see here.
    if sock.sk.state() != Some(state::CLOSE) || !sock.sk.has_error() {
        return 0;
    }
    let what = What {
        kind: kind::STATE,
        old: place.story.state,
        new: state::CLOSE,
    };
    story::tell(place, sock);
    let Some(tuple) = sock.tuple() else {
        emit::unreadable();
        return 0;
    };
    emit::full(what, sock, &tuple, Who::Nobody);
    0
}

/// What was queued for the owner is an ICMP error, or a time stamp.
#[inline(always)]
fn queued(sock: TcpSock<Direct>) -> i32 {
    let Some(packet) = sock.last_error() else {
        return 0;
    };
    if let Some(error) = skb::queued_icmp(packet)
        && filter::owned(sock.sk.address())
    {
        match sock.tuple() {
            Some(tuple) => icmp::told(packet, &tuple, error),
            None => emit::unreadable(),
        }
    }
    0
}
