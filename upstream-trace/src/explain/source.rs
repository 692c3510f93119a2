//! A file or standard input as lines, in bounded memory, while it grows and is rotated.
//!
//! Must not know: what a line says.

use std::{
    fs::{File, Metadata},
    io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::exit::{Code, Failure};

/// What is longer is no log line: the rest of it is skipped.
pub const LONGEST: usize = 64 << 10;
/// Read at a time.
const CHUNK: usize = 1 << 20;
/// Lines are given out up to so many bytes before whoever reads them has to look at something else.
const STRETCH: usize = 128 << 10;
/// `/dev/null`, which is empty; any other device that is no terminal may have no end.
const NULL: u64 = libc::makedev(1, 3);
/// How what is compressed begins, and what reads it.
const COMPRESSED: [(&[u8], &str); 3] = [
    (b"\x1f\x8b", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstdcat"),
    (b"\xfd7zXZ\0", "xzcat"),
];
/// How long a renamed file is read on when something is in the new one: not all of a proxy's processes open that at the same moment.
/// Shorter than a follower waits for what is late.
const PARTING: Duration = Duration::from_millis(500);

/// Where lines come from.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four things that are so or not"
)]
pub struct Source {
    /// As a person knows it.
    pub name: String,
    /// `None`: standard input.
    path: Option<PathBuf>,
    file: File,
    /// Only what has no end of its own has to be asked whether there is something to read.
    regular: bool,
    follow: bool,
    /// Since when something is in another file of that name.
    parting: Option<Instant>,
    /// Nothing more will come.
    over: bool,
    room: Box<[u8]>,
    start: usize,
    end: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    /// The line that begins at `start` was too long, and its rest is to be skipped.
    skipping: bool,
    /// Bytes since something else could be looked at.
    stretch: usize,
    /// The number of the last line.
    pub line: u64,
}

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    Line(&'a [u8]),
    /// One that is too long, or whose beginning is lost.
    Broken,
    /// Time to look at something else; there may be more.
    Enough,
    /// Nothing now; more may come.
    Later,
    /// Nothing, ever.
    End,
}

/// What is known about a file besides its lines.
enum Found {
    Line(usize),
    TooLong,
    Nothing,
}

impl Source {
    /// Opens `path`, or standard input for `-`. `follow`: beyond its end, as `tail -F`.
    pub fn open(path: &Path, follow: bool) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let (file, kind) = input(path).map_err(|error| unreadable(&name, &error))?;
        Ok(Self {
            name,
            path: (!is_stdin(path)).then(|| path.to_owned()),
            file,
            regular: kind.is_file(),
            follow,
            parting: None,
            over: false,
            room: vec![0; CHUNK].into_boxed_slice(),
            start: 0,
            end: 0,
            searched: 0,
            skipping: false,
            stretch: 0,
            line: 0,
        })
    }

    /// The next line, without its end.
    pub fn next_line(&mut self) -> Result<Next<'_>, Failure> {
        loop {
            if self.stretch > STRETCH {
                self.stretch = 0;
                return Ok(Next::Enough);
            }
            match self.find() {
                Found::Line(end) => {
                    let start = self.start;
                    self.stretch += end + 1 - start;
                    self.start = end + 1;
                    self.searched = self.start;
                    self.line += 1;
                    if std::mem::take(&mut self.skipping) {
                        return Ok(Next::Broken);
                    }
                    return Ok(Next::Line(self.room.get(start..end).unwrap_or_default()));
                }
                Found::TooLong => {
                    self.skipping = true;
                    self.stretch += self.end - self.start;
                    self.start = self.end;
                }
                Found::Nothing => {}
            }
            let filled = self.fill();
            if !filled.map_err(|error| unreadable(&self.name, &error))? {
                return Ok(if self.over { self.last() } else { Next::Later });
            }
        }
    }

    fn find(&mut self) -> Found {
        let fresh = self.room.get(self.searched..self.end).unwrap_or_default();
        let found = memchr::memchr(b'\n', fresh).map(|at| self.searched + at);
        self.searched = self.end;
        match found {
            Some(end) if end - self.start > LONGEST => {
                self.skipping = true;
                Found::Line(end)
            }
            Some(end) => Found::Line(end),
            None if self.end - self.start > LONGEST => Found::TooLong,
            None => Found::Nothing,
        }
    }

    /// The line without an end that a finished file may close with.
    fn last(&mut self) -> Next<'_> {
        let rest = self.start..self.end;
        self.start = self.end;
        self.searched = self.end;
        let skipped = std::mem::take(&mut self.skipping);
        if rest.is_empty() && !skipped {
            return Next::End;
        }
        self.line += 1;
        if skipped {
            return Next::Broken;
        }
        Next::Line(self.room.get(rest).unwrap_or_default())
    }

    /// Reads more behind what is there; false where there is nothing to read now.
    fn fill(&mut self) -> io::Result<bool> {
        if self.over || !self.regular && !readable(&self.file) {
            return Ok(false);
        }
        self.room.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.searched -= self.start;
        self.start = 0;
        let read = loop {
            let room = self.room.get_mut(self.end..).unwrap_or_default();
            match self.file.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        if self.line == 0 && !self.skipping {
            self.refuse_compressed()?;
        }
        // A pipe whose other end is closed has no more, followed or not.
        self.over = read == 0 && !(self.regular && self.follow);
        Ok(read > 0 || !self.over && self.begin_anew()?)
    }

    /// Looks at how the first line begins.
    fn refuse_compressed(&self) -> io::Result<()> {
        let begin = self.room.get(..self.end).unwrap_or_default();
        let known = COMPRESSED
            .iter()
            .find(|(magic, _)| begin.starts_with(magic));
        known.map_or(Ok(()), |(_, reader)| {
            Err(io::Error::other(format!(
                "it is compressed: {reader} it into a pipe ({reader} FILE | upstream-trace explain ...) and give - in its place"
            )))
        })
    }

    /// From the end of the file: goes to the new one of that name once that is written instead, or to the beginning of one that was cut off.
    fn begin_anew(&mut self) -> io::Result<bool> {
        let Some(path) = &self.path else {
            return Ok(false);
        };
        // Between two names of a rotation there is no file; it comes.
        let Ok(there) = std::fs::metadata(path) else {
            return Ok(false);
        };
        let here = self.file.metadata()?;
        let other = (there.dev(), there.ino()) != (here.dev(), here.ino());
        if other {
            // Whoever made it may have told nobody yet.
            let written = there.size() > 0;
            if !written || self.parting.get_or_insert_with(Instant::now).elapsed() < PARTING {
                return Ok(false);
            }
            self.file = File::open(path)?;
            self.parting = None;
        } else if here.size() < self.file.stream_position()? {
            self.file.seek(SeekFrom::Start(0))?;
        } else {
            return Ok(false);
        }
        // Half a line of the old file is no part of a line of the new one.
        (self.start, self.end, self.searched) = (0, 0, 0);
        self.skipping = false;
        self.line = 0;
        Ok(true)
    }
}

/// `-` is standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What can be read as lines and has an end, or a person at it.
fn input(path: &Path) -> io::Result<(File, Metadata)> {
    let file = if is_stdin(path) {
        File::from(owned(io::stdin().as_fd())?)
    } else {
        File::open(path)?
    };
    let kind = file.metadata()?;
    if kind.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if kind.file_type().is_char_device() && kind.rdev() != NULL && !file.is_terminal() {
        return Err(io::Error::other("it is no file, pipe or terminal"));
    }
    Ok((file, kind))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::new(Code::Input, format!("cannot read {name}: {error}"))
}

fn owned(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    descriptor.try_clone_to_owned()
}

/// Whether a read would not wait.
fn readable(file: &File) -> bool {
    let mut asked = [PollFd::new(file, PollFlags::IN)];
    rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    /// All there is now: lines, and `None` for broken ones.
    fn all(source: &mut Source) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        loop {
            match source.next_line().unwrap() {
                Next::Line(line) => lines.push(Some(line.to_vec())),
                Next::Broken => lines.push(None),
                Next::Enough => {}
                Next::Later | Next::End => return lines,
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as `all` has them")]
    fn line(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_with_and_without_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, b"one\n\ntw\0\xff").unwrap();
        let mut source = Source::open(&path, false).unwrap();
        assert_eq!(
            all(&mut source),
            [line("one"), line(""), Some(b"tw\0\xff".to_vec())]
        );
        assert_eq!((source.line, source.next_line().unwrap()), (3, Next::End));
    }

    #[test]
    fn a_huge_line_is_one_broken_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let huge = vec![b'x'; 5 * CHUNK];
        fs::write(
            &path,
            [
                b"a\n",
                &huge[..],
                b"\nb\n",
                &huge[..=LONGEST],
                b"\nc\n",
                &huge[..LONGEST],
                b"\n",
            ]
            .concat(),
        )
        .unwrap();
        let mut source = Source::open(&path, false).unwrap();
        let lines = all(&mut source);
        assert_eq!(lines[..4], [line("a"), None, line("b"), None]);
        assert_eq!(
            (lines[4].as_deref(), lines[5].as_ref().map(Vec::len)),
            (Some(&b"c"[..]), Some(LONGEST))
        );
        assert_eq!(source.room.len(), CHUNK);
    }

    #[test]
    fn a_growing_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = File::create(&path).unwrap();
        let mut source = Source::open(&path, true).unwrap();
        assert_eq!(all(&mut source), []);
        writer.write_all(b"one\nhal").unwrap();
        assert_eq!(all(&mut source), [line("one")]);
        writer.write_all(b"f\n").unwrap();
        assert_eq!(all(&mut source), [line("half")]);
    }

    #[test]
    fn a_rotated_and_a_truncated_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "old 1\nold 2, cut o").unwrap();
        let mut source = Source::open(&path, true).unwrap();
        assert_eq!(all(&mut source), [line("old 1")]);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(all(&mut source), []);
        fs::write(&path, "new 1\nnew 2\n").unwrap();
        assert_eq!(after_parting(&mut source), [line("new 1"), line("new 2")]);
        assert_eq!(source.line, 2);
        fs::write(&path, "cut\n").unwrap();
        assert_eq!(all(&mut source), [line("cut")]);
    }

    /// What there is when the old file is no longer waited for.
    fn after_parting(source: &mut Source) -> Vec<Option<Vec<u8>>> {
        assert_eq!(all(source), []);
        std::thread::sleep(PARTING);
        all(source)
    }

    #[test]
    fn a_renamed_file_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut old = File::create(&path).unwrap();
        let mut source = Source::open(&path, true).unwrap();
        assert_eq!(all(&mut source), []);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        // As logrotate does, before it tells the writer.
        fs::write(&path, "").unwrap();
        assert_eq!(after_parting(&mut source), []);
        old.write_all(b"old 1\n").unwrap();
        assert_eq!(all(&mut source), [line("old 1")]);
        // One process has opened the new file, another has not.
        fs::write(&path, "new 1\n").unwrap();
        assert_eq!(all(&mut source), []);
        old.write_all(b"old 2\n").unwrap();
        assert_eq!(all(&mut source), [line("old 2")]);
        assert_eq!(after_parting(&mut source), [line("new 1")]);
        old.write_all(b"too late\n").unwrap();
        assert_eq!(all(&mut source), []);
    }

    #[test]
    fn what_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        for path in [dir.path(), &none, Path::new("/dev/zero")] {
            assert!(Source::open(path, false).is_err(), "{}", path.display());
        }
        assert!(Source::open(Path::new("/dev/null"), false).is_ok());
    }

    #[test]
    fn what_is_compressed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.gz");
        for (magic, reader) in COMPRESSED {
            fs::write(&path, [magic, b"x\ny"].concat()).unwrap();
            let mut source = Source::open(&path, false).unwrap();
            let said = source.next_line().unwrap_err().to_string();
            assert!(said.contains(reader), "{said}");
            // Anywhere else it is a broken line as any other.
            fs::write(&path, [b"x\n", magic].concat()).unwrap();
            let mut source = Source::open(&path, false).unwrap();
            assert_eq!(all(&mut source).len(), 2);
        }
    }

    #[test]
    fn no_stretch_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for bytes in [vec![b'\n'; 2 * CHUNK], vec![0; 2 * CHUNK]] {
            fs::write(&path, bytes).unwrap();
            let mut source = Source::open(&path, false).unwrap();
            let mut stretches = 0;
            loop {
                match source.next_line().unwrap() {
                    Next::Enough => stretches += 1,
                    Next::End => break,
                    Next::Line(_) | Next::Broken | Next::Later => {}
                }
            }
            assert!(stretches >= 2, "{stretches}");
        }
    }
}
