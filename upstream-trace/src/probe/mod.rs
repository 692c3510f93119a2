//! The hooks: [`catalog`] lists them, [`load`] puts them into the kernel, each as high on its [`ladder`] as that takes it ([`loader`],
//! [`targets`] and [`beside`] spare it time), [`ring`] and [`stories`] read what they write. [`own_types`] asks the kernel for its types.
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
