//! Which socket listens where, so that a connection that fails for want of room can be told how full the
//! accept queue was.
//!
//! Nothing is done for a connection that succeeds. Must not know: hooks.

use upstream_trace_common::{
    event::{self, kind},
    route,
};

use crate::{
    emit::{self, What},
    kernel::{
        mem::{Direct, Number, Struct},
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
        Some(other) if other != sk as u64 && still_listens(other, tuple) => (2 * ONE) | SEVERAL,
        _ => sk as u64,
    };
    know(tuple, value);
}

/// A socket is found listening: one that is known by now, or that began before the hooks.
#[inline(always)]
pub fn found(sk: *const u8, tuple: &Tuple) {
    let value = match known(tuple) {
        Some(several) if several & SEVERAL != 0 => return,
        Some(other) if other != sk as u64 && still_listens(other, tuple) => UNCOUNTED,
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
    // A bit for each state: one test spares the verifier several ways through what follows.
    const CHILD: u32 = 1 << state::SYN_RECV | 1 << state::ESTABLISHED | 1 << state::CLOSE_WAIT;
    let (netns, port) = if old == state::SYN_SENT {
        let Some(netns) = leads_to(tuple) else {
            return;
        };
        (netns, tuple.remote_port)
    } else if !is_open && 1 << (old & 31) & CHILD != 0 {
        (tuple.netns, tuple.local_port)
    } else {
        return;
    };
    let there = Tuple {
        netns,
        local_port: port,
        ..*tuple
    };
    let Some(sk) = at(&there) else {
        return;
    };
    let queue @ [length, _] = sk.accept_queue();
    if length > 0 && sk.listens(port) {
        // A child arrived, whatever its listener is bound to.
        let bound_to = if old == state::SYN_SENT {
            sk.bound_to()
        } else {
            ANY
        };
        note(old, sk.0, queue, (netns, bound_to), tuple);
    }
}

/// The listener itself refused a connection, which its packet's sender sees with these ends.
#[inline(always)]
pub fn refused(sk: Struct<Direct>, tuple: &Tuple) {
    if let Some(queue @ [length, limit]) = sk.accept_queue()
        && length > limit
    {
        let sk = sk.address() as u64;
        note(state::LISTEN, sk, queue, (tuple.netns, ANY), tuple);
    }
}

/// No address in particular.
const ANY: [u64; 3] = [0; 3];

#[inline(always)]
fn note(
    old: u8,
    sk: u64,
    [length, limit]: [u32; 2],
    (netns, [v4, first, second]): (u32, [u64; 3]),
    tuple: &Tuple,
) {
    let what = What {
        kind: kind::ACCEPT_QUEUE,
        old,
        new: 0,
    };
    let queue = u64::from(limit) << 32 | u64::from(length);
    emit::note(
        what,
        sk as *const u8,
        tuple,
        [queue, netns.into(), v4, first, second],
    );
}

/// The network namespace of the remote end: this one where that is a loopback address or the local end's own, else where connections to
/// there have led before.
#[inline(always)]
fn leads_to(tuple: &Tuple) -> Option<u32> {
    let ([a, b], [c, d]) = (tuple.local, tuple.remote);
    let [first, ..] = event::bytes(tuple.remote);
    if a == c && b == d || tuple.family == event::IPV4 && first == 127 {
        return Some(tuple.netns);
    }
    let (netns, port) = (tuple.netns, tuple.remote_port);
    let destination = route::destination(netns, tuple.family, tuple.remote, port);
    let netns = maps::ROUTES.get_ptr(destination)?;
    // SAFETY: the pointer is to a value of the map, which stays readable. The agent may just have put another destination's there, and holds
    // what comes of it against its own.
    Some(unsafe { *netns })
}

/// The one socket that is known to listen on a port. IPv6's wildcard takes IPv4's connections as well.
#[inline(always)]
fn at(tuple: &Tuple) -> Option<Number> {
    let of_v6 = Tuple {
        family: event::IPV6,
        ..*tuple
    };
    let sk = known(tuple).or_else(|| known(&of_v6))?;
    if sk & SEVERAL == 0 {
        Number::new(sk)
    } else {
        None
    }
}

/// Whether a socket that is known still listens on that port, be it at another local address.
#[inline(always)]
fn still_listens(sk: u64, tuple: &Tuple) -> bool {
    Number::new(sk).is_some_and(|sk| sk.listens(tuple.local_port))
}

#[inline(always)]
fn key_of(tuple: &Tuple) -> u64 {
    let (family, port) = (u64::from(tuple.family), u64::from(tuple.local_port));
    u64::from(tuple.netns) << 32 | family << 16 | port
}
