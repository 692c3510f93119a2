//! Exit codes: one closed list, printed in `--help` and README.

use std::fmt;

/// Why the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done, or told to stop.
    Ok = 0,
    /// Something that no other code names.
    Failure = 1,
    /// The command line is wrong, or names what is not there.
    Usage = 2,
    /// The kernel does not let this process trace.
    Privilege = 3,
    /// The kernel is too old or has no BTF, or the file with it is another kernel's.
    Kernel = 4,
    /// The kernel refused a hook that nothing can replace.
    Hook = 5,
    /// The output cannot be written.
    Output = 6,
    /// A log or the records cannot be read, or are none.
    Input = 7,
    /// This host can be traced, but not all of it is seen.
    Degraded = 8,
}

/// What `--help` says of them.
pub const HELP: &str = "\
Exit codes:
  0  done, told to stop (SIGINT, SIGTERM, SIGHUP), or the reader of the output is gone
  1  anything not listed here
  2  wrong command line, or no such cgroup or running container
  3  not allowed: it takes CAP_BPF and CAP_PERFMON, or root
  4  the kernel is too old or has no BTF, or the file of --btf is not its own
  5  the kernel refused a hook that nothing can replace
  6  the output cannot be written
  7  a log or the records cannot be read, or the file is something else
  8  from doctor: this host can be traced, but not all is seen (0: all is; 1, 3, 4, 5: it cannot)";

/// An end with a reason for a person: one line.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What was wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the system's own words hold.
        for (number, line) in self.message.lines().enumerate() {
            let gap = if number == 0 { "" } else { " " };
            write!(f, "{gap}{}", line.trim())?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
