//! What a kernel can do that a scenario, or what is expected of it, depends on.
//!
//! Asked of the running kernel, never concluded from its version. Must not know: any version (which
//! kernel is to have what stands in the kernel matrix).

use std::collections::HashMap;
use std::path::Path;

use super::ring;

/// Something that older kernels lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The kernel names the reason of each reset (`enum sk_rst_reason`). Since 6.10.
    ResetReasons,
    /// Multipath TCP. In the kernel since 5.6, but not in every configuration.
    Mptcp,
    /// Programs may read memory that no type leads to, as packet headers are: not under
    /// lockdown=confidentiality.
    UntypedReads,
    /// The kernel names the reason for which it drops a packet (`enum skb_drop_reason`, since 5.17), and untyped
    /// reads tell which packet that is.
    DropReasons,
    /// Functions can be hooked, and what they are called with read: some kernels are built or told to allow neither
    /// fentry nor kprobes.
    FunctionHooks,
    /// The scan of open files finds sockets: it takes the helper `bpf_sock_from_file`, since 5.11, or untyped
    /// reads.
    SocketScan,
    /// The current task's cgroups and the name of its process are told: it takes the helper
    /// `bpf_get_current_task_btf`, since 5.11, or untyped reads.
    CurrentTask,
    /// Operations by `io_uring`: not in every configuration, and it can be forbidden.
    IoUring,
    /// The packet of a reset is seen: functions can be hooked, and `tcp_reset` is given it, since 5.11.
    ResetPackets,
}

impl Feature {
    pub const ALL: [Self; 9] = [
        Self::ResetReasons,
        Self::Mptcp,
        Self::UntypedReads,
        Self::DropReasons,
        Self::FunctionHooks,
        Self::SocketScan,
        Self::CurrentTask,
        Self::IoUring,
        Self::ResetPackets,
    ];

    /// As reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResetReasons => "reset_reasons",
            Self::Mptcp => "mptcp",
            Self::UntypedReads => "untyped_reads",
            Self::DropReasons => "drop_reasons",
            Self::FunctionHooks => "function_hooks",
            Self::SocketScan => "socket_scan",
            Self::CurrentTask => "current_task",
            Self::IoUring => "io_uring",
            Self::ResetPackets => "reset_packets",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Self::ResetReasons => kernel_type_exists(c"sk_rst_reason".to_bytes_with_nul()),
            Self::UntypedReads => {
                let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown");
                !lockdown.is_ok_and(|modes| modes.contains("[confidentiality]"))
            }
            Self::DropReasons => {
                Self::UntypedReads.is_here()
                    && kernel_type_exists(c"skb_drop_reason".to_bytes_with_nul())
            }
            Self::FunctionHooks => {
                Self::UntypedReads.is_here()
                    && Path::new("/sys/bus/event_source/devices/kprobe/type").is_file()
            }
            Self::SocketScan => {
                Self::UntypedReads.is_here()
                    || kernel_type_exists(c"BPF_FUNC_sock_from_file".to_bytes_with_nul())
            }
            Self::CurrentTask => {
                Self::UntypedReads.is_here()
                    || kernel_type_exists(c"BPF_FUNC_get_current_task_btf".to_bytes_with_nul())
            }
            Self::ResetPackets => {
                Self::FunctionHooks.is_here() && arguments("tcp_reset") >= Some(2)
            }
            Self::Mptcp => Path::new("/proc/sys/net/mptcp/enabled").is_file(),
            Self::IoUring => ring::is_allowed(),
        }
    }
}

/// The features of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features([bool; Feature::ALL.len()]);

impl Features {
    /// Those of the running kernel.
    pub fn here() -> Self {
        Self(Feature::ALL.map(Feature::is_here))
    }

    pub fn has(self, feature: Feature) -> bool {
        Feature::ALL
            .iter()
            .zip(self.0)
            .any(|(&other, here)| here && other == feature)
    }

    /// Those that it has.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |&one| self.has(one))
    }
}

/// Whether the kernel's own type information has that name, which ends with a NUL.
fn kernel_type_exists(name: &[u8]) -> bool {
    let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let name = [b"\0", name].concat();
    // SAFETY: both regions are live for their lengths, and only read.
    let found = unsafe {
        libc::memmem(
            btf.as_ptr().cast(),
            btf.len(),
            name.as_ptr().cast(),
            name.len(),
        )
    };
    !found.is_null()
}

/// How many arguments a kernel function has, by the kernel's own type information; `None` where it has no such
/// function. `Documentation/bpf/btf.rst` has the format.
fn arguments(function: &str) -> Option<u32> {
    let btf = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let place = |at| usize::try_from(word(at)?).ok();
    let types = place(4)? + place(8)?;
    let types_end = types + place(12)?;
    let strings = place(4)? + place(16)?;
    let (mut protos, mut wanted) = (HashMap::new(), None);
    let (mut at, mut id) = (types, 1);
    while at < types_end {
        let info = word(at + 4)?;
        let count = info & 0xffff;
        let name = strings + place(at)?;
        let is_named =
            btf.get(name..)?.split(|&byte| byte == 0).next() == Some(function.as_bytes());
        let more = match info >> 24 & 0x1f {
            // INT, VAR, DECL_TAG: a word more.
            1 | 14 | 17 => 4,
            // ARRAY: three.
            3 => 12,
            // STRUCT, UNION, DATASEC, ENUM64: three for each member.
            4 | 5 | 15 | 19 => 12 * count,
            // ENUM: two.
            6 => 8 * count,
            // FUNC_PROTO: two for each argument.
            13 => {
                protos.insert(id, count);
                8 * count
            }
            12 if is_named => {
                wanted = word(at + 8);
                0
            }
            _ => 0,
        };
        at += 12 + usize::try_from(more).ok()?;
        id += 1;
    }
    protos.get(&wanted?).copied()
}
