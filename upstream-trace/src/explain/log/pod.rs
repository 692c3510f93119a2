//! What a node's files of containers' output (CRI) have before each line: `2026-11-29T14:00:00.123456789Z stdout F ...`.
//!
//! `F` is a whole line or the end of one, `P` a part before that: containerd cuts what is longer than 16 KiB, conmon (CRI-O, Podman) wherever
//! one of its reads of 8 KiB ended, so in any line. Those of the other stream may stand between. Must not know: what a line says.

use std::{borrow::Cow, mem};

use super::time;
use crate::explain::source::LONGEST;

/// What stands before a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    stream: Stream,
    last: bool,
    /// Where it ends. The blank behind it may be gone where nothing follows.
    pub(super) end: usize,
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Out,
    Err,
}

impl Mark {
    /// The one before this line; `None` where it is no line of such a file.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        let (time, behind) = line.split_at_checked(memchr::memchr(b' ', line)?)?;
        let mut streams = [(Stream::Out, b" stdout "), (Stream::Err, b" stderr ")].into_iter();
        let (stream, rest) =
            streams.find_map(|(stream, name)| Some((stream, behind.strip_prefix(name)?)))?;
        let last = match rest {
            [b'F'] | [b'F', b' ', ..] => true,
            [b'P'] | [b'P', b' ', ..] => false,
            _ => return None,
        };
        time::rfc3339(str::from_utf8(time).ok()?)?;
        Some(Self {
            stream,
            last,
            end: line.len() - rest.len() + 1,
        })
    }
}

/// What a line of such a file makes with those before it.
#[derive(Debug)]
pub(super) enum Joined<'a> {
    /// As if it had been written at once, with what stands before its last part.
    Whole(Cow<'a, [u8]>),
    Part,
    TooLong,
}

/// The parts of lines whose end has not come, at most twice [`LONGEST`] of each stream.
#[derive(Debug, Default)]
pub(super) struct Parts {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Parts {
    /// Takes the next line of the file.
    pub(super) fn join<'a>(&mut self, line: &'a [u8], mark: Mark) -> Joined<'a> {
        let parts = match mark.stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let own = line.get(mark.end + 1..).unwrap_or_default();
        if !mark.last {
            if parts.len() <= LONGEST {
                parts.extend_from_slice(own);
            }
            return Joined::Part;
        }
        if parts.is_empty() {
            return Joined::Whole(line.into());
        }
        let parts = mem::take(parts);
        if parts.len() + own.len() > LONGEST {
            return Joined::TooLong;
        }
        let before = line.get(..mark.end).unwrap_or_default();
        Joined::Whole([before, b" ", &parts, own].concat().into())
    }

    /// How many lines wait for their end.
    pub(super) fn unfinished(&self) -> usize {
        let streams = [&self.out, &self.err];
        streams.iter().filter(|parts| !parts.is_empty()).count()
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{
        super::{
            Reader, Reading,
            tests::{SEEDS, failed},
        },
        *,
    };

    const AT: &str = "2026-11-29T14:00:00.123456789Z";

    /// What became of each line, where all are in one file.
    fn read<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Vec<Reading> {
        let mut reader = Reader::new(TimeZone::UTC);
        let lines = lines.into_iter();
        lines.map(|line| reader.read(line.as_ref())).collect()
    }

    fn written(mark: &str, part: &[u8]) -> Vec<u8> {
        [AT.as_bytes(), b" ", mark.as_bytes(), b" ", part].concat()
    }

    #[test]
    fn a_line_in_parts_is_one_line() {
        for seed in SEEDS {
            // Wherever it was cut: also before a blank and inside a letter.
            let line = seed.replace("/a", "/\u{e4}");
            let whole = Reading::Failed(Box::new(failed(&line)));
            for (first, rest) in (0..=line.len()).map(|at| line.as_bytes().split_at(at)) {
                let (second, third) = rest.split_at(rest.len() / 2);
                let expected = [Reading::Part, Reading::Part, whole.clone()];
                let parts = [("P", first), ("P", second), ("F", third)];
                let parts = parts.map(|(mark, part)| written(&format!("stdout {mark}"), part));
                assert_eq!(read(parts), expected, "{line}");
            }
        }
    }

    #[test]
    fn the_streams_do_not_mix() {
        let [out, err] = [0, 2].map(|seed: usize| SEEDS[seed]);
        let [(out_1, out_2), (err_1, err_2)] =
            [out, err].map(|line| line.as_bytes().split_at(line.len() / 2));
        let [whole_out, whole_err] = [out, err].map(|line| Reading::Failed(failed(line).into()));
        let lines = [
            written("stdout P", out_1),
            written("stderr P", err_1),
            written("stdout F", out_2),
            written("stdout F", out.as_bytes()),
            written("stderr F", err_2),
            written("stderr F", err.as_bytes()),
        ];
        let expected = [
            Reading::Part,
            Reading::Part,
            whole_out.clone(),
            whole_out,
            whole_err.clone(),
            whole_err,
        ];
        assert_eq!(read(lines), expected);
    }

    #[test]
    fn the_end_may_be_empty() {
        let line = SEEDS[0];
        let whole = Reading::Failed(failed(line).into());
        for end in ["stdout F", "stdout F "] {
            let lines = [
                written("stdout P", line.as_bytes()),
                format!("{AT} {end}").into_bytes(),
            ];
            assert_eq!(read(lines), [Reading::Part, whole.clone()]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_in_all_is_one_broken_line() {
        for (length, is_read) in [(LONGEST, true), (LONGEST + 1, false), (5 * LONGEST, false)] {
            let path = "a".repeat(length + 1 - SEEDS[0].len());
            let line = SEEDS[0].replace("GET /a", &format!("GET /{path}"));
            assert_eq!(line.len(), length);
            let mut parts = Parts::default();
            let mut chunks = line.as_bytes().chunks(16 << 10).peekable();
            let mut whole = None;
            while let Some(chunk) = chunks.next() {
                let last = chunks.peek().is_none();
                let line = written(if last { "stderr F" } else { "stderr P" }, chunk);
                whole = match parts.join(&line, Mark::of(&line).unwrap()) {
                    Joined::Whole(line) => Some(line.into_owned()),
                    Joined::Part | Joined::TooLong => None,
                };
                assert!(parts.err.len() <= 2 * LONGEST);
            }
            let expected = is_read.then(|| written("stderr F", line.as_bytes()));
            assert!(whole == expected, "{length}");
            assert_eq!(parts.err.capacity(), 0, "nothing is left for the next line");
        }
    }
}
