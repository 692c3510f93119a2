//! Who acts: the process of the current task, read anew once a jiffy.
//!
//! Reading it costs as much as a whole step of a story, and on a busy node the same process acts again
//! within the jiffy. Must not know: stories.

use upstream_trace_common::event::Actor;
use zerocopy::{transmute_mut, transmute_ref};

use crate::{
    filter,
    kernel::{mem::copy_words, sock, task},
    maps,
};

/// An actor as words.
const WORDS: usize = size_of::<Actor>() / 8;

/// A process as it was in that jiffy.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Known {
    /// Its id above the jiffy's number; 0 while the rest is written.
    key: u64,
    actor: Actor,
}

/// The process of the current task as it was in this jiffy. Only for one program, that of a tracepoint: on
/// a CPU it interrupts itself in a softirq at most, where the current task is the same.
#[inline(always)]
pub fn this_jiffy(actor: &mut Actor) {
    let tgid = task::current_tgid();
    let key = u64::from(tgid) << 32 | u64::from(sock::jiffies());
    let Some(known) = maps::ACTORS.get_ptr_mut(tgid % maps::ACTORS_MAX) else {
        return filter::current(actor);
    };
    // SAFETY: an element of the map is always there, is plain integers, and is this CPU's.
    let known = unsafe { &mut *known };
    if known.key == key {
        return copy(&known.actor, actor);
    }
    filter::current(actor);
    set_key(known, 0);
    copy(actor, &mut known.actor);
    set_key(known, key);
}

/// The same process in another record.
#[inline(always)]
pub fn copy(from: &Actor, to: &mut Actor) {
    copy_words::<WORDS>(transmute_ref!(from), transmute_mut!(to));
}

/// Volatile, so that it keeps its place in the order.
#[inline(always)]
fn set_key(known: &mut Known, key: u64) {
    // SAFETY: a reference is valid for writes.
    unsafe { core::ptr::write_volatile(&raw mut known.key, key) };
}
