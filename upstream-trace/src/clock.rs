//! The only place that reads clocks: kernel time now, and what time of day that is.
//!
//! Events carry `CLOCK_MONOTONIC` nanoseconds; the offset to the time of day is taken anew for each
//! batch, so that a stepped or slewed clock is followed.

use crate::{join::engine::WallClock, record::Timestamp};

/// The offset from kernel time to the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    offset: i128,
}

impl Anchor {
    /// The offset now.
    pub fn now() -> Self {
        let realtime = read(libc::CLOCK_REALTIME);
        Self {
            offset: i128::from(realtime) - i128::from(monotonic()),
        }
    }
}

impl WallClock for Anchor {
    fn at(&self, ktime: u64) -> Timestamp {
        Timestamp(u64::try_from(i128::from(ktime) + self.offset).unwrap_or(0))
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds: what `bpf_ktime_get_ns` returns.
pub fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// How long this thread has had a processor, nanoseconds.
pub fn worked() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes; with these clocks the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
