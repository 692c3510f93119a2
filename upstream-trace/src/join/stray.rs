//! Resets that no connection's socket sent: held for a moment, so that several for the same addresses
//! become one line and the connection at the other end can say why it was reset.
//!
//! Must not know: the table of connections.

use std::collections::VecDeque;

use hashbrown::HashMap;
use upstream_trace_common::event::Base;

use super::tuple::Tuple;
use crate::record::Id;

/// How long such a reset is held, nanoseconds: longer than a connection waits for its last events, so
/// that the one at the other end is finished first; within the 100 ms in which a line has to appear.
const HELD_NS: u64 = 40_000_000;
/// The most that are held; a SYN flood to a closed port must not grow memory.
const LIMIT: usize = 16_384;

/// A reset that was sent without a connection's socket.
#[derive(Clone, Copy, Debug)]
pub struct Stray {
    /// The first record.
    pub base: Base,
    /// How many there were.
    pub count: u32,
    /// The connection at the other end.
    pub peer: Option<Id>,
}

/// Those that are held.
#[derive(Debug, Default)]
pub struct Strays {
    held: HashMap<(u32, Tuple), Stray>,
    order: VecDeque<(u32, Tuple)>,
}

impl Strays {
    /// One more. Returns one that has to go at once because too many are held.
    pub fn insert(&mut self, base: &Base) -> Option<Stray> {
        let key = (base.netns, Tuple::of(base));
        if let Some(stray) = self.held.get_mut(&key) {
            stray.count += 1;
            return None;
        }
        let stray = Stray {
            base: *base,
            count: 1,
            peer: None,
        };
        self.held.insert(key, stray);
        self.order.push_back(key);
        if self.order.len() > LIMIT {
            self.pop()
        } else {
            None
        }
    }

    /// The reset that the other end of `tuple` was sent; it belongs to the connection `id` from now on.
    /// Its own namespace is preferred, because a pair of addresses may exist in several.
    pub fn claim(&mut self, netns: u32, tuple: &Tuple, id: Id) -> Option<Base> {
        if self.held.is_empty() {
            return None;
        }
        let reversed = tuple.reversed();
        let key = if self.held.contains_key(&(netns, reversed)) {
            (netns, reversed)
        } else if tuple.is_loopback() {
            return None;
        } else {
            let mut others = self.order.iter().filter(|(_, other)| *other == reversed);
            let only = *others.next()?;
            if others.next().is_some() {
                return None;
            }
            only
        };
        let stray = self.held.get_mut(&key)?;
        stray.peer = Some(id);
        Some(stray.base)
    }

    /// The next one that was held long enough at `now`.
    pub fn due(&mut self, now: u64) -> Option<Stray> {
        let first = self.held.get(self.order.front()?)?;
        if first.base.ktime.saturating_add(HELD_NS) > now {
            return None;
        }
        self.pop()
    }

    fn pop(&mut self) -> Option<Stray> {
        self.held.remove(&self.order.pop_front()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id { run: 1, serial: 2 };

    fn base(ktime: u64, netns: u32, remote_port: u16) -> Base {
        let ten = u32::from_ne_bytes([10, 0, 0, 1]).into();
        Base {
            ktime,
            netns,
            family: 4,
            local_port: 80,
            remote_port,
            local: [ten, 0],
            remote: [ten, 0],
            ..Base::default()
        }
    }

    #[test]
    fn those_for_the_same_addresses_are_one() {
        let mut strays = Strays::default();
        assert!(strays.insert(&base(1, 1, 5)).is_none());
        assert!(strays.insert(&base(2, 1, 5)).is_none());
        assert!(strays.insert(&base(3, 2, 5)).is_none());
        assert!(strays.due(HELD_NS).is_none());
        assert_eq!(strays.due(u64::MAX).map(|stray| stray.count), Some(2));
        assert_eq!(strays.due(u64::MAX).map(|stray| stray.count), Some(1));
        assert!(strays.due(u64::MAX).is_none());
    }

    #[test]
    fn the_other_end_claims_its_own() {
        let mut strays = Strays::default();
        strays.insert(&base(1, 1, 5));
        let client = Tuple::of(&base(1, 1, 5)).reversed();
        assert!(
            strays.claim(9, &client, ID).is_some(),
            "another namespace, but only one such"
        );
        strays.insert(&base(1, 2, 5));
        assert!(strays.claim(9, &client, ID).is_none(), "it could be either");
        assert_eq!(strays.claim(2, &client, ID).map(|base| base.netns), Some(2));
        assert_eq!(strays.due(u64::MAX).and_then(|stray| stray.peer), Some(ID));
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut strays = Strays::default();
        let mut out = 0;
        for netns in 0..3 {
            for port in 0..10_000 {
                out += usize::from(strays.insert(&base(1, netns, port)).is_some());
            }
        }
        assert_eq!(strays.order.len() + out, 30_000);
        assert!(strays.order.len() <= LIMIT);
    }
}
