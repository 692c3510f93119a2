//! What the kernel side keeps where it can be read at any time: the stories of open connections, and resets of connections that were
//! not asked for.
//!
//! Must not know: what it means.

use std::{io, marker::PhantomData, mem::offset_of, os::fd::AsFd as _};

use crate::kernel::mapping::Shared;
use aya::maps::MapData;
use upstream_trace_common::{
    event::Full,
    kept::KeptReset,
    story::{Place, Story},
};

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

    /// Hands over the offset of every place. Mapped only as long: the pages would count as this process's memory.
    fn map(&self, mut take: impl FnMut(&Shared, usize)) -> io::Result<()> {
        let memory = Shared::new(self.map.fd().as_fd(), self.len * size_of::<T>())?;
        for number in 0..self.len {
            take(&memory, number * size_of::<T>());
        }
        Ok(())
    }
}

impl Places<Place> {
    /// Hands over every story. One that begins or ends meanwhile may be missing.
    pub fn each(&self, mut take: impl FnMut(&Story)) -> io::Result<()> {
        self.map(|memory, place| {
            if let Some(story) = read(memory, place) {
                take(&story);
            }
        })
    }
}

impl Places<KeptReset> {
    /// Every reset, in the order of their places. One that is sent meanwhile may be missing.
    pub fn all(&self) -> io::Result<Vec<Full>> {
        let mut all = Vec::new();
        self.map(|memory, place| {
            let kept: Option<KeptReset> = memory.read(place);
            all.extend(kept.as_ref().and_then(KeptReset::whole));
        })?;
        Ok(all)
    }
}

/// Reads of one story at most: each of its steps may come in the middle of one.
const TRIES: usize = 4;

/// The story in a place, if there is one, as it was at one moment.
fn read(memory: &Shared, place: usize) -> Option<Story> {
    let word = |at: usize| memory.read::<u64>(place + at);
    // What is written last: of a story, of a step, of an accept. Most places have no story.
    let moment = || {
        let sk = word(offset_of!(Place, story.sk)).filter(|&sk| sk != 0)?;
        let born = word(offset_of!(Place, story.born))?;
        let len: u8 = memory.read(place + offset_of!(Place, story.len))?;
        Some((sk, born, len, word(offset_of!(Place, story.accepted_sk))?))
    };
    let mut before = moment()?;
    for _ in 0..TRIES {
        let mut story: Story = memory.read(place + offset_of!(Place, story))?;
        let after = moment()?;
        if after == before {
            if story.accepted_sk == 0 {
                // It is being accepted.
                story.accepted = 0;
            }
            return Some(story);
        }
        before = after;
    }
    None
}
