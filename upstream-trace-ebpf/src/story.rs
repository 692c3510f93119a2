//! The stories of sockets: begun at a birth, continued step by step, told when they end.
//!
//! State changes of a socket are serialised by its lock, so a story has one writer at a time; only an
//! accept comes from elsewhere, and has words of its own beside the actor. Must not know: hooks, where a kernel struct has its fields.

use core::hint::{black_box, cold_path};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use upstream_trace_common::{
    event::exit,
    story::{AT_ACCEPT, AT_BIRTH, Change, NOBODY, Place, STEPS, Story},
};

use crate::{
    actor, atomic,
    emit::{self, What},
    kernel::{
        mem::{self, Direct, Memory, Struct, put_words},
        sock::{self, TcpSock, Tuple, state},
        task,
    },
    maps::{self, set},
};

/// The place of the socket at this address: always the same, perhaps taken by another socket.
#[inline(always)]
pub fn place(sk: *const u8) -> Option<&'static mut Place> {
    let place = maps::STORIES.get_ptr_mut(mem::place(sk, set::STORY_PLACES()))?;
    // SAFETY: an element of the map is always there, and is plain integers, for which any bytes are valid. The reference is not the
    // only one, as Rust would have it: other CPUs, and programs that interrupt this one, have theirs, and the agent reads. It does no
    // harm because to LLVM each program is one function, in which nobody else writes: at worst it reads a plain word again, or moves
    // the writing of one, but not across a volatile access to the same word, nor across `claim` and `release`, which are assembly. Only
    // the socket that holds the place (from `begin` to `forget`) has it written, one event at a time by its lock. An accept does not
    // take that lock: what it wrote counts only where `accepted_sk`, the last of it, is the story's own. Everybody else looks at `sk`
    // first, which is written volatile, and the agent twice at what is written last (`probe/places.rs` there).
    Some(unsafe { &mut *place })
}

/// Whether the story there is this socket's. Only its own events make it so, or no longer so.
#[inline(always)]
pub fn is_of(place: &Place, sk: *const u8) -> bool {
    place.story.sk == sk as u64
}

/// The place of this socket's story, if it has one.
#[inline(always)]
pub fn of(sk: *const u8) -> Option<&'static mut Place> {
    place(sk).filter(|place| is_of(place, sk))
}

/// Begins a story with this birth, where there is none; `false` where another socket's is, or each event is
/// wanted as it happens.
#[inline(always)]
pub fn begin(place: &mut Place, what: What, sk: *const u8, tuple: &Tuple) -> bool {
    if set::EACH_EVENT() != 0 || !atomic::claim(&mut place.claims) {
        return false;
    }
    let story = &mut place.story;
    // Not yet this socket's, for the agent reads at any time.
    name(story, core::ptr::null());
    // SAFETY: the helper takes no argument.
    story.born = unsafe { bpf_ktime_get_ns() };
    story.birth = Change::of(what.old, what.new);
    story.jiffies = sock::jiffies();
    story.family = tuple.family;
    story.local_port = tuple.local_port;
    story.remote_port = tuple.remote_port;
    story.netns = tuple.netns;
    put_words(&mut story.local, tuple.local);
    put_words(&mut story.remote, tuple.remote);
    story.len = 0;
    story.acted = NOBODY;
    story.state = what.new;
    story.exit = exit::NONE;
    story.over = 0;
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
    true
}

/// Whose story it is: the last thing that is written of a new one, the first of one that is over.
#[inline(always)]
fn name(story: &mut Story, sk: *const u8) {
    // SAFETY: a reference is valid for writes. Volatile, so that it keeps its place in the order.
    unsafe { core::ptr::write_volatile(&raw mut story.sk, sk as u64) };
}

/// Continues a story; `false` where it has no room, so that it has to be told and the event as well.
#[inline(always)]
pub fn step(story: &mut Story, what: What, sk: Struct<Direct>) -> bool {
    let len = usize::from(story.len);
    if len >= STEPS {
        cold_path();
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
    // SAFETY: as above.
    unsafe { what_place.write_volatile(Change::of(what.old, what.new)) };
    // close() or shutdown(), in the context of who calls it.
    if what.new == state::FIN_WAIT1 || what.new == state::LAST_ACK {
        story.exit = task::current_exit() | sk.leaves();
        if story.acted == NOBODY {
            actor::this_jiffy(&mut story.actor);
            story.acted = story.len;
        }
    }
    if what.new == state::FIN_WAIT1 || what.new == state::CLOSE_WAIT {
        story.jiffies = sock::jiffies();
    }
    story.len += 1;
    story.state = what.new;
    know_port(story, || sk.get(&mem::SK_NUM));
    true
}

/// The current process accepts the socket.
#[inline(always)]
pub fn accept(story: &mut Story, sk: *const u8) {
    // SAFETY: the helper takes no argument.
    story.accepted = unsafe { bpf_ktime_get_ns() };
    actor::this_jiffy(&mut story.actor);
    story.acted = AT_ACCEPT;
    // SAFETY: a reference is valid for writes. Volatile, so that it is the last one.
    unsafe { core::ptr::write_volatile(&raw mut story.accepted_sk, sk as u64) };
}

/// Puts the story into the ring as far as it got; what follows is told event by event.
#[inline(always)]
pub fn tell<M: Memory>(place: &mut Place, sock: TcpSock<M>) {
    know_port(&mut place.story, || sock.local_port());
    give_up(place);
}

/// As [`tell`], if the socket has a story.
#[inline(always)]
pub fn tell_if_any<M: Memory>(sock: TcpSock<M>) {
    if let Some(place) = of(sock.sk.address()) {
        tell(place, sock);
    }
}

/// As [`tell`] of a socket that is there no longer.
#[inline(always)]
pub fn give_up(place: &mut Place) {
    emit::story(&place.story);
    forget(place);
}

/// Puts the story into the ring with its end.
#[inline(always)]
pub fn end<M: Memory>(place: &mut Place, old: u8, late: bool, sock: TcpSock<M>) {
    know_port(&mut place.story, || sock.local_port());
    emit::ended(&place.story, old, late, sock);
    forget(place);
}

/// A connect's local port is chosen after its birth, and asked for once.
#[inline(always)]
pub fn know_port(story: &mut Story, port: impl FnOnce() -> Option<u16>) {
    if story.local_port == 0 {
        story.local_port = port().unwrap_or(0);
    }
}

#[inline(always)]
fn forget(place: &mut Place) {
    name(&mut place.story, core::ptr::null());
    atomic::release(&mut place.claims);
}
