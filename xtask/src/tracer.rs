//! Runs the real tracer as a user would, and collects what it prints.
//!
//! Must not know: how the tracer works, what its lines mean.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::{self, end_with_parent, memory_kib};
use crate::scenario::check::Line;

/// Names the binary, where it is not beside this one.
pub const BINARY_VARIABLE: &str = "UPSTREAM_TRACE_BINARY";
/// What the tracer says on standard error once everything is attached.
pub(crate) const READY: &str = "upstream-trace: tracing";
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The release binary that belongs to the running program: named by [`BINARY_VARIABLE`], else in
/// `release/` of the same target directory, else in the same directory.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let own = env::current_exe().context("own path")?;
    let of_target = own
        .ancestors()
        .skip(1)
        .map(|dir| dir.join("release/upstream-trace"));
    let beside = own
        .ancestors()
        .skip(1)
        .take(1)
        .map(|dir| dir.join("upstream-trace"));
    let mut candidates = of_target.chain(beside);
    candidates.find(|path| path.is_file()).with_context(|| {
        format!(
            "no upstream-trace beside {}: `cargo xtask build --release` makes it, \
             {BINARY_VARIABLE} names another one",
            own.display()
        )
    })
}

/// Somebody reads its output.
const READ: u8 = 0;
/// Nobody reads it for now.
const UNREAD: u8 = 1;
/// The reading end of the pipe is closed.
const CLOSED: u8 = 2;

/// A line of output and when it came.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: SystemTime,
    pub text: String,
}

/// A running tracer. Killed when dropped.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    lines: Arc<Mutex<Vec<Arrival>>>,
    said: Arc<Mutex<Vec<String>>>,
    reading: Arc<AtomicU8>,
    readers: Vec<JoinHandle<()>>,
}

/// What a tracer left behind.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub lines: Vec<Arrival>,
    /// Its standard error, by lines.
    pub said: Vec<String>,
}

impl Run {
    /// All lines, in order of the time that they give.
    pub fn by_time(&self) -> Result<Vec<Line>> {
        parse(&self.lines)
    }

    /// The last line, which has to be the account of the whole run.
    pub fn stats(&self) -> Result<Value> {
        let last = self.lines.last().context("the tracer printed nothing")?;
        let last: Value = serde_json::from_str(&last.text).context("the last line")?;
        ensure!(last["type"] == "stats", "the last line is no stats: {last}");
        Ok(last)
    }
}

fn parse(lines: &[Arrival]) -> Result<Vec<Line>> {
    let parsed: Option<Vec<_>> = lines.iter().map(|line| Line::parse(&line.text)).collect();
    let mut parsed = parsed.context("a line is not JSON with a time")?;
    parsed.sort_by_key(|line| line.time);
    Ok(parsed)
}

/// The command of a tracer that dies with the caller's thread.
pub fn command(binary: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null());
    end_with_parent(&mut command);
    command
}

impl Tracer {
    /// Starts the tracer and waits until it traces.
    pub fn start(args: &[&str]) -> Result<Self> {
        Self::spawn(command(&binary()?, args), READ)
    }

    /// The same with a command that was made by [`command`].
    pub fn start_command(command: Command) -> Result<Self> {
        Self::spawn(command, READ)
    }

    /// The same, and nobody reads its output until [`Tracer::resume`].
    pub fn start_unread(args: &[&str]) -> Result<Self> {
        Self::spawn(command(&binary()?, args), UNREAD)
    }

    fn spawn(mut command: Command, reading: u8) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = child.stdout.take().context("its standard output")?;
        let stderr = child.stderr.take().context("its standard error")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::new(Mutex::new(Vec::new()));
        let reading = Arc::new(AtomicU8::new(reading));
        let readers = vec![
            thread::spawn({
                let (lines, reading) = (Arc::clone(&lines), Arc::clone(&reading));
                move || {
                    while reading.load(Ordering::Relaxed) == UNREAD {
                        thread::sleep(Duration::from_millis(5));
                    }
                    if reading.load(Ordering::Relaxed) == CLOSED {
                        return drop(stdout);
                    }
                    read(stdout, |text| {
                        let arrival = Arrival {
                            at: SystemTime::now(),
                            text,
                        };
                        locked(&lines).push(arrival);
                    });
                }
            }),
            thread::spawn({
                let said = Arc::clone(&said);
                move || read(stderr, |line| locked(&said).push(line))
            }),
        ];
        let mut tracer = Self {
            child,
            lines,
            said,
            reading,
            readers,
        };
        tracer.wait_until_ready()?;
        Ok(tracer)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if locked(&self.said)
                .iter()
                .any(|line| line.starts_with(READY))
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                // Its last words may still be on their way.
                self.join();
                bail!("the tracer ended at once, {status}: {}", self.last_words());
            }
            ensure!(
                began.elapsed() < START_PATIENCE,
                "the tracer is not ready after {START_PATIENCE:?}: {}",
                self.last_words()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn last_words(&self) -> String {
        locked(&self.said).join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts reading the output of one that was started unread.
    pub fn resume(&self) {
        self.reading.store(READ, Ordering::Relaxed);
    }

    /// Closes the reading end of the output of one that was started unread.
    pub fn hang_up(&self) {
        self.reading.store(CLOSED, Ordering::Relaxed);
    }

    /// What it has printed by now, in order of time.
    pub fn so_far(&self) -> Result<Vec<Line>> {
        parse(&locked(&self.lines))
    }

    /// Resident set in bytes.
    pub fn resident(&self) -> Result<u64> {
        Ok(memory_kib(&self.child, "VmRSS")? * 1024)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        process::signal(&self.child, signal)
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Result<Run> {
        self.signal(libc::SIGINT)?;
        self.wait()
    }

    /// Waits for its end and takes all it has printed.
    pub fn wait(mut self) -> Result<Run> {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                began.elapsed() < STOP_PATIENCE,
                "the tracer runs on after {STOP_PATIENCE:?}"
            );
            thread::sleep(Duration::from_millis(2));
        };
        if self.reading.load(Ordering::Relaxed) == UNREAD {
            self.resume();
        }
        self.join();
        let lines = std::mem::take(&mut *locked(&self.lines));
        let said = std::mem::take(&mut *locked(&self.said));
        Ok(Run {
            status,
            lines,
            said,
        })
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader cannot panic, and has nothing to say.
            let _ended: thread::Result<()> = reader.join();
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.resume();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _killed: io::Result<()> = self.child.kill();
            let _status: io::Result<ExitStatus> = self.child.wait();
        }
        self.join();
    }
}

fn read(from: impl Read, mut take: impl FnMut(String)) {
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { break };
        take(line);
    }
}

/// A reader that panicked leaves the lines it has read.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
