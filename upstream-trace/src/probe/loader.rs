//! aya's loader, made without the kernel's types.
//!
//! `EbpfLoader::new` reads and parses all of them, asked or not, which takes longer than everything else
//! up to the first program. The object has no relocations that would need them. Must not know: what is
//! loaded.

use aya::EbpfLoader;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::{Code, Failure};

/// A loader that knows no types. To be made before there is another thread: for this moment the process
/// may open no file, so that the loader finds no types to read and does without.
pub fn without_types() -> Result<EbpfLoader<'static>, Failure> {
    let set = |limit| {
        setrlimit(Resource::Nofile, limit).map_err(|error| {
            let message = format!("cannot set the limit of open files: {error}");
            Failure::new(Code::Failure, message)
        })
    };
    let limit = getrlimit(Resource::Nofile);
    set(Rlimit {
        current: Some(0),
        ..limit
    })?;
    let loader = EbpfLoader::new();
    set(limit)?;
    Ok(loader)
}
