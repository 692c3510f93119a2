//! From facts to a verdict, and from a verdict to what it means. Pure.
//!
//! [`facts`] are what is known of a connection that ended, seen from its own socket; [`rules`] are the
//! contract's table; [`playbook`] is the one of causes, hints and what proxies say.

pub mod facts;
pub mod playbook;
pub mod rules;
