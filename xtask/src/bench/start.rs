//! How long a tracer takes from its start until it says that its hooks are attached, side by side.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    os::fd::{FromRawFd as _, OwnedFd},
    process::Stdio,
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Plan, median, say,
    tracer::{Kind, Tracer},
};
use crate::{bpf, process, storm};

/// Milliseconds by tracer, the median; none for those that do not say when they are ready.
pub(super) fn measure(plan: &Plan, tracers: &[Tracer]) -> Result<Vec<Option<f64>>> {
    say(&format!("start, {} times each", plan.starts));
    let mut samples = vec![Vec::new(); tracers.len()];
    for _ in 0..plan.starts {
        for (tracer, samples) in tracers.iter().zip(&mut samples) {
            let time = match tracer.kind {
                Kind::Ours => until_report(tracer)?,
                Kind::Tcplife => until_header(tracer)?,
                Kind::Peer | Kind::Capture => continue,
            };
            samples.push(time.as_secs_f64() * 1e3);
        }
    }
    Ok(samples.into_iter().map(median).collect())
}

/// Ours says what is attached once all of it is.
fn until_report(tracer: &Tracer) -> Result<Duration> {
    let mut command = tracer.command()?;
    command
        .args(["--port", &storm::PORT.to_string(), "--duration", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start our tracer")?;
    let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
    let attached = lines.any(|line| line.is_ok_and(|line| line.contains(": attached ")));
    let time = start.elapsed();
    // To its end: a reader that goes away would be an error to the tracer.
    lines.for_each(drop);
    let status = child.wait().context("cannot wait for our tracer")?;
    if !attached || !status.success() {
        bail!("`{} --duration 0`: {status}", tracer.name);
    }
    Ok(time)
}

/// tcplife prints its header when it is attached; at once only where that is a terminal.
fn until_header(tracer: &Tracer) -> Result<Duration> {
    let (mut terminal, its_end) = terminal()?;
    let mut command = tracer.command()?;
    command.stdout(its_end).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start tcplife")?;
    // The command still holds its end of the terminal, and reading would never end.
    drop(command);
    let mut first = [0];
    let header = terminal.read_exact(&mut first);
    let time = start.elapsed();
    let held = bpf::held_by(child.id()).unwrap_or_default();
    process::interrupt(&mut child, Duration::from_secs(10)).context("cannot stop tcplife")?;
    header.context("tcplife printed no header")?;
    if held.attachments == 0 {
        bail!("tcplife printed its header with nothing attached");
    }
    Ok(time)
}

/// Our end and the child's.
fn terminal() -> Result<(File, OwnedFd)> {
    let mut ours = -1;
    let mut theirs = -1;
    // SAFETY: both numbers outlive the call, which writes them; the rest may be null.
    let result = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            ptr::null_mut(),
            ptr::null(),
            ptr::null(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot make a terminal");
    }
    // SAFETY: openpty has just made this descriptor for us alone.
    let ours = unsafe { File::from_raw_fd(ours) };
    // SAFETY: the same of the other one.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    Ok((ours, theirs))
}
