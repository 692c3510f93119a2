//! The stories of sockets: begun at a birth, continued step by step, told when they end.
//!
//! State changes of a socket are serialised by its lock, so a story has one writer at a time; only an
//! accept comes from elsewhere, and has its own place. Must not know: hooks, kernel structs.

use core::hint::black_box;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use upstream_trace_common::{
    counter,
    event::kind,
    story::{AT_ACCEPT, AT_BIRTH, NOBODY, STEPS, Step, Story},
};

use crate::{
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::Memory,
        sock::{TcpSock, Tuple, state},
    },
    maps::{self, set},
};

/// The story of the socket at this address, if it has one.
#[inline(always)]
pub fn of(sk: *const u8) -> Option<&'static mut Story> {
    if set::KEEP_STORIES() == 0 {
        return None;
    }
    let story = maps::STORIES.get_ptr_mut(sk as u64)?;
    // SAFETY: an element of the map stays readable and writable until this program returns, and is
    // plain integers, for which any bytes are valid.
    Some(unsafe { &mut *story })
}

/// Begins a story with this birth; `false` where it has to be told as an event of its own.
#[inline(always)]
pub fn begin(what: What, sk: *const u8, tuple: &Tuple) -> bool {
    if set::KEEP_STORIES() == 0 {
        return false;
    }
    let Some(story) = maps::NEW_STORY.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the value belongs to this CPU and this program until it returns, and is plain integers.
    let story = unsafe { &mut *story };
    emit::fill(&mut story.base, what, sk, tuple);
    story.len = 0;
    story.acted = NOBODY;
    story.state = what.new;
    story.reserved = 0;
    let Story {
        accepted,
        accepted_sk,
        ..
    } = story;
    // Volatile, because LLVM makes a call to `memset` of zeros beside each other.
    for zero in [accepted, accepted_sk] {
        // SAFETY: a reference is valid for writes.
        unsafe { core::ptr::write_volatile(zero, 0) };
    }
    if what.new == state::SYN_SENT {
        story.acted = AT_BIRTH;
        filter::current(&mut story.actor);
    }
    if maps::STORIES
        .insert(sk as u64, story as &Story, u64::from(BPF_NOEXIST))
        .is_err()
    {
        return again(what, sk);
    }
    emit::count(counter::SEEN);
    if story.acted == AT_BIRTH {
        introduce(story, tuple);
    }
    true
}

/// A birth of a socket that has a story, or the table of stories is full.
#[inline(always)]
fn again(what: What, sk: *const u8) -> bool {
    let Some(story) = of(sk) else {
        return false;
    };
    if what.old == state::SYN_RECV && story.state == state::SYN_RECV {
        // A simultaneous open, or a connection to itself.
        return step(story, sk, what, None);
    }
    // The end of the socket that had this address was kept from every hook.
    put(story, sk);
    false
}

/// Tells the agent at once who connects, unless it knows.
#[inline(always)]
fn introduce(story: &Story, tuple: &Tuple) {
    let actor = &story.actor;
    let now = [actor.start, actor.comm[0]];
    if let Some(known) = maps::PROCESSES.get_ptr(actor.tgid) {
        // SAFETY: an element of the map stays readable until this program returns.
        let known = unsafe { *known };
        if known == now {
            return;
        }
    }
    // Not remembered: told again next time.
    let _ = maps::PROCESSES.insert(actor.tgid, now, 0);
    let what = What {
        kind: kind::PROCESS,
        old: 0,
        new: 0,
    };
    emit::acted(what, story.base.sk as *const u8, tuple, Who::Known(actor));
}

/// Continues a story; `false` where it had no room, so that it was told and the event has to be as well.
/// `local_port` is the socket's, where the story may not know it yet.
#[inline(always)]
pub fn step(story: &mut Story, sk: *const u8, what: What, local_port: Option<u16>) -> bool {
    let len = usize::from(story.len);
    if len >= STEPS {
        put(story, sk);
        return false;
    }
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    // Masked where it is used: verifiers before 5.16 forget what a comparison told of a value that the
    // compiler then keeps on the stack. The mask alone keeps it within the story.
    let place = black_box(len) & 7;
    let at = story.at.as_mut_ptr().wrapping_add(place);
    // SAFETY: `place` is `len`, which is below the number of places.
    unsafe { at.write_volatile(now) };
    let what_place = story.what.as_mut_ptr().wrapping_add(place);
    let step = Step {
        kind: what.kind,
        old: what.old,
        new: what.new,
        reserved: 0,
    };
    // SAFETY: as above.
    unsafe { what_place.write_volatile(step) };
    // close() or shutdown(), in the context of who calls it.
    if story.acted == NOBODY && (what.new == state::FIN_WAIT1 || what.new == state::LAST_ACK) {
        filter::current(&mut story.actor);
        story.acted = story.len;
    }
    story.len += 1;
    story.state = what.new;
    if story.base.local_port == 0 {
        story.base.local_port = local_port.unwrap_or(0);
    }
    emit::count(counter::SEEN);
    true
}

/// The current process accepts the socket.
#[inline(always)]
pub fn accept(story: &mut Story, sk: *const u8) {
    // SAFETY: the helper takes no argument.
    story.accepted = unsafe { bpf_ktime_get_ns() };
    filter::current(&mut story.actor);
    story.acted = AT_ACCEPT;
    // SAFETY: a reference is valid for writes. Volatile, so that it is the last one.
    unsafe { core::ptr::write_volatile(&raw mut story.accepted_sk, sk as u64) };
    emit::count(counter::SEEN);
}

/// Puts the story into the ring as far as it got; what follows is told event by event.
#[inline(always)]
pub fn tell<M: Memory>(story: &mut Story, sock: TcpSock<M>) {
    know_port(story, sock);
    put(story, sock.sk.address());
}

/// As [`tell`], if the socket has a story.
#[inline(always)]
pub fn tell_if_any<M: Memory>(sock: TcpSock<M>) {
    if let Some(story) = of(sock.sk.address()) {
        tell(story, sock);
    }
}

/// Puts the story into the ring with its end.
#[inline(always)]
pub fn end<M: Memory>(story: &mut Story, old: u8, late: bool, sock: TcpSock<M>) {
    know_port(story, sock);
    emit::ended(story, old, late, sock);
    forget(sock.sk.address());
}

/// A connect's local port is chosen after its birth.
#[inline(always)]
pub fn know_port<M: Memory>(story: &mut Story, sock: TcpSock<M>) {
    if story.base.local_port == 0 {
        story.base.local_port = sock.local_port().unwrap_or(0);
    }
}

#[inline(always)]
fn put(story: &Story, sk: *const u8) {
    emit::story(story);
    forget(sk);
}

#[inline(always)]
fn forget(sk: *const u8) {
    // It is there: only this socket's own events remove it, and they do not run beside each other.
    let _ = maps::STORIES.remove(sk as u64);
}
