//! Events in, finished connections out: the join. Pure: no I/O, no clock, no panic.
//!
//! [`engine`] takes single events and whole stories ([`story`]); [`table`] finds the connection each
//! belongs to; [`connection`] is what is remembered of one; [`listener`] who listens where; [`stray`]
//! resets without a socket;
//! [`finish`] turns a connection that ended into the record that is printed.

pub mod connection;
pub mod engine;
pub mod finish;
pub mod listener;
pub mod story;
pub mod stray;
pub mod table;
pub mod tuple;

#[cfg(test)]
mod keeper;
#[cfg(test)]
mod tests;
