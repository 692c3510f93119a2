//! The tracer's records, read into the window as far ahead as is asked for.
//!
//! What is followed happens now, so there the clock says up to when all records have come; what is not followed is waited for, however
//! slowly a pipe brings it. Must not know: logs, what a record explains.

use std::path::Path;

use super::{
    LATE,
    source::{Next, Source},
    story::{Kind, SCHEMA},
    window::Window,
};
use crate::{
    clock,
    exit::{Code, Failure},
};

/// Records are in order of time but for this. A tracer that is late itself may hold one for longer; that one comes in time all the same, for a
/// line waits for the records of a second beyond its end (`SLACK`).
const JITTER: u64 = 250_000_000;

/// The records, in order.
#[derive(Debug)]
pub struct Records {
    source: Source,
    follow: bool,
    /// All that ended before this are read, but for some that were held long ([`JITTER`]).
    pub seen: u64,
    over: bool,
    /// Why not all are read that were asked for.
    pub lacking: Option<Lack>,
    pub count: u64,
    /// Lines of the tracer that tell of no connection.
    other: u64,
    pub unknown: u64,
}

/// Where records are that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There, and the next to be read.
    Unread,
    /// A pipe has yet to bring them.
    Unwritten,
}

impl Records {
    /// Opens a file, or standard input for `-`. `follow`: beyond its end.
    pub fn open(path: &Path, follow: bool) -> Result<Self, Failure> {
        Ok(Self {
            source: Source::open(path, follow)?,
            follow,
            seen: 0,
            over: false,
            lacking: None,
            count: 0,
            other: 0,
            unknown: 0,
        })
    }

    /// Reads all that ended up to `until`, and keeps those that did not end before `oldest`.
    pub fn advance(&mut self, until: u64, oldest: u64, window: &mut Window) -> Result<(), Failure> {
        self.lacking = None;
        while !self.over && self.seen < until {
            match self.source.next_line()? {
                Next::Line(line) => match Kind::read(line) {
                    Kind::Connection(brief) => {
                        self.count += 1;
                        self.seen = self.seen.max(brief.ended.saturating_sub(JITTER));
                        if brief.ended >= oldest {
                            window.insert(brief, line);
                        } else {
                            window.forgotten = window.forgotten.max(brief.ended);
                        }
                    }
                    Kind::Other => self.other += 1,
                    Kind::Foreign(schema) => {
                        let (name, line) = (&self.source.name, self.source.line);
                        let message = format!(
                            "{name}:{line} is of {schema}, this upstream-trace reads {SCHEMA}"
                        );
                        return Err(Failure::new(Code::Input, message));
                    }
                    Kind::Broken => self.unknown += 1,
                },
                Next::Broken => self.unknown += 1,
                Next::Enough => {
                    self.are_some()?;
                    self.lacking = Some(Lack::Unread);
                    break;
                }
                Next::Later => {
                    if self.follow {
                        self.seen = self.seen.max(clock::of_day().saturating_sub(LATE));
                    } else {
                        self.lacking = Some(Lack::Unwritten);
                    }
                    break;
                }
                Next::End => {
                    self.are_some_of_all()?;
                    self.over = true;
                    self.seen = u64::MAX;
                }
            }
        }
        Ok(())
    }

    /// Whether there was anything of the tracer's in all that there is, which may be nothing.
    pub fn are_some_of_all(&self) -> Result<(), Failure> {
        if self.unknown == 0 {
            return Ok(());
        }
        self.are_some()
    }

    /// Whether there was anything of the tracer's: else every answer would be that there is none.
    fn are_some(&self) -> Result<(), Failure> {
        if self.count + self.other > 0 {
            return Ok(());
        }
        let name = &self.source.name;
        let message = format!(
            "{name} has no record: it has to be what upstream-trace prints as JSON, one object a line (no array, not with --format text)"
        );
        Err(Failure::new(Code::Input, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_without_a_record_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        for (content, refused) in [
            (vec![0; 200 << 10], true),
            (b"x\n".repeat(100 << 10), true),
            // The tracer may yet begin.
            (Vec::new(), false),
            (b"x\n".to_vec(), false),
        ] {
            std::fs::write(&path, content).unwrap();
            let mut records = Records::open(&path, true).unwrap();
            let mut window = Window::default();
            let mut advance = || records.advance(u64::MAX, 0, &mut window).err();
            let failed = (0..4).find_map(|_| advance());
            assert_eq!(
                failed.map(|failure| failure.code),
                refused.then_some(Code::Input)
            );
        }
    }
}
