//! aya's loader, made without the kernel's types.
//!
//! `EbpfLoader::new` reads and parses all of them, asked or not, which takes longer than everything else
//! up to the first program. The object has no relocations that would need them. Must not know: what is
//! loaded.

use std::io;

use aya::EbpfLoader;

use crate::exit::{Code, Failure};

/// A loader that knows no types. To be made before there is another thread: for this moment the process
/// may open no file, so that the loader finds no types to read and does without.
pub fn without_types() -> Result<EbpfLoader<'static>, Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            Code::Failure,
            format!("cannot set the limit of open files: {error}"),
        )
    };
    let limit = open_files().map_err(failed)?;
    let none = libc::rlimit {
        rlim_cur: 0,
        ..limit
    };
    limit_open_files(&none).map_err(failed)?;
    let loader = EbpfLoader::new();
    limit_open_files(&limit).map_err(failed)?;
    Ok(loader)
}

fn open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit to the place it is given, which lives here.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if status == 0 {
        Ok(limit)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn limit_open_files(limit: &libc::rlimit) -> io::Result<()> {
    // SAFETY: the kernel reads one rlimit from a reference, which is valid.
    let status = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
