//! Exit codes: one closed list, printed in `--help` and README.

use std::fmt;

use crate::output::text::Harmless;

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
  2  wrong command line, or no such process, cgroup or running container
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
    /// What to say where the system gave no file descriptor; `None`: the error is another one.
    pub fn no_descriptor(errno: Option<i32>) -> Option<Self> {
        let message = match errno? {
            libc::EMFILE => {
                "cannot start: Too many open files: raise the limit of open files (ulimit -n, LimitNOFILE=) to at least 128"
            }
            libc::ENFILE => {
                "cannot start: Too many open files in system: raise the limit of all of them (sysctl fs.file-max)"
            }
            _ => return None,
        };
        Some(Self::new(Code::Failure, message))
    }

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
        // One line that does nothing to a terminal, whatever the system's own words or a path hold.
        for (number, line) in self.message.lines().enumerate() {
            let gap = if number == 0 { "" } else { " " };
            write!(f, "{gap}{}", Harmless(line.trim()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_that_does_nothing_to_a_terminal() {
        let failure = Failure::new(Code::Usage, "a\u{1b}[2J\n  b\rc\n");
        assert_eq!(failure.to_string(), "a\\u001b[2J b\\u000dc");
    }

    #[test]
    fn who_has_no_descriptor_left_is_told_which_limit_to_raise() {
        let says = |errno, word| {
            Failure::no_descriptor(Some(errno))
                .is_some_and(|failure| failure.message.contains(word))
        };
        assert!(says(libc::EMFILE, "LimitNOFILE="));
        assert!(says(libc::ENFILE, "fs.file-max"));
        assert!(Failure::no_descriptor(Some(libc::EPERM)).is_none());
    }
}
