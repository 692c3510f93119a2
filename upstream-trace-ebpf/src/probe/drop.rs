//! `kfree_skb`: a SYN, or the answer to one, that a filter of this node dropped; a reset that ended no connection.
//!
//! proto: `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason)` since 5.17, with
//! `struct sock *rx_sk` behind it since 6.11; without a reason before, and then not used. Called for each packet
//! that is dropped, never for one that is taken: all but a few reasons leave at once. A reset that ends a connection
//! is freed without it (`tcp_validate_incoming`).

use core::ptr;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What},
    filter,
    kernel::{
        mem::{self, Copied, Struct},
        skb,
        sock::{Tuple, state},
    },
    maps::set,
};

#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    let is_one_of = |low: u64, high: u64| {
        let reasons = match reason {
            0..64 => low,
            64..128 => high,
            _ => 0,
        };
        reasons >> (reason & 63) & 1 != 0
    };
    let by_filter = is_one_of(set::DROPS_LOW(), set::DROPS_HIGH());
    if !by_filter && !is_one_of(set::RESET_DROPS_LOW(), set::RESET_DROPS_HIGH()) {
        return 0;
    }
    // Copied, because the verifier takes milliseconds over a pointer that it trusts.
    let packet = Struct::<Copied>::new(ctx.arg(0));
    let Some((flags, tuple)) = packet.and_then(skb::tcp_packet) else {
        return 0;
    };
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    let reason = reason as u8;
    let sk = if set::DROP_HAS_SOCKET() == 0 {
        None
    } else {
        Struct::doubtful(ctx.arg(3))
    };
    if by_filter {
        // A copy has none (`__skb_clone`), nor a packet that came from elsewhere (`ip_rcv_core`).
        let connects = packet.is_some_and(|packet| packet.follow(&mem::SKB_SK).is_some());
        handshake(sk, flags, &tuple, reason, connects);
    } else if flags & skb::RST != 0 {
        reset(sk, tuple.reversed(), reason);
    }
    0
}

/// `sk`: as of [`reset`]; `connects`: it is the packet of the socket that sent it, not a copy that went another way.
#[inline(always)]
fn handshake(sk: Option<Struct<Copied>>, flags: u8, tuple: &Tuple, reason: u8, connects: bool) {
    if flags & skb::SYN == 0 || !filter::wants(tuple) {
        return;
    }
    // A raw socket, connected or not, which has a copy of each packet: what its filter drops arrived all the same.
    if let Some(state::CLOSE | state::ESTABLISHED) = sk.and_then(Struct::state) {
        return;
    }
    let what = What {
        kind: kind::SYN_DROPPED,
        old: 0,
        new: reason,
    };
    let connecting = if flags & skb::ACK == 0 {
        *tuple
    } else {
        tuple.reversed()
    };
    emit::note(
        what,
        ptr::null(),
        &connecting,
        [u64::from(connects), 0, 0, 0, 0],
    );
}

/// `sk`: the socket that it came for, where that is told.
#[inline(always)]
fn reset(sk: Option<Struct<Copied>>, mut tuple: Tuple, reason: u8) {
    // The packet has no device any more once a socket was found for it.
    if let Some(sk) = sk {
        tuple.netns = sk.own_netns();
    }
    if !filter::wants(&tuple) {
        return;
    }
    let what = What {
        kind: kind::RESET_DROPPED,
        old: sk.and_then(Struct::state).unwrap_or(0),
        new: reason,
    };
    emit::base(what, ptr::null(), &tuple);
}
