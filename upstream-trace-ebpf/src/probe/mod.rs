//! The hooks, one file each: prototype, kernels it holds for, what is taken from it.

mod accept;
mod connect;
mod destroy;
mod drop;
mod error;
mod held;
mod icmp;
mod packet;
mod reset;
mod retransmit;
mod state;
