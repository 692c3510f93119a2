//! The records of the last moments, found by addresses, by destination and by time.
//!
//! Memory is bounded twice: by the time that a record is kept ([`Window::expire`]) and by [`MOST_BYTES`].
//! Must not know: logs, why a record is asked for.

use std::{collections::VecDeque, hash::BuildHasher as _, iter, mem, net::SocketAddr};

use hashbrown::{DefaultHashBuilder, HashMap};

use super::{
    delta::{Delta, Encoder},
    story::{Brief, Owner},
};
use crate::record::{Role, Verdict};

/// Text of records that is kept at most, as long as it was printed; beyond it the oldest are given up, and counted.
pub const MOST_BYTES: usize = 256 << 20;

/// A record's number, in the order in which they came.
pub type Number = u64;

/// A record that is kept.
#[derive(Debug)]
pub struct Held {
    pub brief: Brief,
    /// The line.
    pub text: Delta,
    /// The logs that have a line for it already, a bit each.
    pub taken: u64,
    /// The one before it in its chain.
    before: Number,
}

/// No record has this number.
const NONE: Number = Number::MAX;
/// What a window has room for at first.
const FEW: usize = 1_024;

/// This end and the other.
type Ends = (SocketAddr, SocketAddr);

impl Held {
    const fn ends(&self) -> Ends {
        (self.brief.local, self.brief.remote)
    }
}

/// The last record of each hash of both addresses; those before it hang on [`Held::before`]. None is taken off: a chain ends with the
/// first record that is forgotten.
#[derive(Debug, Default)]
struct Chains {
    last: Box<[Number]>,
    hasher: DefaultHashBuilder,
}

impl Chains {
    /// For so many records.
    fn new(records: usize) -> Self {
        let last = vec![NONE; records.next_power_of_two()];
        Self {
            last: last.into(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    fn place(&self, ends: Ends) -> usize {
        let mask = self.last.len().saturating_sub(1);
        usize::try_from(self.hasher.hash_one(ends)).unwrap_or(usize::MAX) & mask
    }

    /// The last record of this hash.
    fn last(&self, ends: Ends) -> Number {
        self.last.get(self.place(ends)).copied().unwrap_or(NONE)
    }

    /// Makes the record the last, and returns which was it before.
    fn hang(&mut self, number: Number, ends: Ends) -> Number {
        let last = self.last.get_mut(self.place(ends));
        last.map_or(NONE, |last| mem::replace(last, number))
    }
}

/// Numbers of records by the time at which this end left.
#[derive(Debug, Default)]
struct Times(VecDeque<(u64, Number)>);

impl Times {
    /// The tracer prints nearly in order, so the place is near the end.
    fn insert(&mut self, left: u64, number: Number) {
        let later = self.0.iter().rev().take_while(|(time, _)| *time > left);
        let at = self.0.len() - later.count();
        self.0.insert(at, (left, number));
    }

    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = Number> {
        let first = self.0.partition_point(|(time, _)| *time < from);
        let rest = self.0.iter().skip(first);
        rest.take_while(move |(time, _)| *time <= to)
            .map(|(_, number)| *number)
    }

    /// Forgets records before `oldest`. Those not at the front are forgotten later.
    fn forget(&mut self, oldest: Number) {
        while self.0.front().is_some_and(|(_, number)| *number < oldest) {
            self.0.pop_front();
        }
    }
}

/// Which records are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Failed,
    Fine,
}

/// The records that are kept.
#[derive(Debug, Default)]
pub struct Window {
    records: VecDeque<Held>,
    /// The number of the first of them.
    first: Number,
    bytes: usize,
    failed: HashMap<SocketAddr, Times>,
    fine: HashMap<SocketAddr, Times>,
    /// Failed ones to any destination.
    anywhere: Times,
    /// Each process by its number, as the last record names it, and how many records are its.
    owners: HashMap<u32, (Owner, usize)>,
    chains: Chains,
    encoder: Encoder<(Role, Verdict)>,
    /// Up to here records are forgotten.
    pub forgotten: u64,
    /// Records given up for want of memory.
    pub given_up: u64,
}

impl Window {
    /// Keeps a record.
    pub fn insert(&mut self, brief: Brief, line: &[u8]) {
        let number = self.first + self.records.len() as u64;
        if self.records.len() >= self.chains.last.len() {
            self.chain_anew();
        }
        if brief.role != Role::Server {
            let kind = if brief.outcome.verdict == Verdict::Ok {
                &mut self.fine
            } else {
                self.anywhere.insert(brief.left, number);
                &mut self.failed
            };
            let times = kind.entry(brief.remote).or_default();
            times.insert(brief.left, number);
        }
        if let Some(owner) = brief.owner {
            let (last, count) = self.owners.entry(owner.pid).or_insert((owner, 0));
            *last = owner;
            *count += 1;
        }
        self.bytes += line.len();
        self.records.push_back(Held {
            text: self
                .encoder
                .encode((brief.role, brief.outcome.verdict), line),
            taken: 0,
            before: self.chains.hang(number, (brief.local, brief.remote)),
            brief,
        });
        while self.bytes > MOST_BYTES {
            self.given_up += 1;
            self.forget_first();
        }
    }

    /// Makes room for as many records more.
    fn chain_anew(&mut self) {
        self.chains = Chains::new(FEW.max(2 * self.records.len()));
        for (number, held) in (self.first..).zip(&mut self.records) {
            held.before = self.chains.hang(number, held.ends());
        }
    }

    /// Forgets what ended before `time`.
    pub fn expire(&mut self, time: u64) {
        while self
            .records
            .front()
            .is_some_and(|held| held.brief.ended < time)
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(held) = self.records.pop_front() else {
            return;
        };
        self.first += 1;
        self.bytes -= held.text.len;
        let Brief {
            ended,
            remote,
            role,
            outcome,
            owner,
            ..
        } = held.brief;
        self.forgotten = self.forgotten.max(ended);
        if let Some(Owner { pid, .. }) = owner
            && let Some((_, count)) = self.owners.get_mut(&pid)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&pid);
            }
        }
        if role == Role::Server {
            return;
        }
        let kind = if outcome.verdict == Verdict::Ok {
            &mut self.fine
        } else {
            self.anywhere.forget(self.first);
            &mut self.failed
        };
        if let Some(times) = kind.get_mut(&remote) {
            times.forget(self.first);
            if times.0.is_empty() {
                kind.remove(&remote);
            }
        }
    }

    fn index(&self, number: Number) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// The process with this number, if any record is its.
    pub fn owner(&self, pid: u32) -> Option<Owner> {
        self.owners.get(&pid).map(|(owner, _)| *owner)
    }

    /// The record with this number, while it is kept.
    pub fn get(&self, number: Number) -> Option<&Held> {
        self.records.get(self.index(number)?)
    }

    /// Notes that the log has a line for this record.
    pub fn take(&mut self, number: Number, log: u64) {
        let index = self.index(number);
        if let Some(held) = index.and_then(|index| self.records.get_mut(index)) {
            held.taken |= log;
        }
    }

    /// Connections between these two, this end first, in the order in which they came.
    pub fn between(&self, local: SocketAddr, remote: SocketAddr) -> Vec<Number> {
        let ends = (local, remote);
        let find = |number| Some((number, self.get(number)?));
        let chain = iter::successors(find(self.chains.last(ends)), |(_, held)| find(held.before));
        let between = chain.filter(|(_, held)| held.ends() == ends);
        let mut numbers: Vec<_> = between.map(|(number, _)| number).collect();
        numbers.reverse();
        numbers
    }

    /// Connections to `remote`, or to anywhere, that this end left from `from` to `to`. Fine ones only by destination.
    pub fn left(
        &self,
        kind: Kind,
        remote: Option<SocketAddr>,
        (from, to): (u64, u64),
    ) -> impl Iterator<Item = (Number, &Held)> {
        let times = match (kind, remote) {
            (Kind::Failed, None) => Some(&self.anywhere),
            (Kind::Failed, Some(remote)) => self.failed.get(&remote),
            (Kind::Fine, remote) => remote.and_then(|remote| self.fine.get(&remote)),
        };
        let numbers = times.map(|times| times.between(from, to));
        let numbers = numbers.into_iter().flatten();
        numbers.filter_map(|number| Some((number, self.get(number)?)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::explain::meaning::Outcome;

    pub(in crate::explain) fn brief(ended: u64, ports: [u16; 2], verdict: Verdict) -> Brief {
        let at = |port| SocketAddr::new([127, 0, 0, 1].into(), port);
        let [local, remote] = ports.map(at);
        Brief {
            ended,
            left: ended,
            // Before any line that it is looked for by.
            started: Some(0),
            local,
            remote,
            role: Role::Client,
            owner: Some(Owner::new(7, "envoy")),
            outcome: Outcome {
                verdict,
                ended_here: false,
            },
        }
    }

    fn numbers(window: &Window, kind: Kind, port: u16, range: (u64, u64)) -> Vec<Number> {
        let remote = SocketAddr::new([127, 0, 0, 1].into(), port);
        let found = window.left(kind, Some(remote), range);
        found.map(|(number, _)| number).collect()
    }

    #[test]
    fn found_by_destination_and_time_in_order_of_time() {
        let mut window = Window::default();
        for (ended, port, verdict) in [
            (100, 80, Verdict::Refused),
            (300, 80, Verdict::Refused),
            (200, 80, Verdict::Refused),
            (250, 80, Verdict::Ok),
            (250, 81, Verdict::Refused),
        ] {
            window.insert(brief(ended, [5, port], verdict), b"x");
        }
        assert_eq!(numbers(&window, Kind::Failed, 80, (100, 300)), [0, 2, 1]);
        assert_eq!(numbers(&window, Kind::Failed, 80, (101, 299)), [2]);
        assert_eq!(numbers(&window, Kind::Fine, 80, (0, 999)), [3]);
        let anywhere = window.left(Kind::Failed, None, (200, 299));
        assert_eq!(
            anywhere.map(|(number, _)| number).collect::<Vec<_>>(),
            [2, 4]
        );
    }

    #[test]
    fn found_by_both_ends_in_the_order_of_coming() {
        let mut window = Window::default();
        let ends = |ports: [u16; 2]| ports.map(|port| SocketAddr::new([127, 0, 0, 1].into(), port));
        // More than there is room for at first, each pair twice, and again when the first half is forgotten.
        let count = 2 * FEW as u64;
        for number in 0..3 * count {
            let local = u16::try_from(number % count).unwrap();
            window.insert(brief(number + 10, [local, 8_080], Verdict::Ok), b"x");
            window.expire((number + 10).saturating_sub(2 * count - 1));
        }
        for local in 0..count {
            let [local_end, remote] = ends([u16::try_from(local).unwrap(), 8_080]);
            let found = window.between(local_end, remote);
            assert_eq!(found, [count + local, 2 * count + local]);
            assert!(window.between(remote, local_end).is_empty());
        }
        let (chains, records) = (window.chains.last.len(), window.records.len());
        assert!((records..=4 * records).contains(&chains));
        window.expire(u64::MAX);
        let [local, remote] = ends([5, 8_080]);
        assert!(window.between(local, remote).is_empty());
    }

    #[test]
    fn what_is_old_leaves_nothing_behind() {
        let mut window = Window::default();
        for ended in 1..1_000 {
            let verdict = if ended % 2 == 0 {
                Verdict::Ok
            } else {
                Verdict::Refused
            };
            window.insert(brief(ended + 100, [5, 80], verdict), b"12345");
            window.expire(ended);
        }
        assert!(window.owner(7).is_some() && window.owner(8).is_none());
        assert!(window.records.len() <= 101 && window.bytes == 5 * window.records.len());
        window.expire(u64::MAX);
        assert!(window.failed.is_empty() && window.fine.is_empty());
        assert!(window.owners.is_empty());
        assert!(window.anywhere.0.is_empty() && window.bytes == 0 && window.given_up == 0);
        assert_eq!(window.forgotten, 1_099);
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::default();
        let line = vec![0; MOST_BYTES / 4];
        for ended in 100..110 {
            window.insert(brief(ended, [5, 80], Verdict::Refused), &line);
        }
        assert_eq!((window.given_up, window.records.len()), (6, 4));
    }
}
