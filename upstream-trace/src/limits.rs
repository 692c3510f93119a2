//! How much this process may have: whether it may open some files more.
//!
//! Must not know: what they are opened for.

use rustix::event::{EventfdFlags, eventfd};

use crate::exit::{Code, Failure};

/// As many files as whatever opens some and cannot say that it failed may open at once: tokio's runtime, which panics, six.
const SPARE: usize = 8;

/// Whether [`SPARE`] files more can be opened.
pub fn spare_descriptors() -> Result<(), Failure> {
    let opened: Result<Vec<_>, _> = (0..SPARE)
        .map(|_| eventfd(0, EventfdFlags::CLOEXEC))
        .collect();
    opened.map(drop).map_err(|error| {
        Failure::no_descriptor(Some(error.raw_os_error()))
            .unwrap_or_else(|| Failure::new(Code::Failure, format!("cannot start: {error}")))
    })
}
