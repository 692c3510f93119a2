//! The only writer of the ring: reserve, fill, submit; whatever fails is counted.
//!
//! A wake-up for each record would cost more than everything else together (an `irq_work` and a
//! context switch), so the agent looks by itself every 30 milliseconds and is woken only when the
//! ring fills up, which is asked now and then.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
};
use upstream_trace_common::{
    counter,
    event::{Acted, Actor, Answer, Base, Full, Note, Packet, Way},
    story::{Ended, Story},
};
use zerocopy::{transmute_mut, transmute_ref};

use crate::{
    atomic, filter,
    kernel::{
        mem::{Direct, Memory, Struct, copy_words, put_words},
        sock::{self, TcpSock, Tuple},
        task,
    },
    maps::{self, set},
};

/// After so many events of a CPU, a power of two, the end of a story asks how full the ring is: the answer costs
/// as much as a step. A story that ended tells of two at least, so these are at most 16 of them, 4.5 KiB.
const ASK_EVERY: u64 = 32;

/// So many bytes beyond the mark the agent is woken: enough for several CPUs to ask meanwhile.
const WAKE_BAND: u64 = 16 << 10;

/// A story as words.
const STORY_WORDS: usize = size_of::<Story>() / 8;

/// The part of an event that differs from hook to hook.
#[derive(Clone, Copy)]
pub struct What {
    /// `event::kind`.
    pub kind: u8,
    /// `Base::old`.
    pub old: u8,
    /// `Base::new`.
    pub new: u8,
}

/// Whom a record names as actor.
#[derive(Clone, Copy)]
pub enum Who {
    /// The process that the current task belongs to.
    Current,
    /// Nobody: the event does not run in the context of anyone who caused it.
    Nobody,
    /// This task's process, with this id.
    Holder(Struct<Direct>, u32),
}

impl Who {
    /// Describes whoever that is.
    #[inline(always)]
    pub fn put(self, actor: &mut Actor) {
        match self {
            Self::Current => {
                filter::current(actor);
                actor.exit = task::current_exit();
            }
            Self::Nobody => task::nobody(actor),
            Self::Holder(task, tgid) => filter::of_task(actor, task, tgid),
        }
    }
}

/// So many more of `counter`; returns how many there are now.
#[inline(always)]
fn count(counter: usize, by: u32) -> u64 {
    let Some(values) = maps::COUNTERS.get_ptr_mut(0) else {
        return 0;
    };
    let value = values.cast::<u64>().wrapping_add(counter);
    // Atomic even though it is per CPU: a softirq may run another hook between load and store.
    atomic::add(value, by.into());
    // SAFETY: an element of the map is always there. Volatile, so that it comes after the addition.
    unsafe { core::ptr::read_volatile(value) }
}

/// An event whose identity could not be read.
#[inline(always)]
pub fn unreadable() {
    count(counter::SEEN, 1);
    count(counter::READ_FAULT, 1);
}

/// A socket of a wanted process that could not be marked, so that its further events are missing.
#[inline(always)]
pub fn unmarked() {
    count(counter::SEEN, 1);
    count(counter::UNMARKED, 1);
}

/// Writes when, which and what.
#[inline(always)]
pub fn base(what: What, sk: *const u8, tuple: &Tuple) {
    write(|record: &mut Base| {
        fill(record, what, sk, tuple);
    });
}

/// Writes the same and a process.
#[inline(always)]
pub fn acted(what: What, sk: *const u8, tuple: &Tuple, who: Who) {
    write(|record: &mut Acted| {
        fill(&mut record.base, what, sk, tuple);
        who.put(&mut record.actor);
    });
}

/// The same of the process that the current task belongs to, which has the socket, and whether it leaves that.
#[inline(always)]
pub fn by_owner(what: What, sk: Struct<Direct>, tuple: &Tuple) {
    write(|record: &mut Acted| {
        fill(&mut record.base, what, sk.address(), tuple);
        Who::Current.put(&mut record.actor);
        record.actor.exit |= sk.leaves();
    });
}

/// Writes everything about `sock`.
#[inline(always)]
pub fn full<M: Memory>(what: What, sock: TcpSock<M>, tuple: &Tuple, who: Who) {
    put(
        1,
        |_| true,
        |record: &mut Full| {
            fill(&mut record.base, what, sock.sk.address(), tuple);
            who.put(&mut record.actor);
            sock.stats(&mut record.stats, sock.is_open());
        },
    );
}

/// Writes when, which and what of a reset, and the numbers of the packet that it answers.
#[inline(always)]
pub fn answer(what: What, sk: *const u8, tuple: &Tuple, [seq, ack]: [u32; 2]) {
    write(|record: &mut Answer| {
        fill(&mut record.base, what, sk, tuple);
        record.seq = seq;
        record.ack = ack;
    });
}

/// Writes what is known of why the connection with these ends fails.
#[inline(always)]
pub fn note(what: What, sk: *const u8, tuple: &Tuple, detail: [u64; 5]) {
    write(|record: &mut Note| {
        fill(&mut record.base, what, sk, tuple);
        copy_words(&detail, &mut record.detail);
    });
}

/// Writes the packet of a reset.
#[inline(always)]
pub fn packet(
    what: What,
    sk: *const u8,
    tuple: &Tuple,
    [reset, handshake]: [Way; 2],
    ahead: Option<u32>,
) {
    write(|record: &mut Packet| {
        fill(&mut record.base, what, sk, tuple);
        record.reset = reset;
        record.handshake = handshake;
        record.ahead = ahead.unwrap_or(0);
        record.has_ahead = u32::from(ahead.is_some());
    });
}

/// Writes a story that goes on as single events.
#[inline(always)]
pub fn story(story: &Story) {
    let accepted = accepted(story);
    put(
        story.events_if(accepted),
        |_| false,
        |record: &mut Story| {
            copy(story, accepted, record);
        },
    );
}

/// Writes a story with its end: of a socket that no process has any more.
#[inline(always)]
pub fn ended<M: Memory>(story: &Story, old: u8, late: bool, sock: TcpSock<M>) {
    let accepted = accepted(story);
    let events = story.events_if(accepted) + 1;
    // The count passed a multiple.
    let asks = |seen| seen % ASK_EVERY < u64::from(events);
    put(events, asks, |record: &mut Ended| {
        copy(story, accepted, &mut record.story);
        // SAFETY: the helper takes no argument.
        record.ktime = unsafe { bpf_ktime_get_ns() };
        record.old = u32::from(old);
        record.late = u32::from(late);
        sock.stats(&mut record.stats, false);
    });
}

/// When the socket was accepted, if it was. Read once: another CPU may be accepting it at this moment, and what
/// is counted has to be what is written.
#[inline(always)]
fn accepted(story: &Story) -> u64 {
    // SAFETY: a reference is valid for reads. Volatile, so that it is read once.
    unsafe { core::ptr::read_volatile(&raw const story.accepted) }
}

#[inline(always)]
fn copy(story: &Story, accepted: u64, record: &mut Story) {
    copy_words::<STORY_WORDS>(transmute_ref!(story), transmute_mut!(record));
    record.accepted = accepted;
}

/// Fills a record's common part.
#[inline(always)]
pub fn fill(base: &mut Base, what: What, sk: *const u8, tuple: &Tuple) {
    // SAFETY: the helper takes no argument.
    base.ktime = unsafe { bpf_ktime_get_ns() };
    base.sk = sk as u64;
    base.kind = what.kind;
    base.family = tuple.family;
    base.old = what.old;
    base.new = what.new;
    base.local_port = tuple.local_port;
    base.remote_port = tuple.remote_port;
    base.netns = tuple.netns;
    base.jiffies = sock::jiffies();
    put_words(&mut base.local, tuple.local);
    put_words(&mut base.remote, tuple.remote);
}

/// Writes a record that tells of one event.
#[inline(always)]
fn write<T: 'static>(fill: impl FnOnce(&mut T)) {
    put(1, |_| false, fill);
}

/// Counts, reserves, fills and submits a record that tells of so many events; `asks` with the count of all, whether
/// to ask about a wake-up. Counted first: after the record was written, an atomic addition would wait for its
/// memory.
#[inline(always)]
fn put<T: 'static>(events: u32, asks: impl FnOnce(u64) -> bool, fill: impl FnOnce(&mut T)) {
    let seen = count(counter::SEEN, events);
    let Some(mut entry) = maps::EVENTS.reserve::<T>(0) else {
        count(counter::RING_FULL, events);
        return;
    };
    // SAFETY: the ring's memory is initialised (it holds bytes of older records or zeros) and every
    // record type is plain integers, for which any bytes are valid; `fill` sets all of them.
    fill(unsafe { entry.assume_init_mut() });
    entry.submit(u64::from(if asks(seen) {
        wake()
    } else {
        BPF_RB_NO_WAKEUP
    }));
}

/// Whether to wake the agent: only while the ring is about as full as the mark, because each wake-up costs
/// microseconds, and beyond it the agent is awake.
#[inline(always)]
fn wake() -> u32 {
    let waiting = maps::EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let beyond = waiting.wrapping_sub(u64::from(set::WAKE_AT()));
    if beyond < WAKE_BAND {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }
}
