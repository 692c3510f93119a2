//! The contract between the kernel side and the agent.
//!
//! The kernel side writes [`event`] records and [`story`]s into the ring and [`counter`]s into a
//! per-CPU array; the agent reads both. The agent writes [`field`] offsets and [`setting`]s as read-only globals
//! before the object is loaded and [`route`]s into a map later; the kernel side reads them. Nothing else crosses.
//!
//! Must not know: aya, the standard library, any kernel version.

#![no_std]

pub mod counter;
pub mod event;
pub mod field;
pub mod route;
pub mod setting;
pub mod story;
