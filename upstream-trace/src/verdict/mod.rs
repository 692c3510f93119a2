//! From facts to a verdict, and from a verdict to words. Pure.
//!
//! [`facts`] are what is known of a connection that ended, seen from its own socket; [`rules`] are the
//! contract's table; [`words`] are hints and what proxies say.

pub mod facts;
pub mod rules;
pub mod words;
