//! The lines that are printed, as types: field order, names and the JSON Schema come from here.
//!
//! Borrowed where the engine owns the text, so that building a record allocates nothing.
//! Must not know: where a value came from, where it is written to.

mod connection;
pub(crate) mod digits;
mod second;
mod spelling;
mod step;
mod words;

use std::{cell::OnceCell, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

pub(crate) use self::words::words;
pub use self::{
    connection::Connection,
    spelling::{Spelling, spell_address},
    step::Step,
    words::{
        Attribution, Cause, Confidence, Direction, Family, Flag, Layer, Origin, ReasonSource, Role,
        StepKind, Verdict,
    },
};
use crate::tcp::State;

/// Nanoseconds since the Unix epoch; printed as RFC 3339, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// Unique across runs and nodes: the run's random prefix and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Random for each run.
    pub run: u64,
    /// Counts the sockets of the run.
    pub serial: u64,
}

macro_rules! constant {
    ($(#[$doc:meta])* $name:ident = $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
        #[schemars(extend("const" = $text), with = "String")]
        pub struct $name;

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_unit_variant(stringify!($name), 0, $text)
            }
        }
    };
}

constant!(
    /// Version of the contract.
    Schema = "upstream-trace/1"
);
constant!(
    /// `type` of a [`Connection`] line.
    ConnectionType = "connection"
);
constant!(
    /// `type` of a [`StrayReset`] line.
    ResetType = "reset"
);
constant!(
    /// `type` of an [`Event`] line.
    EventType = "event"
);
constant!(
    /// `type` of a [`Stats`] line.
    StatsType = "stats"
);

pub(crate) use constant;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Endpoint {
    /// IP address.
    #[serde(serialize_with = "spelling::serialize_address")]
    #[schemars(schema_with = "spelling::address_schema")]
    pub address: IpAddr,
    /// TCP port; 0 where none was ever chosen.
    pub port: u16,
}

/// How a process is spelled as JSON, kept beside it: many connections have few processes between them.
pub type Spelled = OnceCell<Box<[u8]>>;

/// A process, and how it was found.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(remote = "Self")]
pub struct Process<'a> {
    /// Process id (thread group) in the initial pid namespace.
    pub pid: u32,
    /// Name of the process, not of a thread.
    pub comm: Option<&'a str>,
    /// Path of the executable.
    pub exe: Option<&'a str>,
    /// Real uid.
    pub uid: Option<u32>,
    /// cgroup v2 id: the inode number of the cgroup's directory.
    pub cgroup_id: Option<u64>,
    /// Container id, from the cgroup path.
    pub container_id: Option<&'a str>,
    /// Uid of the Kubernetes pod, from the cgroup path.
    pub pod_uid: Option<&'a str>,
    /// How the process was found.
    pub attribution: Attribution,
    /// All of these as a writer of JSON spelled them, where there is a place to keep that.
    #[serde(skip)]
    pub spelled: Option<&'a Spelled>,
}

impl Serialize for Process<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.spelled.and_then(OnceCell::get) {
            Some(json) if !serializer.is_human_readable() => serializer.serialize_bytes(json),
            _ => Self::serialize(self, serializer),
        }
    }
}

/// Payload bytes; SYN and FIN are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Bytes {
    /// Sent at least once.
    pub sent: Option<u64>,
    /// Received in order.
    pub received: Option<u64>,
    /// Sent and acknowledged.
    pub acked: Option<u64>,
}

/// The reset that ended a connection.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Reset<'a> {
    /// Seen from this socket.
    pub direction: Direction,
    /// The kernel's own name (`enum sk_rst_reason`) without prefix.
    pub reason: Option<&'a str>,
    /// Where `reason` comes from.
    pub reason_source: ReasonSource,
    /// Whose stack sent it.
    pub origin: Origin,
    /// How sure that is; null where it is no more than what is left.
    pub confidence: Option<Confidence>,
    /// What its packet tells; null for one that was sent or came by loopback, and where packets are not seen.
    pub evidence: Option<ResetEvidence>,
    /// The process that caused it, where one did.
    pub sender: Option<Process<'a>>,
}

/// An ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Icmp {
    /// Type: of ICMP for IPv6 where the connection is IPv6.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The router, firewall or host that sent it.
    #[serde(serialize_with = "spelling::serialize_known_address")]
    pub from: Option<IpAddr>,
}

/// A range of local ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// The accept queue of a listening socket; it is full when it is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub length: u32,
    /// The backlog of `listen()`, at most `net.core.somaxconn`.
    pub limit: u32,
}

impl AcceptQueue {
    /// Whether no more go in, so that a SYN is dropped (`sk_acceptq_is_full`).
    pub const fn is_full(self) -> bool {
        self.length > self.limit
    }
}

/// The file descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Descriptors {
    /// The process.
    pub pid: u32,
    /// How many are open.
    pub open: u64,
    /// How many may be (`RLIMIT_NOFILE`).
    pub limit: u64,
}

/// What is known of why a connection failed, beyond what its own socket tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Evidence<'a> {
    /// The other end as it knows itself, where that is on this node and this end knows it by another address or port, which is
    /// translated on the way.
    pub peer_address: Option<Endpoint>,
    /// The ICMP error that answered its SYN.
    pub icmp: Option<Icmp>,
    /// Where its local port was to be chosen from and none was left.
    pub local_ports: Option<PortRange>,
    /// The queue that it was to be accepted from, when it ended.
    pub accept_queue: Option<AcceptQueue>,
    /// Of the process that listens there, where connections wait for it.
    pub descriptors: Option<Descriptors>,
    /// Why this node dropped its SYN or the answer to it, in the kernel's own words (`enum skb_drop_reason`).
    pub drop_reason: Option<&'a str>,
    /// How the process came to its end whose connection this was and for whom the kernel closed it; null where a process that goes on did.
    pub exit: Option<Exit<'a>>,
    /// True where the socket that was closed with a reset had `SO_LINGER` set to 0, which makes that an abort on purpose; else null.
    pub abort: Option<bool>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Exit<'a> {
    /// The signal that killed it, such as `SIGKILL`; null where it ended by itself, or the signal could not be read.
    pub signal: Option<&'a str>,
}

/// What the packet of a reset tells of its way, beside the one that completed the handshake: the peer's
/// SYN-ACK, or its answer to this end's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetEvidence {
    /// Time to live or hop limit as it arrived: each router on the way takes one.
    pub ttl: u8,
    /// The same of the handshake's; null where that was not seen.
    pub handshake_ttl: Option<u8>,
    /// IP identification; null for IPv6.
    pub ip_id: Option<u16>,
    /// The same of the handshake's.
    pub handshake_ip_id: Option<u16>,
    /// Its sequence number was the one expected next; null before the handshake.
    pub sequence_exact: Option<bool>,
    /// It came so soon after the last payload sent that the other end cannot have answered that; null where
    /// none was sent, or the round-trip time is not known.
    pub too_soon: Option<bool>,
}

/// What the common proxies report for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProxyWords<'a> {
    /// `%RESPONSE_FLAGS%`.
    pub envoy_flag: &'a str,
    /// The reset reason in Envoy's body and details, 1.40 wording.
    pub envoy_reason: &'a str,
    /// The same in older releases.
    pub envoy_reason_old: &'a str,
    /// Another flag that the same may come out with, depending on what Envoy sees first.
    pub envoy_flag_other: Option<&'a str>,
    /// The reason beside that flag.
    pub envoy_reason_other: Option<&'a str>,
    /// What NGINX writes to its error log.
    pub nginx_error: &'a str,
    /// What it may write instead, depending on what it sees first.
    pub nginx_error_other: Option<&'a str>,
}

/// A reset that belongs to no tracked socket.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct StrayReset<'a> {
    pub schema: Schema,
    #[serde(rename = "type")]
    pub kind: ResetType,
    pub time: Timestamp,
    pub seq: u64,
    /// The connection at the other end where that is on this node, else null.
    pub peer_id: Option<Id>,
    pub netns: Option<u32>,
    pub family: Option<Family>,
    pub local: Option<Endpoint>,
    pub remote: Option<Endpoint>,
    pub direction: Direction,
    pub reason: Option<&'a str>,
    pub reason_source: ReasonSource,
    /// How many resets for the same pair of addresses this line stands for.
    pub count: u32,
    pub flag: Option<Flag>,
    /// The root cause; null where what is known carries none.
    pub cause: Option<Cause>,
    /// Where it lies.
    pub layer: Option<Layer>,
    pub hint: &'static str,
}

/// One kernel event, with `--events`.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Event<'a> {
    pub schema: Schema,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub time: Timestamp,
    pub seq: u64,
    /// The connection it belongs to; null where none is tracked.
    pub id: Option<Id>,
    pub netns: Option<u32>,
    pub family: Family,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// The kernel's name of the hook.
    pub event: &'static str,
    /// State before, or at the event.
    pub from: Option<State>,
    /// State after.
    pub to: Option<State>,
    pub reason: Option<&'a str>,
    pub errno: Option<&'static str>,
    /// Process id of the task that acted; null where the event does not run in its context.
    pub pid: Option<u32>,
}

/// What was lost, by cause, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    /// The ring had no room.
    pub ring_full: u64,
    /// The connection table was full: events of the connections put out of it.
    pub table_full: u64,
    /// Kernel memory could not be read.
    pub read_fault: u64,
    /// The kernel did not run a hook: it does not nest on one CPU.
    pub missed: u64,
    /// The reader of the output was too slow: events of the lines that were dropped.
    pub output: u64,
}

/// The tracer's account of itself, from the start of the run.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Stats {
    pub schema: Schema,
    #[serde(rename = "type")]
    pub kind: StatsType,
    pub time: Timestamp,
    pub seq: u64,
    /// Events that the hooks saw and the filters let through: `events` and all of `lost`.
    pub seen: u64,
    /// Events delivered.
    pub events: u64,
    /// Connections finished.
    pub connections: u64,
    /// Resets, with and without a tracked socket.
    pub resets: u64,
    /// Records with a flag.
    pub flagged: u64,
    pub lost: Lost,
    /// Lines dropped because the reader of the output was too slow.
    pub lines_dropped: u64,
}
