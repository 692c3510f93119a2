//! What the kernel says about BPF programs, and how it is asked to time them.

use std::{
    fs, io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    process::Child,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// From `enum bpf_cmd` and `enum bpf_stats_type` in `linux/bpf.h`.
const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_STATS_RUN_TIME: u32 = 0;

/// The kernel times every BPF program while this exists: the same as the sysctl
/// `kernel.bpf_stats_enabled`, but it ends with us whatever happens.
#[derive(Debug)]
pub(super) struct Statistics(#[expect(dead_code, reason = "held, never used")] OwnedFd);

impl Statistics {
    pub(super) fn enable() -> Result<Self> {
        let kind = BPF_STATS_RUN_TIME;
        // SAFETY: the attribute of this command is one u32, which outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_ENABLE_STATS,
                &raw const kind,
                size_of_val(&kind),
            )
        };
        let fd = RawFd::try_from(result)?;
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("cannot turn on BPF statistics");
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// The BPF programs that a process holds: how many, and how long they have run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) count: usize,
    /// What keeps them attached: one each, once the process is done attaching.
    pub(super) links: usize,
    pub(super) run_time: Duration,
}

impl Programs {
    pub(super) fn of(child: &Child) -> Result<Self> {
        let directory = format!("/proc/{}/fdinfo", child.id());
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
        let mut seen = Vec::new();
        let mut programs = Self::default();
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {directory}"))?
                .path();
            // A descriptor may have been closed since.
            let Ok(text) = fs::read_to_string(path) else {
                continue;
            };
            programs.links += usize::from(field(&text, "link_type:").is_some());
            let (Some(id), Some(time)) = (field(&text, "prog_id:"), field(&text, "run_time_ns:"))
            else {
                continue;
            };
            // Two descriptors of one program are still one program.
            if seen.contains(&id.to_owned()) {
                continue;
            }
            seen.push(id.to_owned());
            programs.count += 1;
            programs.run_time += Duration::from_nanos(time.parse()?);
        }
        Ok(programs)
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}
