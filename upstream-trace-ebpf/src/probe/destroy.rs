//! `tcp_destroy_sock`: the socket is gone, its address may be used again.
//!
//! proto: `tcp_destroy_sock(struct sock *sk)` since 4.15; 5.10 to 7.2 alike. Addresses may be zero by
//! now (`tcp_disconnect`), so only the socket's address counts. For a socket that was reset, the current
//! task is the one that closes it: that is what this hook is for. After an orderly close it says nothing
//! that `inet_sock_set_state` has not said, so that is not reported.

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
    let sk: *const u8 = ctx.arg(0);
    let Some(sock) = Struct::<Direct>::new(sk).and_then(TcpSock::direct) else {
        return 0;
    };
    if let Some(story) = story::of(sk) {
        // It cannot be destroyed in any state but CLOSE: the kernel kept that change from its hook.
        story::end(story, story.state, true, sock);
        filter::disown(sk);
        return 0;
    }
    let Some(tuple) = sock.tuple() else {
        emit::unreadable();
        return 0;
    };
    if !sock.sk.fin_received() && filter::wants(&tuple) && filter::owned(sk) {
        let old = sock.sk.state().unwrap_or(0);
        emit::acted(
            What {
                kind: kind::DESTROY,
                old,
                new: 0,
            },
            sk,
            &tuple,
            Who::Current,
        );
    }
    filter::disown(sk);
    0
}
