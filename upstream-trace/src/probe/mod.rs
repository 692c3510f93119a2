//! The hooks: [`catalog`] lists them, [`load`] puts them into the kernel, [`ring`] reads what they write.
//!
//! Only here is aya used.

pub mod catalog;
pub mod load;
pub mod ring;
