//! Which socket listens where, so that a connection that fails for want of room can be told how full the
//! accept queue was.
//!
//! Nothing is done for a connection that succeeds. Must not know: hooks.

use upstream_trace_common::event::{self, kind};

use crate::{
    emit::{self, What},
    kernel::{
        mem::{self, Copied, Direct, Struct},
        sock::{Tuple, state},
    },
    maps,
};

/// Several sockets listen on the port: which of them a connection was meant for is not known.
const SEVERAL: u64 = 1;

/// A socket begins to listen, or is found listening.
#[inline(always)]
pub fn opened(sk: *const u8, tuple: &Tuple) {
    let key = key(tuple.netns, tuple.family, tuple.local_port);
    let sk = sk as u64;
    let before = maps::LISTENERS.get_ptr(key);
    // SAFETY: the pointer is to a value of the map, which another CPU may replace but not free.
    let other = before.map(|known| unsafe { *known });
    let value = match other {
        Some(other) if other != sk && (other == SEVERAL || listens(other, tuple).is_some()) => {
            SEVERAL
        }
        _ => sk,
    };
    // Without room it is not looked up later, and the queue is not told.
    let _ = maps::LISTENERS.insert(key, value, 0);
}

/// It listens no more. Of several the others stay, and which of them is left is not known.
#[inline(always)]
pub fn closed(sk: *const u8, tuple: &Tuple) {
    let key = key(tuple.netns, tuple.family, tuple.local_port);
    // SAFETY: as above.
    let known = maps::LISTENERS.get_ptr(key).map(|known| unsafe { *known });
    if known == Some(sk as u64) {
        // It was there a moment ago.
        let _ = maps::LISTENERS.remove(key);
    }
}

/// A connection ended without having got through: to somewhere on this machine, or as a child that no
/// process accepted. A queue that nobody waits in was not why.
#[inline(always)]
pub fn unreached(old: u8, is_open: bool, tuple: &Tuple) {
    let port = match old {
        state::SYN_SENT if is_here(tuple) => tuple.remote_port,
        state::SYN_RECV | state::ESTABLISHED | state::CLOSE_WAIT if !is_open => tuple.local_port,
        _ => return,
    };
    let there = Tuple {
        local_port: port,
        ..*tuple
    };
    if let Some((sk, queue @ [length, _])) = at(&there)
        && length > 0
    {
        note(sk, queue, tuple);
    }
}

/// The listener itself refused a connection, which its packet's sender sees with these ends.
#[inline(always)]
pub fn refused(sk: Struct<Direct>, tuple: &Tuple) {
    if let Some(queue @ [length, limit]) = sk.accept_queue()
        && length > limit
    {
        note(sk.address() as u64, queue, tuple);
    }
}

#[inline(always)]
fn note(sk: u64, [length, limit]: [u32; 2], tuple: &Tuple) {
    let what = What {
        kind: kind::ACCEPT_QUEUE,
        old: 0,
        new: 0,
    };
    emit::note(what, tuple, [length.into(), limit.into(), sk]);
}

/// Whether the remote end can only be in this network namespace: a loopback address, or the local end's own.
#[inline(always)]
fn is_here(tuple: &Tuple) -> bool {
    let ([a, b], [c, d]) = (tuple.local, tuple.remote);
    let [first, ..] = event::bytes(tuple.remote);
    a == c && b == d || tuple.family == event::IPV4 && first == 127
}

/// The one listener of a port, and its queue. IPv6's wildcard takes IPv4's connections as well.
#[inline(always)]
fn at(tuple: &Tuple) -> Option<(u64, [u32; 2])> {
    let of = |family| {
        let key = key(tuple.netns, family, tuple.local_port);
        // SAFETY: as above.
        maps::LISTENERS.get_ptr(key).map(|known| unsafe { *known })
    };
    let sk = of(tuple.family).or_else(|| of(event::IPV6))?;
    Some((sk, listens(sk, tuple)?))
}

/// The accept queue of the socket at this address, if it still listens on that port.
#[inline(always)]
fn listens(sk: u64, tuple: &Tuple) -> Option<[u32; 2]> {
    if sk == SEVERAL {
        return None;
    }
    let sk = Struct::<Copied>::new(sk as *const u8)?;
    let port = sk.get::<u16>(&mem::SK_NUM)?;
    (sk.state()? == state::LISTEN && port == tuple.local_port).then_some(())?;
    sk.accept_queue()
}

#[inline(always)]
fn key(netns: u32, family: u8, port: u16) -> u64 {
    u64::from(netns) << 32 | u64::from(family) << 16 | u64::from(port)
}
