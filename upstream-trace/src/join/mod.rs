//! Events in, finished connections out: the join. Pure: no I/O, no clock, no panic.
//!
//! [`engine`] finds the connection that each event belongs to, [`table`] keeps them, [`connection`] is
//! what is remembered of one and [`tuple`] its addresses; `steps` says what each event does to it, and `replay` takes a whole
//! [`story`]; `pair` finds the other end, by its addresses or, where those are [`translated`], by sequence numbers, and `asking` looks for
//! it among those that are still open; [`listener`] knows who listens where, [`route`] in which network namespace an address is,
//! [`stray`] resets without a socket, [`note`] why connections fail.
//!
//! Of a connection that ended, `ending` is what there is to know at once, [`reset`] finds who sent the reset that ended it and `reason`
//! why, `evidence` what else made it fail, and [`finish`] turns all that into the record that is printed. `raw_event` prints events
//! themselves.

mod asking;
pub mod connection;
mod ending;
pub mod engine;
mod evidence;
pub mod finish;
pub mod listener;
pub mod note;
mod pair;
mod raw_event;
mod reason;
mod replay;
pub mod reset;
pub mod route;
mod steps;
pub mod story;
pub mod stray;
pub mod table;
pub mod translated;
pub mod tuple;

#[cfg(test)]
mod keeper;
#[cfg(test)]
mod tests;
