//! Every map and every setting, each with the reasoning for its size.
//!
//! Must not know: hooks.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
};
use upstream_trace_common::{counter, kept::KeptReset, route::Destination, setting, story::Place};

use crate::actor::Known;

/// Events. The agent sets the size (`--ring-size`); this is only a placeholder.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// What the kernel side says of itself: one value for all counters, so that the agent reads them with
/// one call, per CPU so that they are not fought over.
#[map]
pub static COUNTERS: PerCpuArray<[u64; counter::COUNT]> = PerCpuArray::with_max_entries(1, 0);

/// Sockets whose life is kept here until it ends, each in the one place that its address leads to
/// (`story.rs`). 65,536 at 192 bytes, or fewer where the agent is told to follow fewer. A place that is
/// taken costs nothing but the advantage: the events of the further socket go into the ring one by one.
/// An array, because its look-up is inlined and nothing is inserted or removed: with a hash table these
/// were more than half of all the time in the kernel. The agent maps it to read what is open.
#[map]
pub static STORIES: Array<Place> =
    Array::with_max_entries(setting::STORY_PLACES_MAX, BPF_F_MMAPABLE);

/// Processes that acted on this CPU, by their id's low bits (`actor.rs`). Few take turns within a jiffy.
#[map]
pub static ACTORS: PerCpuArray<Known> = PerCpuArray::with_max_entries(ACTORS_MAX, 0);

/// A power of two.
pub const ACTORS_MAX: u32 = 16;

/// Processes that the agent has been told of, by their id's low bits: start and the first half of the
/// name, so that neither a reused pid nor an `exec` goes unnoticed. One that is put out by another is
/// told again.
#[map]
pub static PROCESSES: Array<[u64; 2]> = Array::with_max_entries(PROCESSES_MAX, 0);

/// A power of two.
pub const PROCESSES_MAX: u32 = 4096;

/// How the packet came that completed a socket's handshake, in the place that the socket's address leads
/// to: that address, then the socket's ports and the `Way`. Written once a connection that is not on
/// loopback, read where one is reset; whoever finds another's takes it for none. 1 MiB.
#[map]
pub static HANDSHAKES: Array<[u64; 2]> = Array::with_max_entries(HANDSHAKES_MAX, 0);

/// A power of two.
pub const HANDSHAKES_MAX: u32 = 65_536;

/// The last resets of connections that were not asked for (`kept.rs`); used only where not everything is asked for. Few come within the tenth of
/// a second in which one is looked for. 216 KiB. The agent maps it to read them.
#[map]
pub static RESETS: Array<KeptReset> =
    Array::with_max_entries(setting::RESET_PLACES, BPF_F_MMAPABLE);

/// Wanted ports, one bit each. An array, because its look-up is inlined by the verifier.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(setting::PORT_WORDS, 0);

/// Wanted IPv4 networks.
#[map]
pub static NETS_V4: LpmTrie<u32, u8> =
    LpmTrie::with_max_entries(setting::WANTED_MAX, BPF_F_NO_PREALLOC);

/// Wanted IPv6 networks.
#[map]
pub static NETS_V6: LpmTrie<[u32; 4], u8> =
    LpmTrie::with_max_entries(setting::WANTED_MAX, BPF_F_NO_PREALLOC);

/// Wanted processes.
#[map]
pub static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(setting::WANTED_MAX, 0);

/// Wanted cgroups, by id; what is below them is wanted as well.
#[map]
pub static CGROUPS: HashMap<u64, u8> = HashMap::with_max_entries(setting::WANTED_MAX, 0);

/// Sockets of wanted processes, by address of `struct sock`; used only with `PIDS` or `CGROUPS`. Removed when the
/// socket is destroyed; the agent makes it as large as its own table. As the two above allocated at once: kprobes use it, and from 5.7
/// to 6.0 the kernel warns of those that allocate (`check_map_prog_compatibility`), which with `panic_on_warn` is its end.
#[map]
pub static OWNED: HashMap<u64, u8> = HashMap::with_max_entries(262_144, 0);

/// Listening ports of wanted processes (`netns << 16 | port`); used only with `PIDS` or `CGROUPS`. They stay: who listens there
/// later is not wanted for that, and the agent knows (`Wanted`).
#[map]
pub static OWNED_PORTS: HashMap<u64, u8> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Which socket listens on each port (`netns << 32 | family << 16 | port`): its address, or how many there are (`listener.rs`). For
/// connections that it had no room for. More ports than a node listens on; one that finds no room here is not looked up later.
#[map]
pub static LISTENERS: HashMap<u64, u64> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// In which network namespace of this node a destination is (`route::destination`). The agent has learned it from connections whose both
/// ends it saw, and says whether it can be relied on; read where a connection fails.
#[map]
pub static ROUTES: HashMap<Destination, u32> =
    HashMap::with_max_entries(setting::ROUTES_MAX, BPF_F_NO_PREALLOC);

/// `BPF_F_NO_PREALLOC`, `include/uapi/linux/bpf.h`.
const BPF_F_NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`, the same; since 5.5.
const BPF_F_MMAPABLE: u32 = 1 << 10;

macro_rules! settings {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            static $name: $type = 0;
        )*

        /// Settings that the agent writes before the object is loaded.
        pub mod set {
            $(
                #[doc = concat!("`setting::", stringify!($name), "`")]
                #[inline(always)]
                #[expect(non_snake_case, reason = "named after the global that it reads")]
                pub fn $name() -> $type {
                    // SAFETY: a static is valid for reads; volatile because the agent replaces its
                    // value at load, which the compiler cannot see.
                    unsafe { core::ptr::read_volatile(&raw const super::$name) }
                }
            )*
        }
    };
}

settings!(
    FILTER_PORTS: u32,
    FILTER_PORTS_EPHEMERAL: u32,
    FILTER_NETS: u32,
    FILTER_PIDS: u32,
    FILTER_CGROUPS: u32,
    CAN_PROBE_READ: u32,
    SEND_RESET_HAS_REASON: u32,
    RETRANSMIT_HAS_ERROR: u32,
    HAS_CURRENT_TASK_BTF: u32,
    HAS_SOCK_FROM_FILE: u32,
    ACCEPT_HAS_ARG_STRUCT: u32,
    EACH_EVENT: u32,
    STORY_PLACES: u32,
    WAKE_AT: u32,
    DROP_HAS_SOCKET: u32,
    NO_SOCKET_DROP: u32,
    DROPS_LOW: u64,
    DROPS_HIGH: u64,
    RESET_DROPS_LOW: u64,
    RESET_DROPS_HIGH: u64,
);
