//! What passes: ports, networks and owners, decided before anything is written.
//!
//! Each filter that is off is dead code to the verifier. Must not know: how a record looks.

use core::hint::cold_path;

use aya_ebpf::maps::lpm_trie::Key;
use upstream_trace_common::event::{self, Actor};
use zerocopy::transmute;

use crate::{
    emit,
    kernel::{
        mem::{Direct, Struct},
        sock::Tuple,
        task,
    },
    maps::{self, set},
};

/// Whether a filter by network or owner was asked for. Said to be seldom, so that the compiler puts what it takes out of
/// the way: dead code in few places is what the verifier is done with soonest.
#[inline(always)]
fn is_on(filter: u32) -> bool {
    if filter == 0 {
        return false;
    }
    cold_path();
    true
}

/// Whether either end is a wanted port in a wanted network.
#[inline(always)]
pub fn wants(tuple: &Tuple) -> bool {
    wants_ports(tuple.local_port, tuple.remote_port) && wants_networks(tuple)
}

/// The same of a listening socket: one for all addresses may take connections of a wanted network.
#[inline(always)]
pub fn wants_listener(tuple: &Tuple) -> bool {
    wants_ports(tuple.local_port, tuple.remote_port)
        && (tuple.local == [0; 2] || wants_networks(tuple))
}

/// Whether either port is a wanted one.
#[inline(always)]
pub fn wants_ports(local: u16, remote: u16) -> bool {
    set::FILTER_PORTS() == 0 || port(local) || port(remote)
}

/// Whether the local port of a connect is not chosen yet (0) and may turn out to be a wanted one: the agent decides.
#[inline(always)]
pub fn may_want_port(local: u16) -> bool {
    local == 0 && set::FILTER_PORTS_EPHEMERAL() != 0
}

/// Whether either end is in a wanted network.
#[inline(always)]
pub fn wants_networks(tuple: &Tuple) -> bool {
    !is_on(set::FILTER_NETS())
        || network(tuple.family, tuple.local)
        || network(tuple.family, tuple.remote)
}

#[inline(always)]
fn port(port: u16) -> bool {
    let word = maps::PORTS.get(u32::from(port) / 64).copied().unwrap_or(0);
    word >> (port % 64) & 1 != 0
}

#[inline(always)]
fn network(family: u8, address: [u64; 2]) -> bool {
    // Words, where the agent has bytes: put together byte by byte the keys were 7 % of all instructions.
    let words: [u32; 4] = transmute!(address);
    if family == event::IPV4 {
        maps::NETS_V4.get(Key::new(32, words[0])).is_some()
    } else {
        maps::NETS_V6.get(Key::new(128, words)).is_some()
    }
}

/// Whether it matters whose a socket is.
#[inline(always)]
fn by_owner() -> bool {
    is_on(set::FILTER_PIDS()) || is_on(set::FILTER_CGROUPS())
}

#[inline(always)]
fn pid(tgid: u32) -> bool {
    !is_on(set::FILTER_PIDS()) || maps::PIDS.get_ptr(tgid).is_some()
}

#[inline(always)]
fn cgroup(id: u64) -> bool {
    maps::CGROUPS.get_ptr(id).is_some()
}

/// Whether the process of the current task is wanted, or nobody asked.
#[inline(always)]
fn wants_current() -> bool {
    pid(task::current_tgid()) && (!is_on(set::FILTER_CGROUPS()) || task::current_is_under(cgroup))
}

/// Whether the process of a `task` that is not the current one is.
#[inline(always)]
fn wants_task(task: Struct<Direct>, tgid: u32) -> bool {
    pid(tgid) && (!is_on(set::FILTER_CGROUPS()) || task::task_is_under(task, cgroup))
}

/// The process that the current task belongs to, and whether it is wanted.
#[inline(always)]
pub fn current(actor: &mut Actor) {
    task::current(actor);
    actor.wanted = u32::from(wants_current());
}

/// The process of a `task` that is not the current one, and whether it is wanted.
#[inline(always)]
pub fn of_task(actor: &mut Actor, task: Struct<Direct>, tgid: u32) {
    task::of_task(actor, task, tgid);
    actor.wanted = u32::from(wants_task(task, tgid));
}

/// Whether this socket belongs to a wanted process, or nobody asked.
#[inline(always)]
pub fn owned(sk: *const u8) -> bool {
    !by_owner() || maps::OWNED.get_ptr(sk as u64).is_some()
}

/// As [`owned`] in the owner's own context (connect, accept, listen): marks the socket for the events
/// to come.
#[inline(always)]
pub fn own_as_current(sk: *const u8) -> bool {
    own(sk, wants_current)
}

/// As [`own_as_current`] for a process found otherwise.
#[inline(always)]
pub fn own_as(sk: *const u8, task: Struct<Direct>, tgid: u32) -> bool {
    own(sk, || wants_task(task, tgid))
}

#[inline(always)]
fn own(sk: *const u8, is_wanted: impl FnOnce() -> bool) -> bool {
    if !by_owner() {
        return true;
    }
    if is_wanted() {
        mark(sk);
        return true;
    }
    owned(sk)
}

/// A socket just born by a handshake: it belongs to whoever listens on its port, or to whoever connected it to itself.
#[inline(always)]
pub fn own_as_child(sk: *const u8, tuple: &Tuple) -> bool {
    if !by_owner() {
        return true;
    }
    if maps::OWNED_PORTS.get_ptr(listener_key(tuple)).is_some() {
        mark(sk);
        return true;
    }
    owned(sk)
}

/// As [`own_as_current`] for `listen()`: its children will be owned as well.
#[inline(always)]
pub fn own_listener(sk: *const u8, tuple: &Tuple) -> bool {
    let owned = own_as_current(sk);
    if owned {
        mark_port(tuple);
    }
    owned
}

/// Remembers that a wanted process listens here.
#[inline(always)]
pub fn mark_port(tuple: &Tuple) {
    if by_owner() && maps::OWNED_PORTS.insert(listener_key(tuple), 1, 0).is_err() {
        emit::unmarked();
    }
}

/// The socket is gone; its address may be used again at once.
#[inline(always)]
pub fn disown(sk: *const u8) {
    if by_owner() {
        // Not marked is the common case and no error.
        let _ = maps::OWNED.remove(sk as u64);
    }
}

#[inline(always)]
fn mark(sk: *const u8) {
    if maps::OWNED.insert(sk as u64, 1, 0).is_err() {
        emit::unmarked();
    }
}

#[inline(always)]
fn listener_key(tuple: &Tuple) -> u64 {
    u64::from(tuple.netns) << 16 | u64::from(tuple.local_port)
}
