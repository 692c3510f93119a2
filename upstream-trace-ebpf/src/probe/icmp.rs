//! `tcp_v4_err` and `tcp_v6_err`: an ICMP error about a TCP packet that this node sent.
//!
//! proto: `int tcp_v4_err(struct sk_buff *skb, u32 info)` and
//! `int tcp_v6_err(struct sk_buff *skb, struct inet6_skb_parm *opt, u8 type, u8 code, int offset, __be32 info)`;
//! 5.10 to 7.2 alike. By fentry, else by kprobe. Only of errors that end a connect; larger packets and redirects
//! are no errors. Without either the socket's own report has to do (`error.rs`), which says the same since 5.18.

use core::ptr;

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use upstream_trace_common::event::kind;

use crate::{
    emit::{self, What},
    filter,
    kernel::{
        mem::{Copied, Direct, Memory, Struct},
        skb::{self, IcmpError},
        sock::Tuple,
    },
};

#[fentry(function = "tcp_v4_err")]
pub fn tcp_v4_err_fentry(ctx: FEntryContext) -> u32 {
    if let Some(packet) = Struct::<Direct>::new(ctx.arg(0)) {
        v4(packet);
    }
    0
}

#[kprobe(function = "tcp_v4_err")]
pub fn tcp_v4_err_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(packet) = ctx.arg(0).and_then(Struct::<Copied>::new) {
        v4(packet);
    }
    0
}

#[fentry(function = "tcp_v6_err")]
pub fn tcp_v6_err_fentry(ctx: FEntryContext) -> u32 {
    if let Some(packet) = Struct::<Direct>::new(ctx.arg(0)) {
        v6(packet, ctx.arg(4));
    }
    0
}

#[kprobe(function = "tcp_v6_err")]
pub fn tcp_v6_err_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(packet), Some(distance)) = (ctx.arg(0).and_then(Struct::<Copied>::new), ctx.arg(4))
    {
        v6(packet, distance);
    }
    0
}

#[inline(always)]
fn v4<M: Memory>(packet: Struct<M>) {
    if let Some(error) = skb::icmp(packet)
        // `ICMP_DEST_UNREACH` but for `ICMP_FRAG_NEEDED`, `ICMP_TIME_EXCEEDED`, `ICMP_PARAMETERPROB`.
        && matches!(error, [3, 0..=3 | 5..] | [11 | 12, _])
        && let Some(tuple) = skb::quoted_v4(packet)
    {
        told(packet, &tuple, error);
    }
}

#[inline(always)]
fn v6<M: Memory>(packet: Struct<M>, distance: u32) {
    if let Some(error) = skb::icmp(packet)
        // `ICMPV6_DEST_UNREACH`, `ICMPV6_TIME_EXCEED`, `ICMPV6_PARAMPROB`.
        && matches!(error, [1 | 3 | 4, _])
        && let Some(tuple) = skb::quoted_v6(packet, distance as usize)
    {
        told(packet, &tuple, error);
    }
}

/// Notes the ICMP error that answered the packet with these ends.
#[inline(always)]
pub(super) fn told<M: Memory>(packet: Struct<M>, tuple: &Tuple, [of, code]: IcmpError) {
    if !filter::wants(tuple) {
        return;
    }
    let what = What {
        kind: kind::SYN_ICMP,
        old: of,
        new: code,
    };
    let [first, second] = skb::source(packet).unwrap_or_default();
    emit::note(what, ptr::null(), tuple, [first, second, 0, 0, 0]);
}
