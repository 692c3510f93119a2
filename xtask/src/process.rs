//! What xtask asks the system about processes, and how it starts its own.

use std::{
    env, fs, io,
    mem::MaybeUninit,
    os::unix::process::CommandExt as _,
    process::{self, Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// This program with another verb, to be ended with this process at the latest.
pub(crate) fn own_verb(args: &[String]) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot find my own executable")?);
    command.args(args);
    end_with_parent(&mut command);
    Ok(command)
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: libc::c_int) -> Result<()> {
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: it takes two numbers and touches no memory; the pid is still the child's, which nobody has waited for.
    let sent = unsafe { libc::kill(pid, signal) };
    ensure!(sent == 0, "kill: {}", io::Error::last_os_error());
    Ok(())
}

/// The child is killed when the thread that started it is gone, so that nothing is left behind.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = process::id();
    let arm = move || {
        // SAFETY: two plain numbers; asks only for a signal to this process itself.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes nothing, changes nothing and cannot fail.
        let now = unsafe { libc::getppid() };
        // One that was gone before sends no signal.
        if u32::try_from(now) == Ok(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(arm) };
}

/// Asks a child of ours to end as from a keyboard, and makes it where it does not.
pub(crate) fn interrupt(child: &mut Child, patience: Duration) -> Result<()> {
    let pid = pid(child)?;
    // SAFETY: the child has not been waited for, so its number is still its own.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let start = Instant::now();
    while start.elapsed() < patience {
        if child
            .try_wait()
            .context("cannot wait for a child")?
            .is_some()
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().context("cannot kill a child")?;
    child.wait().context("cannot wait for a child")?;
    bail!("it did not end within {} s of SIGINT", patience.as_secs());
}

/// User and system time of all its threads so far: what `/proc/PID/stat` has, but in
/// nanoseconds instead of ticks of 10 ms.
pub(crate) fn cpu_time(child: &Child) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` outlives the call, which writes one number there.
    let result = unsafe { libc::clock_getcpuclockid(pid(child)?, &raw mut clock) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result)).context("no CPU clock of the tracer");
    }
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` outlives the call, which writes one timespec there.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the tracer's CPU clock");
    }
    // SAFETY: the call succeeded, so it has been written.
    let time = unsafe { time.assume_init() };
    Ok(Duration::new(
        u64::try_from(time.tv_sec)?,
        u32::try_from(time.tv_nsec)?,
    ))
}

/// A line of `/proc/PID/status` in KiB, `VmRSS` for one.
pub(crate) fn memory_kib(child: &Child, field: &str) -> Result<u64> {
    let path = format!("/proc/{}/status", child.id());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("{path} has no {field}"))
}

/// The limit that the soft one can be raised to without privilege.
pub(crate) fn hard_open_files() -> Result<u64> {
    Ok(open_files()?.rlim_max)
}

pub(crate) fn raise_open_files() -> Result<()> {
    let mut limit = open_files()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a whole rlimit that outlives the call, which only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot raise the limit of open files");
    }
    Ok(())
}

fn open_files() -> Result<libc::rlimit> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` outlives the call, which writes one rlimit there.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the limit of open files");
    }
    // SAFETY: the call succeeded, so it has been written.
    Ok(unsafe { limit.assume_init() })
}

fn pid(child: &Child) -> Result<libc::pid_t> {
    libc::pid_t::try_from(child.id()).context("a process number fits")
}
