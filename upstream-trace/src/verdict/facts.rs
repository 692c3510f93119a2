//! What is known of a connection that ended, free of kernel arithmetic: no SYN or FIN is counted as
//! payload here, and what could not be read is `None`.
//!
//! Must not know: verdicts.

use upstream_trace_common::{
    event::{Stats, present},
    tcp::SOCK_DONE,
};

use crate::record::{Bytes, Direction, Role};

/// Sizes of an encrypted TLS alert: a record's header, two bytes, and what `ChaCha20-Poly1305` in TLS 1.2, any cipher in TLS 1.3, and
/// `AES-GCM` in TLS 1.2 add. Java pads each record of TLS 1.3 with 16 bytes (`T13PaddingHolder` in JSSE's `OutputRecord`).
const ALERTS: [u64; 4] = [23, 24, 31, 40];
/// No handshake of TLS takes as little either way: a random of 32 bytes, a session, a finish, each with its headers.
const NO_HANDSHAKE: u64 = 100;

/// What is no further apart belongs together: a FIN and the last words before it.
pub const TOGETHER_US: u64 = 50_000;

/// The socket's counters, corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payload bytes.
    pub bytes: Bytes,
    /// Payload was sent, acknowledged or not.
    pub sent_any: Option<bool>,
    /// Payload was received.
    pub received_any: Option<bool>,
    /// Sent payload that is not acknowledged.
    pub unacked: Option<bool>,
    /// Bytes of received payload that were not read.
    pub unread: Option<u64>,
    /// Time since payload was last sent, microseconds to a jiffy.
    pub since_sent_us: Option<u64>,
    /// Time since payload was last received, microseconds to a jiffy.
    pub since_received_us: Option<u64>,
    /// Smoothed round-trip time.
    pub rtt_us: Option<u64>,
    /// Segments retransmitted, a SYN or the answer to one among them.
    pub retransmits: Option<u32>,
    /// Payload was sent again.
    pub resent_any: Option<bool>,
    /// Any segment left, a SYN for one.
    pub any_segment_out: Option<bool>,
    /// How long the connection lived; `None`: its beginning was not seen.
    pub lived_us: Option<u64>,
}

impl Counters {
    /// From a socket's counters. `role` tells whether `bytes_acked` counts a SYN, `fin_sent` whether
    /// the send queue may hold a FIN, `tick_ns` how long a jiffy is.
    pub fn new(stats: &Stats, role: Role, fin_sent: bool, tick_ns: u64) -> Self {
        let fin_received = fin_received(stats);
        let unacked = when(stats, present::SEND_QUEUE, stats.unacked);
        // Everything sent is acknowledged, so the FIN is as well.
        let fin_acked = fin_sent && unacked == Some(0);
        // `tcp_ack` counts the SYN of an active open only: a child starts behind its SYN-ACK.
        let syn_acked = role == Role::Client;

        let received = received(stats);
        let sent = when(
            stats,
            present::BYTES_SENT,
            stats.bytes_sent.saturating_sub(stats.bytes_retrans),
        );
        let written = when(stats, present::BYTES_ACKED, stats.bytes_acked)
            .zip(unacked)
            .map(|(acked, unacked)| {
                let control = u64::from(fin_sent) + u64::from(syn_acked);
                acked.saturating_add(unacked.into()).saturating_sub(control)
            });
        // A segment that IP does not take counts as sent, and again when it does.
        let sent = match (sent, written) {
            (Some(sent), Some(written)) if role != Role::Unknown => Some(sent.min(written)),
            _ => sent,
        };
        let acked = when(stats, present::BYTES_ACKED, stats.bytes_acked).map(|bytes| {
            let control = u64::from(fin_acked) + u64::from(syn_acked);
            let payload = bytes.saturating_sub(control);
            sent.map_or(payload, |sent| payload.min(sent))
        });
        // Of an end that may be either's the SYN may be among them.
        let acked = match role {
            Role::Unknown => sent.filter(|&sent| sent == 0 || unacked == Some(0)),
            _ => acked,
        };
        let sent_any = when(stats, present::BYTES_SENT, stats.bytes_sent > 0);
        let received_any = received.map(|bytes| bytes > 0);
        let age = |bit, jiffies: u32| {
            let ticks = u64::from(stats.jiffies.wrapping_sub(jiffies));
            when(stats, bit, ticks.saturating_mul(tick_ns) / 1000)
        };
        Self {
            bytes: Bytes {
                sent,
                received,
                acked,
            },
            sent_any,
            received_any,
            unacked: unacked.map(|bytes| bytes > u32::from(fin_sent)),
            unread: when(
                stats,
                present::RECEIVE_QUEUE,
                stats.unread.saturating_sub(fin_received.into()).into(),
            ),
            // Both are also set by the handshake, so they say something only beside a count.
            since_sent_us: sent_any
                .filter(|&any| any)
                .and_then(|_| age(present::LAST_SENT, stats.last_sent)),
            since_received_us: received_any
                .filter(|&any| any)
                .and_then(|_| age(present::LAST_RECEIVED, stats.last_received)),
            // `srtt_us` is kept in eighths; 0 means never measured.
            rtt_us: when(stats, present::SRTT, u64::from(stats.srtt >> 3)).filter(|&rtt| rtt > 0),
            retransmits: when(stats, present::RETRANS, stats.total_retrans),
            resent_any: when(stats, present::BYTES_SENT, stats.bytes_retrans > 0),
            any_segment_out: when(stats, present::SEGS_OUT, stats.segs_out > 0),
            lived_us: None,
        }
    }

    /// Whether what is on its way has an encrypted alert's size, after as much both ways as a handshake of TLS takes.
    pub fn ends_in_alert(&self) -> bool {
        let Bytes {
            sent,
            acked,
            received,
        } = self.bytes;
        is_alert(less(sent, acked), acked.min(received))
    }

    /// The same of what was not read.
    pub fn leaves_alert(&self) -> bool {
        let Bytes {
            acked, received, ..
        } = self.bytes;
        is_alert(self.unread, acked.min(less(received, self.unread)))
    }

    /// Whether payload is on its way and payload was sent again: most likely the same, but it may have been any before.
    pub fn is_sent_again(&self) -> bool {
        self.unacked == Some(true) && self.resent_any == Some(true)
    }

    /// Whether all that was sent is acknowledged, and more waits to be sent.
    pub fn is_held_back(&self) -> bool {
        let Bytes { sent, acked, .. } = self.bytes;
        self.unacked == Some(true) && sent.is_some() && sent == acked
    }

    /// Whether payload was sent again, and nothing of all that was sent acknowledged.
    pub fn has_sent_in_vain(&self) -> bool {
        self.is_sent_again() && self.bytes.acked == Some(0)
    }

    /// Whether payload was sent no longer ago than belongs together with now.
    pub fn has_just_sent(&self) -> bool {
        self.since_sent_us.is_some_and(|us| us <= TOGETHER_US)
    }

    /// The same of payload that was received.
    pub fn has_just_received(&self) -> bool {
        self.since_received_us.is_some_and(|us| us <= TOGETHER_US)
    }

    /// Time since the last payload either way. Jiffies of a machine that was stopped jump (a guest whose
    /// CPU was taken away), the clock of the events does not: no connection is idle for longer than it lived.
    pub fn idle_us(&self) -> Option<u64> {
        let idle = match (self.since_sent_us, self.since_received_us) {
            (Some(sent), Some(received)) => Some(sent.min(received)),
            (sent, received) => sent.or(received),
        };
        idle.map(|idle| idle.min(self.lived_us.unwrap_or(u64::MAX)))
    }

    /// Which way the last payload went; `None` where there was none or it cannot be told. What is unread says only that nobody has read so far:
    /// it may have come before an answer.
    pub fn last_payload(&self) -> Option<Direction> {
        match (self.sent_any?, self.received_any?) {
            (false, false) => None,
            (true, false) => Some(Direction::Sent),
            (false, true) => Some(Direction::Received),
            (true, true) => {
                let (sent, received) = (self.since_sent_us?, self.since_received_us?);
                // Within one jiffy only what is still on its way tells the order.
                match sent.cmp(&received) {
                    std::cmp::Ordering::Less => Some(Direction::Sent),
                    std::cmp::Ordering::Greater => Some(Direction::Received),
                    std::cmp::Ordering::Equal if self.unacked? => Some(Direction::Sent),
                    std::cmp::Ordering::Equal => None,
                }
            }
        }
    }

    /// The same of one that was reset. Where the clock does not tell, what was thrown away unread is what matters: it was a request, or the
    /// rest of one.
    pub fn last_payload_of_reset(&self) -> Option<Direction> {
        let came = || {
            let is_even = self.since_sent_us? == self.since_received_us?;
            let is_thrown_away = self.unread? > 0 && !self.unacked?;
            (is_even && is_thrown_away).then_some(Direction::Received)
        };
        self.last_payload().or_else(came)
    }
}

/// Whether the last bytes one way have an encrypted alert's size, behind at least so many either way.
fn is_alert(last: Option<u64>, before: Option<u64>) -> bool {
    before > Some(NO_HANDSHAKE) && last.is_some_and(|bytes| ALERTS.contains(&bytes))
}

fn less(all: Option<u64>, part: Option<u64>) -> Option<u64> {
    all?.checked_sub(part?)
}

fn fin_received(stats: &Stats) -> bool {
    when(stats, present::FLAGS, stats.flags >> SOCK_DONE & 1 != 0) == Some(true)
}

/// Payload bytes received in order; the kernel counts a FIN as one more.
pub fn received(stats: &Stats) -> Option<u64> {
    let bytes = when(stats, present::BYTES_RECEIVED, stats.bytes_received)?;
    Some(bytes.saturating_sub(u64::from(fin_received(stats))))
}

/// `value`, where the kernel side could read it.
fn when<T>(stats: &Stats, bit: u32, value: T) -> Option<T> {
    (stats.present & bit != 0).then_some(value)
}

/// How the connection got to `CLOSE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Facts {
    /// Which end of the handshake.
    pub role: Role,
    /// The handshake was done.
    pub established: bool,
    /// A process had the connection; `None`: it cannot be told.
    pub accepted: Option<bool>,
    /// This end's FIN came first.
    pub closed_first: bool,
    /// The peer's FIN came first.
    pub peer_closed_first: bool,
    /// Payload certainly went either way after the first FIN.
    pub payload_after_fin: bool,
    /// The owner shut its side down right behind its last payload and still had the socket when it came to its end: it
    /// waited for the answer.
    pub half_closed: bool,
    /// The client had been silent before the first FIN.
    pub has_waited: bool,
    /// The first FIN came right behind payload of the server's.
    pub closed_behind_payload: bool,
    /// The server closed first, with a request unanswered.
    pub left_unanswered: bool,
    /// A process still had this end's socket, and had not shut both ways down.
    pub is_open: bool,
    /// The other end, on this node as well, had no answer to what it had sent last.
    pub peer_unanswered: bool,
    /// The other end, a server's on this node, ended before any process had accepted it.
    pub peer_unaccepted: bool,
    /// The last words of the other end, a client's on this node, were most likely a goodbye.
    pub peer_said_goodbye: bool,
    /// The other end, a server's on this node, had sent its answer again, and nothing of it was acknowledged.
    pub peer_sent_in_vain: bool,
    /// The other end's socket, on this node as well, was seen.
    pub peer_seen: bool,
    /// `sk_err` at the end; 0 for none.
    pub err: u32,
    /// Somebody destroyed this end's socket or the other's (`ss -K`).
    pub destroyed: bool,
    /// A reset ended it.
    pub reset: Option<Direction>,
    /// The reset came from neither end.
    pub reset_in_path: bool,
    /// The host of the other end, this node, sent the reset for want of such a connection.
    pub reset_by_stranger: bool,
    /// A reset may have come that was not seen.
    pub reset_unseen: bool,
    /// An ICMP error answered the SYN.
    pub icmp: bool,
    /// The local port was chosen.
    pub has_local_port: bool,
    /// The peer, on this node as well, received payload of this end; `None`: not known.
    pub peer_received_payload: Option<bool>,
    /// The counters at the end.
    pub counters: Counters,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = u32::MAX;
    const TICK_NS: u64 = 4_000_000;

    fn client(stats: Stats) -> Counters {
        Counters::new(
            &Stats {
                present: ALL,
                ..stats
            },
            Role::Client,
            false,
            TICK_NS,
        )
    }

    #[test]
    fn a_syn_is_not_payload() {
        let counters = client(Stats {
            bytes_acked: 1,
            ..Stats::default()
        });
        assert_eq!(counters.bytes.acked, Some(0));
        let stats = Stats {
            bytes_acked: 0,
            present: ALL,
            ..Stats::default()
        };
        assert_eq!(
            Counters::new(&stats, Role::Server, false, TICK_NS)
                .bytes
                .acked,
            Some(0)
        );
    }

    #[test]
    fn a_fin_is_not_payload() {
        let counters = client(Stats {
            bytes_received: 1,
            flags: 1 << SOCK_DONE,
            unread: 1,
            ..Stats::default()
        });
        assert_eq!(counters.bytes.received, Some(0));
        assert_eq!(
            (counters.received_any, counters.unread),
            (Some(false), Some(0))
        );

        let stats = Stats {
            bytes_acked: 66,
            bytes_sent: 64,
            present: ALL,
            ..Stats::default()
        };
        let counters = Counters::new(&stats, Role::Client, true, TICK_NS);
        assert_eq!(counters.bytes.acked, Some(64));
        let waiting = Stats {
            bytes_acked: 65,
            unacked: 1,
            ..stats
        };
        let counters = Counters::new(&waiting, Role::Client, true, TICK_NS);
        assert_eq!(
            (counters.bytes.acked, counters.unacked),
            (Some(64), Some(false))
        );
    }

    /// A server's socket begins with the times that its SYN-ACK was sent again (`tcp_create_openreq_child`).
    #[test]
    fn a_handshake_that_was_sent_again_is_no_payload() {
        let sent_again = |bytes_retrans| {
            let stats = Stats {
                present: ALL,
                bytes_sent: 700 + bytes_retrans,
                bytes_retrans,
                unacked: 700,
                total_retrans: 1,
                ..Stats::default()
            };
            let counters = Counters::new(&stats, Role::Server, false, TICK_NS);
            counters.has_sent_in_vain()
        };
        assert!(sent_again(700) && !sent_again(0));
    }

    /// Of one that is older than the tracer the SYN may be among what was acknowledged.
    #[test]
    fn what_an_unknown_end_had_acknowledged_is_not_made_up() {
        let acked = |unacked, bytes_acked| {
            let stats = Stats {
                present: ALL,
                bytes_sent: 64,
                unacked,
                bytes_acked,
                ..Stats::default()
            };
            Counters::new(&stats, Role::Unknown, false, TICK_NS)
                .bytes
                .acked
        };
        assert_eq!(acked(64, 1), None);
        assert_eq!(acked(0, 65), Some(64));
    }

    #[test]
    fn a_retransmission_is_sent_once() {
        let counters = client(Stats {
            bytes_sent: 4,
            bytes_retrans: 3,
            bytes_acked: 1,
            unacked: 1,
            ..Stats::default()
        });
        assert_eq!(counters.bytes.sent, Some(1));
    }

    #[test]
    fn what_ip_did_not_take_is_sent_once() {
        let stats = Stats {
            bytes_sent: 308,
            bytes_acked: 1,
            unacked: 154,
            ..Stats::default()
        };
        assert_eq!(client(stats).bytes.sent, Some(154));
        // Written by then, and not sent yet.
        let waiting = Stats {
            bytes_sent: 100,
            ..stats
        };
        assert_eq!(client(waiting).bytes.sent, Some(100));
    }

    #[test]
    fn what_was_not_read_is_none() {
        let counters = Counters::new(&Stats::default(), Role::Client, false, TICK_NS);
        assert_eq!(counters, Counters::default());
        assert_eq!(counters.last_payload(), None);
    }

    #[test]
    fn handshake_times_are_no_payload_times() {
        let counters = client(Stats {
            jiffies: 100,
            last_sent: 90,
            last_received: 90,
            ..Stats::default()
        });
        assert_eq!(counters.idle_us(), None);
    }

    #[test]
    fn the_order_of_the_last_payloads_survives_a_jiffies_wrap() {
        let stats = Stats {
            jiffies: 5,
            last_sent: u32::MAX - 4,
            last_received: 2,
            bytes_sent: 9,
            bytes_received: 9,
            ..Stats::default()
        };
        let counters = client(stats);
        assert_eq!(counters.since_sent_us, Some(40_000));
        assert_eq!(counters.idle_us(), Some(12_000));
        let short = Counters {
            lived_us: Some(5_000),
            ..counters
        };
        assert_eq!(short.idle_us(), Some(5_000));
        assert_eq!(counters.last_payload(), Some(Direction::Received));
    }

    #[test]
    fn within_a_jiffy_what_waits_decides() {
        let both = Stats {
            bytes_sent: 9,
            bytes_received: 9,
            ..Stats::default()
        };
        assert_eq!(client(both).last_payload(), None);
        assert_eq!(
            client(Stats { unacked: 3, ..both }).last_payload(),
            Some(Direction::Sent)
        );
        assert_eq!(
            client(Stats { unread: 3, ..both }).last_payload_of_reset(),
            Some(Direction::Received)
        );
        assert_eq!(client(Stats { unread: 3, ..both }).last_payload(), None);
    }
}
