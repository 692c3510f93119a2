//! The hooks: [`catalog`] lists them; [`plan`] says what is to be done on this kernel, and [`load`] does it: it puts the `object` into
//! the kernel, for each role the first hook of its [`ladder`] that the kernel takes; [`loader`], [`targets`] and [`beside`] make that
//! fast. [`loaded`] is all that a run asks of it then; [`ring`] and [`places`] read what it writes. [`own_types`] asks the
//! kernel for its types.
//!
//! Only here is aya used.

mod beside;
pub mod catalog;
pub mod ladder;
pub mod load;
pub mod loaded;
pub mod loader;
mod object;
pub mod own_types;
pub mod places;
pub mod plan;
pub mod ring;
pub mod targets;
