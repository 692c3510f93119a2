//! What is said to who started the program, beside the records.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
};

use super::text::Harmless;
use crate::exit::{Code, Failure};

/// A line on standard error, if anybody takes it. In one write, so that it stays whole beside what others write there.
pub fn say(message: &(impl std::fmt::Display + ?Sized)) {
    let message = message.to_string();
    let line = format!("upstream-trace: {}\n", Harmless(&message));
    let _untaken = io::stderr().write_all(line.as_bytes());
}

/// Text on standard output, for what is not a record. A reader that has gone is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    match stdout().and_then(|mut stdout| stdout.write_all(text.as_bytes())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Output,
            format!("cannot write standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Standard output without a buffer. The standard library's takes a descriptor that refuses to be written to for one that has
/// taken it all (`handle_ebadf`).
pub fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}
