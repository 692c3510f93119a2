//! The hooks, one file each: prototype, kernels it holds for, what is taken from it.

mod accept;
mod connect;
mod destroy;
mod error;
mod held;
mod reset;
mod retransmit;
mod state;
