//! The only place that reads another process's /proc/PID: what a process is called, runs, and belongs to.
//!
//! A process may be gone, or its pid another's, between any two reads; the start time decides.

use std::fs;

use crate::{
    cgroup, container,
    process::{Describe, Details},
    record::Descriptors,
};

/// Ticks a second of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Rust's
/// BPF target is used with.
const USER_HZ: u64 = 100;

/// Reads /proc.
#[derive(Debug, Default)]
pub struct Proc;

impl Describe for Proc {
    fn describe(&mut self, pid: u32, start: u64) -> Details {
        let path = |name: &str| format!("/proc/{pid}/{name}");
        let details = Details {
            // Before the name, so that an exec between the two shows in that.
            exe: fs::read_link(path("exe"))
                .ok()
                .map(|exe| exe.to_string_lossy().into_owned()),
            comm: fs::read(path("comm"))
                .ok()
                .map(|bytes| String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()),
            uid: fs::read_to_string(path("status"))
                .ok()
                .as_deref()
                .and_then(real_uid),
            ..cgroup(&path("cgroup"))
        };
        // Last, so that a pid that was reused meanwhile is noticed.
        if is_same(pid, start) {
            details
        } else {
            Details::default()
        }
    }

    fn descriptors(&mut self, pid: u32, start: u64) -> Option<Descriptors> {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        let descriptors = Descriptors {
            pid,
            open: open_files(pid)?,
            limit: open_files_limit(&limits)?,
        };
        is_same(pid, start).then_some(descriptors)
    }
}

/// What this process is called, NUL-padded as two words like the kernel side copies it; zeros where it cannot be read.
pub fn own_comm() -> [u64; 2] {
    let comm = fs::read("/proc/self/comm").unwrap_or_default();
    let mut bytes = [0; 16];
    for (byte, of_name) in bytes.iter_mut().zip(comm.trim_ascii_end()) {
        *byte = *of_name;
    }
    zerocopy::transmute!(bytes)
}

/// Whether the process is the one that started then, nanoseconds after boot (0: not known).
fn is_same(pid: u32, start: u64) -> bool {
    let times = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    times
        .as_deref()
        .and_then(start_ticks)
        .is_some_and(|ticks| start == 0 || (start / (1_000_000_000 / USER_HZ)).abs_diff(ticks) <= 1)
}

/// More than this many are not counted one by one.
const COUNTED: usize = 65_536;

/// How many files a process has open. Since 6.2 it is the size of the directory, which anybody may ask for (`proc_fd_getattr`,
/// `fs/proc/fd.c`; f1f1f2569901).
fn open_files(pid: u32) -> Option<u64> {
    let directory = format!("/proc/{pid}/fd");
    let size = fs::metadata(&directory).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let count = fs::read_dir(&directory).ok()?.take(COUNTED).count();
    (count < COUNTED).then_some(count as u64)
}

/// The soft limit in `/proc/PID/limits`.
fn open_files_limit(limits: &str) -> Option<u64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// cgroup id, container id and pod uid from `/proc/PID/cgroup`.
fn cgroup(path: &str) -> Details {
    let Ok(text) = fs::read_to_string(path) else {
        return Details::default();
    };
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    let cgroup_id = unified.and_then(|path| {
        let below = path.trim_start_matches('/');
        cgroup::id(&cgroup::root()?.join(below))
    });
    Details {
        cgroup_id,
        container_id: text.lines().find_map(container::id).map(str::to_owned),
        pod_uid: text.lines().find_map(container::pod_uid),
        ..Details::default()
    }
}

/// The real uid in `/proc/PID/status`.
fn real_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Field 22 of `/proc/PID/stat`, behind a name that may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_describes_itself() {
        let details = Proc.describe(std::process::id(), 0);
        let exe = std::env::current_exe().unwrap();
        assert_eq!(details.exe.as_deref(), exe.to_str());
        assert!(details.comm.is_some() && details.uid.is_some());
    }

    #[test]
    fn this_process_knows_its_own_name() {
        let comm = upstream_trace_common::event::bytes(own_comm());
        let name = Proc.describe(std::process::id(), 0).comm.unwrap();
        assert_eq!(comm.split(|&byte| byte == 0).next(), Some(name.as_bytes()));
        assert_eq!(comm[name.len()..], [0; 16][name.len()..]);
    }

    #[test]
    fn this_process_counts_its_files() {
        let me = std::process::id();
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let descriptors = Proc.descriptors(me, 0).unwrap();
        assert_eq!(descriptors.pid, me);
        assert!(descriptors.open > files.len() as u64, "{descriptors:?}");
        assert!(descriptors.limit >= descriptors.open, "{descriptors:?}");
        assert_eq!(Proc.descriptors(me, 1), None);
        assert_eq!(Proc.descriptors(u32::MAX, 0), None);
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
        assert_eq!(open_files_limit("Max open files"), None);
    }

    #[test]
    fn another_start_is_another_process() {
        assert_eq!(Proc.describe(std::process::id(), 1), Details::default());
        assert_eq!(Proc.describe(u32::MAX, 0), Details::default());
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_confuse() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_ticks(stat), Some(4242));
        assert_eq!(start_ticks("7 (a"), None);
        assert_eq!(real_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(1000));
    }
}
