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

/// Several sockets listen on the port, and which of them a connection was meant for is not known: an odd number, while
/// one socket is known by its address. The upper bits are how many there are, which `listen()` and `close()` tell.
const SEVERAL: u64 = 1;
/// The same where nobody knows how many: it stays so.
const UNCOUNTED: u64 = u64::MAX;
/// One of several.
const ONE: u64 = 2;

/// A socket begins to listen.
#[inline(always)]
pub fn opened(sk: *const u8, tuple: &Tuple) {
    let value = match known(tuple) {
        Some(UNCOUNTED) => return,
        Some(several) if several & SEVERAL != 0 => several.wrapping_add(ONE),
        Some(other) if other != sk as u64 && listens(other, tuple).is_some() => (2 * ONE) | SEVERAL,
        _ => sk as u64,
    };
    know(tuple, value);
}

/// A socket is found listening: one that is known by now, or that began before the hooks.
#[inline(always)]
pub fn found(sk: *const u8, tuple: &Tuple) {
    let value = match known(tuple) {
        Some(several) if several & SEVERAL != 0 => return,
        Some(other) if other != sk as u64 && listens(other, tuple).is_some() => UNCOUNTED,
        _ => sk as u64,
    };
    know(tuple, value);
}

/// It listens no more. Which of several are left is not known, until none is.
#[inline(always)]
pub fn closed(sk: *const u8, tuple: &Tuple) {
    const LAST: u64 = ONE | SEVERAL;
    match known(tuple) {
        Some(known) if known == sk as u64 || known == LAST => {
            // It was there a moment ago.
            let _ = maps::LISTENERS.remove(key_of(tuple));
        }
        Some(several) if several & SEVERAL != 0 && several != UNCOUNTED => {
            know(tuple, several.wrapping_sub(ONE));
        }
        _ => {}
    }
}

/// What is known of the port: the one socket that listens there, or that there are several.
#[inline(always)]
fn known(tuple: &Tuple) -> Option<u64> {
    let known = maps::LISTENERS.get_ptr(key_of(tuple))?;
    // SAFETY: the pointer is to a value of the map, which another CPU may replace but not free.
    Some(unsafe { *known })
}

#[inline(always)]
fn know(tuple: &Tuple, value: u64) {
    // Without room it is not looked up later, and the queue is not told.
    let _ = maps::LISTENERS.insert(key_of(tuple), value, 0);
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
    let of_v6 = Tuple {
        family: event::IPV6,
        ..*tuple
    };
    let sk = known(tuple).or_else(|| known(&of_v6))?;
    Some((sk, listens(sk, tuple)?))
}

/// The accept queue of the socket at this address, if it still listens on that port.
#[inline(always)]
fn listens(sk: u64, tuple: &Tuple) -> Option<[u32; 2]> {
    if sk & SEVERAL != 0 {
        return None;
    }
    let sk = Struct::<Copied>::new(sk as *const u8)?;
    let port = sk.get::<u16>(&mem::SK_NUM)?;
    (sk.state()? == state::LISTEN && port == tuple.local_port).then_some(())?;
    sk.accept_queue()
}

#[inline(always)]
fn key_of(tuple: &Tuple) -> u64 {
    let (family, port) = (u64::from(tuple.family), u64::from(tuple.local_port));
    u64::from(tuple.netns) << 32 | family << 16 | port
}
