//! Which connection failed the request of a log line, and how sure that is.
//!
//! By both addresses where the log has them. Else by owner, destination and time: first whoever alone fits; then, where as many
//! connections as lines fit each other, by their order; and last whoever alone fits closely. What is left is ambiguous and says so.
//! A moment on a busy machine is long: by nearness alone a line would take the connection of the line behind it.
//! Must not know: where lines and records come from, how an answer is spelled.

use std::{collections::VecDeque, iter, net::SocketAddr};

use hashbrown::HashMap;

use super::{
    log::{Failed, Format},
    meaning::{Expected, Nature, Verdicts},
    story::Brief,
    window::{Held, Kind, Number, Window},
};
use crate::record::{Role, Verdict, words};

const MILLISECOND: u64 = 1_000_000;
/// How far a log line and the moment when the proxy left its connection may be apart.
pub const SLACK: u64 = 1_000 * MILLISECOND;
/// How far they are where neither waits for a processor.
const CLOSE: u64 = 30 * MILLISECOND;
/// How far a line may be before what it tells of: a proxy looks at its clock once for all that has happened.
const EARLY: u64 = MILLISECOND;
/// Lines of one kind that wait for each other at most.
const CROWD: usize = 4_096;
/// How long they wait for each other.
const LONG: u64 = 2_500 * MILLISECOND;
/// Candidates that are named at most.
pub const NAMED: usize = 4;

words!(
    /// How a log line and a connection were brought together, surest first.
    Sureness {
        /// Both addresses and the time are the same.
        Exact = "exact",
        /// No other connection fits by owner, destination and time.
        Unique = "unique",
        /// No other connection fits as closely in time.
        Nearest = "nearest",
        /// As many connections as log lines fit, so each got its own by their order.
        Order = "order",
        /// Several connections fit.
        Ambiguous = "ambiguous",
        /// No connection fits.
        None = "none",
        /// The reason is not in an upstream connection.
        Elsewhere = "elsewhere",
    }
);

words!(
    /// By what the owner of the connection was known.
    By {
        Addresses = "addresses",
        Pid = "pid",
        Name = "name",
        /// The tracer names no owner, or the log does not.
        Nobody = "nobody",
    }
);

/// How an owner can be known without both addresses, surest first.
const BYS: [By; 3] = [By::Pid, By::Name, By::Nobody];

/// A log line with what it needs to be found again.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which of the logs.
    pub log: usize,
    /// The line's number in it.
    pub line: u64,
    pub failed: Box<Failed>,
}

impl Asked {
    /// The log's bit in [`Held::taken`].
    fn bit(&self) -> u64 {
        1 << (self.log % 64)
    }

    fn allows(&self, verdict: Verdict) -> bool {
        match self.failed.nature {
            Nature::Connection(expected) => expected.likely.or(expected.possible).has(verdict),
            Nature::Elsewhere(_) => false,
        }
    }

    /// Up to when its connection may have ended: it is told of what has happened, but ends what it waits for no longer when it pleases.
    fn latest(&self) -> u64 {
        let early = match self.failed.nature {
            Nature::Connection(expected) if expected.is_timeout() => CLOSE,
            _ => EARLY,
        };
        self.failed.ended.to.saturating_add(early)
    }

    /// When its connection ended, where neither waits for a processor.
    fn close(&self) -> (u64, u64) {
        (self.moment(CLOSE).0, self.latest())
    }

    /// When its connection may have ended.
    pub fn moment(&self, slack: u64) -> (u64, u64) {
        let ended = self.failed.ended;
        (
            ended.from.saturating_sub(slack),
            ended.to.saturating_add(slack),
        )
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Answer {
    pub asked: Asked,
    pub sureness: Sureness,
    pub by: Option<By>,
    /// The connection, or the nearest of several.
    pub found: Vec<Number>,
    /// How many fit, as far as they were counted.
    pub candidates: usize,
    /// Those that are not among the nearest have the same verdict.
    pub alike: bool,
}

/// What makes lines so alike that only their order tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    log: usize,
    pid: Option<u32>,
    upstream: Option<SocketAddr>,
}

#[derive(Debug)]
struct Crowd {
    lines: Vec<Number>,
    began: u64,
    ended: u64,
    since: Cut,
}

/// The beginning of a crowd, or of what is left of it when its first lines are settled.
#[derive(Clone, Copy, Debug)]
struct Cut {
    at: u64,
    /// No connection of these lines is before it, and none of those settled behind it.
    sure: bool,
}

impl Cut {
    /// Where no line was before.
    const NONE: Self = Self { at: 0, sure: true };
    /// Between lines of one time, of which more may come.
    const NOWHERE: Self = Self {
        at: u64::MAX,
        sure: false,
    };
}

/// Lines with their numbers, in order of time.
type Lines = Vec<(Number, Asked)>;

/// What lies between two lines, as far as the log's clock tells them apart.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Lines before it.
    lines: usize,
    /// The middle.
    at: u64,
    width: u64,
}

#[derive(Debug)]
enum Waiting {
    Open(Asked),
    Crowded(Asked),
    Done(Answer),
    /// Taken out for the moment.
    Gone,
}

/// Joins lines with records; answers come in the order of the lines.
#[derive(Debug)]
pub struct Join {
    pub window: Window,
    /// The name of the proxy's processes, where it is not the usual one.
    process: Option<String>,
    /// How long records are kept, nanoseconds.
    keep: u64,
    waiting: VecDeque<Waiting>,
    /// The number of the first line that waits.
    first: Number,
    /// Lines before this one are no longer [`Waiting::Open`].
    opened: Number,
    crowds: HashMap<Key, Crowd>,
    lacks: u64,
}

impl Join {
    /// Keeps records for `keep` nanoseconds.
    pub fn new(process: Option<String>, keep: u64) -> Self {
        Self {
            window: Window::default(),
            process,
            keep,
            waiting: VecDeque::new(),
            first: 0,
            opened: 0,
            crowds: HashMap::new(),
            lacks: 0,
        }
    }

    /// Up to when records have to be known before a line can be answered.
    pub const fn needs(failed: &Failed) -> u64 {
        match failed.nature {
            Nature::Elsewhere(_) => 0,
            Nature::Connection(_) => failed.ended.to.saturating_add(SLACK),
        }
    }

    /// The same for lines that have not been answered for want of records: a proxy that gave up on a dead peer has its record late.
    pub const fn lacks(&self) -> u64 {
        self.lacks
    }

    /// Takes the next line.
    pub fn ask(&mut self, asked: Asked) {
        self.waiting.push_back(Waiting::Open(asked));
    }

    /// Answers what can be answered: all records up to `records` and all lines up to `lines` are known.
    pub fn answer(&mut self, records: u64, lines: u64, mut answered: impl FnMut(&Window, &Answer)) {
        self.open(records);
        self.close_crowds(lines);
        while let Some(Waiting::Done(answer)) = self.waiting.front() {
            answered(&self.window, answer);
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// Forgets records that no line can need any more.
    pub fn expire(&mut self, lines: u64) {
        // Those of lines that wait are never so old, unless no record comes any more.
        self.window.expire(lines.saturating_sub(self.keep));
    }

    fn slot(&mut self, number: Number) -> Option<&mut Waiting> {
        let index = number.checked_sub(self.first)?;
        self.waiting.get_mut(usize::try_from(index).ok()?)
    }

    fn open(&mut self, records: u64) {
        let mut number = self.opened.max(self.first);
        let mut all = true;
        self.lacks = 0;
        while let Some(slot) = self.slot(number) {
            if matches!(slot, Waiting::Open(_))
                && let Waiting::Open(asked) = std::mem::replace(slot, Waiting::Gone)
            {
                let next = self.consider(number, asked, records);
                all &= !matches!(next, Waiting::Open(_));
                if let Some(slot) = self.slot(number) {
                    *slot = next;
                }
            }
            number += 1;
            if all {
                self.opened = number;
            }
        }
    }

    /// One line: answered, left open, or put into a crowd.
    fn consider(&mut self, number: Number, asked: Asked, records: u64) -> Waiting {
        let failed = &asked.failed;
        let expected = match failed.nature {
            Nature::Elsewhere(_) => return done(asked, Sureness::Elsewhere, None, Vec::new(), 0),
            Nature::Connection(expected) => expected,
        };
        if let (Some(local), Some(upstream)) = (failed.local, failed.upstream) {
            let found = self.exact(&asked, local, upstream);
            let patience = failed.ended.to.saturating_add(self.keep);
            return match found.len() {
                0 if records >= patience => done(asked, Sureness::None, None, found, 0),
                0 => {
                    self.lacks = self.lacks.max(patience);
                    Waiting::Open(asked)
                }
                1 => self.sure(asked, Sureness::Exact, By::Addresses, found),
                several => done(
                    asked,
                    Sureness::Ambiguous,
                    Some(By::Addresses),
                    found,
                    several,
                ),
            };
        }
        if failed.upstream.is_none() && failed.format.names_servers() {
            return done(asked, Sureness::None, None, Vec::new(), 0);
        }
        if records < Self::needs(failed) {
            return Waiting::Open(asked);
        }
        match self.fitting(&asked, expected) {
            Some((by, fitting)) => match fitting.as_slice() {
                [one] => self.sure(asked, Sureness::Unique, by, vec![*one]),
                _ => self.join_crowd(number, asked),
            },
            None if expected.is_timeout() => self.join_crowd(number, asked),
            None => done(asked, Sureness::None, None, Vec::new(), 0),
        }
    }

    fn sure(&mut self, asked: Asked, sureness: Sureness, by: By, found: Vec<Number>) -> Waiting {
        for number in &found {
            self.window.take(*number, asked.bit());
        }
        done(asked, sureness, Some(by), found, 1)
    }

    /// Connections between these two that lived while the request did. One that failed explains more than one that did not.
    fn exact(&self, asked: &Asked, local: SocketAddr, upstream: SocketAddr) -> Vec<Number> {
        let failed = &asked.failed;
        let (_, to) = asked.moment(SLACK);
        let from = failed.began.saturating_sub(SLACK);
        let numbers = self.window.between(local, upstream).into_iter();
        let living: Vec<_> = numbers
            .filter_map(|number| Some((number, &self.window.get(number)?.brief)))
            .filter(|(_, brief)| brief.ended >= from && brief.started.is_none_or(|at| at <= to))
            .collect();
        let of = |owned: bool| -> Vec<Number> {
            let wanted = |brief: &Brief| !owned || self.owned(failed, brief, By::Name);
            let all = living.iter().filter(|(_, brief)| wanted(brief));
            all.map(|(number, _)| *number).collect()
        };
        // The same addresses may be used in several network namespaces, and again after a moment.
        match of(true) {
            owned if owned.is_empty() => of(false),
            owned if owned.len() > 1 => self.nearest(&owned, failed.ended.from).unwrap_or(owned),
            owned => owned,
        }
    }

    /// The one that ended by far the nearest to `moment`.
    fn nearest(&self, numbers: &[Number], moment: u64) -> Option<Vec<Number>> {
        let mut close = numbers.iter().filter(|number| {
            let held = self.window.get(**number);
            held.is_some_and(|held| held.brief.left.abs_diff(moment) <= CLOSE)
        });
        let only = close.next()?;
        close.next().is_none().then(|| vec![*only])
    }

    /// Connections that fit, by the surest knowledge of the owner that finds any. Two are enough to know of several.
    fn fitting(&self, asked: &Asked, expected: Expected) -> Option<(By, Vec<Number>)> {
        BYS.into_iter().find_map(|by| {
            let found = self.candidates(asked, expected, by, 0, 2);
            (!found.is_empty()).then_some((by, found))
        })
    }

    /// Likely ones, and where none of them is close, those that are possible and close: a healthy connection is always near, but a likely
    /// one that is far may be another line's.
    /// None that the logs `taken` have a line for.
    fn candidates(
        &self,
        asked: &Asked,
        expected: Expected,
        by: By,
        taken: u64,
        most: usize,
    ) -> Vec<Number> {
        let look = |verdicts, moment| {
            let found = self.look(asked, by, verdicts, moment, most).into_iter();
            found.filter_map(|number| Some((number, self.window.get(number)?)))
        };
        let close = asked.moment(CLOSE);
        let likely = look(expected.likely, asked.moment(SLACK));
        let mut found: Vec<_> = likely.filter(|(_, held)| held.taken & taken == 0).collect();
        let is_close = |(_, held): &(Number, &Held)| (close.0..=close.1).contains(&held.brief.left);
        if !found.iter().any(is_close) {
            let possible = look(expected.possible, close);
            found.extend(possible.filter(|(_, held)| held.taken & taken == 0));
        }
        found.into_iter().map(|(number, _)| number).collect()
    }

    /// The connection that alone is close to this line, and to none of the others.
    fn nearest_of(
        &self,
        asked: &Asked,
        expected: Expected,
        others: &[(u64, u64)],
    ) -> Option<(By, Number)> {
        let moment = asked.close();
        for by in BYS {
            let found = self.look(asked, by, expected.likely, moment, 2);
            if found.is_empty() {
                continue;
            }
            let &[one] = found.as_slice() else {
                return None;
            };
            let held = self.window.get(one)?;
            let near = |(from, to): &&(u64, u64)| (*from..=*to).contains(&held.brief.left);
            // This line is one of those.
            let alone = others.iter().filter(near).count() <= 1;
            return (alone && held.taken & asked.bit() == 0).then_some((by, one));
        }
        None
    }

    fn look(
        &self,
        asked: &Asked,
        by: By,
        verdicts: Verdicts,
        moment: (u64, u64),
        most: usize,
    ) -> Vec<Number> {
        let failed = &asked.failed;
        let fits = |(number, held): (Number, &Held)| {
            let brief = &held.brief;
            let fits = verdicts.has(brief.verdict)
                && brief.role != Role::Server
                && self.owned(failed, brief, by);
            fits.then_some(number)
        };
        let failing = self.window.left(Kind::Failed, failed.upstream, moment);
        let mut found: Vec<_> = failing.filter_map(fits).take(most).collect();
        if found.len() < most && verdicts.has(Verdict::Ok) {
            let fine = self.window.left(Kind::Fine, failed.upstream, moment);
            found.extend(fine.filter_map(fits).take(most - found.len()));
        }
        found
    }

    /// Whether the connection belongs to the proxy that wrote the line.
    fn owned(&self, failed: &Failed, brief: &Brief, by: By) -> bool {
        let name = self.process.as_deref().or(failed.format.program());
        match (by, brief.owner) {
            (By::Pid, Some(owner)) => failed.pid == Some(owner.pid),
            (By::Name, Some(owner)) => name.is_some_and(|name| owner.is_called(name)),
            (By::Nobody, Some(_)) => failed.pid.is_none() && name.is_none(),
            // To anywhere there are connections of anybody.
            (By::Nobody, None) => failed.upstream.is_some(),
            (By::Addresses, _) => true,
            _ => false,
        }
    }

    fn join_crowd(&mut self, number: Number, asked: Asked) -> Waiting {
        let ended = asked.failed.ended;
        let key = Key {
            log: asked.log,
            pid: asked.failed.pid,
            upstream: asked.failed.upstream,
        };
        let crowd = self.crowds.entry(key).or_insert(Crowd {
            lines: Vec::new(),
            began: 0,
            ended: 0,
            since: Cut::NONE,
        });
        if crowd.lines.is_empty() {
            crowd.began = ended.from;
        }
        crowd.lines.push(number);
        crowd.ended = crowd.ended.max(ended.to);
        Waiting::Crowded(asked)
    }

    /// Settles crowds that no later line can belong to, and the beginning of those that have become too large.
    fn close_crowds(&mut self, lines: u64) {
        let long = LONG.min(self.keep / 2);
        let closed = |crowd: &Crowd| lines > crowd.ended.saturating_add(2 * SLACK);
        let full = |crowd: &Crowd| {
            let lasted = crowd.ended.saturating_sub(crowd.began);
            crowd.lines.len() >= CROWD || !crowd.lines.is_empty() && lasted > long
        };
        let mut due: Vec<_> = self
            .crowds
            .extract_if(|_, crowd| closed(crowd) || full(crowd))
            .collect();
        // One takes connections from those after it, and a map has no order of its own.
        due.sort_unstable_by_key(|(_, crowd)| crowd.lines.first().copied());
        for (key, crowd) in due {
            if closed(&crowd) {
                let lines = self.lines_of(&crowd);
                self.settle(lines, crowd.since, None);
            } else {
                let rest = self.settle_beginning(&crowd);
                self.crowds.insert(key, rest);
            }
        }
    }

    /// Takes them out of where they wait.
    fn lines_of(&mut self, crowd: &Crowd) -> Lines {
        let mut lines = Lines::new();
        for &number in &crowd.lines {
            if let Some(slot) = self.slot(number)
                && let Waiting::Crowded(line) = std::mem::replace(slot, Waiting::Gone)
            {
                lines.push((number, line));
            }
        }
        in_order(&mut lines);
        lines
    }

    /// Settles the lines before the widest gap of the later half. What is behind it stays a crowd.
    fn settle_beginning(&mut self, crowd: &Crowd) -> Crowd {
        let mut lines = self.lines_of(crowd);
        let all = gaps(&lines);
        let late = all.iter().filter(|gap| gap.lines >= lines.len() / 2);
        let widest = late.max_by_key(|gap| gap.width).or_else(|| all.last());
        let (count, at, since) = widest.map_or_else(
            || (lines.len(), crowd.ended, Cut::NOWHERE),
            |gap| (gap.lines, gap.at, crowd.since),
        );
        let rest = lines.split_off(count);
        let sure = self.settle(lines, since, Some(at));
        let crowd = Crowd {
            lines: rest.iter().map(|(number, _)| *number).collect(),
            began: rest.first().map_or(0, |(_, line)| line.failed.ended.from),
            ended: crowd.ended,
            since: Cut { at, sure },
        };
        for (number, line) in rest {
            self.put(number, Waiting::Crowded(line));
        }
        crowd
    }

    /// Settles lines of a crowd, behind which no line comes or those behind `until`. Whether the last of them has its connection by the
    /// order of all: then those of the lines behind it are behind `until` as well.
    fn settle(&mut self, lines: Lines, since: Cut, until: Option<u64>) -> bool {
        let last = lines.last().map(|(number, _)| *number);
        let lines = self.settle_by_order(lines, since, until);
        let sure = lines.last().map(|(number, _)| *number) != last;
        let mut meanings: Vec<(Expected, Lines)> = Vec::new();
        for (number, line) in lines {
            let Nature::Connection(expected) = line.failed.nature else {
                continue;
            };
            match meanings.iter_mut().find(|(known, _)| *known == expected) {
                Some((_, lines)) => lines.push((number, line)),
                None => meanings.push((expected, vec![(number, line)])),
            }
        }
        for (expected, lines) in meanings {
            let lines = self.settle_by_order(lines, since, until);
            let moments: Vec<_> = lines.iter().map(|(_, line)| line.close()).collect();
            for (number, line) in lines {
                let answer = match self.nearest_of(&line, expected, &moments) {
                    Some((by, one)) => self.sure(line, Sureness::Nearest, by, vec![one]),
                    None => self.ambiguous(line, expected),
                };
                self.put(number, answer);
            }
        }
        sure
    }

    fn put(&mut self, number: Number, answer: Waiting) {
        if let Some(slot) = self.slot(number) {
            *slot = answer;
        }
    }

    /// Gives back the lines that cannot be paired.
    fn settle_by_order(&mut self, mut lines: Lines, since: Cut, until: Option<u64>) -> Lines {
        let expected = lines
            .iter()
            .filter_map(|(_, line)| match line.failed.nature {
                Nature::Connection(expected) => Some(expected),
                Nature::Elsewhere(_) => None,
            });
        let Some(all) = expected.reduce(Expected::and) else {
            return lines;
        };
        let possible = all.likely.or(all.possible);
        for by in BYS {
            for verdicts in [all.likely, possible.failed(), possible] {
                let found = self.pair(&lines, by, verdicts, since, until);
                let mut rest = Lines::new();
                for ((number, line), found) in lines.into_iter().zip(found) {
                    if let Some(found) = found {
                        let answer = self.sure(line, Sureness::Order, by, vec![found]);
                        self.put(number, answer);
                    } else {
                        rest.push((number, line));
                    }
                }
                lines = rest;
            }
        }
        lines
    }

    /// The connection of each line, which are alike but for their time and meaning: between two moments when no connection ended, as many of
    /// one as of the other belong together in their order.
    fn pair(
        &self,
        lines: &[(Number, Asked)],
        by: By,
        verdicts: Verdicts,
        since: Cut,
        until: Option<u64>,
    ) -> Vec<Option<Number>> {
        let (Some((_, first)), Some((_, last))) = (lines.first(), lines.last()) else {
            return Vec::new();
        };
        let moment = (first.moment(SLACK).0, last.moment(SLACK).1);
        let found = self.look(first, by, verdicts, moment, usize::MAX);
        let mut free: Vec<_> = found
            .into_iter()
            .filter_map(|number| Some((self.window.get(number)?, number)))
            .filter(|(held, _)| held.taken & first.bit() == 0)
            .map(|(held, number)| (held.brief.left, number, held.brief.verdict))
            .collect();
        free.sort_unstable_by_key(|(left, number, _)| (*left, *number));
        let before = |moment: u64| free.partition_point(|(left, ..)| *left < moment);
        // The connections of the lines before a quiet moment are before it as well, where nothing waits for a processor.
        let quiet = |at: u64| before(at.saturating_sub(CLOSE)) == before(at.saturating_add(CLOSE));
        let one_by_one = by == By::Pid && first.failed.format.is_written_by_one_thread();
        let ends = gaps(lines).into_iter().filter(|gap| quiet(gap.at));
        let ends = ends.map(|gap| (gap.lines, gap.at));
        let mut begin = (0, since.at);
        let mut sure = first.failed.ended.from >= since.at && (since.sure || quiet(since.at));
        let mut pairs = Vec::with_capacity(lines.len());
        for end in ends.chain([(lines.len(), until.unwrap_or(u64::MAX))]) {
            let lines = lines.get(begin.0..end.0).unwrap_or_default();
            let free = free.get(before(begin.1)..before(end.1)).unwrap_or_default();
            let fits = |((_, line), (left, _, verdict)): (&(Number, Asked), &(u64, _, _))| {
                let (from, to) = line.close();
                line.allows(*verdict) && (from..=to).contains(left)
            };
            let fit = sure && free.len() == lines.len() && lines.iter().zip(free).all(fits);
            let plain = if fit && !one_by_one {
                plain(lines, free)
            } else {
                vec![fit; lines.len()]
            };
            let numbers = free.iter().map(|(_, number, _)| *number);
            let numbers = numbers.map(Some).chain(iter::repeat(None));
            pairs.extend(
                plain
                    .into_iter()
                    .zip(numbers)
                    .map(|(plain, number)| number.filter(|_| plain)),
            );
            (begin, sure) = (end, true);
        }
        pairs
    }

    /// All that fit, the nearest named.
    fn ambiguous(&mut self, asked: Asked, expected: Expected) -> Waiting {
        let moment = asked.failed.ended.from;
        for by in BYS {
            // Those of other lines are none of this one's.
            let mut found = self.candidates(&asked, expected, by, asked.bit(), CROWD);
            if found.is_empty() {
                continue;
            }
            if let &[one] = found.as_slice() {
                return self.sure(asked, Sureness::Unique, by, vec![one]);
            }
            let candidates = found.len();
            let verdict = |number: &Number| Some(self.window.get(*number)?.brief.verdict);
            let mut verdicts = found.iter().map(verdict);
            let first = verdicts.next();
            // Beyond so many there may be others.
            let alike = candidates < CROWD && verdicts.all(|verdict| Some(verdict) == first);
            found.sort_by_cached_key(|number| {
                let held = self.window.get(*number);
                held.map(|held| held.brief.left.abs_diff(moment))
            });
            found.truncate(NAMED);
            return Waiting::Done(Answer {
                asked,
                sureness: Sureness::Ambiguous,
                by: Some(by),
                found,
                candidates,
                alike,
            });
        }
        done(asked, Sureness::None, None, Vec::new(), 0)
    }
}

/// Of as many connections as lines, in their order: whether the one at a line's place is its own, although several threads may have swapped
/// what ended at about the same time. A line can have no connection that ended after it, and no two are swapped that are far from each other.
fn plain(lines: &[(Number, Asked)], free: &[(u64, Number, Verdict)]) -> Vec<bool> {
    let mut plain = Vec::with_capacity(lines.len());
    let mut latest = 0;
    let mut begin = 0;
    for (place, (_, line)) in lines.iter().enumerate() {
        latest = latest.max(line.latest());
        let end = place + 1;
        if free.get(end).is_some_and(|(left, ..)| *left <= latest) {
            continue;
        }
        // All lines up to here have ended before any connection behind.
        let knot = free.get(begin..end).unwrap_or_default();
        let lines = lines.get(begin..end).unwrap_or_default();
        for ((own, ..), (_, line)) in knot.iter().zip(lines) {
            let first = knot.partition_point(|(left, ..)| *left < own.saturating_sub(CLOSE));
            let near = knot.iter().skip(first);
            let near = near.take_while(|(left, ..)| *left <= own.saturating_add(CLOSE));
            let mut could = near.filter(|(_, _, verdict)| line.allows(*verdict));
            plain.push(could.nth(1).is_none());
        }
        begin = end;
    }
    plain
}

/// Where one line ended before the next, as far as the log's clock tells.
fn gaps(lines: &[(Number, Asked)]) -> Vec<Gap> {
    let mut ended = lines.first().map_or(0, |(_, line)| line.failed.ended.to);
    let spans = lines.iter().map(|(_, line)| line.failed.ended).enumerate();
    let gaps = spans.skip(1).filter_map(|(lines, span)| {
        let width = span.from.checked_sub(ended);
        let gap = width.map(|width| Gap {
            lines,
            at: ended + width / 2,
            width,
        });
        ended = ended.max(span.to);
        gap
    });
    gaps.collect()
}

/// By time; those that the log's clock does not tell apart stay as they were written, which is when their requests ended.
fn in_order(lines: &mut [(Number, Asked)]) {
    let mut before = 0;
    lines.sort_by_cached_key(|(_, line)| {
        let ended = line.failed.ended;
        if !(ended.from..=ended.to).contains(&before) {
            before = ended.from;
        }
        before
    });
}

fn done(
    asked: Asked,
    sureness: Sureness,
    by: Option<By>,
    found: Vec<Number>,
    candidates: usize,
) -> Waiting {
    Waiting::Done(Answer {
        asked,
        sureness,
        by,
        found,
        candidates,
        alike: candidates <= 1,
    })
}

impl Format {
    /// Whether each line about a server has its address: one without is about none, or about one that is not understood.
    pub const fn names_servers(self) -> bool {
        match self {
            Self::NginxAccess | Self::HaproxyHttp | Self::HaproxyTcp => false,
            Self::Envoy | Self::Istio | Self::EnvoyJson | Self::NginxError | Self::Grpc => true,
        }
    }

    /// Whether a process has but one thread, which writes in the order in which its connections ended.
    const fn is_written_by_one_thread(self) -> bool {
        matches!(self, Self::NginxError | Self::NginxAccess)
    }

    /// What to add to the log so that its lines can be joined by both addresses; `None` where the proxy cannot log it.
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Envoy | Self::EnvoyJson => {
                Some("log %UPSTREAM_LOCAL_ADDRESS% and %UPSTREAM_REMOTE_ADDRESS%")
            }
            Self::Istio
            | Self::NginxError
            | Self::NginxAccess
            | Self::HaproxyHttp
            | Self::HaproxyTcp
            | Self::Grpc => None,
        }
    }
}

#[cfg(test)]
mod tests;
