//! `upstream-trace explain`: for each failed request in a proxy's log the connection behind it, from the tracer's own records.
//!
//! [`source`] turns growing files into lines · [`log`] reads a proxy's line, [`meaning`] says what its words mean for the kernel,
//! [`merge`] brings the lines of all logs into order · [`story`] reads a record back, [`records`] reads them ahead, [`window`] keeps
//! those of the last moments, [`delta`] what differs in their text · [`join`] brings both together · [`report`] makes the answer a record
//! of its own, with that of the [`other_end`], [`text`] spells it for people, [`answers`] writes it. [`run`] drives all of it. I/O is
//! done by `source`, `answers` and `run`, through `source` by `merge` and `records`; the rest is pure. Must not know: the kernel, how
//! records are made.

pub mod answers;
pub mod delta;
pub mod join;
pub mod log;
pub mod meaning;
pub mod merge;
pub mod other_end;
pub mod records;
pub mod report;
pub mod run;
pub mod source;
pub mod story;
mod text;
pub mod window;

/// Later than this after its time no record and no line is waited for where the clock says what is late, nanoseconds.
const LATE: u64 = 1_000_000_000;
