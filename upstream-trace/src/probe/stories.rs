//! The stories of open connections, read where the kernel side keeps them.
//!
//! Must not know: what a story means.

use std::{
    io,
    os::fd::AsFd as _,
    sync::atomic::{Ordering, fence},
};

use aya::maps::MapData;
use upstream_trace_common::story::{Place, Story};
use zerocopy::FromBytes;

use crate::kernel::mapping::Shared;

/// The kernel side's places of stories.
#[derive(Debug)]
pub struct Stories {
    map: MapData,
    places: usize,
}

impl Stories {
    pub(super) const fn new(map: MapData, places: usize) -> Self {
        Self { map, places }
    }

    /// Whether they can be mapped: as much of them as costs nothing.
    pub fn is_readable(&self) -> bool {
        Shared::new(self.map.fd().as_fd(), size_of::<Place>()).is_ok()
    }

    /// Hands over every story. One that begins or ends meanwhile may be missing. Mapped only as long:
    /// the pages would count as this process's memory.
    pub fn each(&self, mut take: impl FnMut(&Story)) -> io::Result<()> {
        let memory = Shared::new(self.map.fd().as_fd(), self.places * size_of::<Place>())?;
        let first: *const Place = memory.start().cast();
        for number in 0..self.places {
            if let Some(story) = read(first.wrapping_add(number)) {
                take(&story);
            }
        }
        Ok(())
    }
}

/// The story in a place, if there is one and it stayed the same socket's while it was read.
fn read(place: *const Place) -> Option<Story> {
    // SAFETY: the place is within what is mapped.
    let sk = unsafe { &raw const (*place).story.sk };
    // SAFETY: as above.
    let born = unsafe { &raw const (*place).story.born };
    // SAFETY: as above.
    let story = unsafe { &raw const (*place).story };
    let whose = || {
        let socket = load(sk);
        (socket, load(born))
    };
    let before = whose();
    if before.0 == 0 {
        return None;
    }
    let story = load(story);
    (whose() == before).then_some(story)
}

/// What the kernel side may be writing at the same time, read before all that follows.
fn load<T: FromBytes>(from: *const T) -> T {
    // SAFETY: `read` hands in nothing but parts of a place that is mapped, and any bytes are valid.
    // Volatile, because they change.
    let value = unsafe { from.read_volatile() };
    fence(Ordering::Acquire);
    value
}
