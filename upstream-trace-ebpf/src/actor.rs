//! Who acts: the process of the current task, read anew once a jiffy.
//!
//! Reading it costs as much as several steps of a story, and on a busy node the same process acts again
//! within the jiffy. Must not know: stories.

use core::ptr;

use upstream_trace_common::event::{Actor, kind};
use zerocopy::{transmute_mut, transmute_ref};

use crate::{
    atomic,
    emit::What,
    filter,
    kernel::{
        mem::{copy_words, put_words},
        sock, task,
    },
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
    /// How many write it or are about to; one that finds another there gives way.
    claims: u64,
    actor: Actor,
}

/// The process of the current task as it was in this jiffy.
///
/// A program stays on its CPU, but where it runs for a function rather than a tracepoint, or the kernel is a
/// real-time one, another process may come between. So one at a time writes, none what was written in the
/// same jiffy, and who has read looks at the key again.
#[inline(always)]
pub fn this_jiffy(actor: &mut Actor) {
    let (tgid, jiffies) = (task::current_tgid(), sock::jiffies());
    let key = u64::from(tgid) << 32 | u64::from(jiffies);
    let Some(known) = maps::ACTORS.get_ptr_mut(tgid % maps::ACTORS_MAX) else {
        return task::nobody(actor);
    };
    // SAFETY: an element of the map is always there, is plain integers, for which any bytes are valid, and is this CPU's. A program
    // that comes between may have a reference as well: so `key` and the actor's words are read and written volatile, only who has
    // claimed it writes, and what was read counts only if `key` is the same before and after.
    let known = unsafe { &mut *known };
    let before = known.key();
    if before == key {
        copy(&known.actor, actor);
        if known.key() == key {
            return;
        }
    }
    filter::current(actor);
    #[expect(clippy::cast_possible_truncation, reason = "the jiffy's number")]
    let is_of_now = before as u32 == jiffies;
    if is_of_now || !atomic::claim(&mut known.claims) {
        return;
    }
    known.set_key(0);
    copy(actor, &mut known.actor);
    known.set_key(key);
    atomic::release(&mut known.claims);
}

/// What tells the agent of a process.
pub const INTRODUCED: What = What {
    kind: kind::PROCESS,
    old: 0,
    new: 0,
};

/// Whether the agent was told of a process; from now on it was.
#[inline(always)]
pub fn is_told(actor: &Actor) -> bool {
    let now = [actor.start, actor.comm[0]];
    let Some(told) = maps::PROCESSES.get_ptr_mut(actor.tgid % maps::PROCESSES_MAX) else {
        return true;
    };
    // SAFETY: an element of the map is always there, and is plain integers, for which any bytes are valid. Other CPUs, and programs
    // that interrupt this one, read and write it as well, without a claim; LLVM knows of none, and could at most read a word again. Two
    // processes that write at once may leave a word each: then it is neither's, and both are told of again.
    let told = unsafe { &mut *told };
    if *told == now {
        return true;
    }
    put_words(told, now);
    false
}

/// The same process in another record.
#[inline(always)]
pub fn copy(from: &Actor, to: &mut Actor) {
    copy_words::<WORDS>(transmute_ref!(from), transmute_mut!(to));
}

impl Known {
    /// Volatile as [`Self::set_key`].
    #[inline(always)]
    fn key(&self) -> u64 {
        // SAFETY: a reference is valid for reads.
        unsafe { ptr::read_volatile(&raw const self.key) }
    }

    /// Volatile, so that it keeps its place in the order.
    #[inline(always)]
    fn set_key(&mut self, key: u64) {
        // SAFETY: a reference is valid for writes.
        unsafe { ptr::write_volatile(&raw mut self.key, key) };
    }
}
