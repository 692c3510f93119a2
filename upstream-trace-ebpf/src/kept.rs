//! Resets of connections that were not asked for.
//!
//! Where a port or an address is translated on the way (NAT), one end of a connection may be asked for and the other not, and only the
//! latter tells who sent the reset. In the ring they would be every reset of the node, so they are kept here for a moment, each in
//! place of an older one. They are evidence and no events, and not counted: the agent judges by those that are there whether there were so
//! many that the one it looks for may have been put out.
//! Must not know: hooks.

use upstream_trace_common::{
    event::{Full, Stats, present},
    kept::KeptReset,
    setting::RESET_PLACES,
};

use crate::{
    atomic,
    emit::{self, What, Who},
    kernel::{
        mem::Memory,
        sock::{TcpSock, Tuple},
        task,
    },
    maps,
};

/// Those that sockets send have one half, the others the other one.
const PLACES: u32 = RESET_PLACES / 2;
/// 2^32 by the golden ratio, which spreads neighbours.
const GOLDEN: u32 = 0x9e37_79b1;

/// One that a socket sends.
#[inline(always)]
pub fn by_socket<M: Memory>(what: What, sock: TcpSock<M>, tuple: &Tuple, who: Who) {
    keep(0, tuple, |full| {
        emit::fill(&mut full.base, what, sock.sk.address(), tuple);
        who.put(&mut full.actor);
        sock.queues(&mut full.stats);
    });
}

/// One that answers a packet with these numbers, for which there is no socket.
#[inline(always)]
pub fn without_socket(what: What, sk: *const u8, tuple: &Tuple, [seq, ack]: [u32; 2]) {
    keep(1, tuple, |full| {
        emit::fill(&mut full.base, what, sk, tuple);
        task::nobody(&mut full.actor);
        let Stats {
            present,
            snd_una,
            unacked,
            rcv_nxt,
            ..
        } = &mut full.stats;
        *present = present::SEND_QUEUE | present::RECEIVE_QUEUE;
        *snd_una = ack;
        *unacked = 0;
        *rcv_nxt = seq;
    });
}

/// `half` 0 or 1: what answers the packets that are still on their way must not put out the reset that the socket itself sent.
#[inline(always)]
fn keep(half: u32, tuple: &Tuple, fill: impl FnOnce(&mut Full)) {
    let ports = u32::from(tuple.local_port) << 16 | u32::from(tuple.remote_port);
    let place = ports.wrapping_mul(GOLDEN) >> (u32::BITS - PLACES.trailing_zeros());
    let Some(kept) = maps::RESETS.get_ptr_mut(half * PLACES + place) else {
        return;
    };
    // SAFETY: an element of the map is always there, and is plain integers, for which any bytes are valid. The reference is not the
    // only one: other CPUs, and programs that interrupt this one, have theirs, and the agent reads. Before the claim only `claims` is
    // looked at, and only who has claimed it writes the rest; LLVM, to which a program is one function, moves none of that across the
    // assembly of `claim` and `release`. The agent takes only what agrees with its sum.
    let kept: &mut KeptReset = unsafe { &mut *kept };
    if !atomic::claim(&mut kept.claims) {
        return;
    }
    fill(&mut kept.full);
    kept.seal();
    atomic::release(&mut kept.claims);
}
