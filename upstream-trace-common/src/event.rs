//! The records in the ring that tell of one event: a [`Base`] each, some with an [`Actor`], some with [`Stats`] as well, one
//! with two [`Way`]s, one with two sequence numbers; and notes. Stories are in [`crate::story`].
//!
//! A record's length tells its parts, so the lengths differ. Integers are in the machine's
//! byte order unless a field says otherwise; there is no padding. The order of records in the ring
//! is the kernel's own order of events: the ring's lock serialises them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What happened. Numbers are part of the wire format: add, never reuse.
pub mod kind {
    /// `inet_sock_set_state`: `old` and `new` are `enum tcp_state` values.
    pub const STATE: u8 = 1;
    /// `tcp_connect`: the SYN is about to leave, the local port is known.
    pub const CONNECT: u8 = 2;
    /// `inet_csk_accept` returned this socket; the actor is the accepting process.
    pub const ACCEPT: u8 = 3;
    /// `tcp_receive_reset`; `old` is the state at that moment.
    pub const RESET_RECEIVED: u8 = 4;
    /// `tcp_send_reset` without a packet that provoked it (close, abort, timer).
    pub const RESET_SENT_ACTIVE: u8 = 5;
    /// `tcp_send_reset` on a full socket in reply to a packet.
    pub const RESET_SENT_REPLY: u8 = 6;
    /// `tcp_send_reset` in reply to a packet for which there is no socket.
    pub const RESET_SENT_NO_SOCKET: u8 = 7;
    /// `tcp_send_reset` in reply to a packet for a connection in `TIME_WAIT`.
    pub const RESET_SENT_TIME_WAIT: u8 = 8;
    /// `tcp_send_reset` in reply to a packet for a listening socket or a half-open request.
    pub const RESET_SENT_LISTEN: u8 = 9;
    /// `tcp_destroy_sock`.
    pub const DESTROY: u8 = 10;
    /// `tcp_retransmit_skb` while in `SYN_SENT`.
    pub const SYN_RETRANSMIT: u8 = 11;
    /// Found by a scan of open files; the actor is the process that holds the socket, `old` its
    /// state.
    pub const HELD: u8 = 12;
    /// A process connects for the first time; the actor is it. Its connection's story comes at the end
    /// only, when the process may be gone.
    pub const PROCESS: u8 = 13;
    /// An ICMP error answered a SYN, as `inet_sk_error_report` (in `SYN_SENT`, without an error of the socket) or `tcp_v4_err` and
    /// `tcp_v6_err` tell. A [`Note`](super::Note): `old` is the type and `new` the code, `detail` the address of whoever sent it (all 0:
    /// not read).
    pub const SYN_ICMP: u8 = 14;
    /// How full the accept queue was that a failed connection was to go through. A [`Note`](super::Note) with the failed connection's ends:
    /// `sk` is the listener's, `old` the state in which it failed (`LISTEN`: refused by the listener), `detail` the queue's length and in the upper half its limit, the listener's network namespace, and the local
    /// address that connections to it need (0: any), in network order: IPv4's, then IPv6's. 0 as well where one had arrived.
    pub const ACCEPT_QUEUE: u8 = 20;
    /// From which ports one was to be chosen where none was left. A [`Note`](super::Note): `detail` is the first and the last.
    pub const PORT_RANGE: u8 = 21;
    /// A filter of this node dropped a SYN or the answer to one. A [`Note`](super::Note) with the ends as whoever connects sees them; `new`
    /// is the `enum skb_drop_reason`.
    pub const SYN_DROPPED: u8 = 22;
    /// `tcp_reset`, with the packet that resets the connection; `RESET_RECEIVED` of the same packet follows. Not of one that came by
    /// loopback.
    pub const RESET_PACKET: u8 = 15;
    /// `kfree_skb` of a reset that ended no connection; `old` is the state of the socket that it came for (0: not told), `new` the
    /// `enum skb_drop_reason`.
    pub const RESET_DROPPED: u8 = 16;
}

/// `Base::new` of a `RESET_SENT_*` record where the kernel gives no reason.
pub const NO_REASON: u8 = u8::MAX;

/// `Actor::uid` where it was not read: `(uid_t)-1` is no uid.
pub const NO_UID: u32 = u32::MAX;

/// `Base::family` of an IPv4 (or v4-mapped) record: addresses are in the first four bytes.
pub const IPV4: u8 = 4;
/// `Base::family` of an IPv6 record.
pub const IPV6: u8 = 6;

/// What every record has: when, which socket, what.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Base {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub ktime: u64,
    /// Address of `struct sock`, an identity only; 0 where there is none.
    pub sk: u64,
    /// One of [`kind`].
    pub kind: u8,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// State before (`STATE`) or at the event; for `RESET_SENT_NO_SOCKET` the flags byte of the TCP
    /// header that provoked it.
    pub old: u8,
    /// State after (`STATE`); `enum sk_rst_reason` (`RESET_SENT_*`, or [`NO_REASON`]).
    pub new: u8,
    /// Local port, host order; 0 where not chosen yet.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// Inode number of the network namespace; 0 where it could not be read.
    pub netns: u32,
    /// Jiffies, low 32 bits: at the event; of a story that has got as far as its first FIN, at that.
    pub jiffies: u32,
    /// Local address, network order; see [`bytes`].
    pub local: [u64; 2],
    /// Remote address, network order; see [`bytes`].
    pub remote: [u64; 2],
}

/// The process that the current task belongs to, or that holds the socket (`HELD`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Actor {
    /// Process start, `task_struct.start_boottime` of the group leader, nanoseconds; 0: not read.
    pub start: u64,
    /// cgroup v2 id; 0: not read.
    pub cgroup_id: u64,
    /// Name of the group leader, NUL-padded, see [`bytes`]; all 0: not read.
    pub comm: [u64; 2],
    /// Process id (thread group).
    pub tgid: u32,
    /// Real uid; [`NO_UID`]: not read.
    pub uid: u32,
    /// 1 for a kernel thread.
    pub kthread: u16,
    /// How it leaves the socket that it acts on, see [`exit`].
    pub exit: u8,
    /// Always 0.
    pub reserved: u8,
    /// 1 where this process is one whose sockets are wanted, or nobody asked.
    pub wanted: u32,
}

/// How a process that acts on a socket leaves it. Where the process comes to its end, as `task_struct.signal.group_exit_code` has it:
/// what it had open is closed for it.
pub mod exit {
    /// It stays.
    pub const NONE: u8 = 0;
    /// It is exiting. `ENDS + n`: killed by signal n; `ENDS` alone: no signal, or not readable.
    pub const ENDS: u8 = 1;
    /// Or'ed to these: it has closed the socket or shut it down both ways, and reads no more from it.
    pub const LEAVES: u8 = 1 << 7;
}

/// Bits of [`Stats::present`]: which members were read.
pub mod present {
    /// `sk_err`.
    pub const ERR: u32 = 1 << 0;
    /// `sk_flags`.
    pub const FLAGS: u32 = 1 << 1;
    /// `bytes_received`.
    pub const BYTES_RECEIVED: u32 = 1 << 2;
    /// `bytes_acked`.
    pub const BYTES_ACKED: u32 = 1 << 3;
    /// `bytes_sent` and `bytes_retrans`.
    pub const BYTES_SENT: u32 = 1 << 4;
    /// `segs_out`.
    pub const SEGS_OUT: u32 = 1 << 5;
    /// `snd_una` and `write_seq`.
    pub const SEND_QUEUE: u32 = 1 << 6;
    /// `rcv_nxt` and `copied_seq`.
    pub const RECEIVE_QUEUE: u32 = 1 << 7;
    /// `srtt_us`.
    pub const SRTT: u32 = 1 << 8;
    /// `total_retrans`.
    pub const RETRANS: u32 = 1 << 9;
    /// `lsndtime`.
    pub const LAST_SENT: u32 = 1 << 10;
    /// `lrcvtime`.
    pub const LAST_RECEIVED: u32 = 1 << 11;
    /// All of them.
    pub const ALL: u32 = (1 << 12) - 1;
}

/// The socket's counters at that moment; a member is meaningful only where [`present`] says so.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Stats {
    /// In-order payload, and 1 more once a FIN arrived.
    pub bytes_received: u64,
    /// Acknowledged payload, 1 more for an active SYN and 1 for a FIN.
    pub bytes_acked: u64,
    /// Payload handed to IP, retransmissions included.
    pub bytes_sent: u64,
    /// Retransmitted payload.
    pub bytes_retrans: u64,
    /// [`present`] bits.
    pub present: u32,
    /// Segments sent, SYN included.
    pub segs_out: u32,
    /// `write_seq - snd_una`: written and not yet acknowledged, SYN and FIN included.
    pub unacked: u32,
    /// `rcv_nxt - copied_seq`: received and not yet read, FIN included.
    pub unread: u32,
    /// Smoothed round-trip time, 1/8 microseconds.
    pub srtt: u32,
    /// Segments retransmitted.
    pub total_retrans: u32,
    /// `lsndtime`, jiffies, low 32 bits.
    pub last_sent: u32,
    /// `lrcvtime`, jiffies, low 32 bits.
    pub last_received: u32,
    /// Now, jiffies, low 32 bits.
    pub jiffies: u32,
    /// `sk_err`.
    pub err: u32,
    /// Low 32 bits of `sk_flags` (`enum sock_flags`).
    pub flags: u32,
    /// 1 where a `struct socket` is attached: accepted or connecting, and not yet closed.
    pub has_socket: u16,
    /// 1 where `SO_LINGER` is set, to 0: a close is an abort on purpose.
    pub aborts: u16,
    /// `snd_una`: the first sequence number sent and not yet acknowledged.
    pub snd_una: u32,
    /// `rcv_nxt`: the sequence number that is expected next.
    pub rcv_nxt: u32,
}

/// A record that also says who acted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Acted {
    /// When, which, what.
    pub base: Base,
    /// Who.
    pub actor: Actor,
}

/// A record with everything.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Full {
    /// When, which, what.
    pub base: Base,
    /// Who.
    pub actor: Actor,
    /// The socket's counters.
    pub stats: Stats,
}

/// A record of a reset that no connection's socket sends, with the packet that it answers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Answer {
    /// When, which, what.
    pub base: Base,
    /// The packet's sequence number.
    pub seq: u32,
    /// What it acknowledges; 0 where it is a SYN.
    pub ack: u32,
}

/// What is known of why a connection failed, beyond what its own socket tells. It names no socket but the ends,
/// and comes before the connection's end.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Note {
    /// When, which, what; `sk` is 0 unless the kind says otherwise.
    pub base: Base,
    /// What the kind says.
    pub detail: [u64; 5],
}

/// What a packet's IP header tells of its way here.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Way {
    /// Identification, host order; only of [`IPV4`].
    pub id: u16,
    /// Time to live, or hop limit, as it arrived.
    pub ttl: u8,
    /// [`IPV4`] or [`IPV6`]; 0: not read.
    pub family: u8,
}

/// A record of the packet that resets a connection.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Packet {
    /// When, which, what.
    pub base: Base,
    /// How the reset came.
    pub reset: Way,
    /// How the packet came that completed the connection's handshake here.
    pub handshake: Way,
    /// Its sequence number less the one that the socket expects next.
    pub ahead: u32,
    /// 1 where `ahead` was read.
    pub has_ahead: u32,
}

/// The bytes of an address or a name, which the kernel side copies as two words.
pub const fn bytes(words: [u64; 2]) -> [u8; 16] {
    let [a, b] = [words[0].to_ne_bytes(), words[1].to_ne_bytes()];
    [
        a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1], b[2], b[3], b[4], b[5], b[6],
        b[7],
    ]
}

const _: () = {
    assert!(size_of::<Base>() == 64);
    assert!(size_of::<Answer>() == 64 + 8);
    assert!(size_of::<Note>() == 64 + 40);
    assert!(size_of::<Packet>() == 64 + 16);
    assert!(size_of::<Acted>() == 64 + 48);
    assert!(size_of::<Full>() == 64 + 48 + 88);
};
