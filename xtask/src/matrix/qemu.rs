//! Runs one guest to its end: it reports, or it is stopped.
//!
//! Must not know: what a report means.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{process::end_with_parent, workspace::find_program};

const PROGRAM: &str = "qemu-system-x86_64";
/// What a kernel says when it is lost. It would not always stop by itself.
const LOST: [&str; 7] = [
    "Kernel panic",
    "BUG:",
    "WARNING: CPU",
    "Oops",
    "soft lockup",
    "general protection fault",
    "self-detected stall",
];
/// What it says where it was given no file system to go on with.
const NO_ROOT: &str = "Unable to mount root fs";
/// A boot by KVM takes a second or two until then.
const BOOTS_WITHIN: Duration = Duration::from_secs(15);
/// The last lines of a console that failed.
const SHOWN: usize = 30;

/// What runs the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    /// Software emulation.
    Tcg,
    /// The same of one CPU, whose clock goes on by a nanosecond an instruction: so what else this machine does has
    /// no part in what is measured.
    Counted,
}

impl Accelerator {
    const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            // One thread for all CPUs: with one each, a kernel that patches its own code while another
            // CPU runs it has met its own breakpoint and was lost.
            Self::Tcg | Self::Counted => "tcg,thread=single",
        }
    }

    /// For what is measured.
    pub(super) const fn measuring(self) -> Self {
        match self {
            Self::Kvm => Self::Kvm,
            Self::Tcg | Self::Counted => Self::Counted,
        }
    }

    /// KVM where it works, which only trying tells: there are hosts where it opens and then fails, and others where it
    /// runs no kernel but those made for it. So this one has to boot, until it finds nothing to go on with.
    pub(super) fn find(kernel: &Path) -> Result<Self> {
        let mut probe = emulator(Self::Kvm)?;
        probe.args(["-m", "256M", "-no-reboot", "-serial", "stdio"]);
        probe.arg("-kernel").arg(kernel);
        probe.args(["-append", "console=ttyS0 panic=-1"]);
        let mut child = probe
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        let console = child.stdout.take().context("its console")?;
        let mut said = Vec::new();
        let _lost = watch(console, BOOTS_WITHIN, &mut said);
        let _ended = child.kill();
        child.wait().context("cannot wait for QEMU")?;
        let boots = said.iter().any(|line| line.contains(NO_ROOT));
        Ok(if boots { Self::Kvm } else { Self::Tcg })
    }
}

fn emulator(accelerator: Accelerator) -> Result<Command> {
    let program = find_program(PROGRAM).with_context(|| format!("{PROGRAM} is not installed"))?;
    let mut command = Command::new(program);
    command.args(["-accel", accelerator.name(), "-cpu", "max"]);
    command.args(["-display", "none", "-nodefaults", "-no-user-config"]);
    end_with_parent(&mut command);
    Ok(command)
}

/// What a guest is made of.
#[derive(Debug)]
pub(super) struct Guest<'a> {
    pub(super) accelerator: Accelerator,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// For the kernel itself, on its command line.
    pub(super) options: &'a str,
    /// The first program and what it is told.
    pub(super) init: &'a str,
    pub(super) arguments: &'a str,
    /// What its second serial line is written to.
    pub(super) report: &'a Path,
    /// Its disk.
    pub(super) disk: Option<&'a Path>,
    /// How long it may take.
    pub(super) patience: Duration,
}

impl Guest<'_> {
    /// Boots it and waits until it has powered itself off.
    pub(super) fn run(&self) -> Result<()> {
        let mut command = emulator(self.accelerator)?;
        command.args(["-m", "1G", "-no-reboot"]);
        command.args(if self.accelerator == Accelerator::Counted {
            ["-smp", "1", "-icount", "shift=0,sleep=off"].as_slice()
        } else {
            &["-smp", "2"]
        });
        command.arg("-kernel").arg(self.kernel);
        command.arg("-initrd").arg(self.initramfs);
        let said = "console=ttyS0 quiet panic=-1 oops=panic random.trust_cpu=on";
        let (options, init, arguments) = (self.options, self.init, self.arguments);
        let line = format!("{said} {options} rdinit={init} -- {arguments}");
        command.args(["-append", &line]);
        command.args(["-serial", "stdio"]);
        fs::write(self.report, "")
            .with_context(|| format!("cannot write {}", self.report.display()))?;
        command.arg("-serial").arg(option("file:", self.report));
        if let Some(disk) = self.disk {
            let disk = option("if=virtio,format=raw,file=", disk);
            command.arg("-drive").arg(disk);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        let console = child.stdout.take().context("its console")?;
        let mut said = Vec::new();
        let watched = watch(console, self.patience, &mut said);
        if watched.is_err() {
            // What it could still do is of no use, and it may never end.
            let _killed = child.kill();
        }
        let ended = end(child);
        watched.and(ended).with_context(|| {
            let last = &said[said.len().saturating_sub(SHOWN)..];
            format!("its console ended with:\n{}", last.join("\n"))
        })
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Reads the console to its end, and stops at once where the kernel is lost.
fn watch(
    console: impl Read + Send + 'static,
    patience: Duration,
    said: &mut Vec<String>,
) -> Result<()> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                let lost = LOST.iter().any(|words| line.contains(words));
                said.push(line);
                if lost {
                    // The rest tells why.
                    thread::sleep(Duration::from_millis(500));
                    said.extend(lines.try_iter());
                    bail!("its kernel is lost");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("it did not end within {patience:?}"),
        }
    }
}

fn end(child: Child) -> Result<()> {
    let output = child.wait_with_output().context("cannot wait for QEMU")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "QEMU: {}: {}",
        output.status,
        said.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};

    use super::*;

    /// Watches a console on which `text` appears and nothing more happens.
    fn watched(text: &str, ends: bool) -> (Result<()>, Vec<String>) {
        let (console, mut guest) = io::pipe().unwrap();
        guest.write_all(text.as_bytes()).unwrap();
        let guest = (!ends).then_some(guest);
        let mut said = Vec::new();
        let result = watch(console, Duration::from_millis(200), &mut said);
        drop(guest);
        (result, said)
    }

    #[test]
    fn a_console_is_kept_to_its_end() {
        let (result, said) = watched("one\r\ntwo\n", true);
        result.unwrap();
        assert_eq!(said, ["one", "two"]);
    }

    #[test]
    fn a_kernel_that_is_lost_is_not_waited_for() {
        for text in [
            "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n",
            "[ 30.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!\nmore\n",
        ] {
            let (result, said) = watched(text, false);
            assert_eq!(result.unwrap_err().to_string(), "its kernel is lost");
            assert_eq!(said.join("\n") + "\n", text);
        }
    }

    #[test]
    fn a_guest_that_hangs_is_ended() {
        let error = watched("booting\n", false).0.unwrap_err();
        assert_eq!(error.to_string(), "it did not end within 200ms");
    }
}
