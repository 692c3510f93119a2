//! The stories of sockets: begun at a birth, continued step by step, told when they end.
//!
//! State changes of a socket are serialised by its lock, so a story has one writer at a time; only an
//! accept comes from elsewhere, and has its own place. Must not know: hooks, kernel structs.

use core::hint::black_box;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use upstream_trace_common::{
    event::{exit, kind},
    story::{AT_ACCEPT, AT_BIRTH, NOBODY, Place, STEPS, Step, Story},
};

use crate::{
    actor,
    emit::{self, What, Who},
    filter,
    kernel::{
        mem::{self, Memory, put_words},
        sock::{self, TcpSock, Tuple, state},
        task,
    },
    maps::{self, set},
};

/// The place of the socket at this address: always the same, perhaps taken by another socket.
#[inline(always)]
fn place(sk: *const u8) -> Option<&'static mut Place> {
    let places = set::STORY_PLACES();
    if places == 0 {
        return None;
    }
    let place = maps::STORIES.get_ptr_mut(mem::place(sk, places))?;
    // SAFETY: an element of the map is always there, and is plain integers, for which any bytes are
    // valid. Other CPUs may write it at the same time; what that means is said where it is read.
    Some(unsafe { &mut *place })
}

/// The story of the socket at this address, if it has one.
#[inline(always)]
pub fn of(sk: *const u8) -> Option<&'static mut Story> {
    let story = &mut place(sk)?.story;
    // Only this socket's own events make it equal, or no longer equal.
    (story.base.sk == sk as u64).then_some(story)
}

/// Begins a story with this birth; `false` where it has to be told as an event of its own.
#[inline(always)]
pub fn begin(what: What, sk: *const u8, tuple: &Tuple) -> bool {
    let Some(place) = place(sk) else {
        return false;
    };
    if place.story.base.sk == sk as u64 {
        return again(&mut place.story, what, sk);
    }
    if !claim(&mut place.claims) {
        return false;
    }
    let story = &mut place.story;
    // Not yet this socket's, for the agent reads at any time.
    emit::fill(&mut story.base, what, core::ptr::null(), tuple);
    story.len = 0;
    story.acted = NOBODY;
    story.state = what.new;
    story.exit = exit::NONE;
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
        actor::this_jiffy(&mut story.actor);
    }
    name(story, sk);
    if story.acted == AT_BIRTH {
        introduce(story, tuple);
    }
    true
}

/// Takes a place, unless another socket has it or is about to: of two that come at once, both may go
/// away empty-handed, never none, and then the place stays taken. The additions to one address have an
/// order, and each reads its own or what came later.
#[inline(always)]
fn claim(claims: &mut u64) -> bool {
    if *claims != 0 {
        return false;
    }
    emit::add(claims, 1);
    // SAFETY: a reference is valid for reads. Volatile, so that it comes after the addition.
    (unsafe { core::ptr::read_volatile(claims) }) == 1
}

/// Whose story it is: the last thing that is written of a new one, the first of one that is over.
#[inline(always)]
fn name(story: &mut Story, sk: *const u8) {
    // SAFETY: a reference is valid for writes. Volatile, so that it keeps its place in the order.
    unsafe { core::ptr::write_volatile(&raw mut story.base.sk, sk as u64) };
}

/// A birth of a socket that has a story.
#[inline(always)]
fn again(story: &mut Story, what: What, sk: *const u8) -> bool {
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
    let Some(known) = maps::PROCESSES.get_ptr_mut(actor.tgid % maps::PROCESSES_MAX) else {
        return;
    };
    // SAFETY: an element of the map is always there, and is plain integers. Two processes may write it
    // at once: then it is neither's, and both are told of again.
    let known = unsafe { &mut *known };
    if *known == now {
        return;
    }
    put_words(known, now);
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
    if what.new == state::FIN_WAIT1 || what.new == state::LAST_ACK {
        story.exit = task::current_exit();
        if story.acted == NOBODY {
            actor::this_jiffy(&mut story.actor);
            story.acted = story.len;
        }
    }
    if what.new == state::FIN_WAIT1 || what.new == state::CLOSE_WAIT {
        story.base.jiffies = sock::jiffies();
    }
    story.len += 1;
    story.state = what.new;
    if story.base.local_port == 0 {
        story.base.local_port = local_port.unwrap_or(0);
    }
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
    if let Some(place) = place(sk) {
        name(&mut place.story, core::ptr::null());
        // SAFETY: a reference is valid for writes. Volatile, so that it is the last one.
        unsafe { core::ptr::write_volatile(&raw mut place.claims, 0) };
    }
}
