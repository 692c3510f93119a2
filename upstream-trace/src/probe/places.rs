//! What the kernel side keeps where it can be read at any time: the stories of open connections, and resets of connections that were
//! not asked for.
//!
//! Must not know: what it means.

use std::{
    io,
    marker::PhantomData,
    os::fd::AsFd as _,
    sync::atomic::{Ordering, fence},
};

use aya::maps::MapData;
use upstream_trace_common::{
    event::{Full, KeptReset},
    story::{Place, Story},
};
use zerocopy::FromBytes;

use crate::kernel::mapping::Shared;

/// A map of the kernel side's, an array of `T`.
#[derive(Debug)]
pub struct Places<T> {
    map: MapData,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Places<T> {
    pub(super) const fn new(map: MapData, len: usize) -> Self {
        let of = PhantomData;
        Self { map, len, of }
    }

    /// Whether they can be mapped: as much of them as costs nothing.
    pub fn is_readable(&self) -> bool {
        Shared::new(self.map.fd().as_fd(), size_of::<T>()).is_ok()
    }

    /// Hands over every place. Mapped only as long: the pages would count as this process's memory.
    fn map(&self, mut take: impl FnMut(*const T)) -> io::Result<()> {
        let memory = Shared::new(self.map.fd().as_fd(), self.len * size_of::<T>())?;
        let first: *const T = memory.start().cast();
        for number in 0..self.len {
            take(first.wrapping_add(number));
        }
        Ok(())
    }
}

impl Places<Place> {
    /// Hands over every story. One that begins or ends meanwhile may be missing.
    pub fn each(&self, mut take: impl FnMut(&Story)) -> io::Result<()> {
        self.map(|place| {
            if let Some(story) = read(place) {
                take(&story);
            }
        })
    }
}

impl Places<KeptReset> {
    /// Every reset, in the order of their places. One that is sent meanwhile may be missing.
    pub fn all(&self) -> io::Result<Vec<Full>> {
        let mut all = Vec::new();
        self.map(|place| all.extend(load(place).whole()))?;
        Ok(all)
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
    // SAFETY: `Places::map` and `read` hand in nothing but places that are mapped and parts of them, and any bytes are valid.
    // Volatile, because they change.
    let value = unsafe { from.read_volatile() };
    fence(Ordering::Acquire);
    value
}
