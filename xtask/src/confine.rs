//! Starts the tracer on a host that forbids or hides something: another user, fewer capabilities, files
//! that are not there, root that is none.
//!
//! Only the started process is confined, and what is hidden is hidden in a mount namespace of its own; a small file system is
//! one of the calling thread's. Must not know: what the tracer makes of it.

use std::{
    ffi::{CStr, CString},
    io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    ptr,
};

/// By number, as in `include/uapi/linux/capability.h`.
pub const CAP_SYS_PTRACE: u8 = 19;
pub const CAP_SYS_RESOURCE: u8 = 24;
pub const CAP_PERFMON: u8 = 38;
pub const CAP_BPF: u8 = 39;

/// Of `enum bpf_cmd`, `include/uapi/linux/bpf.h`: what attaches a tracepoint.
pub const ATTACH: [u32; 2] = [BPF_RAW_TRACEPOINT_OPEN, BPF_LINK_CREATE];
const BPF_RAW_TRACEPOINT_OPEN: u32 = 17;
const BPF_LINK_CREATE: u32 = 28;

const NOBODY: libc::uid_t = 65534;
/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// What is different for the started process.
#[derive(Clone, Debug, Default)]
pub struct Host {
    hidden: Vec<CString>,
    user_namespace: bool,
    nobody: Option<u64>,
    without: u64,
    one_thread: bool,
    /// A seccomp filter; empty: none.
    filter: Vec<libc::sock_filter>,
}

impl Host {
    /// This directory is empty.
    #[must_use]
    pub fn hide(mut self, directory: &str) -> Self {
        if Path::new(directory).is_dir() {
            self.hidden.extend(CString::new(directory));
        }
        self
    }

    /// The user is nobody, with these capabilities.
    #[must_use]
    pub fn nobody(mut self, capabilities: &[u8]) -> Self {
        self.nobody = Some(mask(capabilities));
        self
    }

    /// The user is root, without this capability.
    #[must_use]
    pub fn without(mut self, capability: u8) -> Self {
        self.without |= mask(&[capability]);
        self
    }

    /// The user, who is not root, may have one thread.
    #[must_use]
    pub fn one_thread(mut self) -> Self {
        self.one_thread = true;
        self
    }

    /// The user is root with every capability, in a user namespace.
    #[must_use]
    pub fn user_namespace(mut self) -> Self {
        self.user_namespace = true;
        self
    }

    /// bpf(2) answers these commands with this error.
    #[must_use]
    pub fn refuse(mut self, commands: &[u32], errno: i32) -> Self {
        self.filter = filter(commands, errno);
        self
    }

    /// Makes the command's process live there.
    pub fn confine(&self, command: &mut Command) {
        let host = self.clone();
        // SAFETY: between fork and exec the closure only makes system calls; nothing is allocated, and what
        // it frees is freed by exec.
        unsafe { command.pre_exec(move || host.enter()) };
    }

    fn enter(&self) -> io::Result<()> {
        if !self.hidden.is_empty() {
            own_mounts()?;
        }
        for directory in &self.hidden {
            mount_tmpfs(directory, libc::MS_RDONLY, c"")?;
        }
        if self.user_namespace {
            // SAFETY: takes numbers only.
            ok(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
            stay_root()?;
        }
        if self.without != 0 {
            self.bound()?;
        }
        if !self.filter.is_empty() {
            self.sandbox()?;
        }
        if let Some(capabilities) = self.nobody {
            become_nobody(capabilities)?;
        }
        if self.one_thread {
            let one = libc::rlimit {
                rlim_cur: 1,
                rlim_max: 1,
            };
            // SAFETY: the kernel reads one rlimit from a reference, which is valid.
            ok(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const one) })?;
        }
        Ok(())
    }

    fn sandbox(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(self.filter.len()).unwrap_or_default(),
            filter: self.filter.as_ptr().cast_mut(),
        };
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the kernel reads one program and as many instructions as it says; both live here.
        ok(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) })
    }

    /// The kernel gives root all of the bounding set at exec.
    fn bound(&self) -> io::Result<()> {
        for capability in (0..u64::BITS).filter(|bit| self.without >> bit & 1 == 1) {
            // SAFETY: takes numbers only.
            ok(unsafe {
                libc::prctl(
                    libc::PR_CAPBSET_DROP,
                    libc::c_ulong::from(capability),
                    0,
                    0,
                    0,
                )
            })?;
        }
        Ok(())
    }
}

/// An empty file system of 64 KiB at this directory, for the calling thread and what it starts; it goes with them.
pub fn small_file_system(directory: &Path) -> io::Result<()> {
    own_mounts()?;
    let directory = CString::new(directory.as_os_str().as_bytes())?;
    mount_tmpfs(&directory, 0, c"size=64k")
}

/// From now on what the calling thread mounts is seen by it and its children alone.
fn own_mounts() -> io::Result<()> {
    // SAFETY: takes numbers only.
    ok(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let none = ptr::null();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the path ends with a NUL; for this the other three may be null.
    ok(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })
}

fn mount_tmpfs(directory: &CStr, flags: libc::c_ulong, options: &CStr) -> io::Result<()> {
    let (tmpfs, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
    // SAFETY: every string ends with a NUL.
    ok(unsafe { libc::mount(tmpfs, directory.as_ptr(), tmpfs, flags, options) })
}

/// Instructions over `struct seccomp_data`: the number of the call, its architecture, an address, arguments.
fn filter(commands: &[u32], errno: i32) -> Vec<libc::sock_filter> {
    const NUMBER: u32 = 0;
    /// The lower half, where the machine is little-endian.
    const FIRST_ARGUMENT: u32 = 16;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k: u32, if_true: u8, if_false: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: if_true,
        jf: if_false,
        k,
    };
    let bpf = u32::try_from(libc::SYS_bpf).unwrap_or_default();
    let error = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let mut steps = vec![
        step(LOAD, NUMBER, 0, 0),
        step(EQUAL, bpf, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
    ];
    for &command in commands {
        steps.extend([step(EQUAL, command, 0, 1), step(RETURN, error, 0, 0)]);
    }
    steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    steps
}

/// Root there is root here, so that exec leaves it all capabilities of the namespace.
fn stay_root() -> io::Result<()> {
    const MAP: &[u8] = b"0 0 1\n";
    // SAFETY: the path ends with a NUL.
    let file = unsafe {
        libc::open(
            c"/proc/self/uid_map".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        )
    };
    ok(file)?;
    // SAFETY: as many bytes as the constant has.
    let written = unsafe { libc::write(file, MAP.as_ptr().cast(), MAP.len()) };
    ok(if written < 0 { -1 } else { 0 })
}

/// Keeps the capabilities over the change of user, then over exec: ambient ones are.
fn become_nobody(capabilities: u64) -> io::Result<()> {
    // SAFETY: takes numbers only.
    ok(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
    // SAFETY: no group is read.
    ok(unsafe { libc::setgroups(0, ptr::null()) })?;
    // SAFETY: takes numbers only.
    ok(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: takes numbers only.
    ok(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) })?;
    let half = |shift: u32| {
        let bits = u32::try_from(capabilities >> shift & u64::from(u32::MAX)).unwrap_or_default();
        [bits; 3]
    };
    let header = [CAPABILITY_VERSION, 0];
    let halves = [half(0), half(32)];
    // SAFETY: the kernel reads one header and, by its version, two halves; both live here.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), halves.as_ptr()) };
    ok(libc::c_int::try_from(done).unwrap_or(-1))?;
    for capability in (0..u64::BITS).filter(|bit| capabilities >> bit & 1 == 1) {
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        let capability = libc::c_ulong::from(capability);
        // SAFETY: takes numbers only.
        ok(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) })?;
    }
    Ok(())
}

fn mask(capabilities: &[u8]) -> u64 {
    capabilities.iter().fold(0, |all, bit| all | 1 << bit)
}

fn ok(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
