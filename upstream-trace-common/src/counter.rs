//! Indices into the per-CPU counters that the kernel side keeps of itself.
//!
//! For any run `SEEN == events of the records in the ring + RING_FULL + READ_FAULT + UNMARKED`.

/// Events that passed the filters and were to be written to the ring; those of a story when it is.
pub const SEEN: usize = 0;
/// Events not written because the ring had no room.
pub const RING_FULL: usize = 1;
/// Events not written because kernel memory that identifies them could not be read.
pub const READ_FAULT: usize = 2;
/// Sockets of a wanted process that could not be marked as such: the mark table was full.
pub const UNMARKED: usize = 3;
/// How many counters there are.
pub const COUNT: usize = 4;
