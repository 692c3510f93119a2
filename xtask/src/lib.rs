//! What the verbs of `cargo xtask` and the live tests share.
//!
//! One verb a file; [`storm`] makes the traffic that [`bench`] measures. Must not know: how the
//! tracer works inside; it is only ever started as a program.

pub mod bench;
pub mod bpf_toolchain;
pub mod build;
pub mod demo;
mod process;
pub mod provision;
pub mod run;
pub mod storm;
pub mod test;
pub mod workspace;
