//! Ring bytes to typed events, borrowed: no copy, no panic on any input.
//!
//! Must not know: where the bytes come from, what the events mean together.

use upstream_trace_common::{
    event::{Acted, Actor, Answer, Base, Full, Note, Packet, Stats, exit},
    story::{Ended, Story},
};
use zerocopy::FromBytes;

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// When, which, what.
    pub base: &'a Base,
    /// Who.
    pub actor: Option<&'a Actor>,
    /// The socket's counters.
    pub stats: Option<&'a Stats>,
}

impl Event<'_> {
    /// How who acted comes to its end, as of `event::exit`.
    pub fn exit(&self) -> u8 {
        self.actor.map_or(exit::NONE, |actor| actor.exit)
    }
}

/// What the ring holds.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// One event.
    Event(Event<'a>),
    /// What is known of why a connection fails.
    Note(&'a Note),
    /// The packet of a reset.
    Packet(&'a Packet),
    /// A reset that answered a packet.
    Answer(&'a Answer),
    /// A socket's life up to an event of its own that follows.
    Story(&'a Story),
    /// A socket's whole life.
    Ended(&'a Ended),
}

/// The record in these bytes; `None` where their length or alignment is none's.
pub fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    const BASE: usize = size_of::<Base>();
    const NOTE: usize = size_of::<Note>();
    const PACKET: usize = size_of::<Packet>();
    const ANSWER: usize = size_of::<Answer>();
    const ACTED: usize = size_of::<Acted>();
    const FULL: usize = size_of::<Full>();
    const STORY: usize = size_of::<Story>();
    const ENDED: usize = size_of::<Ended>();
    let event = |base, actor, stats| Record::Event(Event { base, actor, stats });
    match bytes.len() {
        ENDED => Ended::ref_from_bytes(bytes).ok().map(Record::Ended),
        PACKET => Packet::ref_from_bytes(bytes).ok().map(Record::Packet),
        ANSWER => Answer::ref_from_bytes(bytes).ok().map(Record::Answer),
        STORY => Story::ref_from_bytes(bytes).ok().map(Record::Story),
        BASE => {
            let base = Base::ref_from_bytes(bytes).ok()?;
            Some(event(base, None, None))
        }
        NOTE => Note::ref_from_bytes(bytes).ok().map(Record::Note),
        ACTED => {
            let Acted { base, actor } = Acted::ref_from_bytes(bytes).ok()?;
            Some(event(base, Some(actor), None))
        }
        FULL => {
            let Full { base, actor, stats } = Full::ref_from_bytes(bytes).ok()?;
            Some(event(base, Some(actor), Some(stats)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::event::kind;
    use zerocopy::IntoBytes;

    use super::*;

    fn event(bytes: &[u8]) -> Event<'_> {
        match decode(bytes) {
            Some(Record::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_length_tells_the_parts() {
        let base = Base {
            kind: kind::STATE,
            ktime: 7,
            ..Base::default()
        };
        let taken = event(base.as_bytes());
        assert_eq!(
            (taken.base.ktime, taken.actor, taken.stats),
            (7, None, None)
        );

        let acted = Acted {
            base,
            actor: Actor {
                tgid: 9,
                ..Actor::default()
            },
        };
        let taken = event(acted.as_bytes());
        assert_eq!(taken.actor.map(|actor| actor.tgid), Some(9));
        assert!(taken.stats.is_none());

        let full = Full {
            base,
            actor: acted.actor,
            stats: Stats {
                err: 104,
                ..Stats::default()
            },
        };
        let taken = event(full.as_bytes());
        assert_eq!(taken.stats.map(|stats| stats.err), Some(104));
    }

    #[test]
    fn no_other_length_is_a_record() {
        let bytes = [0_u64; 40];
        for length in 0..=bytes.as_bytes().len() {
            let known = [
                size_of::<Base>(),
                size_of::<Note>(),
                size_of::<Packet>(),
                size_of::<Answer>(),
                size_of::<Acted>(),
                size_of::<Full>(),
                size_of::<Story>(),
                size_of::<Ended>(),
            ];
            assert_eq!(
                decode(&bytes.as_bytes()[..length]).is_some(),
                known.contains(&length)
            );
        }
    }
}
