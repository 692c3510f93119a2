//! Who sent a reset that came from beyond this node, as far as its packet tells.
//!
//! A packet does not say who sent it, only how far it came: each router takes one from its TTL. So it is held
//! against the packet of the handshake, which did come from the peer. What else may set the two apart is given
//! the benefit of the doubt, because a middlebox that is accused wrongly costs more than one that is not:
//!
//! - A host may begin with another TTL for a reset than for its handshake: a socket option does not hold for
//!   what the stack sends without a socket. So hops are compared, not TTLs.
//! - A TTL that no stack begins with (1 or 2 of a BGP neighbour) tells no hops.
//! - Two paths of one flow may differ by a hop or two, and routes change in time.
//! - A reset from farther away than the peer is nobody's on the way.
//! - On the same link everybody is equally near, so a match says nothing there.
//!
//! IP ids tell people something, and no rule: Linux sends 0 without a socket and counts per connection with one.
//! A sequence number that is not exact is no accusation either: what the peer sent before may be lost.
//! Must not know: sockets; of the lines that are printed, more than what they say of a reset's packet.

use upstream_trace_common::event::{IPV4, Way};

use super::facts::Counters;
use crate::record::{Confidence, Origin, ResetEvidence};

/// What stacks begin with.
const INITIAL: [u8; 3] = [64, 128, 255];
/// More hops than any path has.
const FAR: u8 = 32;
/// By how many hops two paths of one flow may differ.
const DETOUR: u8 = 2;
/// For how long a route may be taken for the same, microseconds.
const STEADY_US: u64 = 600_000_000;

/// The packet of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// How it came.
    pub reset: Way,
    /// How the peer's packet of the handshake came; `family` is 0 where that was not seen.
    pub handshake: Way,
    /// Its sequence number less the expected one; `None`: nothing was expected yet.
    pub ahead: Option<u32>,
}

/// Routers that a packet has passed; `None` where that cannot be told.
fn hops(ttl: u8) -> Option<u8> {
    let initial = INITIAL.into_iter().find(|&initial| initial >= ttl)?;
    Some(initial - ttl).filter(|&hops| hops < FAR)
}

/// The evidence, for people to judge. Half a round trip is allowed for an answer, and a jiffy for the clock.
pub fn evidence(arrival: &Arrival, counters: &Counters, tick_us: u64) -> ResetEvidence {
    let Arrival {
        reset,
        handshake,
        ahead,
    } = *arrival;
    let id = |way: Way| (way.family == IPV4).then_some(way.id);
    let since_sent = counters.since_sent_us;
    ResetEvidence {
        ttl: reset.ttl,
        handshake_ttl: (handshake.family != 0).then_some(handshake.ttl),
        ip_id: id(reset),
        handshake_ip_id: id(handshake),
        sequence_exact: ahead.map(|ahead| ahead == 0),
        too_soon: since_sent
            .zip(counters.rtt_us)
            .map(|(since, rtt)| since.saturating_add(tick_us) < rtt / 2),
    }
}

/// Who sent the reset, other than a stack on this node, on a connection that lived for so long (`None`: not known).
pub fn sender(evidence: &ResetEvidence, lived_us: Option<u64>) -> (Origin, Option<Confidence>) {
    let unsure = (Origin::OffNode, None);
    let Some(handshake_ttl) = evidence.handshake_ttl else {
        return unsure;
    };
    let (Some(reset), Some(handshake)) = (hops(evidence.ttl), hops(handshake_ttl)) else {
        return unsure;
    };
    let steady = lived_us.is_some_and(|lived| lived < STEADY_US);
    if evidence.ttl == handshake_ttl {
        let as_far = handshake > 0 && evidence.too_soon != Some(true);
        return (Origin::OffNode, as_far.then_some(Confidence::Likely));
    }
    // From this very link, where the peer's packets come by way of a router; or from much nearer.
    let is_neighbour = reset == 0 && handshake > 0;
    let is_nearer = handshake.saturating_sub(reset) > DETOUR;
    if is_neighbour || is_nearer && steady {
        (Origin::InPath, Some(Confidence::Likely))
    } else {
        unsure
    }
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::event::IPV6;

    use super::*;

    const SURE: Option<Confidence> = Some(Confidence::Likely);
    const SECOND: Option<u64> = Some(1_000_000);

    fn seen(handshake_ttl: impl Into<Option<u8>>, ttl: u8) -> ResetEvidence {
        ResetEvidence {
            ttl,
            handshake_ttl: handshake_ttl.into(),
            ..ResetEvidence::default()
        }
    }

    #[test]
    fn one_from_as_far_as_the_peer_is_taken_for_the_peers() {
        for (handshake, reset) in [(63, 63), (52, 52), (127, 127), (110, 110), (243, 243)] {
            let sender = sender(&seen(handshake, reset), SECOND);
            assert_eq!(sender, (Origin::OffNode, SURE), "{handshake} {reset}");
        }
    }

    #[test]
    fn one_from_this_link_is_not_the_peers_that_is_behind_a_router() {
        for lived in [None, SECOND, Some(u64::MAX)] {
            for (handshake, reset) in [(63, 64), (52, 64), (52, 255), (127, 64), (243, 255)] {
                let sender = sender(&seen(handshake, reset), lived);
                assert_eq!(sender, (Origin::InPath, SURE), "{handshake} {reset}");
            }
        }
    }

    #[test]
    fn one_from_much_nearer_is_not_the_peers_while_routes_last() {
        for (handshake, reset) in [(52, 60), (59, 62), (52, 253), (115, 60)] {
            let evidence = seen(handshake, reset);
            assert_eq!(sender(&evidence, SECOND), (Origin::InPath, SURE));
            for lived in [None, Some(STEADY_US)] {
                assert_eq!(sender(&evidence, lived), (Origin::OffNode, None));
            }
        }
    }

    #[test]
    fn what_may_be_the_peers_all_the_same_accuses_nobody() {
        for (handshake, reset, why) in [
            (None, 64, "no handshake was seen"),
            (Some(64), 64, "on one link everybody is as near"),
            (Some(60), 61, "another path"),
            (Some(58), 60, "another path, by two routers less"),
            (Some(60), 52, "farther away"),
            (Some(64), 63, "a neighbour, then one behind a router"),
            (Some(244), 53, "as many hops from another initial value"),
            (Some(53), 117, "the same"),
            (Some(255), 64, "a neighbour either way"),
            (Some(1), 64, "a socket that sends no farther than its link"),
            (Some(5), 62, "the same, over a few links"),
            (Some(40), 12, "a way that no packet takes"),
            (Some(0), 0, "nothing"),
        ] {
            let sender = sender(&seen(handshake, reset), SECOND);
            assert_eq!(sender, (Origin::OffNode, None), "{why}");
        }
    }

    #[test]
    fn one_that_comes_too_soon_is_not_said_to_be_the_peers() {
        for (too_soon, confidence) in [(None, SURE), (Some(false), SURE), (Some(true), None)] {
            let evidence = ResetEvidence {
                too_soon,
                ..seen(52, 52)
            };
            assert_eq!(sender(&evidence, SECOND), (Origin::OffNode, confidence));
        }
    }

    #[test]
    fn no_ttl_is_beyond_judging() {
        for handshake in 0..=u8::MAX {
            for reset in 0..=u8::MAX {
                let (origin, confidence) = sender(&seen(handshake, reset), SECOND);
                let accused = origin == Origin::InPath;
                assert!(!accused || confidence.is_some());
                assert!(!accused || hops(reset) < hops(handshake), "{reset}");
            }
        }
    }

    #[test]
    fn evidence_is_what_was_read() {
        let way = |family, id, ttl| Way { id, ttl, family };
        let none = Counters::default();
        let arrival = Arrival {
            reset: way(IPV4, 7, 64),
            handshake: way(IPV4, 0, 63),
            ahead: Some(0),
        };
        let told = ResetEvidence {
            ttl: 64,
            handshake_ttl: Some(63),
            ip_id: Some(7),
            handshake_ip_id: Some(0),
            sequence_exact: Some(true),
            too_soon: None,
        };
        assert_eq!(evidence(&arrival, &none, 4_000), told);
        let arrival = Arrival {
            reset: way(IPV6, 0, 60),
            handshake: Way::default(),
            ahead: None,
        };
        let told = ResetEvidence {
            ttl: 60,
            ..ResetEvidence::default()
        };
        assert_eq!(evidence(&arrival, &none, 4_000), told);
        let arrival = Arrival {
            ahead: Some(u32::MAX),
            ..arrival
        };
        let evidence = evidence(&arrival, &none, 4_000);
        assert_eq!(evidence.sequence_exact, Some(false));
    }

    #[test]
    fn an_answer_takes_half_a_round_trip_at_least() {
        let arrival = Arrival {
            reset: Way::default(),
            handshake: Way::default(),
            ahead: None,
        };
        for (since_sent_us, rtt_us, too_soon) in [
            (Some(8_000), Some(80_000), Some(true)),
            (Some(36_000), Some(80_000), Some(false)),
            (Some(0), Some(8_000), Some(false)),
            (Some(0), None, None),
            (None, Some(80_000), None),
        ] {
            let counters = Counters {
                since_sent_us,
                rtt_us,
                ..Counters::default()
            };
            let evidence = evidence(&arrival, &counters, 4_000);
            assert_eq!(evidence.too_soon, too_soon, "{since_sent_us:?} {rtt_us:?}");
        }
    }
}
