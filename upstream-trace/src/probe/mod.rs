//! The hooks: [`catalog`] lists them, [`load`] puts them into the kernel ([`loader`] and [`targets`] spare
//! it time), [`ring`] reads what they write.
//!
//! Only here is aya used.

pub mod catalog;
pub mod load;
pub mod loader;
pub mod ring;
pub mod stories;
pub mod targets;
