//! `tcp_receive_reset` and `tcp_send_reset`, and what the second leaves out on older kernels.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use upstream_trace_common::event::{IPV4, IPV6, NO_REASON, kind};

use crate::{
    emit::{self, What, Who},
    filter, kept,
    kernel::{
        mem::{self, Copied, Direct, Memory, Struct},
        skb,
        sock::{TcpSock, Tuple, state},
    },
    listener,
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
/// With the packet that provoked it: before the reset is sent, in any context. Since 6.10 also where there is no socket; each may be
/// NULL.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let (sk, packet): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    let reason = if set::SEND_RESET_HAS_REASON() == 0 {
        NO_REASON
    } else {
        u8::try_from(ctx.arg::<u32>(2)).unwrap_or(NO_REASON)
    };
    sent(Struct::doubtful(sk), packet, reason);
    0
}

/// proto: `tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb)` up to 6.9; not used since.
///
/// Called for each segment that is to be answered with a reset, from a closed port and from `TIME_WAIT`
/// too, of which `tcp_send_reset` says nothing there.
#[fentry(function = "tcp_v4_send_reset")]
pub fn tcp_v4_send_reset_fentry(ctx: FEntryContext) -> u32 {
    untraced(ctx.arg(0), ctx.arg(1), Struct::<Direct>::tuple);
    0
}

#[kprobe(function = "tcp_v4_send_reset")]
pub fn tcp_v4_send_reset_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(packet)) = (ctx.arg(0), ctx.arg(1)) {
        untraced(sk, packet, Struct::<Copied>::tuple);
    }
    0
}

/// proto: `tcp_v6_send_reset(const struct sock *sk, struct sk_buff *skb)` up to 6.9; not used since.
#[fentry(function = "tcp_v6_send_reset")]
pub fn tcp_v6_send_reset_fentry(ctx: FEntryContext) -> u32 {
    untraced(ctx.arg(0), ctx.arg(1), Struct::<Direct>::tuple);
    0
}

#[kprobe(function = "tcp_v6_send_reset")]
pub fn tcp_v6_send_reset_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(packet)) = (ctx.arg(0), ctx.arg(1)) {
        untraced(sk, packet, Struct::<Copied>::tuple);
    }
    0
}

/// proto: `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason)` since 5.17; used up to 6.9, where
/// no function can be hooked.
///
/// Called with `NO_SOCKET` for each packet that no socket waited for, after the reset that answered it.
#[btf_tracepoint(function = "kfree_skb")]
pub fn tcp_v4_send_reset_drop(ctx: BtfTracePointContext) -> i32 {
    answered(ctx.arg(0), ctx.arg(2), IPV4);
    0
}

/// The same over IPv6.
#[btf_tracepoint(function = "kfree_skb")]
pub fn tcp_v6_send_reset_drop(ctx: BtfTracePointContext) -> i32 {
    answered(ctx.arg(0), ctx.arg(2), IPV6);
    0
}

#[inline(always)]
fn answered(packet: *const u8, reason: u32, family: u8) {
    if reason != set::NO_SOCKET_DROP() {
        return;
    }
    let packet = Struct::<Copied>::new(packet);
    // No stack answers a reset with a reset.
    if let Some((flags, tuple)) = packet.and_then(skb::tcp_packet)
        && tuple.family == family
        && flags & skb::RST == 0
    {
        let what = What {
            kind: kind::RESET_SENT_NO_SOCKET,
            old: flags,
            new: NO_REASON,
        };
        tell(Stray {
            what,
            sk: core::ptr::null(),
            tuple: Some(tuple.reversed()),
            packet,
        });
    }
}

/// A reset that the tracepoint reports only where a full socket sends it.
#[inline(always)]
fn untraced<M: Memory>(
    sk: *const u8,
    packet: *const u8,
    ends: impl FnOnce(Struct<M>, u16) -> Option<Tuple>,
) {
    let Some(sk) = Struct::<M>::new(sk) else {
        // No stack answers a reset with a reset: the function leaves at once.
        if let Some(packet) = Struct::new(packet)
            && skb::tcp_flags(packet) & skb::RST == 0
        {
            tell(no_socket(packet, NO_REASON));
        }
        return;
    };
    let old = sk.state().unwrap_or(0);
    if matches!(old, state::TIME_WAIT | state::NEW_SYN_RECV) {
        tell(small(sk, old, NO_REASON, Struct::new(packet), ends));
    }
}

/// A reset that no connection's socket sends, and the packet that it answers.
struct Stray {
    what: What,
    sk: *const u8,
    tuple: Option<Tuple>,
    packet: Option<Struct<Copied>>,
}

/// Where no socket has the port that a packet came for. The packet is copied, as its headers have to be: the verifier
/// takes milliseconds over each load of a pointer of its (see `TcpSock`).
#[inline(always)]
fn no_socket(packet: Struct<Copied>, reason: u8) -> Stray {
    let what = What {
        kind: kind::RESET_SENT_NO_SOCKET,
        old: skb::tcp_flags(packet),
        new: reason,
    };
    Stray {
        what,
        sk: core::ptr::null(),
        tuple: skb::reply_tuple(packet, skb::netns(packet)),
        packet: Some(packet),
    }
}

/// From `TIME_WAIT`: only `struct sock_common` is behind such a pointer, neither protocol nor `inet_sport`.
#[inline(always)]
fn small<M: Memory>(
    sk: Struct<M>,
    old: u8,
    reason: u8,
    packet: Option<Struct<Copied>>,
    ends: impl FnOnce(Struct<M>, u16) -> Option<Tuple>,
) -> Stray {
    let what = What {
        kind: kind::RESET_SENT_TIME_WAIT,
        old,
        new: reason,
    };
    Stray {
        what,
        sk: sk.address(),
        tuple: sk.get(&mem::SK_NUM).and_then(|port| ends(sk, port)),
        packet,
    }
}

#[inline(always)]
fn sent(sk: Option<Struct<Direct>>, packet: *const u8, reason: u8) {
    let answers = mem::is_address(packet);
    let packet = Struct::doubtful(packet);
    let old = sk.and_then(Struct::state).unwrap_or(0);
    // In one place: what is there twice takes the verifier twice as long.
    tell(match (sk, old) {
        (None, _) => {
            let Some(packet) = packet else {
                return;
            };
            no_socket(packet, reason)
        }
        (Some(sk), state::TIME_WAIT | state::NEW_SYN_RECV) => {
            small(sk, old, reason, packet, Struct::<Direct>::tuple)
        }
        // The listener's own addresses are not the connection's; its namespace is.
        (Some(sk), state::LISTEN) if answers => {
            let Some(packet) = packet else {
                return;
            };
            let tuple = skb::reply_tuple(packet, sk.netns());
            if let Some(tuple) = tuple {
                listener::refused(sk, &tuple.reversed());
            }
            let what = What {
                kind: kind::RESET_SENT_LISTEN,
                old,
                new: reason,
            };
            Stray {
                what,
                sk: sk.address(),
                tuple,
                packet: Some(packet),
            }
        }
        (Some(sk), _) => return by_socket(sk, old, reason, answers),
    });
}

/// By a connection's socket.
#[inline(always)]
fn by_socket(sk: Struct<Direct>, old: u8, reason: u8, answers: bool) {
    let Some(sock) = TcpSock::direct(sk) else {
        return;
    };
    story::tell_if_any(sock);
    let Some(tuple) = sock.tuple() else {
        return emit::unreadable();
    };
    let (kind, who) = if answers {
        (kind::RESET_SENT_REPLY, Who::Nobody)
    } else {
        (kind::RESET_SENT_ACTIVE, Who::Current)
    };
    let what = What {
        kind,
        old,
        new: reason,
    };
    // Not only of wanted owners: it is the evidence for who sent what they received.
    let wanted = filter::wants(&tuple);
    if wanted {
        emit::full(what, sock, &tuple, who);
    }
    if !wanted || !filter::owned(sk.address()) {
        kept::by_socket(what, sock, &tuple, who);
    }
}

/// Tells of it, or keeps it.
#[inline(always)]
fn tell(stray: Stray) {
    let Stray {
        what,
        sk,
        tuple,
        packet,
    } = stray;
    let Some(tuple) = tuple else {
        return emit::unreadable();
    };
    // Read in each branch: across the decision LLVM would load from the stack also what was not read, and 5.10 refuses that.
    let numbers = || packet.and_then(skb::numbers);
    if filter::wants(&tuple) {
        match numbers() {
            Some(numbers) => emit::answer(what, sk, &tuple, numbers),
            None => emit::base(what, sk, &tuple),
        }
    } else if let Some(numbers) = numbers() {
        kept::without_socket(what, sk, &tuple, numbers);
    }
}
