//! Resets of connections that were not asked for.
//!
//! Where a port or an address is translated on the way (NAT), one end of a connection may be asked for and the other not, and only the
//! latter tells who sent the reset. In the ring they would be every reset of the node, so they are kept here for a moment, each in
//! place of an older one. They are evidence and no events: none is counted, and one that is put out is not lost.
//! Must not know: hooks.

use upstream_trace_common::{
    event::{Full, KeptReset, Stats, present},
    setting::RESET_PLACES,
};

use crate::{
    emit::{self, What, Who},
    kernel::{
        mem::Memory,
        sock::{TcpSock, Tuple},
        task,
    },
    maps,
};

/// One that a socket sends.
#[inline(always)]
pub fn by_socket<M: Memory>(what: What, sock: TcpSock<M>, tuple: &Tuple, who: Who) {
    keep(tuple, |full| {
        emit::fill(&mut full.base, what, sock.sk.address(), tuple);
        who.put(&mut full.actor);
        sock.queues(&mut full.stats);
    });
}

/// One that answers a packet with these numbers, for which there is no socket.
#[inline(always)]
pub fn without_socket(what: What, sk: *const u8, tuple: &Tuple, [seq, ack]: [u32; 2]) {
    keep(tuple, |full| {
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

#[inline(always)]
fn keep(tuple: &Tuple, fill: impl FnOnce(&mut Full)) {
    let place = u32::from(tuple.local_port ^ tuple.remote_port) & (RESET_PLACES - 1);
    let Some(kept) = maps::RESETS.get_ptr_mut(place) else {
        return;
    };
    // SAFETY: an element of the map is always there, and is plain integers, for which any bytes are valid. Two may write it at once: then
    // its sum shows that it is neither's.
    let kept: &mut KeptReset = unsafe { &mut *kept };
    fill(&mut kept.full);
    kept.seal();
}
