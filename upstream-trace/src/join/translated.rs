//! What tells that two ends of this node are one connection although they do not know each other by their addresses, because one is
//! translated on the way: a client speaks to a Service of a cluster, to a port that is redirected, or from behind a gateway. Translation
//! leaves sequence numbers as they are (`nf_nat_proto.c` writes addresses and ports), and each end chooses its first one at random.
//!
//! Must not know: the table of connections.

use upstream_trace_common::event::{Base, Stats, kind, present};

use crate::record::Role;

/// How long after its sending a reset may be told, nanoseconds: by a socket, whose process may be interrupted meanwhile.
const LATE_NS: u64 = 20_000_000;

/// Whether a reset was sent until then. One that answers a packet is told before it is sent (`tcp_send_reset`) or, by `kfree_skb`, before
/// its CPU takes it in.
pub const fn was_sent_until(until: u64, reset: &Base) -> bool {
    let late = if reset.kind == kind::RESET_SENT_ACTIVE {
        LATE_NS
    } else {
        0
    };
    reset.ktime <= until.saturating_add(late)
}

/// The sequence numbers of the first byte of payload in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FirstSeqs {
    client: u32,
    server: u32,
}

impl FirstSeqs {
    /// Of an established connection, of which this is the end with that role.
    pub fn of(role: Role, stats: &Stats) -> Option<Self> {
        const NEEDED: u32 = present::BYTES_ACKED | present::BYTES_RECEIVED;
        if !has_seqs(stats) || stats.present & NEEDED != NEEDED {
            return None;
        }
        // Both counters go up with what they are taken from here (`tcp_snd_una_update`, `tcp_rcv_nxt_update`), FIN included.
        let sent = stats.snd_una.wrapping_sub(low(stats.bytes_acked));
        let received = stats.rcv_nxt.wrapping_sub(low(stats.bytes_received));
        match role {
            // Its SYN was counted as acknowledged.
            Role::Client => Some(Self {
                client: sent.wrapping_add(1),
                server: received,
            }),
            Role::Server => Some(Self {
                client: received,
                server: sent,
            }),
            Role::Unknown => None,
        }
    }
}

/// What whoever sent a reset had sent and received by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The first number that it had sent without an acknowledgment.
    unacknowledged: u32,
    /// So many were sent from there on.
    sent: u32,
    /// What it expected next.
    expected: u32,
}

impl Sender {
    /// Of a stack that answered a packet with this sequence number and acknowledgment.
    pub const fn answering(seq: u32, ack: u32) -> Self {
        Self {
            unacknowledged: ack,
            sent: 0,
            expected: seq,
        }
    }

    /// Of a socket with these counters.
    pub fn of(stats: &Stats) -> Option<Self> {
        has_seqs(stats).then_some(Self {
            unacknowledged: stats.snd_una,
            sent: stats.unacked,
            expected: stats.rcv_nxt,
        })
    }

    /// The sequence number that the reset has, unless there was something yet to send: 0 where it answers a SYN, and then the SYN's own.
    pub const fn reset_seq(self) -> u32 {
        match self.unacknowledged.wrapping_add(self.sent) {
            0 => self.expected,
            seq => seq,
        }
    }

    /// Whether a socket is the other end that had these counters when the reset came.
    pub fn reaches(self, receiver: &Stats) -> bool {
        let arrived = receiver.rcv_nxt.wrapping_sub(self.unacknowledged);
        // A keepalive has the number before.
        let got = self.expected.wrapping_sub(receiver.snd_una.wrapping_sub(1));
        has_seqs(receiver) && arrived <= self.sent && got <= receiver.unacked.saturating_add(1)
    }
}

/// The [`Sender::reset_seq`] of a reset that a socket with these counters obeyed.
pub const fn obeyed_seq(received: &Stats) -> u32 {
    match received.rcv_nxt {
        0 => received.snd_una,
        expected => expected,
    }
}

const fn has_seqs(stats: &Stats) -> bool {
    const NEEDED: u32 = present::SEND_QUEUE | present::RECEIVE_QUEUE;
    stats.present & NEEDED == NEEDED
}

/// What a counter adds to a sequence number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "sequence numbers are modulo 2^32"
)]
const fn low(bytes: u64) -> u32 {
    bytes as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an end that chose `isn`, whose other end chose `other`: payload and FIN acknowledged and received.
    fn stats(role: Role, isn: u32, other: u32, acked: u64, received: u64) -> Stats {
        let syn = u64::from(role == Role::Client);
        Stats {
            present: present::ALL,
            bytes_acked: acked + syn,
            bytes_received: received,
            snd_una: isn.wrapping_add(1).wrapping_add(low(acked)),
            rcv_nxt: other.wrapping_add(1).wrapping_add(low(received)),
            ..Stats::default()
        }
    }

    #[test]
    fn both_ends_have_the_same_numbers_whatever_was_exchanged() {
        for (client, server) in [(1, 2), (u32::MAX, u32::MAX - 1), (u32::MAX - 5, 7)] {
            let first = FirstSeqs::of(Role::Client, &stats(Role::Client, client, server, 0, 0));
            assert!(first.is_some());
            for (acked, received) in [(0, 0), (1, 0), (518, 1 << 40), (u64::MAX >> 1, 9)] {
                for (role, isn, other) in [
                    (Role::Client, client, server),
                    (Role::Server, server, client),
                ] {
                    let stats = stats(role, isn, other, acked, received);
                    assert_eq!(FirstSeqs::of(role, &stats), first);
                }
            }
            let another = stats(Role::Server, server, client.wrapping_add(1), 0, 0);
            assert_ne!(FirstSeqs::of(Role::Server, &another), first);
        }
    }

    #[test]
    fn what_was_not_read_is_no_number() {
        let known = stats(Role::Client, 1, 2, 3, 4);
        assert_eq!(FirstSeqs::of(Role::Unknown, &known), None);
        let answers = Sender::answering(known.snd_una, known.rcv_nxt);
        assert!(answers.reaches(&known));
        for bit in [present::SEND_QUEUE, present::RECEIVE_QUEUE] {
            let unread = Stats {
                present: present::ALL & !bit,
                ..known
            };
            assert_eq!(FirstSeqs::of(Role::Client, &unread), None);
            assert!(!answers.reaches(&unread));
            assert_eq!(Sender::of(&unread), None);
        }
    }

    #[test]
    fn an_answer_reaches_the_socket_whose_numbers_the_packet_has() {
        let stats = Stats {
            unacked: 100,
            ..stats(Role::Client, u32::MAX - 50, 9, 0, 0)
        };
        let first = stats.snd_una;
        for (ahead, fits) in [
            (-2, false),
            (-1, true),
            (0, true),
            (100, true),
            (101, false),
        ] {
            let seq = first.wrapping_add_signed(ahead);
            let reaches = |ack| Sender::answering(seq, ack).reaches(&stats);
            assert_eq!(reaches(stats.rcv_nxt), fits, "{ahead}");
            assert!(!reaches(stats.rcv_nxt + 1));
        }
    }

    #[test]
    fn a_socket_reaches_the_one_that_has_had_some_of_what_it_sent() {
        let client = stats(Role::Client, 1000, u32::MAX - 8, 100, 0);
        // Of 20 bytes that were sent some may have come, and the client's last ten bytes not be acknowledged to it yet.
        let server = Stats {
            unacked: 20,
            ..stats(Role::Server, u32::MAX - 8, 1000, 0, 110)
        };
        for (arrived, unacked, fits) in [
            (0, 10, true),
            (20, 10, true),
            (21, 10, false),
            (-1, 10, false),
            (0, 9, false),
        ] {
            let client = Stats {
                rcv_nxt: client.rcv_nxt.wrapping_add_signed(arrived),
                unacked,
                ..client
            };
            let reaches = Sender::of(&server).unwrap().reaches(&client);
            assert_eq!(reaches, fits, "{arrived} {unacked}");
        }
    }
}
