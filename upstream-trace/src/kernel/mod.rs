//! What the agent knows about the running kernel: where fields lie, what values mean, what is
//! allowed.
//!
//! [`host`] reads and [`mapping`] maps; the other modules are pure and work as well on saved BTF, which `trim` cuts for tests. Must not know: aya,
//! kernel versions.

pub mod btf;
mod btf_format;
pub mod host;
pub mod mapping;
pub mod offsets;
pub mod reasons;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
pub(crate) mod saved;
#[cfg(test)]
mod trim;
