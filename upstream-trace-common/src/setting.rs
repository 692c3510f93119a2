//! Names of the read-only globals, other than field offsets, that the agent sets at load, and sizes that both sides know.
//!
//! Each is constant to the verifier, so a feature that is off costs nothing per event.

/// `u32`, 1 where the `PORTS` bitmap decides (either end of the socket).
pub const FILTER_PORTS: &str = "FILTER_PORTS";
/// `u32`, 1 where a wanted port may be an ephemeral one, so that a connect whose local port is not
/// chosen yet has to pass.
pub const FILTER_PORTS_EPHEMERAL: &str = "FILTER_PORTS_EPHEMERAL";
/// `u32`, 1 where the `NETS_V4` and `NETS_V6` tries decide (either end of the socket).
pub const FILTER_NETS: &str = "FILTER_NETS";
/// `u32`, 1 where the `PIDS` set decides (the owner of the socket).
pub const FILTER_PIDS: &str = "FILTER_PIDS";
/// `u32`, 1 where the `CGROUPS` set decides (the owner's cgroup, or one above it).
pub const FILTER_CGROUPS: &str = "FILTER_CGROUPS";
/// `u32`, 1 where `bpf_probe_read_kernel` may be used (not under lockdown=confidentiality).
pub const CAN_PROBE_READ: &str = "CAN_PROBE_READ";
/// `u32`, 1 where `tcp_send_reset` carries `enum sk_rst_reason` (three arguments).
pub const SEND_RESET_HAS_REASON: &str = "SEND_RESET_HAS_REASON";
/// `u32`, 1 where `tcp_retransmit_skb` carries how that went (three arguments, 6.16 and later).
pub const RETRANSMIT_HAS_ERROR: &str = "RETRANSMIT_HAS_ERROR";
/// `u32`, 1 where `bpf_get_current_task_btf` exists (5.11 and later).
pub const HAS_CURRENT_TASK_BTF: &str = "HAS_CURRENT_TASK_BTF";
/// `u32`, 1 where `bpf_sock_from_file` exists (5.11 and later).
pub const HAS_SOCK_FROM_FILE: &str = "HAS_SOCK_FROM_FILE";
/// `u32`, 1 where `inet_csk_accept` takes `struct proto_accept_arg` (two arguments, 6.10 and later).
pub const ACCEPT_HAS_ARG_STRUCT: &str = "ACCEPT_HAS_ARG_STRUCT";
/// `u32`, 1 where each event is wanted as it happens (`--events`): no connection's steps are kept until its end.
pub const EACH_EVENT: &str = "EACH_EVENT";
/// `u32`, places in which a connection's steps are kept in the kernel until its end, a power of two.
pub const STORY_PLACES: &str = "STORY_PLACES";
/// `u32`, bytes waiting in the ring beyond which the agent is woken at once.
pub const WAKE_AT: &str = "WAKE_AT";

/// `u32`, 1 where `kfree_skb` carries the socket that a packet came for (four arguments, 6.11 and later).
pub const DROP_HAS_SOCKET: &str = "DROP_HAS_SOCKET";

/// `u32`, the `enum skb_drop_reason` for which a packet is dropped that no socket waited for; 0: none.
pub const NO_SOCKET_DROP: &str = "NO_SOCKET_DROP";

/// `u64`, a bit for each `enum skb_drop_reason` below 64 with which a filter drops packets.
pub const DROPS_LOW: &str = "DROPS_LOW";
/// `u64`, the same of those from 64 to 127.
pub const DROPS_HIGH: &str = "DROPS_HIGH";
/// `u64`, a bit for each `enum skb_drop_reason` below 64 with which TCP drops a reset that ended no connection.
pub const RESET_DROPS_LOW: &str = "RESET_DROPS_LOW";
/// `u64`, the same of those from 64 to 127.
pub const RESET_DROPS_HIGH: &str = "RESET_DROPS_HIGH";

/// The most processes, cgroups, and networks of each family that are filtered for.
pub const WANTED_MAX: u32 = 1024;

/// Words of the port bitmap: bit `port % 64` of word `port / 64`.
pub const PORT_WORDS: u32 = 65536 / 64;

/// The most resets of connections that were not asked for that the kernel side keeps, a power of two.
pub const RESET_PLACES: u32 = 1024;

/// The most destinations of which the kernel side is told where they lead.
pub const ROUTES_MAX: u32 = 4096;

/// The most stories that the kernel side keeps.
pub const STORY_PLACES_MAX: u32 = 65_536;
