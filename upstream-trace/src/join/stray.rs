//! Resets that belong to no connection: held for a moment, so that several for the same addresses become one line
//! and, where this node sent them, the connection at the other end can say why it was reset; then those are remembered, for
//! a busy node delivers a packet late, also to itself.
//!
//! Must not know: the table of connections.

use std::{collections::VecDeque, hash::BuildHasher as _, mem, ops::RangeInclusive};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable, hash_table::OccupiedEntry};
use upstream_trace_common::{
    event::{Base, Stats, kind},
    tcp::flag::{ACK, SYN},
};

use super::{
    engine::{Context, Engine, Sink, WallClock},
    reason,
    translated::{Sender, obeyed_seq, was_sent_until},
    tuple::Tuple,
};
use crate::{
    record::{Flag, Id, ResetType, Schema, StrayReset},
    tcp::State,
    verdict::playbook::{self, StrayKind},
};

/// How long such a reset is held, nanoseconds: longer than a connection waits for its last events, so
/// that the one at the other end is finished first; within the 100 ms in which a line has to appear.
const HELD_NS: u64 = 40_000_000;
/// How long one that no connection has claimed is remembered. Between two sockets of one node a packet
/// waits for nothing but a CPU.
const REMEMBERED_NS: u64 = 5_000_000_000;
/// The most that are held, and the most that are remembered; a SYN flood to a closed port must not grow
/// memory.
const LIMIT: usize = 16_384;

/// A reset that belongs to no connection.
#[derive(Clone, Copy, Debug)]
pub struct Stray {
    /// The first record.
    pub base: Base,
    /// How many there were.
    pub count: u32,
    /// The connection at the other end.
    pub peer: Option<Id>,
}

/// One that is held, or was told and is remembered.
#[derive(Debug)]
struct Entry {
    stray: Stray,
    /// Whoever sent it: of several the first and the last.
    by: [Option<Sender>; 2],
    /// When the last one was sent.
    last: u64,
    told: bool,
}

impl Entry {
    /// Whether this one is one more of the same. Not where a connection has claimed it: the next one from the same port
    /// claims its own.
    fn takes(&self, base: &Base) -> bool {
        let Self { stray, told, .. } = self;
        let what = |base: &Base| (base.netns, base.kind);
        !told && stray.peer.is_none() && what(&stray.base) == what(base)
    }

    fn is_single(&self) -> bool {
        self.stray.count == 1
    }

    fn netns(&self) -> u32 {
        self.stray.base.netns
    }

    fn tuple(&self) -> Tuple {
        Tuple::of(&self.stray.base)
    }

    fn key(&self) -> Key {
        Key {
            netns: self.netns(),
            tuple: self.tuple(),
            ktime: self.stray.base.ktime,
        }
    }
}

/// Which one: its time tells it from a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    netns: u32,
    tuple: Tuple,
    ktime: u64,
}

/// Those that are held or remembered.
#[derive(Debug, Default)]
pub struct Strays {
    /// By the addresses alone, which are looked for in all namespaces.
    known: HashTable<Entry>,
    /// Which of them has this sequence number, of those of which that is known.
    by_seq: HashMap<u32, Key>,
    hasher: DefaultHashBuilder,
    held: VecDeque<Key>,
    told: VecDeque<Key>,
    /// They were received: no connection claims them.
    received: bool,
    /// The last one that was forgotten before its time.
    forgotten: Option<u64>,
}

impl Strays {
    /// For those that this node received.
    pub fn received() -> Self {
        Self {
            received: true,
            ..Self::default()
        }
    }

    /// One more. Returns one that has to go at once because too many are held.
    pub fn insert(&mut self, base: &Base, by: Option<Sender>) -> Option<Stray> {
        let tuple = Tuple::of(base);
        let stray = Stray {
            base: *base,
            count: 1,
            peer: None,
        };
        let told = false;
        let entry = Entry {
            stray,
            by: [by, None],
            last: base.ktime,
            told,
        };
        let mut key = entry.key();
        let hash = self.hasher.hash_one(tuple);
        let same = |held: &Entry| held.tuple() == tuple && held.takes(base);
        let is_new = if let Some(held) = self.known.find_mut(hash, same) {
            held.stray.count += 1;
            held.last = base.ktime;
            key = held.key();
            let [first, last] = &mut held.by;
            let before = if *first == by {
                None
            } else {
                mem::replace(last, by)
            };
            self.forget_seqs([before, None]);
            false
        } else {
            let Self { known, hasher, .. } = self;
            known.insert_unique(hash, entry, |entry| hasher.hash_one(entry.tuple()));
            true
        };
        if let Some(by) = by {
            self.by_seq.insert(by.reset_seq(), key);
        }
        if !is_new {
            return None;
        }
        self.held.push_back(key);
        if self.held.len() > LIMIT {
            self.pop()
        } else {
            None
        }
    }

    /// One that has no line of its own, for the other end to claim. Where too many are held it is forgotten at once.
    pub fn remember(&mut self, base: &Base, by: Option<Sender>) {
        if self.held.len() < LIMIT {
            let _none_has_to_go = self.insert(base, by);
        } else {
            self.forgotten = self.forgotten.max(Some(base.ktime));
        }
    }

    /// The reset that the other end of `tuple` was sent within that time; it belongs to the connection `id` from now
    /// on. Its own namespace is preferred, because a pair of addresses may exist in several.
    pub fn claim(
        &mut self,
        netns: u32,
        tuple: &Tuple,
        lived: RangeInclusive<u64>,
        id: Id,
    ) -> Option<Base> {
        let key = self.choose(netns, tuple, &lived)?.key();
        self.claimed(&key, id)
    }

    /// Whether there is one that [`Self::claim`] finds.
    pub fn knows(&self, netns: u32, tuple: &Tuple, lived: &RangeInclusive<u64>) -> bool {
        self.choose(netns, tuple, lived).is_some()
    }

    fn choose(&self, netns: u32, tuple: &Tuple, lived: &RangeInclusive<u64>) -> Option<&Entry> {
        if self.known.is_empty() {
            return None;
        }
        let candidates = || self.sent_to(tuple, lived);
        let first = |entry: &&Entry| entry.stray.base.ktime;
        let own = candidates().filter(|entry| entry.netns() == netns);
        own.min_by_key(first).or_else(|| {
            let others = || candidates().filter(|_| !tuple.is_loopback());
            let one = others().min_by_key(first)?;
            others()
                .all(|other| other.netns() == one.netns())
                .then_some(one)
        })
    }

    /// Those that the other end of `tuple` was sent within that time.
    fn sent_to(&self, tuple: &Tuple, lived: &RangeInclusive<u64>) -> impl Iterator<Item = &Entry> {
        let reversed = tuple.reversed();
        let in_time = |entry: &Entry| {
            entry.last >= *lived.start() && was_sent_until(*lived.end(), &entry.stray.base)
        };
        let all = self.known.iter_hash(self.hasher.hash_one(reversed));
        all.filter(move |entry| entry.tuple() == reversed && in_time(entry))
    }

    /// The reset that the other end sent until then to a socket with these counters, where the two do not know each other by their
    /// addresses.
    pub fn claim_translated(&mut self, received: &Stats, until: u64, id: Id) -> Option<Base> {
        let key = *self.by_seq.get(&obeyed_seq(received))?;
        let entry = self.find(&key)?;
        let Entry { stray, by, .. } = entry.get();
        let fits = by.iter().flatten().any(|sender| sender.reaches(received));
        (fits && was_sent_until(until, &stray.base)).then_some(())?;
        self.claimed(&key, id)
    }

    /// It belongs to that connection from now on; one that was told is not claimed again.
    fn claimed(&mut self, key: &Key, id: Id) -> Option<Base> {
        let mut entry = self.find(key)?;
        let Entry { stray, told, .. } = entry.get_mut();
        let base = stray.base;
        if !*told {
            stray.peer = Some(id);
        } else if entry.get().is_single() {
            self.remove(key);
        }
        Some(base)
    }

    /// Whether every one that may have reached a connection until `at` could be claimed.
    pub fn knew_all(&self, at: u64) -> bool {
        self.forgotten
            .is_none_or(|forgotten| forgotten.saturating_add(REMEMBERED_NS) < at)
    }

    /// The next one that was held long enough at `now`.
    pub fn due(&mut self, now: u64) -> Option<Stray> {
        while let Some(key) = self.told.front().copied()
            && key.ktime.saturating_add(REMEMBERED_NS) <= now
        {
            self.told.pop_front();
            self.remove(&key);
        }
        if self.held.front()?.ktime.saturating_add(HELD_NS) > now {
            return None;
        }
        self.pop()
    }

    /// The one that is held longest; remembered if no connection has claimed it.
    fn pop(&mut self) -> Option<Stray> {
        let key = self.held.pop_front()?;
        let received = self.received;
        let mut entry = self.find(&key)?;
        entry.get_mut().told = true;
        let stray = entry.get().stray;
        // Of several one may be that of a connection which has yet to claim it.
        let is_claimed = stray.peer.is_some() && entry.get().is_single();
        if is_claimed || received {
            return self.remove(&key);
        }
        self.told.push_back(key);
        if self.told.len() > LIMIT
            && let Some(key) = self.told.pop_front()
            && self.remove(&key).is_some()
        {
            self.forgotten = self.forgotten.max(Some(key.ktime));
        }
        Some(stray)
    }

    /// Forgets one, if it is still remembered.
    fn remove(&mut self, key: &Key) -> Option<Stray> {
        let (Entry { stray, by, .. }, _) = self.find(key)?.remove();
        self.forget_seqs(by);
        Some(stray)
    }

    fn forget_seqs(&mut self, by: [Option<Sender>; 2]) {
        for by in by.into_iter().flatten() {
            self.by_seq.remove(&by.reset_seq());
        }
    }

    fn find(&mut self, key: &Key) -> Option<OccupiedEntry<'_, Entry>> {
        let hash = self.hasher.hash_one(key.tuple);
        self.known
            .find_entry(hash, |entry| entry.key() == *key)
            .ok()
    }
}

/// What a reset was that belongs to no connection; `None` where it may have been no such reset at all: a packet that was
/// dropped for a reason that is not told may be a copy, made for a packet socket.
pub(super) fn kind_of(context: &Context, base: &Base) -> Option<StrayKind> {
    Some(match base.kind {
        kind::RESET_SENT_NO_SOCKET if base.old & (SYN | ACK) == SYN => StrayKind::NoListener,
        kind::RESET_SENT_NO_SOCKET => StrayKind::NoSocket,
        kind::RESET_SENT_TIME_WAIT => StrayKind::FromTimeWait,
        kind::RESET_SENT_LISTEN => StrayKind::FromListener,
        kind::RESET_DROPPED => {
            let told = reason::of_stray(context, base).0;
            match (State::from_kernel(base.old), told) {
                (Some(State::TimeWait), _) => StrayKind::InTimeWait,
                (Some(State::Listen | State::NewSynRecv), None) => StrayKind::HalfOpen,
                (_, None) => return None,
                (Some(State::Listen), _) => StrayKind::AtListener,
                (None, Some("TCP_RESET")) => StrayKind::Ignored,
                _ => StrayKind::Unexpected,
            }
        }
        _ => return None,
    })
}

/// Prints a reset that belongs to no connection of this node. It is nobody's: where the owner matters, it is wanted
/// for the connection that it hit.
pub(super) fn print(engine: &Engine, stray: &Stray, clock: &impl WallClock, sink: &mut impl Sink) {
    let base = &stray.base;
    let is_unwanted = engine.context.wanted.by_owner() && stray.peer.is_none();
    if is_unwanted || base.ktime > engine.until {
        return;
    }
    let Some(what) = kind_of(&engine.context, base) else {
        return;
    };
    let what = if was_clients_port(engine, base) {
        what.of_client()
    } else {
        what
    };
    let tuple = Tuple::of(base);
    let (reason, reason_source) = reason::of_stray(&engine.context, base);
    let meaning = playbook::stray(what);
    let mut record = StrayReset {
        schema: Schema,
        kind: ResetType,
        time: clock.at(base.ktime),
        seq: 0,
        peer_id: stray.peer,
        netns: (base.netns != 0).then_some(base.netns),
        family: Some(tuple.family()),
        local: Some(tuple.local()),
        remote: Some(tuple.remote()),
        direction: what.direction(),
        reason,
        reason_source,
        count: stray.count,
        flag: (what == StrayKind::NoListener).then_some(Flag::ResetBeforePayload),
        cause: meaning.cause,
        layer: Some(meaning.layer),
        hint: meaning.hint,
    };
    sink.reset(&mut record, stray.count);
}

/// Whether its local port was a client's: the kernel gives it to clients, and nobody is known to have listened on it.
fn was_clients_port(engine: &Engine, base: &Base) -> bool {
    let Context {
        knows_listeners,
        local_ports,
        ..
    } = &engine.context;
    let given_to_clients = local_ports.as_ref();
    // Where the namespace is not known, neither is who listens there.
    let knows_listeners = *knows_listeners && base.netns != 0;
    knows_listeners
        && given_to_clients.is_some_and(|ports| ports.contains(&base.local_port))
        && !engine.listeners.ever(base.netns, base.local_port)
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
        assert!(strays.insert(&base(1, 1, 5), None).is_none());
        assert!(strays.insert(&base(2, 1, 5), None).is_none());
        assert!(strays.insert(&base(3, 2, 5), None).is_none());
        assert!(strays.due(HELD_NS).is_none());
        assert_eq!(strays.due(u64::MAX).map(|stray| stray.count), Some(2));
        assert_eq!(strays.due(u64::MAX).map(|stray| stray.count), Some(1));
        assert!(strays.due(u64::MAX).is_none());
    }

    #[test]
    fn the_other_end_claims_its_own() {
        let mut strays = Strays::default();
        strays.insert(&base(1, 1, 5), None);
        let client = Tuple::of(&base(1, 1, 5)).reversed();
        assert!(
            strays.claim(9, &client, 0..=9, ID).is_some(),
            "another namespace, but only one such"
        );
        strays.insert(&base(1, 2, 5), None);
        assert!(
            strays.claim(9, &client, 0..=9, ID).is_none(),
            "it could be either"
        );
        assert_eq!(
            strays.claim(2, &client, 0..=9, ID).map(|base| base.netns),
            Some(2)
        );
        assert_eq!(strays.due(u64::MAX).and_then(|stray| stray.peer), Some(ID));
    }

    /// A port that is refused again and again, from the same port.
    #[test]
    fn of_several_each_can_be_claimed() {
        let mut strays = Strays::default();
        let client = Tuple::of(&base(1, 1, 5)).reversed();
        for ktime in [10, 20, 30] {
            strays.insert(&base(ktime, 1, 5), None);
            assert!(strays.knows(1, &client, &(ktime - 1..=ktime + 1)));
            assert!(!strays.knows(1, &client, &(ktime + 1..=ktime + 2)));
        }
    }

    #[test]
    fn one_that_was_told_can_still_be_claimed_for_a_while() {
        let client = Tuple::of(&base(1, 1, 5)).reversed();
        let mut strays = Strays::default();
        strays.insert(&base(1, 1, 5), None);
        assert!(strays.due(1 + HELD_NS).is_some());
        assert!(strays.claim(1, &client, 0..=9, ID).is_some());
        assert!(strays.claim(1, &client, 0..=9, ID).is_none(), "it is taken");
        strays.insert(&base(1, 1, 5), None);
        assert!(strays.due(1 + HELD_NS).is_some());
        assert!(strays.due(1 + REMEMBERED_NS).is_none());
        assert!(
            strays.claim(1, &client, 0..=9, ID).is_none(),
            "it is too old"
        );
        assert!(strays.known.is_empty() && strays.knew_all(2));
    }

    /// Connections from the same port, one right after the other: each ended by a reset, and looked for a while later.
    #[test]
    fn what_comes_while_one_is_held_is_the_next_connections() {
        let mut strays = Strays::default();
        let client = Tuple::of(&base(1, 1, 5)).reversed();
        let claims = |strays: &mut Strays, at| strays.claim(1, &client, at..=at, ID).is_some();
        strays.insert(&base(10, 1, 5), None);
        assert!(claims(&mut strays, 10));
        // Its line is for another connection than the first one's.
        strays.insert(&base(20, 1, 5), None);
        strays.insert(&base(30, 1, 5), None);
        let told = [10, 20].map(|first| strays.due(first + HELD_NS).map(|stray| stray.count));
        assert_eq!(told, [Some(1), Some(2)]);
        // And one for the same addresses that was sent for something else.
        let other = Base {
            kind: kind::RESET_SENT_TIME_WAIT,
            ..base(40, 1, 5)
        };
        strays.insert(&other, None);
        for at in [20, 30, 40] {
            assert!(claims(&mut strays, at), "{at}");
        }
        assert!(!claims(&mut strays, 50));
        assert!(strays.due(u64::MAX).is_some() && strays.due(u64::MAX).is_none());
        assert!(strays.known.is_empty());
    }

    #[test]
    fn one_behind_a_translation_is_claimed_by_its_numbers() {
        let received = |snd_una| Stats {
            present: u32::MAX,
            snd_una,
            unacked: 1,
            ..Stats::default()
        };
        let mut strays = Strays::default();
        strays.insert(&base(5, 1, 5), Some(Sender::answering(70, 0)));
        // The same client again, from the same port.
        strays.insert(&base(6, 1, 5), Some(Sender::answering(75, 0)));
        strays.insert(&base(7, 1, 5), Some(Sender::answering(80, 0)));
        for (number, until, is_its) in [
            (75, 9, false),
            (81, 9, false),
            (80, 4, false),
            (70, 5, true),
            (80, 5, true),
        ] {
            let found = strays.claim_translated(&received(number), until, ID);
            assert_eq!(found.is_some(), is_its, "{number} {until}");
        }
        let stray = strays.due(u64::MAX).unwrap();
        assert_eq!((stray.count, stray.peer), (3, Some(ID)));
        assert!(strays.due(u64::MAX).is_none() && strays.by_seq.is_empty());
        // One that was told.
        strays.insert(&base(7, 1, 5), Some(Sender::answering(90, 0)));
        assert!(strays.due(7 + HELD_NS).is_some());
        assert!(strays.claim_translated(&received(90), 9, ID).is_some());
        assert!(strays.claim_translated(&received(90), 9, ID).is_none());
        assert!(strays.by_seq.is_empty() && strays.known.is_empty());
    }

    #[test]
    fn none_is_claimed_that_was_sent_after_what_it_would_explain() {
        let client = Tuple::of(&base(1, 1, 5)).reversed();
        for (kind, claimed) in [
            (kind::RESET_SENT_NO_SOCKET, false),
            (kind::RESET_SENT_ACTIVE, true),
        ] {
            let mut strays = Strays::default();
            let reset = Base {
                kind,
                ..base(9, 1, 5)
            };
            strays.insert(&reset, None);
            assert_eq!(strays.claim(1, &client, 0..=8, ID).is_some(), claimed);
        }
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut strays = Strays::default();
        let mut out = 0;
        for netns in 0..3 {
            for port in 0..10_000 {
                let by = Sender::answering(netns << 16 | u32::from(port), 0);
                out += usize::from(strays.insert(&base(1, netns, port), Some(by)).is_some());
            }
        }
        assert!(strays.by_seq.len() <= 2 * LIMIT);
        assert_eq!(strays.held.len() + out, 30_000);
        assert!(strays.held.len() <= LIMIT && strays.knew_all(1));
        strays.remember(&base(2, 9, 9), None);
        assert!(strays.held.len() <= LIMIT && !strays.knew_all(2 + REMEMBERED_NS));
        while strays.due(1 + HELD_NS).is_some() {}
        assert!(strays.known.len() <= LIMIT && strays.told.len() <= LIMIT);
        assert!(!strays.knew_all(2 + REMEMBERED_NS) && strays.knew_all(3 + REMEMBERED_NS));
    }
}
