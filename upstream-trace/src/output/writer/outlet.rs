//! What is written to: standard output or a file, opened, written to, and cut back where half a line got into it.
//!
//! Must not know: lines, threads.

use std::{
    fs::File,
    io,
    io::{ErrorKind, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{OFlags, fcntl_setfl},
    io::Errno,
};

use super::OpenError;
use crate::output::ahead::Ahead;

/// Where the lines go: opened, and not yet written to.
#[derive(Debug)]
pub struct Destination {
    pub(super) file: File,
    /// For messages.
    pub(super) name: String,
    /// A regular file, which is ours from its beginning.
    pub(super) regular: bool,
}

impl Destination {
    /// Standard output.
    pub fn stdout() -> Result<Self, OpenError> {
        let name = "standard output".to_owned();
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(fd) => Ok(Self {
                file: fd.into(),
                name,
                regular: false,
            }),
            Err(reason) => Err(OpenError::Open { name, reason }),
        }
    }

    /// A file, created where there is none. What is in it stays until [`Writer::start`].
    pub fn file(path: &Path) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        // At its end, wherever that is: whoever rotates it may cut it. A pipe that nobody reads is an error, not a wait.
        let mut options = File::options();
        options.create(true).append(true);
        options.custom_flags(libc::O_NONBLOCK);
        let opened = options.open(path).and_then(|file| {
            // Once it is open, a write waits.
            fcntl_setfl(&file, OFlags::APPEND)?;
            let regular = file.metadata()?.is_file();
            Ok((file, regular))
        });
        match opened {
            Ok((file, regular)) => Ok(Self {
                file,
                name,
                regular,
            }),
            Err(reason) => Err(OpenError::Open { name, reason }),
        }
    }
    /// What writes there, and whether somebody reads it. Empties a regular file.
    pub(super) fn begin(self) -> Result<(Outlet, Reader), OpenError> {
        let Self {
            file,
            name,
            regular,
        } = self;
        if regular && let Err(reason) = file.set_len(0) {
            return Err(OpenError::Open { name, reason });
        }
        let file = Arc::new(file);
        let kind = file.metadata().ok().map(|data| data.file_type());
        let pipe = kind.is_some_and(|kind| kind.is_fifo());
        let gone = match kind {
            Some(kind) if kind.is_fifo() => PollFlags::ERR,
            // An error of a socket may be another one.
            Some(kind) if kind.is_socket() => PollFlags::HUP,
            // A terminal that is gone is for SIGHUP to say.
            _ => PollFlags::empty(),
        };
        let outlet = Outlet {
            file: Arc::clone(&file),
            name,
            most: pipe.then_some(libc::PIPE_BUF),
            part: None,
            ahead: regular.then(Ahead::default),
        };
        Ok((outlet, Reader { file, gone }))
    }
}

/// Whoever reads the other end of a pipe or a socket.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<File>,
    /// What poll(2) says of it when its reader has gone; nothing, where it has none.
    gone: PollFlags,
}

impl Reader {
    pub(super) fn has_gone(&self) -> bool {
        let now = || poll(&self.file, PollFlags::empty(), Some(&Timespec::default()));
        !self.gone.is_empty() && now().is_ok_and(|events| events.intersects(self.gone))
    }
}

/// Where the lines go, from the first on.
#[derive(Debug)]
pub(super) struct Outlet {
    file: Arc<File>,
    /// For messages.
    pub(super) name: String,
    /// Of a pipe: the most bytes that it takes at once or not at all.
    pub(super) most: Option<usize>,
    /// Of a regular file: how many bytes the last write took that did not take all, and where it ended.
    part: Option<(usize, u64)>,
    ahead: Option<Ahead>,
}

impl Outlet {
    /// One write, however long it takes; how many bytes were taken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(ahead) = &mut self.ahead {
            ahead.prepare(&self.file, bytes.len());
        }
        loop {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    if let Some(ahead) = &mut self.ahead {
                        ahead.advance(written);
                    }
                    if written < bytes.len() {
                        let end = self.file.stream_position().ok();
                        self.part = end.map(|end| (written, end));
                    }
                    return Ok(written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody who shares our standard output has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&self.file, PollFlags::OUT, None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Cuts off a regular file the bytes of a line that the last write has `begun`. A file that ends elsewhere than that did has been
    /// cut or written to by somebody else, and is left as it is; so is a line of several writes, between which that may have been.
    pub(super) fn take_back(&mut self, begun: usize) {
        if let Some((written, end)) = self.part
            && (1..=written).contains(&begun)
            && self.file.metadata().is_ok_and(|data| data.len() == end)
        {
            let whole = end - begun as u64;
            if self.file.set_len(whole).is_ok() {
                // Whoever shares our standard output goes on there, without a gap.
                let _moved = self.file.seek(SeekFrom::Start(whole));
            }
        }
    }

    /// No more will be written.
    pub(super) fn release(&self) {
        if let Some(ahead) = &self.ahead {
            ahead.release(&self.file);
        }
    }
}

/// Which of `events`, and which errors, there are within that time (`None`: however long it takes); none if interrupted.
fn poll(file: &File, events: PollFlags, timeout: Option<&Timespec>) -> io::Result<PollFlags> {
    let mut polled = [PollFd::new(file, events)];
    match rustix::event::poll(&mut polled, timeout) {
        Ok(_) => Ok(polled[0].revents()),
        Err(Errno::INTR) => Ok(PollFlags::empty()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn half_a_line_is_taken_back_unless_somebody_else_was_there() {
        let after = |begun, meanwhile: &dyn Fn(&mut File)| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out.json");
            let Destination { mut file, .. } = Destination::file(&path).unwrap();
            let written = file.write(b"one\ntw").unwrap();
            let mut outlet = Outlet {
                part: Some((written, file.stream_position().unwrap())),
                file: Arc::new(file),
                name: String::new(),
                most: None,
                ahead: None,
            };
            meanwhile(&mut File::options().append(true).open(&path).unwrap());
            outlet.take_back(begun);
            fs::read_to_string(&path).unwrap()
        };
        assert_eq!(after(2, &|_| ()), "one\n");
        assert_eq!(after(0, &|_| ()), "one\ntw");
        assert_eq!(after(7, &|_| ()), "one\ntw");
        assert_eq!(after(2, &|file| file.set_len(0).unwrap()), "");
        assert_eq!(after(2, &|file| file.set_len(5).unwrap()), "one\nt");
        let more = |file: &mut File| file.write_all(b"more\n").unwrap();
        assert_eq!(after(2, &more), "one\ntwmore\n");
        let cut = |file: &mut File| {
            file.set_len(0).unwrap();
            more(file);
        };
        assert_eq!(after(2, &cut), "more\n");
    }
}
