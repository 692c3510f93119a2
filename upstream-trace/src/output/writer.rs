//! The only place that writes to standard output or the output file: a thread that may block, so that the main loop never does.
//!
//! Lines wait in a queue that is bounded in bytes. What does not fit is dropped, counted, and leaves a gap in `seq`.
//! A pipe is given whole lines of at most `PIPE_BUF` bytes at a time. The kernel takes those wholly or not at all, so a reader that stalls
//! never sees half a line, and what is given up at the end is known exactly. (A line longer than that, and a terminal or a socket, may be
//! cut when the reader stalls for good.)
//! A regular file that can take no more is cut back to its last whole line.
//! Must not know: what a line says.

mod outlet;
mod queue;

use std::{
    fmt::{self, Display, Formatter},
    future, io,
    io::ErrorKind,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::watch;

pub use self::outlet::Destination;
use self::{
    outlet::{Outlet, Reader},
    queue::Queue,
};
use super::batch::{Batch, Weight};

/// Bytes that may wait for a slow reader: some 7,000 records.
pub const DEFAULT_LIMIT: usize = 8 << 20;

/// The output cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot write {name}: {reason}")]
    Open {
        name: String,
        #[source]
        reason: io::Error,
    },
    #[error("cannot start the output thread: {0}")]
    Thread(#[source] io::Error),
}

/// Why nothing more can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The reader has gone; no error.
    Closed,
    /// What to tell the user, such as `cannot write out.json: No space left on device (os error 28)`.
    Failed(String),
}

impl Display for Ended {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the reader of the output has gone"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

/// The main loop's end of the queue.
#[derive(Debug)]
pub struct Writer {
    reader: Reader,
    queue: Arc<Queue>,
    ended: watch::Receiver<Option<Ended>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Empties a regular file and starts the thread, with at most `limit` bytes waiting.
    pub fn start(destination: Destination, limit: usize) -> Result<Self, OpenError> {
        let (mut outlet, reader) = destination.begin()?;
        let queue = Arc::new(Queue::new(limit));
        let (report, ended) = watch::channel(None);
        let run = {
            let queue = Arc::clone(&queue);
            move || {
                let served = serve(&queue, &mut outlet);
                outlet.release();
                if let Err(error) = served {
                    report.send_replace(Some(match error.kind() {
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Ended::Closed,
                        _ => Ended::Failed(format!("cannot write {}: {error}", outlet.name)),
                    }));
                }
            }
        };
        let thread = thread::Builder::new().name("output".into()).spawn(run);
        Ok(Self {
            reader,
            queue,
            ended,
            thread: Some(thread.map_err(OpenError::Thread)?),
        })
    }

    /// Hands over all lines of `batch`, which is empty afterwards and has memory for the next. Never blocks on the reader.
    ///
    /// Returns the weight of the lines that had to be dropped because the queue is full or the reader has gone.
    pub fn push(&self, batch: &mut Batch) -> Weight {
        self.queue.push(batch)
    }

    /// Whether whoever read a pipe or a socket has gone, which else only the next line would show.
    pub fn is_unread(&self) -> bool {
        self.reader.has_gone()
    }

    /// Waits until nothing more can be written; forever, if all is well. May be cancelled at any time.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(ended)) => ended.clone(),
            // The thread has come to its orderly end.
            Ok(None) | Err(_) => future::pending().await,
        }
    }

    /// Blocks until all is written, at most for `timeout`; then the rest is dropped and its weight returned.
    ///
    /// The writer can be used further: a final line has the whole queue to itself, and is written if the reader comes back.
    pub fn drain(&self, timeout: Duration) -> Weight {
        self.queue.drain(timeout)
    }

    /// As [`Writer::drain`], for good, and why nothing more could be written, if so. A thread that is stuck in a write is left
    /// behind, to end with the process.
    pub fn finish(mut self, timeout: Duration) -> (Weight, Option<Ended>) {
        let lost = self.queue.drain(timeout);
        let idle = self.queue.close();
        if let Some(thread) = self.thread.take()
            && idle
            && thread.join().is_err()
        {
            debug_assert!(false, "the output thread has panicked");
        }
        let ended = self.ended.borrow().clone();
        (lost, ended)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The thread: writes what the queue hands out, until no more will come or nothing more can be written.
fn serve(queue: &Queue, outlet: &mut Outlet) -> io::Result<()> {
    let mut batch = Batch::default();
    while let Some(next) = queue.next(batch) {
        batch = next;
        while !batch.is_empty() {
            match outlet.write(batch.front(outlet.most)) {
                Ok(written) => queue.written(&mut batch, written),
                Err(error) => {
                    outlet.take_back(batch.begun());
                    queue.die();
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{BufRead as _, BufReader, PipeReader, Read as _, Seek as _, SeekFrom, pipe},
        net::Shutdown,
        os::{
            fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
            unix::{fs::OpenOptionsExt as _, net::UnixStream},
        },
        path::Path,
    };

    use super::*;

    /// Long enough never to pass in a test that works.
    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(20);

    fn piped(limit: usize) -> (Writer, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (to(writer, limit), reader)
    }

    /// As standard output.
    fn to(file: impl Into<OwnedFd>, limit: usize) -> Writer {
        let destination = Destination {
            file: File::from(file.into()),
            name: "it".to_owned(),
            regular: false,
        };
        Writer::start(destination, limit).unwrap()
    }

    fn to_file(path: &Path) -> Result<Writer, OpenError> {
        Writer::start(Destination::file(path)?, DEFAULT_LIMIT)
    }

    /// `number` padded to `len` bytes; stands for two events.
    fn add(batch: &mut Batch, number: usize, len: usize) {
        let unwritten = batch.line(2, |room| {
            let text = format!("{number:0width$}\n", width = len - 1);
            room.get_mut(..len)?.copy_from_slice(text.as_bytes());
            Some(len)
        });
        assert_eq!(unwritten, lines(0));
    }

    fn numbers(reader: impl io::Read) -> Vec<usize> {
        let lines = BufReader::new(reader).lines();
        lines.map(|line| line.unwrap().parse().unwrap()).collect()
    }

    fn lines(lines: u64) -> Weight {
        Weight {
            lines,
            events: 2 * lines,
        }
    }

    #[test]
    fn everything_arrives_in_order() {
        let (writer, reader) = piped(DEFAULT_LIMIT);
        let reading = thread::spawn(|| numbers(reader));
        let mut batch = Batch::default();
        let mut dropped = Weight::default();
        for number in 0..5_000 {
            add(&mut batch, number, 1_000);
            if number % 7 == 0 {
                dropped += writer.push(&mut batch);
                assert!(batch.is_empty());
            }
        }
        dropped += writer.push(&mut batch);
        assert_eq!(dropped, lines(0));
        assert_eq!(writer.finish(LONG).0, lines(0));
        assert!(reading.join().unwrap().into_iter().eq(0..5_000));
    }

    #[test]
    fn a_paused_reader_costs_bounded_memory_and_every_line_is_counted() {
        let (writer, reader) = piped(1 << 20);
        let mut batch = Batch::default();
        let mut lost = Weight::default();
        for number in 0..20_000 {
            add(&mut batch, number, 1_000);
            lost += writer.push(&mut batch);
            let state = writer.queue.lock();
            assert!(state.bytes() <= 1 << 20);
        }
        assert!(lost.lines > 18_000);
        lost += writer.drain(SHORT);
        // The last word, for which the reader comes back.
        add(&mut batch, 20_000, 1_000);
        assert_eq!(writer.push(&mut batch), lines(0));
        let reading = thread::spawn(|| numbers(reader));
        assert_eq!(writer.finish(LONG).0, lines(0));

        let read = reading.join().unwrap();
        assert!(read.is_sorted());
        assert_eq!(read.last(), Some(&20_000));
        // The write that was stuck when the rest was given up: four lines make 4,000 bytes.
        let read: u64 = read.len().try_into().unwrap();
        assert_eq!(lost.events, 2 * lost.lines);
        assert!((20_001..=20_005).contains(&(read + lost.lines)));
    }

    #[test]
    fn a_reader_that_never_comes_back_sees_whole_lines_and_exact_counts() {
        let (writer, reader) = piped(DEFAULT_LIMIT);
        let mut batch = Batch::default();
        for number in 0..300 {
            add(&mut batch, number, 1_100);
        }
        assert_eq!(writer.push(&mut batch), lines(0));
        // Until the pipe is full: its sixteen pages hold three lines each.
        while writer.queue.lock().waiting.lines > 300 - 48 {
            thread::yield_now();
        }
        let (lost, _) = writer.finish(SHORT);
        assert_eq!(lost, lines(300 - 48));
        let mut text = vec![0; 48 * 1_100];
        BufReader::new(reader).read_exact(&mut text).unwrap();
        assert!(numbers(&*text).into_iter().eq(0..48));
    }

    #[tokio::test]
    async fn a_closed_pipe_is_reported() {
        let (writer, reader) = piped(DEFAULT_LIMIT);
        drop(reader);
        let mut batch = Batch::default();
        add(&mut batch, 1, 10);
        assert_eq!(writer.push(&mut batch), lines(0));
        assert_eq!(writer.ended().await, Ended::Closed);
        add(&mut batch, 2, 10);
        assert_eq!(writer.push(&mut batch), lines(1));
        assert!(batch.is_empty());
        assert_eq!(writer.finish(LONG).0, lines(1));
    }

    #[test]
    fn a_reader_that_goes_is_seen_without_a_line() {
        let (writer, reader) = piped(DEFAULT_LIMIT);
        assert!(!writer.is_unread());
        drop(reader);
        assert!(writer.is_unread());

        let (near, far) = UnixStream::pair().unwrap();
        let writer = to(near, DEFAULT_LIMIT);
        // The journal and sshd shut down what they do not use: the other direction.
        far.shutdown(Shutdown::Write).unwrap();
        assert!(!writer.is_unread());
        drop(far);
        assert!(writer.is_unread());
    }

    #[test]
    fn what_has_no_reader_is_never_unread() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert!(!to(null, DEFAULT_LIMIT).is_unread());
        assert!(!to(tempfile::tempfile().unwrap(), DEFAULT_LIMIT).is_unread());
        let (terminal, emulator) = terminal();
        let writer = to(terminal, DEFAULT_LIMIT);
        assert!(!writer.is_unread());
        drop(emulator);
        assert!(!writer.is_unread());
    }

    /// A terminal, and what it is emulated by.
    fn terminal() -> (File, File) {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        let emulator = options.open("/dev/ptmx").unwrap();
        let unlocked: libc::c_int = 0;
        // SAFETY: reads one number from a reference, which is valid.
        let done =
            unsafe { libc::ioctl(emulator.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
        assert_eq!(done, 0);
        // SAFETY: takes no pointer, and the file is open.
        let terminal = unsafe {
            libc::ioctl(
                emulator.as_raw_fd(),
                libc::TIOCGPTPEER,
                libc::O_RDWR | libc::O_NOCTTY,
            )
        };
        assert!(terminal >= 0);
        // SAFETY: the kernel has just opened it for us.
        (unsafe { File::from_raw_fd(terminal) }, emulator)
    }

    #[tokio::test]
    async fn a_full_device_is_named() {
        let writer = to_file(Path::new("/dev/full")).unwrap();
        let mut batch = Batch::default();
        add(&mut batch, 1, 10);
        assert_eq!(writer.push(&mut batch), lines(0));
        let ended = writer.ended().await.to_string();
        assert_eq!(
            ended,
            "cannot write /dev/full: No space left on device (os error 28)"
        );
    }

    /// No file of this process may be longer.
    const LONGEST: u64 = 1 << 40;

    /// A file that takes so many bytes more, as standard output: positioned, and not for appending.
    fn nearly_full(room: u64) -> File {
        // SAFETY: no handler is installed that could run at a wrong moment.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let longest = libc::rlimit {
            rlim_cur: LONGEST,
            rlim_max: LONGEST,
        };
        // SAFETY: the kernel reads one rlimit from a reference, which is valid.
        let limited = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const longest) };
        assert_eq!(limited, 0);
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(LONGEST - room).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file
    }

    #[test]
    fn a_file_that_can_grow_no_more_ends_with_a_whole_line() {
        let mut shared = nearly_full(10);
        let writer = to(shared.try_clone().unwrap(), DEFAULT_LIMIT);
        let mut batch = Batch::default();
        for number in 0..5 {
            add(&mut batch, number, 4);
        }
        assert_eq!(writer.push(&mut batch), lines(0));
        let (lost, ended) = writer.finish(LONG);
        assert_eq!(lost, lines(3));
        let failed = Ended::Failed("cannot write it: File too large (os error 27)".to_owned());
        assert_eq!(ended, Some(failed));
        let end = shared.stream_position().unwrap();
        assert_eq!(end, LONGEST - 2);
        shared.seek(SeekFrom::End(-8)).unwrap();
        let mut text = String::new();
        shared.read_to_string(&mut text).unwrap();
        assert_eq!(text, "000\n001\n");
    }

    #[test]
    fn a_file_is_truncated_and_one_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        fs::write(&path, "something old and longer").unwrap();
        let writer = to_file(&path).unwrap();
        let mut batch = Batch::default();
        add(&mut batch, 7, 4);
        assert_eq!(writer.push(&mut batch), lines(0));
        assert_eq!(writer.finish(LONG).0, lines(0));
        assert_eq!(fs::read_to_string(&path).unwrap(), "007\n");

        let error = to_file(Path::new("/nowhere/out.json")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write /nowhere/out.json: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn memory_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let writer = to_file(&folder.path().join("out")).unwrap();
        let mut batch = Batch::default();
        let mut held = Vec::new();
        for round in 0..100 {
            for number in 0..50 {
                add(&mut batch, number, 1_000);
            }
            if round > 5 {
                held.push(batch.memory());
            }
            assert_eq!(writer.push(&mut batch), lines(0));
            assert_eq!(writer.drain(LONG), lines(0));
        }
        held.dedup();
        assert_eq!(held, [64 << 10]);
    }
}
