//! `struct sock` and `struct tcp_sock`: which connection, in which state, with which counters.

use core::hint::cold_path;

use aya_ebpf::helpers::generated::{
    bpf_jiffies64, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock, bpf_skc_to_tcp_timewait_sock,
};
pub use upstream_trace_common::tcp::state;
use upstream_trace_common::{
    event::{self, Stats, exit, present},
    tcp::SOCK_DONE,
};

use super::mem::{self, Copied, Direct, Memory, Number, Struct};

/// `IPPROTO_TCP`. Compared as 16 bits: MPTCP is 262, which ends in the same byte.
const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_MPTCP`.
const IPPROTO_MPTCP: u16 = 262;
/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;

/// Bit number of `SOCK_LINGER` in `enum sock_flags`, `include/net/sock.h`; 5.10 to 7.2 alike.
const SOCK_LINGER: u32 = 4;
/// `SHUTDOWN_MASK`, both ways, the same.
const SHUTDOWN_MASK: u8 = 3;

/// Both ends of a connection, as this socket sees them, and its namespace.
#[derive(Clone, Copy)]
pub struct Tuple {
    pub family: u8,
    pub local_port: u16,
    pub remote_port: u16,
    pub netns: u32,
    /// Network order, as two words.
    pub local: [u64; 2],
    /// Network order, as two words.
    pub remote: [u64; 2],
}

impl Tuple {
    /// As the other end sees it.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        Self {
            local_port: self.remote_port,
            remote_port: self.local_port,
            local: self.remote,
            remote: self.local,
            ..self
        }
    }
}

/// A `struct sock`, of which only `struct sock_common` may be relied on.
pub type Sock<M> = Struct<M>;

/// A full TCP socket: `struct tcp_sock` is really behind it, which begins with `struct sock`.
///
/// The verifier trusts the pointer that a hook gives (`sk`) and not the helper's (`tp`). Numbers are read
/// through the first, which spares the check that the JIT puts before each other load. Pointers are read
/// through the second: before 7.0 the verifier looks up four names in all of the kernel's BTF, some
/// milliseconds, for each load of a pointer through a trusted one (`type_is_trusted` and its like in
/// `kernel/bpf/verifier.c`).
#[derive(Clone, Copy)]
pub struct TcpSock<M> {
    /// As `struct sock`.
    pub sk: Struct<M>,
    /// As `struct tcp_sock`.
    tp: Struct<M>,
}

impl TcpSock<Direct> {
    /// The full TCP socket at `sk`; nothing for MPTCP's own sockets and other protocols' (the helper compares
    /// `sk_protocol`), for `TIME_WAIT` and for requests.
    #[inline(always)]
    pub fn direct(sk: Sock<Direct>) -> Option<Self> {
        // SAFETY: the helper takes any `struct sock_common` and returns NULL where it is no TCP socket.
        let tp = unsafe { bpf_skc_to_tcp_sock(sk.address().cast_mut().cast()) };
        Some(Self {
            sk,
            tp: Struct::new(tp.cast())?,
        })
    }
}

impl TcpSock<Copied> {
    /// The full TCP socket at `sk`.
    #[inline(always)]
    pub fn copied(sk: Sock<Copied>) -> Option<Self> {
        (sk.get::<u16>(&mem::SK_PROTOCOL)? == IPPROTO_TCP).then_some(Self { sk, tp: sk })
    }

    /// The full TCP socket that a process has by `sk`: that itself, or the first one below one of MPTCP's, which is what listens for it
    /// and what it connects or accepts.
    #[inline(always)]
    pub fn had_by(sk: Sock<Copied>) -> Option<Self> {
        if sk.get::<u16>(&mem::SK_PROTOCOL)? == IPPROTO_MPTCP {
            return Self::copied(sk.follow(&mem::MPTCP_FIRST)?);
        }
        Self::copied(sk)
    }
}

impl<M: Memory> Struct<M> {
    /// `sk_state`.
    #[inline(always)]
    pub fn state(self) -> Option<u8> {
        self.get(&mem::SK_STATE)
    }

    /// Whether a FIN was received: `SOCK_DONE` in `sk_flags`.
    #[inline(always)]
    pub fn fin_received(self) -> bool {
        self.get::<u64>(&mem::SK_FLAGS)
            .is_some_and(|flags| flags >> SOCK_DONE & 1 != 0)
    }

    /// [`exit::LEAVES`], where this end sends its FIN and nobody will read from the socket: `close()` and `shutdown(SHUT_RDWR)` set
    /// `sk_shutdown` before the state (`__tcp_close`, `inet_shutdown`; 5.10 to 7.2 alike).
    #[inline(always)]
    pub fn leaves(self) -> u8 {
        if self.get::<u8>(&mem::SK_SHUTDOWN) == Some(SHUTDOWN_MASK) {
            exit::LEAVES
        } else {
            exit::NONE
        }
    }

    /// Whether `sk_err` waits to be told.
    #[inline(always)]
    pub fn has_error(self) -> bool {
        self.get::<u32>(&mem::SK_ERR)
            .is_some_and(|error| error != 0)
    }

    /// `skc_dport`.
    #[inline(always)]
    pub fn remote_port(self) -> Option<u16> {
        self.get(&mem::SK_DPORT).map(u16::from_be)
    }

    /// Both ports of a socket that is established, as one word.
    #[inline(always)]
    pub fn ports(self) -> Option<u32> {
        let remote = u32::from(self.get::<u16>(&mem::SK_DPORT)?);
        Some(remote << 16 | u32::from(self.get::<u16>(&mem::SK_NUM)?))
    }

    /// Namespace of any socket.
    #[inline(always)]
    pub fn own_netns(self) -> u32 {
        self.by_way_of(&mem::SK_NET)
            .and_then(|net| net.get(&mem::NET_INUM))
            .unwrap_or(0)
    }

    /// Length and limit of a listener's accept queue. The kernel lets in one more than the limit.
    #[inline(always)]
    pub fn accept_queue(self) -> Option<[u32; 2]> {
        Some([
            self.get(&mem::SK_ACK_BACKLOG)?,
            self.get(&mem::SK_MAX_ACK_BACKLOG)?,
        ])
    }

    /// Both ends from `struct sock_common`. A v4-mapped IPv6 socket is IPv4: the kernel keeps the
    /// IPv4 addresses beside the mapped ones. A native IPv6 socket's IPv4 addresses are junk. One that listens
    /// has no remote end, so its own says which it is.
    #[inline(always)]
    fn ends(self, local_port: u16, netns: u32) -> Option<Tuple> {
        let family: u16 = self.get(&mem::SK_FAMILY)?;
        let remote_port = self.remote_port()?;
        if family == AF_INET6 {
            let remote: [u64; 2] = self.words(&mem::SK_V6_DADDR)?;
            let local: [u64; 2] = self.words(&mem::SK_V6_RCV_SADDR)?;
            if !is_v4_mapped(if remote == [0; 2] { local } else { remote }) {
                return Some(Tuple {
                    family: event::IPV6,
                    local_port,
                    remote_port,
                    netns,
                    local,
                    remote,
                });
            }
        } else if family != AF_INET {
            return None;
        }
        Some(Tuple {
            family: event::IPV4,
            local_port,
            remote_port,
            netns,
            local: [u64::from(self.get::<u32>(&mem::SK_RCV_SADDR)?), 0],
            remote: [u64::from(self.get::<u32>(&mem::SK_DADDR)?), 0],
        })
    }

    #[inline(always)]
    fn words(self, field: &'static u32) -> Option<[u64; 2]> {
        Some([self.get_at(field, 0)?, self.get_at(field, 8)?])
    }
}

/// What may have been a socket.
impl Number {
    /// Whether it listens on this port.
    #[inline(always)]
    pub fn listens(self, port: u16) -> bool {
        let (state, num) = (
            self.word_at(&mem::SK_STATE, 0),
            self.word_at(&mem::SK_NUM, 0),
        );
        // One comparison for both.
        (state ^ u64::from(state::LISTEN)) & 0xff | (num ^ u64::from(port)) & 0xffff == 0
    }

    /// As [`Struct::accept_queue`]; zeros where it cannot be read.
    #[inline(always)]
    pub fn accept_queue(self) -> [u32; 2] {
        let (length, limit) = (&mem::SK_ACK_BACKLOG, &mem::SK_MAX_ACK_BACKLOG);
        [low(self.word_at(length, 0)), low(self.word_at(limit, 0))]
    }

    /// The local address that it is bound to, for connections of either family: one word for IPv4's, two for IPv6's; zeros: any.
    #[inline(always)]
    pub fn bound_to(self) -> [u64; 3] {
        let v4 = u64::from(low(self.word_at(&mem::SK_RCV_SADDR, 0)));
        let v6 = |skip| self.word_at(&mem::SK_V6_RCV_SADDR, skip);
        [v4, v6(0), v6(8)]
    }
}

impl Struct<Direct> {
    /// Namespace of a full socket, a listener among them, that a hook gives.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        TcpSock::direct(self).map_or(0, |sock| sock.tp.own_netns())
    }

    /// Both ends of a socket in `TIME_WAIT`, or of a request, that a hook gives.
    #[inline(always)]
    pub fn tuple(self, local_port: u16) -> Option<Tuple> {
        let netns = match Struct::<Copied>::new(self.address()) {
            Some(small) => small.own_netns(),
            None => self.netns_of_small(),
        };
        self.ends(local_port, netns)
    }

    /// Namespace of one of these by the type that it has. Those that MPTCP's listeners leave have none: the helpers ask for
    /// `sk_prot` of TCP itself (`bpf_skc_to_tcp_timewait_sock` in `net/core/filter.c`).
    #[inline(always)]
    fn netns_of_small(self) -> u32 {
        let sk = self.address().cast_mut();
        // SAFETY: the helper takes any `struct sock_common` and returns NULL where it is another socket.
        let mut small: *const u8 = unsafe { bpf_skc_to_tcp_timewait_sock(sk.cast()) }.cast();
        if small.is_null() {
            // SAFETY: as above.
            small = unsafe { bpf_skc_to_tcp_request_sock(sk.cast()) }.cast();
        }
        Self::new(small).map_or(0, Self::own_netns)
    }
}

impl Struct<Copied> {
    /// Both ends of a socket in `TIME_WAIT`, or of a request.
    #[inline(always)]
    pub fn tuple(self, local_port: u16) -> Option<Tuple> {
        self.ends(local_port, self.own_netns())
    }
}

/// `::ffff:0:0/96`, the words being in network order on a machine of either byte order.
#[inline(always)]
fn is_v4_mapped(address: [u64; 2]) -> bool {
    address[0] == 0 && u64::from_be(address[1]) >> 32 == 0xffff
}

/// Puts what was read into a member of `Stats`; where it was not, takes its bit back.
macro_rules! put {
    ($stats:ident, $bit:ident, $member:ident, $value:expr) => {
        $stats.$member = $value.unwrap_or_else(|| {
            cold_path();
            $stats.present &= !present::$bit;
            0
        });
    };
}

impl<M: Memory> TcpSock<M> {
    /// Both ends. At birth `skc_num`, which is 0 unless the port was bound, because `inet_sport` still holds the
    /// port of the socket's connection before; then `inet_sport`, because `skc_num` is 0 once the port was given
    /// back.
    #[inline(always)]
    pub fn tuple_at(self, birth: bool) -> Option<Tuple> {
        let local_port = if birth {
            self.sk.get(&mem::SK_NUM)
        } else {
            self.local_port()
        };
        self.sk.ends(local_port?, self.tp.own_netns())
    }

    /// Whether a `struct socket` is attached: a process still has it.
    #[inline(always)]
    pub fn is_open(self) -> bool {
        self.tp.follow(&mem::SK_SOCKET).is_some()
    }

    /// `inet_sport`, which is there from the connect on and stays when the port was given back.
    #[inline(always)]
    pub fn local_port(self) -> Option<u16> {
        self.tp.get(&mem::INET_SPORT).map(u16::from_be)
    }

    /// The sequence number that it expects next.
    #[inline(always)]
    pub fn expected(self) -> Option<u32> {
        self.tp.get(&mem::TP_RCV_NXT)
    }

    /// Both ends of one that was born.
    #[inline(always)]
    pub fn tuple(self) -> Option<Tuple> {
        self.tuple_at(false)
    }

    /// What was last queued for the owner to ask for: a packet, with what is said of it in its `cb`.
    #[inline(always)]
    pub fn last_error(self) -> Option<Struct<M>> {
        self.tp.follow(&mem::SK_ERROR_QUEUE_LAST)
    }

    /// The first and the last port that one is chosen from for a connect: the namespace's, within what the
    /// socket asks for (`IP_LOCAL_PORT_RANGE`, both ends in a word).
    #[inline(always)]
    pub fn port_range(self) -> Option<[u64; 2]> {
        let net = self.tp.by_way_of(&mem::SK_NET)?;
        let ends = |both: u32| [u64::from(both & 0xffff), u64::from(both >> 16)];
        let [first, last] = match net.get::<u32>(&mem::NET_PORT_RANGE) {
            Some(both) => ends(both),
            // Two words before 6.8 (`struct local_ports`, `include/net/netns/ipv4.h`; d9f28735af87).
            None => [
                u64::from(net.get_at::<u32>(&mem::NET_PORT_RANGE_ENDS, 0)?),
                u64::from(net.get_at::<u32>(&mem::NET_PORT_RANGE_ENDS, 4)?),
            ],
        };
        // Each by itself: two members before 6.8, by the same commit, and the verifier lets no read go beyond one.
        let own = [0, 2].map(|skip| {
            let port: Option<u16> = self.tp.get_at(&mem::INET_PORT_RANGE, skip);
            u64::from(port.unwrap_or(0))
        });
        let within = |port: u64, otherwise: u64| {
            if first <= port && port <= last {
                port
            } else {
                otherwise
            }
        };
        Some([within(own[0], first), within(own[1], last)])
    }

    /// Fills those of `stats` that tell what was sent and received and not yet taken, whether it [`Self::is_open`], and whether its
    /// close is an abort; of the others it is said that they were not read.
    #[inline(always)]
    pub fn queues(self, stats: &mut Stats) {
        stats.present = present::SEND_QUEUE | present::RECEIVE_QUEUE | present::FLAGS;
        self.put_queues(stats);
        stats.has_socket = u16::from(self.is_open());
    }

    #[inline(always)]
    fn put_queues(self, stats: &mut Stats) {
        let (sk, tp) = (self.sk, self.tp);
        put!(stats, SEND_QUEUE, snd_una, tp.get(&mem::TP_SND_UNA));
        put!(
            stats,
            SEND_QUEUE,
            unacked,
            tp.get(&mem::TP_WRITE_SEQ)
                .map(|written: u32| written.wrapping_sub(stats.snd_una))
        );
        put!(stats, RECEIVE_QUEUE, rcv_nxt, tp.get(&mem::TP_RCV_NXT));
        put!(
            stats,
            RECEIVE_QUEUE,
            unread,
            tp.get(&mem::TP_COPIED_SEQ)
                .map(|copied| stats.rcv_nxt.wrapping_sub(copied))
        );
        put!(stats, FLAGS, flags, sk.get::<u64>(&mem::SK_FLAGS).map(low));
        let lingers = stats.flags >> SOCK_LINGER & 1 != 0;
        stats.aborts = u16::from(lingers && sk.get(&mem::SK_LINGERTIME) == Some(0_u64));
    }

    /// Fills `stats` with everything that can be read; whether it [`Self::is_open`] is known.
    #[inline(always)]
    pub fn stats(self, stats: &mut Stats, is_open: bool) {
        stats.present = present::ALL;
        self.put_queues(stats);
        let (sk, tp) = (self.sk, self.tp);
        put!(
            stats,
            BYTES_RECEIVED,
            bytes_received,
            tp.get(&mem::TP_BYTES_RECEIVED)
        );
        put!(
            stats,
            BYTES_ACKED,
            bytes_acked,
            tp.get(&mem::TP_BYTES_ACKED)
        );
        put!(
            stats,
            BYTES_SENT,
            bytes_retrans,
            tp.get(&mem::TP_BYTES_RETRANS)
        );
        put!(stats, BYTES_SENT, bytes_sent, tp.get(&mem::TP_BYTES_SENT));
        put!(stats, SEGS_OUT, segs_out, tp.get(&mem::TP_SEGS_OUT));
        put!(stats, SRTT, srtt, tp.get(&mem::TP_SRTT));
        put!(
            stats,
            RETRANS,
            total_retrans,
            tp.get(&mem::TP_TOTAL_RETRANS)
        );
        put!(stats, LAST_SENT, last_sent, tp.get(&mem::TP_LSNDTIME));
        put!(
            stats,
            LAST_RECEIVED,
            last_received,
            tp.get(&mem::TP_LRCVTIME)
        );
        put!(stats, ERR, err, sk.get(&mem::SK_ERR));
        stats.has_socket = u16::from(is_open);
        stats.jiffies = jiffies();
    }
}

/// `jiffies`, of which `lsndtime` and `lrcvtime` have the low 32 bits.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: the helper takes no argument.
    low(unsafe { bpf_jiffies64() })
}

/// The low half, where the kernel itself uses only 32 bits or the rest is of no interest.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
#[inline(always)]
const fn low(word: u64) -> u32 {
    word as u32
}
