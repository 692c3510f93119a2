//! What the kernel says about BPF programs and their like: which there are, who holds them, how long they run.
//!
//! Must not know: what they are for.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// Of `enum bpf_cmd` and `enum bpf_stats_type`, `include/uapi/linux/bpf.h`.
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_STATS_RUN_TIME: u32 = 0;

/// The kernel takes objects apart after a grace period or two.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program, a map or a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    kind: &'static str,
    id: u32,
}

/// How `/proc/PID/fdinfo` names an id, and how the object is asked for.
const KINDS: [(&str, libc::c_long); 3] = [
    ("prog_id", BPF_PROG_GET_FD_BY_ID),
    ("map_id", BPF_MAP_GET_FD_BY_ID),
    ("link_id", BPF_LINK_GET_FD_BY_ID),
];

/// What a process holds by its descriptors.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Each once.
    pub objects: Vec<Object>,
    /// How many descriptors keep a program attached: links, and events of perf, which do so before 5.15.
    pub attachments: usize,
    /// How long the programs have run while a [`Statistics`] existed.
    pub run_time: Duration,
}

/// What the process `pid` holds.
pub fn held_by(pid: u32) -> Result<Held> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut held = Held::default();
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
        let entry = entry.with_context(|| format!("cannot read {directory}"))?;
        // A descriptor may have been closed since.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(found, value)| (found == name).then_some(value.trim()))
        };
        for (kind, _) in KINDS {
            if let Some(id) = field(kind) {
                let id = id.parse()?;
                held.objects.push(Object { kind, id });
            }
        }
        if let (Some(id), Some(time)) = (field("prog_id"), field("run_time_ns")) {
            // Two descriptors of one program are still one program.
            times.insert(id.to_owned(), time.parse::<u64>()?);
        }
        let file = Path::new("/proc").join(pid.to_string()).join("fd");
        let is_event = fs::read_link(file.join(entry.file_name()))
            .is_ok_and(|target| target == Path::new("anon_inode:[perf_event]"));
        held.attachments += usize::from(is_event || field("link_id").is_some());
    }
    held.run_time = Duration::from_nanos(times.values().sum());
    held.objects.sort_unstable();
    held.objects.dedup();
    Ok(held)
}

impl Object {
    /// Whether it is a program.
    pub fn is_program(&self) -> bool {
        self.kind == "prog_id"
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        self.kind == "map_id"
    }

    /// Whether it is still there. Ids are not used again soon.
    pub fn exists(&self) -> Result<bool> {
        let kind = KINDS.into_iter().find(|(kind, _)| *kind == self.kind);
        let (_, command) = kind.context("no such kind")?;
        // `struct { id, next_id, open_flags }` of `union bpf_attr`.
        let attribute = [self.id, 0, 0];
        // SAFETY: the attribute of this command, without pointers; it outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                attribute.as_ptr(),
                size_of_val(&attribute),
            )
        };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(false),
                _ => Err(error).with_context(|| format!("{self:?}")),
            };
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) });
        Ok(true)
    }
}

/// Waits until none of them is there any more.
pub fn are_gone(mut objects: Vec<Object>) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut left = Vec::new();
        for object in objects {
            if object.exists()? {
                left.push(object);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "still there: {left:?}");
        objects = left;
        thread::sleep(Duration::from_millis(20));
    }
}

/// The kernel times every BPF program while this exists: the same as the sysctl
/// `kernel.bpf_stats_enabled`, but it ends with us whatever happens.
#[derive(Debug)]
pub struct Statistics(#[expect(dead_code, reason = "held, never used")] OwnedFd);

impl Statistics {
    pub fn enable() -> Result<Self> {
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
        let fd = i32::try_from(result)?;
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("cannot turn on BPF statistics");
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}
