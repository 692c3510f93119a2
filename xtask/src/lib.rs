//! What the verbs of `cargo xtask` and the live tests share.
//!
//! [`scenario`] plays real TCP traffic and says what has to be reported about it, [`tracer`] runs
//! the real binary, [`demo`] puts the two together for a person to read.

pub mod demo;
pub mod scenario;
pub mod tracer;
