//! What BPF objects there are in the kernel, by their ids.
//!
//! Must not know: whose they are.

use std::{
    fs, io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

/// Of `enum bpf_cmd`, `include/uapi/linux/bpf.h`.
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;

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

/// What a process holds by its descriptors, each once.
pub fn held_by(pid: u32) -> Result<Vec<Object>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut objects = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.clone())? {
        // A descriptor may have been closed since.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        for line in text.lines() {
            let Some((name, id)) = line.split_once(':') else {
                continue;
            };
            if let Some((kind, _)) = KINDS.into_iter().find(|(kind, _)| *kind == name) {
                let id = id.trim().parse()?;
                objects.push(Object { kind, id });
            }
        }
    }
    objects.sort_unstable();
    objects.dedup();
    Ok(objects)
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
