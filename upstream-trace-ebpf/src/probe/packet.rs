//! `tcp_init_transfer` and `tcp_reset`: how the packets of handshakes and resets came, of which the
//! tracepoints see nothing.
//!
//! By fentry, else by kprobe; without either nothing is known of a packet. What came by loopback is of no
//! interest: both ends are here.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use upstream_trace_common::event::{Way, kind};
use zerocopy::transmute;

use crate::{
    emit::{self, What},
    filter,
    kernel::{
        mem::{self, Copied, Direct, Memory, Struct, put_words},
        skb,
        sock::TcpSock,
    },
    maps, story,
};

/// proto: `tcp_init_transfer(struct sock *sk, int bpf_op, struct sk_buff *skb)` since 5.10.
///
/// Once for each end of a connection: with the SYN-ACK where it connected, with what answered the SYN-ACK
/// where it accepts, there before the change to `ESTABLISHED`. Without a packet after `TCP_REPAIR`.
#[fentry(function = "tcp_init_transfer")]
pub fn tcp_init_transfer_fentry(ctx: FEntryContext) -> u32 {
    let (sk, packet) = (ctx.arg(0), ctx.arg(2));
    if let (Some(sk), Some(packet)) = (Struct::<Direct>::new(sk), Struct::new(packet)) {
        established(sk, packet);
    }
    0
}

#[kprobe(function = "tcp_init_transfer")]
pub fn tcp_init_transfer_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(packet)) = (ctx.arg(0), ctx.arg(2))
        && let (Some(sk), Some(packet)) = (Struct::<Copied>::new(sk), Struct::new(packet))
    {
        established(sk, packet);
    }
    0
}

/// proto: `tcp_reset(struct sock *sk, struct sk_buff *skb)` since 5.11; not used before, where it has no
/// packet.
///
/// `tcp_receive_reset` is at the top of it, so `RESET_PACKET` precedes `RESET_RECEIVED`.
#[fentry(function = "tcp_reset")]
pub fn tcp_reset_fentry(ctx: FEntryContext) -> u32 {
    let (sk, packet) = (ctx.arg(0), ctx.arg(1));
    if let (Some(sk), Some(packet)) = (Struct::<Direct>::new(sk), Struct::new(packet)) {
        reset(sk, packet, TcpSock::direct);
    }
    0
}

#[kprobe(function = "tcp_reset")]
pub fn tcp_reset_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(packet)) = (ctx.arg(0), ctx.arg(1))
        && let (Some(sk), Some(packet)) = (Struct::<Copied>::new(sk), Struct::new(packet))
    {
        reset(sk, packet, TcpSock::copied);
    }
    0
}

/// The place of the socket at this address: always the same, perhaps taken by another socket.
#[inline(always)]
fn place(sk: *const u8) -> Option<&'static mut [u64; 2]> {
    let index = mem::place(sk, maps::HANDSHAKES_MAX);
    let place = maps::HANDSHAKES.get_ptr_mut(index)?;
    // SAFETY: an element of the map is always there, and is plain integers, for which any bytes are valid. The reference is not the
    // only one: other CPUs, and programs that interrupt this one, read and write the place as well, without a claim. LLVM, to
    // which a program is one function, knows of none, and could at most read a word again. Two that write at once may leave a word
    // each: then the place is neither's, unless both sockets have the same pair of ports, where one gets the other's `Way`.
    Some(unsafe { &mut *place })
}

#[inline(always)]
fn established<M: Memory>(sk: Struct<M>, packet: Struct<M>) {
    if skb::is_loopback(packet) {
        return;
    }
    if let (Some(way), Some(ports)) = (skb::way(packet), sk.ports())
        && let Some(place) = place(sk.address())
    {
        let way: u32 = transmute!(way);
        let words = [sk.address() as u64, u64::from(ports) << 32 | u64::from(way)];
        put_words(place, words);
    }
}

/// How the packet came that completed this socket's handshake.
#[inline(always)]
fn handshake<M: Memory>(sk: Struct<M>) -> Option<Way> {
    let [whose, word] = *place(sk.address())?;
    #[expect(clippy::cast_possible_truncation, reason = "it has two halves")]
    let (ports, way) = ((word >> 32) as u32, word as u32);
    let is_its_own = whose == sk.address() as u64 && sk.ports() == Some(ports);
    is_its_own.then(|| transmute!(way))
}

#[inline(always)]
fn reset<M: Memory>(
    sk: Struct<M>,
    packet: Struct<M>,
    socket: impl FnOnce(Struct<M>) -> Option<TcpSock<M>>,
) {
    // Called as well for data that comes after a shutdown.
    if skb::is_loopback(packet) || skb::tcp_flags(packet) & skb::RST == 0 {
        return;
    }
    let (Some(sock), Some(way)) = (socket(sk), skb::way(packet)) else {
        return;
    };
    story::tell_if_any(sock);
    let Some(tuple) = sock.tuple() else {
        return emit::unreadable();
    };
    if filter::wants(&tuple) && filter::owned(sk.address()) {
        let what = What {
            kind: kind::RESET_PACKET,
            old: sk.state().unwrap_or(0),
            new: 0,
        };
        let ways = [way, handshake(sk).unwrap_or_default()];
        let ahead = match (skb::numbers(packet), sock.expected()) {
            (Some([sequence, _]), Some(expected)) => Some(sequence.wrapping_sub(expected)),
            _ => None,
        };
        emit::packet(what, sk.address(), &tuple, ways, ahead);
    }
}
