//! `tcp_destroy_sock`: the socket is gone, its address may be used again.
//!
//! proto: `tcp_destroy_sock(struct sock *sk)` since 4.15; 5.10 to 7.2 alike. Addresses may be zero by
//! now (`tcp_disconnect`), so only the socket's address counts. For a socket that was reset, the current
//! task is the one that closes it: that is what this hook is for. After an orderly close, one with a FIN from the
//! other end and no error that is still to be told, it says nothing that `inet_sock_set_state` has not said, so that
//! is not reported.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{Direct, Struct},
        sock::TcpSock,
    },
    story,
};

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    if let Some(sk) = Struct::new(ctx.arg(0)) {
        destroyed(sk);
        filter::disown(sk.address());
    }
    0
}

#[inline(always)]
fn destroyed(sk: Struct<Direct>) {
    let place = story::of(sk.address());
    if place.is_none() && sk.fin_received() && !sk.has_error() {
        return;
    }
    let Some(sock) = TcpSock::direct(sk) else {
        return;
    };
    if let Some(place) = place {
        // It cannot be destroyed in any state but CLOSE: the kernel kept that change from its hook.
        return story::end(place, place.story.state, true, sock);
    }
    let Some(tuple) = sock.tuple() else {
        return emit::unreadable();
    };
    if filter::wants(&tuple) && filter::owned(sk.address()) {
        let what = What {
            kind: kind::DESTROY,
            old: sk.state().unwrap_or(0),
            new: 0,
        };
        emit::acted(what, sk.address(), &tuple, Who::Current);
    }
}
