//! Kernel time now, and what time of day that is.
//!
//! Events carry `CLOCK_MONOTONIC` nanoseconds; the offset to the time of day is taken anew for each
//! batch, so that a stepped or slewed clock is followed.

use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::{join::engine::WallClock, record::Timestamp};

/// By how many nanoseconds this process's `CLOCK_MONOTONIC` is ahead of the node's.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Sets that, before the first event is looked at.
pub fn is_ahead_by(nanoseconds: i64) {
    AHEAD.store(nanoseconds, Ordering::Relaxed);
}

/// The offset from kernel time to the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    offset: i128,
}

impl Anchor {
    /// The offset now.
    pub fn now() -> Self {
        Self {
            offset: i128::from(of_day()) - i128::from(monotonic()),
        }
    }
}

impl WallClock for Anchor {
    fn at(&self, ktime: u64) -> Timestamp {
        Timestamp(u64::try_from(i128::from(ktime) + self.offset).unwrap_or(0))
    }
}

/// The time of day, nanoseconds since the epoch.
pub fn of_day() -> u64 {
    read(ClockId::Realtime)
}

/// The node's `CLOCK_MONOTONIC`, nanoseconds: what `bpf_ktime_get_ns` returns.
pub fn monotonic() -> u64 {
    read(ClockId::Monotonic).saturating_sub_signed(AHEAD.load(Ordering::Relaxed))
}

/// How long this thread has had a processor, nanoseconds.
pub fn worked() -> u64 {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    let seconds = u64::try_from(tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(tv_nsec).unwrap_or(0)
}
