//! From facts to a verdict, and from a verdict to what it means. Pure.
//!
//! [`facts`] are what is known of a connection that ended, seen from its own socket; [`rules`] are the
//! contract's table; [`way`] is what the packet of a reset says of its sender; [`playbook`] is the one of causes, hints and what proxies say.

pub mod facts;
pub mod playbook;
pub mod rules;
pub mod way;
