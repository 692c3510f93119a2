//! Kernel time now, and what time of day that is.
//!
//! Events carry `CLOCK_MONOTONIC` nanoseconds; the offset to the time of day is taken anew for each
//! batch, so that a stepped or slewed clock is followed.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::{join::engine::WallClock, record::Timestamp};

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

/// `CLOCK_MONOTONIC`, nanoseconds: what `bpf_ktime_get_ns` returns.
pub fn monotonic() -> u64 {
    read(ClockId::Monotonic)
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
