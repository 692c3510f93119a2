//! What the kernel side noted of why connections fail, kept until their records are printed.
//!
//! A note has the ends of a connection and no socket: it may come from a packet, and before the connection's own
//! story. Must not know: connections, how a record looks.

use std::{collections::VecDeque, rc::Rc};

use hashbrown::HashMap;
use upstream_trace_common::event::{Base, Note, kind};

use super::{
    engine::{Engine, Sink, WallClock},
    finish,
    tuple::{self, Tuple},
};
use crate::{
    decode::Event,
    process::{Describe, Process},
    record::{AcceptQueue, Descriptors, Icmp, PortRange},
};

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    Icmp(Icmp),
    LocalPorts(PortRange),
    AcceptQueue(AcceptQueue, Option<Descriptors>),
    /// `enum skb_drop_reason`.
    Dropped(u8),
}

#[derive(Debug)]
struct Entry {
    /// `CLOCK_MONOTONIC` nanoseconds.
    at: u64,
    fact: Fact,
}

/// The ends, the kind, and the namespace where only one is meant.
type Key = (Tuple, u8, Option<u32>);

/// A packet may have met its end in another namespace than its connection's, but not on loopback.
fn key(tuple: &Tuple, kind: u8, netns: u32) -> Key {
    let travels = matches!(kind, kind::SYN_DROPPED | kind::ACCEPT_QUEUE) && !tuple.is_loopback();
    (*tuple, kind, (!travels).then_some(netns))
}

/// The newest notes, one of a kind for each pair of ends.
#[derive(Debug, Default)]
pub struct Notes {
    known: HashMap<Key, Entry>,
    /// Oldest first, with the time by which a later one for the same ends is told from it.
    order: VecDeque<(Key, u64)>,
    /// The last process whose descriptors were counted, and when.
    counted: Option<(u64, Rc<Process>, Option<Descriptors>)>,
}

/// The most that are kept: a flood of SYNs that a firewall drops must not grow memory.
const LIMIT: usize = 4096;
/// For so long a process's descriptors are not counted again: one may have a million.
const COUNTED_NS: u64 = 1_000_000_000;

impl Notes {
    fn insert(&mut self, base: &Base, fact: Fact) {
        let key = key(&Tuple::of(base), base.kind, base.netns);
        let entry = Entry {
            at: base.ktime,
            fact,
        };
        self.known.insert(key, entry);
        self.order.push_back((key, base.ktime));
        if self.order.len() > LIMIT
            && let Some((key, at)) = self.order.pop_front()
            && self.known.get(&key).is_some_and(|entry| entry.at == at)
        {
            self.known.remove(&key);
        }
    }

    /// What was noted of the connection with these ends since its beginning. Of several the last one counts, which may come after the connection's end:
    /// for its peer's last segment, or for another that found no port either.
    pub fn of(&self, netns: u32, tuple: &Tuple, kind: u8, since: u64) -> Option<Fact> {
        if self.known.is_empty() {
            return None;
        }
        let entry = self.known.get(&key(tuple, kind, netns))?;
        (entry.at >= since).then_some(entry.fact)
    }

    /// The descriptors of a process, which is asked at most once a second.
    fn descriptors(
        &mut self,
        process: &Rc<Process>,
        now: u64,
        describe: &mut impl Describe,
    ) -> Option<Descriptors> {
        if let Some((at, known, descriptors)) = &self.counted
            && Rc::ptr_eq(known, process)
            && now.saturating_sub(*at) < COUNTED_NS
        {
            return *descriptors;
        }
        let descriptors = describe.descriptors(process.pid, process.start);
        self.counted = Some((now, Rc::clone(process), descriptors));
        descriptors
    }
}

impl Engine {
    /// Takes a note.
    pub fn note(
        &mut self,
        note: &Note,
        describe: &mut impl Describe,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) {
        let (base, [first, second, third]) = (&note.base, note.detail);
        let port = |port| u16::try_from(port).unwrap_or(u16::MAX);
        let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let fact = match base.kind {
            kind::SYN_ICMP => Fact::Icmp(Icmp {
                kind: base.old,
                code: base.new,
                from: ((first, second) != (0, 0))
                    .then(|| tuple::address(base.family, [first, second])),
            }),
            kind::PORT_RANGE => Fact::LocalPorts(PortRange {
                first: port(first),
                last: port(second),
            }),
            kind::ACCEPT_QUEUE => {
                let queue = AcceptQueue {
                    length: number(first),
                    limit: number(second),
                };
                Fact::AcceptQueue(
                    queue,
                    self.listeners_descriptors(base, third, queue, describe),
                )
            }
            kind::SYN_DROPPED => Fact::Dropped(base.new),
            _ => return,
        };
        self.notes.insert(base, fact);
        if self.context.events && matches!(fact, Fact::Icmp(_) | Fact::Dropped(_)) {
            let event = Event {
                base,
                actor: None,
                stats: None,
            };
            finish::event(self, event, None, clock, sink);
        }
    }

    /// Those of the process that listens with the socket at `sk`, if connections wait for it.
    fn listeners_descriptors(
        &mut self,
        base: &Base,
        sk: u64,
        queue: AcceptQueue,
        describe: &mut impl Describe,
    ) -> Option<Descriptors> {
        // At either end: of a connect to here, or of a child here.
        let ports = [base.remote_port, base.local_port];
        let process = ports
            .iter()
            .find_map(|&port| self.listeners.of_socket(base.netns, port, sk))
            .filter(|_| queue.length > 0)
            .cloned()?;
        self.notes.descriptors(&process, base.ktime, describe)
    }
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::event::IPV4;

    use super::*;

    /// A note between two addresses, local and remote, seen in a namespace.
    fn base(netns: u32, kind: u8, [local, remote]: [u32; 2]) -> Base {
        Base {
            ktime: 7,
            kind,
            family: IPV4,
            netns,
            local: [local.to_be().into(), 0],
            remote: [remote.to_be().into(), 0],
            ..Base::default()
        }
    }

    #[test]
    fn namespaces_have_the_same_ends_and_notes_of_their_own() {
        const LOOPBACK: [u32; 2] = [0x7f00_0001; 2];
        const FAR: [u32; 2] = [0x0a00_0001, 0x0a00_0002];
        let mut notes = Notes::default();
        let range = |first| Fact::LocalPorts(PortRange { first, last: 9 });
        for netns in [1, 2] {
            let fact = range(u16::try_from(netns).unwrap());
            notes.insert(&base(netns, kind::PORT_RANGE, LOOPBACK), fact);
        }
        let tuple = Tuple::of(&base(0, 0, LOOPBACK));
        for netns in [1, 2] {
            let found = notes.of(netns, &tuple, kind::PORT_RANGE, 7);
            assert_eq!(found, Some(range(u16::try_from(netns).unwrap())));
        }
        assert_eq!(notes.of(3, &tuple, kind::PORT_RANGE, 7), None);

        // What was dropped on its way is told wherever that was.
        for (ends, elsewhere) in [(FAR, Some(Fact::Dropped(5))), (LOOPBACK, None)] {
            notes.insert(&base(1, kind::SYN_DROPPED, ends), Fact::Dropped(5));
            let tuple = Tuple::of(&base(0, 0, ends));
            assert_eq!(notes.of(2, &tuple, kind::SYN_DROPPED, 7), elsewhere);
            assert!(notes.of(1, &tuple, kind::SYN_DROPPED, 7).is_some());
            assert_eq!(notes.of(1, &tuple, kind::SYN_DROPPED, 8), None);
        }
    }
}
