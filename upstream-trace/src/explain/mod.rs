//! `upstream-trace explain`: for each failed request in a proxy's log the connection behind it, from the tracer's own records.
//!
//! [`source`] turns growing files into lines · [`log`] reads a proxy's line, [`meaning`] says what its words mean for the kernel ·
//! [`story`] reads a record back, [`window`] keeps those of the last moments, [`delta`] what differs in their text · [`join`] brings both together · [`report`] makes the
//! answer a record of its own, [`text`] spells it for people. [`run`] drives all of it. I/O is done by `source` and `run`; the rest is
//! pure. Must not know: the kernel, how records are made.

pub mod delta;
pub mod join;
pub mod log;
pub mod meaning;
pub mod report;
pub mod run;
pub mod source;
pub mod story;
mod text;
pub mod window;
