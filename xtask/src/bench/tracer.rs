//! The tracers that are compared: where each is, how it is started, when it traces, how it ends.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::output::Records;
use crate::{bpf, process, storm, workspace::find_program};

const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing more may have been attached before we believe that all is.
const SETTLED: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    /// libbpf-tools: the programs in BPF, a line a record to standard output.
    Peer,
    Tcplife,
    /// Writes packets, explains nothing.
    Capture,
}

#[derive(Debug)]
pub(super) struct Tracer {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    program: Option<PathBuf>,
}

impl Tracer {
    pub(super) fn all(ours: PathBuf) -> [Self; 4] {
        let peer = |name, kind| Self {
            name,
            kind,
            program: find_program(name),
        };
        [
            Self {
                name: "upstream-trace",
                kind: Kind::Ours,
                program: Some(ours),
            },
            peer("tcplife", Kind::Tcplife),
            peer("tcpstates", Kind::Peer),
            peer("tcpdump", Kind::Capture),
        ]
    }

    pub(super) fn is_ours(&self) -> bool {
        self.kind == Kind::Ours
    }

    /// Whether it has programs whose time the kernel counts.
    pub(super) fn is_bpf(&self) -> bool {
        self.kind != Kind::Capture
    }

    /// The program with no argument yet; it ends with us at the latest.
    pub(super) fn command(&self) -> Result<Command> {
        let Some(program) = &self.program else {
            bail!("not installed");
        };
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        process::end_with_parent(&mut command);
        Ok(command)
    }

    /// One start and stop, to learn whether it runs here at all.
    pub(super) fn try_out(&self, directory: &Path) -> Result<()> {
        self.start(directory)?.stop().map(drop)
    }

    /// Started, and all its hooks attached.
    pub(super) fn start(&self, directory: &Path) -> Result<Running> {
        let output = directory.join(self.name);
        let messages = directory.join("messages");
        let mut command = self.command()?;
        let port = storm::PORT.to_string();
        match self.kind {
            Kind::Ours => {
                command.args(["--port", &port, "--output"]).arg(&output);
                command.stdout(Stdio::null());
            }
            Kind::Tcplife | Kind::Peer => {
                command.stdout(File::create(&output).context("cannot make a file")?);
            }
            Kind::Capture => {
                // It would give up root and then not be let into our directory.
                command.args(["-Z", "root", "-i", "lo", "-s", "96", "-w"]);
                command.arg(&output).args(["tcp", "port", &port]);
                command.stdout(Stdio::null());
            }
        }
        command.stderr(File::create(&messages).context("cannot make a file")?);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let mut running = Running {
            name: self.name,
            kind: self.kind,
            child,
            output,
            messages,
        };
        running.wait_attached()?;
        Ok(running)
    }
}

/// A tracer at work. Killed when dropped, so that an error leaves nothing behind.
#[derive(Debug)]
pub(super) struct Running {
    name: &'static str,
    kind: Kind,
    child: Child,
    output: PathBuf,
    messages: PathBuf,
}

impl Running {
    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    fn wait_attached(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut settled = Instant::now();
        let mut before = 0;
        while start.elapsed() < START_PATIENCE {
            thread::sleep(Duration::from_millis(10));
            if let Some(status) = self.child.try_wait().context("cannot wait for a child")? {
                bail!(
                    "{} ended at its start, {status}: {}",
                    self.name,
                    self.complaint()
                );
            }
            let now = self.attached();
            if now != before {
                before = now;
                settled = Instant::now();
            }
            if now > 0 && settled.elapsed() >= SETTLED {
                return Ok(());
            }
        }
        bail!("{} attached nothing: {}", self.name, self.complaint());
    }

    /// Something that grows while it attaches, and is not 0 when it has.
    fn attached(&self) -> usize {
        let said = |words| {
            let messages = fs::read_to_string(&self.messages).unwrap_or_default();
            usize::from(messages.contains(words))
        };
        match self.kind {
            Kind::Ours => said(": attached "),
            Kind::Tcplife | Kind::Peer => {
                bpf::held_by(self.child.id()).map_or(0, |held| held.attachments)
            }
            Kind::Capture => said("listening on"),
        }
    }

    /// The first thing it said on standard error, as a rule the cause.
    fn complaint(&self) -> String {
        let messages = fs::read_to_string(&self.messages).unwrap_or_default();
        messages
            .lines()
            .next()
            .unwrap_or("it said nothing")
            .to_owned()
    }

    /// Ends it as a user would. Returns what ours recorded; nothing for the others.
    pub(super) fn stop(mut self) -> Result<Option<Records>> {
        process::interrupt(&mut self.child, STOP_PATIENCE)
            .with_context(|| format!("cannot stop {}", self.name))?;
        if self.kind != Kind::Ours {
            return Ok(None);
        }
        let status = self.child.wait().context("cannot wait for a child")?;
        if !status.success() {
            bail!("{} ended with {status}: {}", self.name, self.complaint());
        }
        Records::read(&self.output).map(Some)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing once it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}
