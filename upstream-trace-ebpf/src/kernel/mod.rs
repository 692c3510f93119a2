//! Typed views of kernel structs. Nothing outside this folder reads kernel memory.

pub mod mem;
pub mod skb;
pub mod sock;
pub mod task;
