//! The records of the last moments, found by addresses, by destination and by time.
//!
//! Memory is bounded twice: by the time that a record is kept ([`Window::expire`]) and by [`MOST_BYTES`].
//! Must not know: logs, why a record is asked for.

use std::{collections::VecDeque, net::SocketAddr};

use hashbrown::HashMap;

use super::story::Brief;
use crate::record::{Role, Verdict};

/// Text of records that is kept at most; beyond it the oldest are given up, and counted.
pub const MOST_BYTES: usize = 256 << 20;

/// A record's number, in the order in which they came.
pub type Number = u64;

/// A record that is kept.
#[derive(Debug)]
pub struct Held {
    pub brief: Brief,
    /// The line.
    pub text: Box<[u8]>,
    /// The logs that have a line for it already, a bit each.
    pub taken: u64,
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
    /// By local and remote address.
    pairs: HashMap<(SocketAddr, SocketAddr), Vec<Number>>,
    /// Up to here records are forgotten.
    pub forgotten: u64,
    /// Records given up for want of memory.
    pub given_up: u64,
}

impl Window {
    /// Keeps a record.
    pub fn insert(&mut self, brief: Brief, line: &[u8]) {
        let number = self.first + self.records.len() as u64;
        self.pairs
            .entry((brief.local, brief.remote))
            .or_default()
            .push(number);
        if brief.role != Role::Server {
            let kind = if brief.verdict == Verdict::Ok {
                &mut self.fine
            } else {
                self.anywhere.insert(brief.left, number);
                &mut self.failed
            };
            let times = kind.entry(brief.remote).or_default();
            times.insert(brief.left, number);
        }
        self.bytes += line.len();
        self.records.push_back(Held {
            brief,
            text: line.into(),
            taken: 0,
        });
        while self.bytes > MOST_BYTES {
            self.given_up += 1;
            self.forget_first();
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
        self.bytes -= held.text.len();
        let Brief {
            ended,
            local,
            remote,
            role,
            verdict,
            ..
        } = held.brief;
        self.forgotten = self.forgotten.max(ended);
        if let Some(numbers) = self.pairs.get_mut(&(local, remote)) {
            numbers.retain(|number| *number >= self.first);
            if numbers.is_empty() {
                self.pairs.remove(&(local, remote));
            }
        }
        if role == Role::Server {
            return;
        }
        let kind = if verdict == Verdict::Ok {
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

    /// The record with this number, while it is kept.
    pub fn get(&self, number: Number) -> Option<&Held> {
        let index = number.checked_sub(self.first)?;
        self.records.get(usize::try_from(index).ok()?)
    }

    /// Notes that the log has a line for this record.
    pub fn take(&mut self, number: Number, log: u64) {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(held) = index.and_then(|index| self.records.get_mut(index)) {
            held.taken |= log;
        }
    }

    /// Connections between these two, this end first.
    pub fn between(&self, local: SocketAddr, remote: SocketAddr) -> &[Number] {
        self.pairs.get(&(local, remote)).map_or(&[], Vec::as_slice)
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
    use crate::explain::story::Owner;

    pub(in crate::explain) fn brief(ended: u64, ports: [u16; 2], verdict: Verdict) -> Brief {
        let at = |port| SocketAddr::new([127, 0, 0, 1].into(), port);
        let [local, remote] = ports.map(at);
        Brief {
            ended,
            left: ended,
            started: Some(ended - 10),
            local,
            remote,
            role: Role::Client,
            owner: Some(Owner::new(7, "envoy")),
            verdict,
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
        assert!(window.records.len() <= 101 && window.bytes == 5 * window.records.len());
        window.expire(u64::MAX);
        assert!(window.pairs.is_empty() && window.failed.is_empty() && window.fine.is_empty());
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
