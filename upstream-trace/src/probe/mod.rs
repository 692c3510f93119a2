//! The hooks: [`catalog`] lists them; [`load`] puts them into the kernel, for each role the first of its [`ladder`] that the kernel
//! takes; [`loader`], [`targets`] and [`beside`] make that fast; [`ring`] and [`places`] read what they write; [`own_types`] asks the
//! kernel for its types.
//!
//! Only here is aya used.

mod beside;
pub mod catalog;
pub mod ladder;
pub mod load;
pub mod loader;
pub mod own_types;
pub mod places;
pub mod ring;
pub mod targets;
