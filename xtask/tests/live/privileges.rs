//! What a running tracer may still do, and that it is enough.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, io, ptr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::confine::{CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, Host};
use xtask::doctor::Start;
use xtask::older;
use xtask::tracer::Tracer;

use crate::degraded::Place;
use crate::{PORT, wait_for};

/// A user that is neither root nor the tracer's.
const STRANGER: u32 = 12_345;

/// One line of the status of each thread, all alike.
fn of_threads(pid: u32, name: &str) -> Result<String> {
    let mut values = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(entry?.path().join("status"))?;
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.push(
            value
                .with_context(|| format!("no {name}"))?
                .trim()
                .to_owned(),
        );
    }
    ensure!(values.len() >= 2, "{} threads: one writes", values.len());
    let first = values[0].clone();
    ensure!(
        values.iter().all(|value| *value == first),
        "{name}: {values:?}"
    );
    Ok(first)
}

/// No thread has more than these, nor can gain any.
fn has_only(tracer: &Tracer, capabilities: &[u8], bounded: bool) -> Result<()> {
    let pid = tracer.pid();
    let allowed = capabilities.iter().fold(0, |all, bit| all | 1_u64 << bit);
    let set = |name: &str| -> Result<u64> {
        let set = u64::from_str_radix(&of_threads(pid, name)?, 16)?;
        println!("{name}: {set:#x}");
        // Older kernels ask for it whenever a map is read.
        Ok(set & !(1 << CAP_BPF))
    };
    for name in ["CapEff", "CapPrm"] {
        ensure!(set(name)? == allowed, "{name} is not {allowed:#x}");
    }
    for name in ["CapInh", "CapAmb"] {
        ensure!(set(name)? == 0, "{name}");
    }
    if bounded {
        ensure!(set("CapBnd")? == allowed, "CapBnd is not {allowed:#x}");
    }
    ensure!(of_threads(pid, "NoNewPrivs")? == "1", "NoNewPrivs");
    Ok(())
}

/// A process of another user that is refused a connection, and lives until the tracer has looked at it.
fn stranger_is_refused(port: u16) -> Result<()> {
    let mut command = Command::new("/bin/true");
    command.uid(STRANGER).gid(STRANGER);
    let refused = move || {
        let address = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        };
        let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: takes numbers only.
        let socket =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        // SAFETY: one address of the given length, which lives here.
        let done = unsafe { libc::connect(socket, (&raw const address).cast(), len) };
        if done == 0 {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let pause = libc::timespec {
            tv_sec: 0,
            tv_nsec: 300_000_000,
        };
        // SAFETY: one timespec, which lives here; nothing is written back.
        unsafe { libc::nanosleep(&raw const pause, ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(refused) };
    let status = command.status().context("the other user's process")?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The process of the one connection that the stranger was refused.
fn stranger_in(lines: &[Value]) -> Result<Value> {
    let line = lines.iter().find(|line| line["verdict"] == "refused");
    let process = &line.context("no record of the refusal")?["process"];
    println!("{process}");
    ensure!(process["uid"] == STRANGER, "uid: {process}");
    ensure!(process["pid"].is_u64(), "pid: {process}");
    Ok(process.clone())
}

/// Root's tracer keeps what names executables, and the output that was opened before.
pub(crate) fn root_gives_up_what_it_does_not_need() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = dir.path().join("records.json");
    let path = output.to_str().context("a path")?;
    let tracer = Tracer::start(&["--port", &PORT.to_string(), "--output", path])?;
    has_only(&tracer, &[CAP_SYS_PTRACE], true)?;
    stranger_is_refused(PORT)?;
    let run = tracer.stop()?;
    ensure!(run.status.success(), "{}", run.status);
    let lines: Result<Vec<Value>, _> = serde_json::Deserializer::from_reader(File::open(&output)?)
        .into_iter()
        .collect();
    let process = stranger_in(&lines?)?;
    let own = env::current_exe()?;
    ensure!(
        process["exe"] == own.to_str().context("a path")?,
        "exe: {process}"
    );
    Ok(())
}

/// Nobody with two capabilities traces as well, but for executables, and says so.
pub(crate) fn nobody_traces_with_two_capabilities() -> Result<()> {
    let place = Place::new()?;
    let start = Start {
        host: Host::default().nobody(&[CAP_BPF, CAP_PERFMON]),
        binary: &place.binary,
        args: &[],
    };
    let port = PORT.to_string();
    let tracer = || Tracer::start_command(start.command(&["--port", &port]));
    older::are_found_by(PORT, tracer)?;
    let tracer = tracer()?;
    has_only(&tracer, &[], false)?;
    stranger_is_refused(PORT)?;
    wait_for(&tracer, 1, |line| line.value["verdict"] == "refused")?;
    let run = tracer.stop()?;
    ensure!(
        run.said.iter().any(|line| line.contains("executables")),
        "{:?}",
        run.said
    );
    let lines: Vec<_> = run.by_time()?.into_iter().map(|line| line.value).collect();
    let process = stranger_in(&lines)?;
    ensure!(process["exe"].is_null(), "exe: {process}");
    ensure!(process["comm"].is_string(), "comm: {process}");
    Ok(())
}

/// The kernel's count of hooks that it skipped can be read without capabilities wherever it has one.
pub(crate) fn skipped_hooks_are_counted() -> Result<()> {
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    let mut counted = false;
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid()))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        counted |= text.contains("recursion_misses:");
    }
    let run = tracer.stop()?;
    let says = run
        .said
        .iter()
        .any(|line| line.contains("hooks that it skipped"));
    ensure!(
        counted != says,
        "the kernel counts: {counted}; {:?}",
        run.said
    );
    Ok(())
}
