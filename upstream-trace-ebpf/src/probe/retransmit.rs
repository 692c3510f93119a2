//! `tcp_retransmit_skb` of a SYN: how often a connect was tried in vain.
//!
//! proto: `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)` since 4.15, up to 6.15;
//! `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err)` since 6.16.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What},
    filter,
    kernel::{
        mem::{Direct, Struct},
        sock::{TcpSock, state},
    },
    maps::set,
    story,
};

/// Whether nothing was sent, because what was sent before still waits in a queue of this host, for the next host's
/// hardware address for one (`EBUSY`, `__tcp_retransmit_skb`).
#[inline(always)]
fn is_queued(error: i32) -> bool {
    const EBUSY: i32 = 16;
    error == -EBUSY
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let Some(sk) = Struct::<Direct>::new(ctx.arg(0)) else {
        return 0;
    };
    if sk.state() != Some(state::SYN_SENT)
        || set::RETRANSMIT_HAS_ERROR() != 0 && is_queued(ctx.arg(2))
    {
        return 0;
    }
    let what = What {
        kind: kind::SYN_RETRANSMIT,
        old: state::SYN_SENT,
        new: state::SYN_SENT,
    };
    let mut place = story::of(sk.address());
    if let Some(place) = &mut place
        && story::step(&mut place.story, what, sk)
    {
        return 0;
    }
    let Some(sock) = TcpSock::direct(sk) else {
        return 0;
    };
    if let Some(place) = place {
        story::tell(place, sock);
    }
    let Some(tuple) = sock.tuple() else {
        emit::unreadable();
        return 0;
    };
    if filter::wants(&tuple) && filter::owned(sk.address()) {
        emit::base(what, sk.address(), &tuple);
    }
    0
}
