//! Facts of this host that hold while the tracer runs, read once at start.
//!
//! The one file under `kernel` that does I/O, but for [`super::mapping`]; each source has a pure parser. Must not
//! know: what the facts decide.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt as _,
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    system::uname,
    time::{ClockId, Timespec, clock_getres},
};

use super::{
    btf::{Btf, BtfError, Bytes},
    mapping::Mapping,
};

/// Where the kernel shows its types.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
const OWN_PROCESS: &str = "/proc/self";
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`: the same on every machine.
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;
const TIME_NAMESPACE: &str = "/proc/self/ns/time";
/// `PROC_TIME_INIT_INO`, the same.
const FIRST_TIME_NAMESPACE: u64 = 0xefff_fffa;
const TIME_OFFSETS: &str = "/proc/self/timens_offsets";
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A fact that the tracer cannot do without could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: &'static str,
        source: io::Error,
    },
    #[error("cannot use {BTF}: {0}")]
    Btf(#[from] BtfError),
    #[error("cannot ask for the length of a clock tick: {0}")]
    Tick(#[source] io::Error),
}

/// What is known about this host.
#[derive(Clone, Debug)]
pub struct Host {
    /// As `uname -r` says.
    pub release: String,
    pub lockdown: Lockdown,
    /// Length of a clock tick in nanoseconds.
    pub tick_ns: u64,
    /// Ports that the kernel gives to connecting sockets, in the tracer's network namespace.
    pub local_ports: Option<RangeInclusive<u16>>,
    /// Hooks of functions run. With `kernel.ftrace_enabled` set to 0 the kernel takes kprobes and never runs them. 5.10 refuses fentry
    /// then, because `direct_ops` is `FTRACE_OPS_FL_PERMANENT` (`kernel/trace/ftrace.c`); 6.1 takes it and never runs it, because the
    /// trampoline has an `ftrace_ops` of its own, without that flag (`register_ftrace_direct_multi`). Where there is no such switch they
    /// run.
    pub runs_function_hooks: bool,
    /// `/proc` is mounted.
    pub has_proc: bool,
    /// `/proc`, where it is mounted, has the node's processes by the pids that the kernel side tells.
    pub is_in_first_pid_namespace: bool,
    /// By how many nanoseconds `CLOCK_MONOTONIC` is ahead of the node's, which programs in the kernel read: another than 0 only in a time
    /// namespace.
    pub clock_ahead_ns: i64,
}

impl Host {
    pub fn read() -> Result<Self, HostError> {
        Ok(Self {
            release: release(),
            // Absent where securityfs is not mounted, which in containers is the rule.
            lockdown: text(LOCKDOWN).map_or(Lockdown::Unknown, |text| Lockdown::parse(&text)),
            tick_ns: tick_ns()?,
            local_ports: text(LOCAL_PORTS).ok().as_deref().and_then(port_range),
            runs_function_hooks: text(FTRACE).map_or(true, |enabled| enabled.trim() != "0"),
            has_proc: fs::exists(OWN_PROCESS).unwrap_or(false),
            is_in_first_pid_namespace: is_namespace(PID_NAMESPACE, FIRST_PID_NAMESPACE),
            clock_ahead_ns: clock_ahead_ns(),
        })
    }
}

/// The running kernel's BTF.
pub fn btf() -> Result<Btf, HostError> {
    Ok(Btf::parse(btf_bytes()?)?)
}

/// The same before it is parsed. Mapped where it can be (since 6.16, `btf_sysfs_vmlinux_mmap`; a539e2a6d51d): a read
/// returns one page of it.
pub fn btf_bytes() -> Result<Bytes, HostError> {
    let mut file = File::open(BTF).map_err(|source| read(BTF, source))?;
    // SAFETY: the file is a read-only part of the kernel's own image.
    let mapping = unsafe { Mapping::new(&file) };
    if let Ok(mapping) = mapping {
        return Ok(mapping.into());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(|source| read(BTF, source))?;
    Ok(bytes.into())
}

/// What the kernel denies even to root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    None,
    Integrity,
    /// Programs cannot read kernel memory by address.
    Confidentiality,
    Unknown,
}

impl Lockdown {
    /// The kernel's word; `None` where it is not known.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => Some("none"),
            Self::Integrity => Some("integrity"),
            Self::Confidentiality => Some("confidentiality"),
            Self::Unknown => None,
        }
    }

    fn parse(text: &str) -> Self {
        match text.split_whitespace().find(|word| word.starts_with('[')) {
            Some("[none]") => Self::None,
            Some("[integrity]") => Self::Integrity,
            Some("[confidentiality]") => Self::Confidentiality,
            _ => Self::Unknown,
        }
    }
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) => Some(first..=last),
        _ => None,
    }
}

/// The resolution of the coarse clocks is the length of a tick, 1/HZ (`posix_get_coarse_res` in
/// kernel/time/posix-timers.c), which no file tells.
/// Whether the namespace that this file stands for has this inode; so it counts where that cannot be told.
fn is_namespace(file: &str, inode: u64) -> bool {
    fs::metadata(file).map_or(true, |of| of.ino() == inode)
}

fn clock_ahead_ns() -> i64 {
    // The file has the offsets of this process's children, and it may have made a namespace for them alone.
    if is_namespace(TIME_NAMESPACE, FIRST_TIME_NAMESPACE) {
        return 0;
    }
    let offsets = text(TIME_OFFSETS).ok();
    offsets.as_deref().and_then(monotonic_offset).unwrap_or(0)
}

/// `monotonic SECONDS NANOSECONDS`, a line of several.
fn monotonic_offset(text: &str) -> Option<i64> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix("monotonic"))?
        .split_whitespace();
    let mut number = || words.next()?.parse::<i64>().ok();
    let (seconds, nanoseconds) = (number()?, number()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn tick_ns() -> Result<u64, HostError> {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    nanoseconds(resolution).ok_or_else(|| HostError::Tick(io::ErrorKind::InvalidData.into()))
}

fn nanoseconds(tick: Timespec) -> Option<u64> {
    let seconds = u64::try_from(tick.tv_sec)
        .ok()?
        .checked_mul(1_000_000_000)?;
    let tick = seconds.checked_add(u64::try_from(tick.tv_nsec).ok()?)?;
    // Ages are divided by it.
    (tick != 0).then_some(tick)
}

fn text(path: &'static str) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(|source| read(path, source))
}

/// As uname(2) says, which takes no file.
fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Whether a pid is a running process's (`Ok`), as this process sees them, or why not.
pub fn process(pid: u32) -> Result<(), &'static str> {
    const NONE: &str = "no such process";
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(NONE)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => Err(NONE),
        // The second since 6.15.
        Err(Errno::INVAL | Errno::NOENT) => {
            Err("no process, but a thread or a group of processes: give the pid of a process")
        }
        // Or not told: before 5.3, or where a sandbox forbids to ask.
        _ => Ok(()),
    }
}

fn read(path: &'static str, source: io::Error) -> HostError {
    HostError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lockdown_mode() {
        assert_eq!(
            Lockdown::parse("[none] integrity confidentiality\n"),
            Lockdown::None
        );
        assert_eq!(
            Lockdown::parse("none [integrity] confidentiality\n"),
            Lockdown::Integrity
        );
        assert_eq!(
            Lockdown::parse("none integrity [confidentiality]\n"),
            Lockdown::Confidentiality
        );
        assert_eq!(
            Lockdown::parse("none integrity confidentiality\n"),
            Lockdown::Unknown
        );
        assert_eq!(Lockdown::parse(""), Lockdown::Unknown);
    }

    #[test]
    fn reads_the_port_range() {
        assert_eq!(port_range("32768\t60999\n"), Some(32768..=60999));
        for text in ["", "32768", "32768 70000", "a b", "1 2 3", "-1 5"] {
            assert_eq!(port_range(text), None, "{text}");
        }
    }

    #[test]
    fn reads_how_far_the_clock_of_a_time_namespace_is_ahead() {
        let ahead = |text| monotonic_offset(text);
        let text = "monotonic           50000         7\nboottime           100000         0\n";
        assert_eq!(ahead(text), Some(50_000_000_000_007));
        assert_eq!(ahead("monotonic -3 999999999"), Some(-2_000_000_001));
        assert_eq!(ahead("boottime 1 0\n"), None);
        assert_eq!(ahead("monotonic 9223372036854775807 0"), None);
    }

    #[test]
    fn converts_a_tick() {
        let tick = |tv_sec, tv_nsec| nanoseconds(Timespec { tv_sec, tv_nsec });
        assert_eq!(tick(0, 4_000_000), Some(4_000_000));
        assert_eq!(tick(1, 1), Some(1_000_000_001));
        assert_eq!(tick(0, 0), None);
        assert_eq!(tick(-1, 0), None);
        assert_eq!(tick(i64::MAX, 0), None);
    }

    #[test]
    fn tells_processes_from_what_is_none() {
        let own = std::process::id();
        assert_eq!(process(own), Ok(()));
        assert_eq!(process(4_194_304), Err("no such process"));
        let thread = || {
            rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .cast_unsigned()
        };
        let told = std::thread::spawn(move || process(thread()))
            .join()
            .unwrap();
        assert!(told.is_err_and(|why| why.contains("thread")));
    }

    #[test]
    fn reads_this_host() {
        let host = Host::read().unwrap();
        let told = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(host.release, told.trim());
        assert!(
            host.release
                .starts_with(|first: char| first.is_ascii_digit()),
            "{host:?}"
        );
        // CONFIG_HZ is 100 to 1000 where this runs.
        assert!((800_000..=10_000_000).contains(&host.tick_ns), "{host:?}");
        assert!(
            host.local_ports
                .as_ref()
                .is_some_and(|ports| !ports.is_empty()),
            "{host:?}"
        );
    }
}
