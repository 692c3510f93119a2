//! `tcp_receive_reset` and `tcp_send_reset`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use upstream_trace_common::event::{NO_REASON, kind};

use crate::{
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{self, Direct, Struct},
        skb,
        sock::{TcpSock, Tuple, state},
    },
    maps::set,
    story,
};

/// proto: `tcp_receive_reset(struct sock *sk)` since 4.15; 5.10 to 7.2 alike.
///
/// At the top of `tcp_reset()`, before anything changes. The current task means nothing: it is
/// whoever the packet interrupted, on loopback the sender. Fires as well where no reset arrived but
/// data after a shutdown; then `tcp_send_reset` follows for the same socket.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let Some(sock) = Struct::<Direct>::new(sk).and_then(TcpSock::direct) else {
        return 0;
    };
    story::tell_if_any(sock);
    let Some(tuple) = sock.tuple() else {
        emit::unreadable();
        return 0;
    };
    if filter::wants(&tuple) && filter::owned(sk) {
        let old = sock.sk.state().unwrap_or(0);
        let what = What {
            kind: kind::RESET_RECEIVED,
            old,
            new: NO_REASON,
        };
        emit::full(what, sock, &tuple, Who::Nobody);
    }
    0
}

/// proto: `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb)` since 4.15, up to 6.9;
/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb__nullable, const enum sk_rst_reason reason)`
/// since 6.10. Before that it fires only for a full socket.
///
/// Without a packet: after the reset was sent, in the context of whoever aborted (or of a timer).
/// With the packet that provoked it: before the reset is sent, in any context.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let (sk, packet): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    let reason = if set::SEND_RESET_HAS_REASON() == 0 {
        NO_REASON
    } else {
        u8::try_from(ctx.arg::<u32>(2)).unwrap_or(NO_REASON)
    };
    // The verifier allows nothing but a comparison before these two are known not to be NULL.
    sent(Struct::new(sk), Struct::new(packet), reason);
    0
}

#[inline(always)]
fn sent(sk: Option<Struct<Direct>>, packet: Option<Struct<Direct>>, reason: u8) {
    let Some(sk) = sk else {
        if let Some(packet) = packet {
            let flags = skb::tcp_flags(packet);
            stray(
                kind::RESET_SENT_NO_SOCKET,
                flags,
                reason,
                core::ptr::null(),
                skb::reply_tuple(packet),
            );
        }
        return;
    };
    let old = sk.state().unwrap_or(0);
    match (old, packet) {
        (state::TIME_WAIT | state::NEW_SYN_RECV, _) => {
            // Only `struct sock_common` is behind such a pointer: neither protocol nor inet_sport.
            let tuple = sk.get(&mem::SK_NUM).and_then(|port| sk.tuple(port));
            stray(kind::RESET_SENT_TIME_WAIT, old, reason, sk.address(), tuple);
        }
        // The listener's own addresses are not the connection's; its namespace is, and the packet has
        // lost its device by now (tcp_v4_rcv clears skb->dev).
        (state::LISTEN, Some(packet)) => {
            let tuple = skb::reply_tuple(packet).map(|tuple| Tuple {
                netns: sk.netns(),
                ..tuple
            });
            stray(kind::RESET_SENT_LISTEN, old, reason, sk.address(), tuple);
        }
        _ => {
            let Some(sock) = TcpSock::direct(sk) else {
                return;
            };
            story::tell_if_any(sock);
            let Some(tuple) = sock.tuple() else {
                return emit::unreadable();
            };
            // Not only of wanted owners: it is the evidence for who sent what they received.
            if !filter::wants(&tuple) {
                return;
            }
            let (kind, who) = if packet.is_none() {
                (kind::RESET_SENT_ACTIVE, Who::Current)
            } else {
                (kind::RESET_SENT_REPLY, Who::Nobody)
            };
            let what = What {
                kind,
                old,
                new: reason,
            };
            emit::full(what, sock, &tuple, who);
        }
    }
}

/// A reset that no connection's socket sends.
#[inline(always)]
fn stray(kind: u8, old: u8, reason: u8, sk: *const u8, tuple: Option<Tuple>) {
    let Some(tuple) = tuple else {
        return emit::unreadable();
    };
    if filter::wants(&tuple) {
        let what = What {
            kind,
            old,
            new: reason,
        };
        emit::base(what, sk, &tuple);
    }
}
