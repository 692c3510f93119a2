//! What is said to who started the program, beside the records.

use std::{
    io::{self, Write},
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
    match Stdout.write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Output,
            format!("cannot write standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Standard output without a buffer. The standard library's takes a descriptor that refuses to be written to for one that has
/// taken it all (`handle_ebadf`).
#[derive(Debug)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stdout().as_fd(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
