//! What tells that two ends of this node are one connection although they do not know each other by their addresses, because one is
//! translated on the way: a client speaks to a Service of a cluster, to a port that is redirected, or from behind a gateway. Translation
//! leaves sequence numbers as they are (`nf_nat_proto.c` writes addresses and ports), and each end chooses its first one at random.
//!
//! Must not know: the table of connections.

use upstream_trace_common::event::{Stats, present};

use crate::record::Role;

/// The numbers of the first byte of payload in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Numbers {
    client: u32,
    server: u32,
}

impl Numbers {
    /// Of an established connection, of which this is the end with that role.
    pub fn of(role: Role, stats: &Stats) -> Option<Self> {
        const NEEDED: u32 = present::SEND_QUEUE
            | present::RECEIVE_QUEUE
            | present::BYTES_ACKED
            | present::BYTES_RECEIVED;
        if stats.present & NEEDED != NEEDED {
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

/// A packet that a stack of this node answered with a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledged.
    pub ack: u32,
}

impl Answered {
    /// Whether a socket with these counters sent it, as they were when the reset came.
    pub fn is_of(self, stats: &Stats) -> bool {
        const NEEDED: u32 = present::SEND_QUEUE | present::RECEIVE_QUEUE;
        // A keepalive has the number before.
        let ahead = self.seq.wrapping_sub(stats.snd_una.wrapping_sub(1));
        stats.present & NEEDED == NEEDED
            && ahead <= stats.unacked.saturating_add(1)
            && self.ack == stats.rcv_nxt
    }
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
            let first = Numbers::of(Role::Client, &stats(Role::Client, client, server, 0, 0));
            assert!(first.is_some());
            for (acked, received) in [(0, 0), (1, 0), (518, 1 << 40), (u64::MAX >> 1, 9)] {
                for (role, isn, other) in [
                    (Role::Client, client, server),
                    (Role::Server, server, client),
                ] {
                    let stats = stats(role, isn, other, acked, received);
                    assert_eq!(Numbers::of(role, &stats), first);
                }
            }
            let another = stats(Role::Server, server, client.wrapping_add(1), 0, 0);
            assert_ne!(Numbers::of(Role::Server, &another), first);
        }
    }

    #[test]
    fn what_was_not_read_is_no_number() {
        let known = stats(Role::Client, 1, 2, 3, 4);
        assert_eq!(Numbers::of(Role::Unknown, &known), None);
        let packet = Answered {
            seq: known.snd_una,
            ack: known.rcv_nxt,
        };
        assert!(packet.is_of(&known));
        for bit in [present::SEND_QUEUE, present::RECEIVE_QUEUE] {
            let unread = Stats {
                present: present::ALL & !bit,
                ..known
            };
            assert_eq!(Numbers::of(Role::Client, &unread), None);
            assert!(!packet.is_of(&unread));
        }
    }

    #[test]
    fn a_packet_is_of_the_socket_whose_numbers_it_has() {
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
            let packet = Answered {
                seq: first.wrapping_add_signed(ahead),
                ack: stats.rcv_nxt,
            };
            assert_eq!(packet.is_of(&stats), fits, "{ahead}");
            let other = Answered {
                ack: packet.ack + 1,
                ..packet
            };
            assert!(!other.is_of(&stats));
        }
    }
}
