//! `kfree_skb`: a SYN, or the answer to one, that a filter of this node dropped.
//!
//! proto: `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason)` since 5.17, with
//! `struct sock *rx_sk` behind it since 6.11; without a reason before, and then not used. Called for each packet
//! that is dropped, never for one that arrives: all but a filter's reasons leave at once.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What},
    filter,
    kernel::{
        mem::{Copied, Struct},
        skb,
    },
    maps::set,
};

#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    let reasons = match reason {
        0..64 => set::DROPS_LOW(),
        64..128 => set::DROPS_HIGH(),
        _ => 0,
    };
    // Copied, because the verifier takes milliseconds over a pointer that it trusts.
    if reasons >> (reason & 63) & 1 != 0
        && let Some(packet) = Struct::<Copied>::new(ctx.arg(0))
    {
        #[expect(clippy::cast_possible_truncation, reason = "below 128")]
        dropped(packet, reason as u8);
    }
    0
}

#[inline(always)]
fn dropped(packet: Struct<Copied>, reason: u8) {
    let Some((flags, tuple)) = skb::tcp_packet(packet) else {
        return;
    };
    if flags & skb::SYN == 0 || !filter::wants(&tuple) {
        return;
    }
    let what = What {
        kind: kind::SYN_DROPPED,
        old: 0,
        new: reason,
    };
    let connecting = if flags & skb::ACK == 0 {
        tuple
    } else {
        tuple.reversed()
    };
    emit::note(what, &connecting, [0; 3]);
}
