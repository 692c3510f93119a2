//! What a kernel can do that a scenario, or what is expected of it, depends on.
//!
//! Asked of the running kernel, never concluded from its version. Must not know: any version (which
//! kernel is to have what stands in the kernel matrix).

use std::{io, path::Path};

use super::ring;
use crate::{matrix, types::Types};

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
    /// It tells the socket that a dropped packet came for as well, since 6.11.
    DropSockets,
    /// Functions can be hooked, and what they are called with read: some kernels are built or told to allow neither
    /// fentry nor kprobes.
    FunctionHooks,
    /// Resets that are sent from `TIME_WAIT` are seen: the kernel traces them, since 6.10, or functions can be hooked.
    TimeWaitResets,
    /// The same, and any that the kernel kept from their hook are counted, as those kept from a kprobe are not.
    CountedResets,
    /// As the first of those from closed ports, which a dropped packet tells of as well; their addresses are in packets only.
    ClosedPortResets,
    /// The packets that resets from `TIME_WAIT` answer are seen as well.
    AnsweredPackets,
    /// What ICMP error answered a SYN over IPv4 is seen: its packet, where functions can be hooked, or what the kernel keeps of it for
    /// the socket's owner, which kernels do that have reasons for drops (5.17; for this 5.18).
    IcmpErrors,
    /// The scan of open files finds sockets: it takes the helper `bpf_sock_from_file`, since 5.11, or untyped
    /// reads.
    SocketScan,
    /// It finds MPTCP's own sockets as well: what lies below them takes untyped reads.
    MptcpScan,
    /// The current task's cgroups and the name of its process are told: it takes the helper
    /// `bpf_get_current_task_btf`, since 5.11, or untyped reads.
    CurrentTask,
    /// Operations by `io_uring`: not in every configuration, and it can be forbidden.
    IoUring,
    /// The packet of a reset is seen: functions can be hooked, and `tcp_reset` is given it, since 5.11.
    ResetPackets,
}

impl Feature {
    pub const ALL: [Self; 16] = [
        Self::ResetReasons,
        Self::Mptcp,
        Self::UntypedReads,
        Self::DropReasons,
        Self::DropSockets,
        Self::FunctionHooks,
        Self::TimeWaitResets,
        Self::CountedResets,
        Self::ClosedPortResets,
        Self::AnsweredPackets,
        Self::IcmpErrors,
        Self::SocketScan,
        Self::MptcpScan,
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
            Self::DropSockets => "drop_sockets",
            Self::FunctionHooks => "function_hooks",
            Self::TimeWaitResets => "time_wait_resets",
            Self::CountedResets => "counted_resets",
            Self::ClosedPortResets => "closed_port_resets",
            Self::AnsweredPackets => "answered_packets",
            Self::IcmpErrors => "icmp_errors",
            Self::SocketScan => "socket_scan",
            Self::MptcpScan => "mptcp_scan",
            Self::CurrentTask => "current_task",
            Self::IoUring => "io_uring",
            Self::ResetPackets => "reset_packets",
        }
    }

    fn is_here(self, types: &Types) -> bool {
        let is_here = |other: Self| other.is_here(types);
        let arguments = |name| types.function(name).map(|function| function.arguments);
        match self {
            Self::ResetReasons => types.has("sk_rst_reason"),
            Self::UntypedReads => {
                let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown");
                !lockdown.is_ok_and(|modes| modes.contains("[confidentiality]"))
            }
            Self::DropReasons => is_here(Self::UntypedReads) && types.has("skb_drop_reason"),
            Self::DropSockets => {
                // The first is the probe's own.
                is_here(Self::DropReasons) && arguments("__traceiter_kfree_skb") >= Some(5)
            }
            Self::FunctionHooks => is_here(Self::UntypedReads) && functions_can_be_hooked(),
            Self::TimeWaitResets => is_here(Self::ResetReasons) || functions_can_be_hooked(),
            Self::CountedResets => {
                let by_fentry = || functions_can_be_hooked() && !matrix::refuses_fentry();
                is_here(Self::ResetReasons) || by_fentry()
            }
            Self::ClosedPortResets => {
                let otherwise = || is_here(Self::DropReasons);
                is_here(Self::UntypedReads) && (is_here(Self::TimeWaitResets) || otherwise())
            }
            Self::AnsweredPackets => is_here(Self::UntypedReads) && is_here(Self::TimeWaitResets),
            Self::IcmpErrors => is_here(Self::FunctionHooks) || is_here(Self::DropReasons),
            Self::SocketScan => is_here(Self::UntypedReads) || types.has("BPF_FUNC_sock_from_file"),
            Self::MptcpScan => is_here(Self::Mptcp) && is_here(Self::UntypedReads),
            Self::CurrentTask => {
                is_here(Self::UntypedReads) || types.has("BPF_FUNC_get_current_task_btf")
            }
            Self::ResetPackets => is_here(Self::FunctionHooks) && arguments("tcp_reset") >= Some(2),
            Self::Mptcp => Path::new("/proc/sys/net/mptcp/enabled").is_file(),
            Self::IoUring => ring::is_allowed(),
        }
    }
}

/// The features of a kernel; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features([bool; Feature::ALL.len()]);

impl Features {
    /// Those of the running kernel.
    pub fn here() -> io::Result<Self> {
        let types = Types::read()?;
        Ok(Self(Feature::ALL.map(|one| one.is_here(&types))))
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

/// Built and told to allow it.
fn functions_can_be_hooked() -> bool {
    let ftrace = std::fs::read_to_string("/proc/sys/kernel/ftrace_enabled");
    Path::new("/sys/bus/event_source/devices/kprobe/type").is_file()
        && ftrace.map_or(true, |enabled| enabled.trim() != "0")
}
