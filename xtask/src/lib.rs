//! What the verbs of `cargo xtask` and the live tests share.
//!
//! One verb a file. [`scenario`] plays real TCP traffic and says what has to be reported about it,
//! [`tracer`] runs the real binary, on hosts that [`confine`] makes of this one, [`doctor`] holds its forecast against its run,
//! [`bpf`] asks what it left in the kernel; [`demo`] puts the two together for a person to read; [`storm`]
//! makes the traffic that [`bench`] measures; [`matrix`] plays the scenarios on other kernels; [`proxy`]
//! holds real proxies' logs against the tracer. Must not know: how the tracer works inside; it is only
//! ever started as a program.

pub mod bench;
pub mod bpf;
pub mod bpf_toolchain;
pub mod build;
pub mod cgroups;
pub mod confine;
pub mod demo;
pub mod doctor;
pub mod matrix;
pub mod older;
mod process;
pub mod provision;
pub mod proxy;
pub mod random;
pub mod run;
pub mod scenario;
pub mod skipped;
pub mod stopped;
pub mod storm;
pub mod test;
pub mod tracer;
pub mod types;
pub mod workspace;
