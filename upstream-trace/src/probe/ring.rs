//! The ring, read in batches.
//!
//! Must not know: what the records mean.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{MapData, RingBuf};

/// The records that the kernel side writes.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    pub(super) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Hands over every record that is there, `limit` at most; returns how many.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
        for taken in 0..limit {
            let Some(record) = self.0.next() else {
                return taken;
            };
            take(&record);
        }
        limit
    }

    /// Becomes readable when the kernel side finds the ring filling up.
    pub fn attention(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}
