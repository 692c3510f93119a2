//! Events in, finished connections out: the join. Pure: no I/O, no clock, no panic.
//!
//! [`engine`] finds the connection that each event belongs to, [`table`] keeps them, [`connection`] is
//! what is remembered of one; `steps` says what each event does to it, and `replay` takes a whole
//! [`story`]; `pair` finds the other end, `asking` looks for it among those that are still open; [`listener`] knows who listens where,
//! [`route`] in which network namespace an address is,
//! [`stray`] resets without a socket, [`note`] why connections fail; [`reset`] finds who sent the reset that ended one, and
//! [`finish`] turns a connection that ended into the record that is printed.

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
