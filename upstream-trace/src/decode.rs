//! Ring bytes to typed events, borrowed: no copy, no panic on any input.
//!
//! Must not know: where the bytes come from, what the events mean together.

use upstream_trace_common::event::{Acted, Actor, Base, Full, Stats};
use zerocopy::FromBytes;

/// One record of the ring.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// When, which, what.
    pub base: &'a Base,
    /// Who.
    pub actor: Option<&'a Actor>,
    /// The socket's counters.
    pub stats: Option<&'a Stats>,
}

/// The event in these bytes; `None` where their length or alignment is no record's.
pub fn decode(bytes: &[u8]) -> Option<Event<'_>> {
    if bytes.len() == size_of::<Base>() {
        let base = Base::ref_from_bytes(bytes).ok()?;
        Some(Event {
            base,
            actor: None,
            stats: None,
        })
    } else if bytes.len() == size_of::<Acted>() {
        let Acted { base, actor } = Acted::ref_from_bytes(bytes).ok()?;
        Some(Event {
            base,
            actor: Some(actor),
            stats: None,
        })
    } else {
        let Full { base, actor, stats } = Full::ref_from_bytes(bytes).ok()?;
        Some(Event {
            base,
            actor: Some(actor),
            stats: Some(stats),
        })
    }
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::event::kind;
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn the_length_tells_the_parts() {
        let base = Base {
            kind: kind::STATE,
            ktime: 7,
            ..Base::default()
        };
        let event = decode(base.as_bytes()).unwrap();
        assert_eq!(
            (event.base.ktime, event.actor, event.stats),
            (7, None, None)
        );

        let acted = Acted {
            base,
            actor: Actor {
                tgid: 9,
                ..Actor::default()
            },
        };
        let event = decode(acted.as_bytes()).unwrap();
        assert_eq!(event.actor.map(|actor| actor.tgid), Some(9));
        assert!(event.stats.is_none());

        let full = Full {
            base,
            actor: acted.actor,
            stats: Stats {
                err: 104,
                ..Stats::default()
            },
        };
        let event = decode(full.as_bytes()).unwrap();
        assert_eq!(event.stats.map(|stats| stats.err), Some(104));
    }

    #[test]
    fn no_other_length_is_a_record() {
        let bytes = [0_u64; 40];
        for length in 0..=bytes.as_bytes().len() {
            let known = [size_of::<Base>(), size_of::<Acted>(), size_of::<Full>()];
            assert_eq!(
                decode(&bytes.as_bytes()[..length]).is_some(),
                known.contains(&length)
            );
        }
    }
}
