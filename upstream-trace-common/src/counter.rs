//! Indices of the per-CPU counters that the kernel side keeps of itself.
//!
//! For any run `SEEN == records taken from the ring + RING_FULL + READ_FAULT`.

/// Events that passed the filters and were to be written to the ring.
pub const SEEN: u32 = 0;
/// Events not written because the ring had no room.
pub const RING_FULL: u32 = 1;
/// Events not written because kernel memory that identifies them could not be read.
pub const READ_FAULT: u32 = 2;
/// Sockets of a wanted process that could not be marked as such: the mark table was full.
pub const UNMARKED: u32 = 3;
/// How many counters there are.
pub const COUNT: u32 = 4;
