//! The contract between the kernel side and the agent.
//!
//! The kernel side writes [`event`] records and [`story`]s into the ring, keeps the stories of open connections and the last resets
//! ([`kept`]) in arrays that the agent maps, and counts what becomes of events ([`counter`]), for each CPU. The agent writes [`field`]
//! offsets and [`setting`]s as read-only globals before the object is loaded, what is wanted into maps before the hooks are attached,
//! and [`route`]s later. [`tcp`] has the kernel's numbers that records carry.
//!
//! Must not know: aya, the standard library, any kernel version.

#![no_std]

pub mod counter;
pub mod event;
pub mod field;
pub mod kept;
pub mod route;
pub mod setting;
pub mod story;
pub mod tcp;
