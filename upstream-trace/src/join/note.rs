//! What the kernel side noted of why connections fail, kept until their records are printed.
//!
//! A note has the ends of a connection and no socket: it may come from a packet, and before the connection's own
//! story. Must not know: connections, what is printed of one.

use std::{collections::VecDeque, rc::Rc};

use hashbrown::HashMap;
use upstream_trace_common::event::{Base, IPV4, Note, kind};

use super::{
    engine::{Engine, Sink, WallClock},
    raw_event,
    tuple::{self, Tuple},
};
use crate::{
    decode::Event,
    process::{Describe, Process},
    record::{AcceptQueue, Descriptors, Icmp, PortRange},
    tcp::State,
};

/// What a note says.
#[derive(Debug)]
pub enum Fact {
    Icmp(Icmp),
    LocalPorts(PortRange),
    AcceptQueue(Queue),
    Dropped(Dropped),
}

/// A SYN, or the answer to one, that a filter dropped.
#[derive(Debug)]
pub struct Dropped {
    /// `enum skb_drop_reason`.
    pub reason: u8,
    /// It was the very packet of the socket that connects; else it may have been a copy, which a rule sent another way.
    pub is_own: bool,
}

/// The accept queue that a connection was to go through.
#[derive(Debug)]
pub struct Queue {
    pub is: AcceptQueue,
    /// Who listens.
    pub process: Option<Rc<Process>>,
    /// Of the same.
    pub descriptors: Option<Descriptors>,
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
    pub fn of(&self, netns: u32, tuple: &Tuple, kind: u8, since: u64) -> Option<&Fact> {
        if self.known.is_empty() {
            return None;
        }
        let entry = self.known.get(&key(tuple, kind, netns))?;
        (entry.at >= since).then_some(&entry.fact)
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
        let (base, [first, second, ..]) = (&note.base, note.detail);
        let port = |port| u16::try_from(port).unwrap_or(u16::MAX);
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
            kind::ACCEPT_QUEUE => match self.queue(note, describe) {
                Some(queue) => Fact::AcceptQueue(queue),
                None => return,
            },
            kind::SYN_DROPPED => Fact::Dropped(Dropped {
                reason: base.new,
                is_own: first != 0,
            }),
            _ => return,
        };
        let is_event = matches!(fact, Fact::Icmp(_) | Fact::Dropped(_));
        self.notes.insert(base, fact);
        if self.context.events && is_event {
            let event = Event {
                base,
                actor: None,
                stats: None,
            };
            raw_event::print(self, event, None, clock, sink);
        }
    }

    /// That of a listener, if it is the one that the connection was for. Who listens, as long as that is known.
    fn queue(&mut self, note: &Note, describe: &mut impl Describe) -> Option<Queue> {
        let (base, [queue, netns, v4, v6 @ ..]) = (&note.base, note.detail);
        let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let netns = number(netns);
        let bound = if base.family == IPV4 { [v4, 0] } else { v6 };
        if bound != [0; 2] && bound != base.remote {
            return None;
        }
        // At either end: of a connect to there, or of a child there.
        let mut ports = [base.remote_port, base.local_port].into_iter();
        let known = ports.find_map(|port| self.listeners.of_socket(netns, port, base.sk));
        let connects = State::from_kernel(base.old) == Some(State::SynSent);
        let since = known.map(|(_, since)| since);
        let came = || {
            let way = (base.netns, &Tuple::of(base));
            self.routes.lead_to(way, netns, since, base.ktime)
        };
        if connects && !came() {
            return None;
        }
        let process = known.map(|(process, _)| Rc::clone(process));
        let is = AcceptQueue {
            length: number(queue & u64::from(u32::MAX)),
            limit: number(queue >> 32),
        };
        let asked = process.as_ref().filter(|_| is.length > 0);
        let descriptors =
            asked.and_then(|process| self.notes.descriptors(process, base.ktime, describe));
        Some(Queue {
            is,
            process,
            descriptors,
        })
    }
}

#[cfg(test)]
mod tests {
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
        for netns in [1, 2] {
            let first = u16::try_from(netns).unwrap();
            let fact = Fact::LocalPorts(PortRange { first, last: 9 });
            notes.insert(&base(netns, kind::PORT_RANGE, LOOPBACK), fact);
        }
        let first = |found: Option<&Fact>| match found {
            Some(Fact::LocalPorts(range)) => Some(range.first),
            _ => None,
        };
        let tuple = Tuple::of(&base(0, 0, LOOPBACK));
        for netns in [1, 2] {
            let found = notes.of(netns, &tuple, kind::PORT_RANGE, 7);
            assert_eq!(first(found).map(u32::from), Some(netns));
        }
        assert!(notes.of(3, &tuple, kind::PORT_RANGE, 7).is_none());

        // What was dropped on its way is told wherever that was.
        for (ends, elsewhere) in [(FAR, true), (LOOPBACK, false)] {
            notes.insert(
                &base(1, kind::SYN_DROPPED, ends),
                Fact::Dropped(Dropped {
                    reason: 5,
                    is_own: true,
                }),
            );
            let tuple = Tuple::of(&base(0, 0, ends));
            let is_known =
                |netns, since| notes.of(netns, &tuple, kind::SYN_DROPPED, since).is_some();
            assert_eq!(is_known(2, 7), elsewhere);
            assert!(is_known(1, 7));
            assert!(!is_known(1, 8));
        }
    }
}
