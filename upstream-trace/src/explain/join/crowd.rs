//! Lines that several connections fit wait for each other, and are settled together: by their order, by nearness, or as ambiguous.
//!
//! Must not know: how an order tells which connection is whose.

use std::net::SocketAddr;

use super::{
    Answer, Asked, By, Join, MILLISECOND, NAMED, SLACK, Sureness, Waiting, done,
    find::BYS,
    order::{self, Cut, Ended, Lines},
};
use crate::explain::{
    meaning::{Expected, Nature, Verdicts},
    window::Number,
};

/// Lines of one kind that wait for each other at most.
pub(super) const CROWD: usize = 4_096;
/// How long they wait for each other.
const LONG: u64 = 2_500 * MILLISECOND;

/// What makes lines so alike that only their order tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    log: usize,
    pid: Option<u32>,
    upstream: Option<SocketAddr>,
}

/// Lines that wait for each other.
#[derive(Debug)]
pub(super) struct Crowd {
    lines: Vec<Number>,
    began: u64,
    ended: u64,
    since: Cut,
}

impl Join {
    pub(super) fn join_crowd(&mut self, number: Number, asked: Asked) -> Waiting {
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
    pub(super) fn close_crowds(&mut self, lines: u64) {
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
        order::sort(&mut lines);
        lines
    }

    /// Settles the lines before the widest gap of the later half. What is behind it stays a crowd.
    fn settle_beginning(&mut self, crowd: &Crowd) -> Crowd {
        let mut lines = self.lines_of(crowd);
        let all = order::gaps(&lines);
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
        let mut left = Vec::new();
        for (expected, lines) in meanings {
            let lines = self.settle_by_order(lines, since, until);
            let moments: Vec<_> = lines.iter().map(|(_, line)| line.close()).collect();
            for (number, line) in lines {
                if let Some((by, one)) = self.nearest_of(&line, expected, &moments) {
                    let answer = self.sure(line, Sureness::Nearest, by, vec![one]);
                    self.put(number, answer);
                } else {
                    left.push((number, line, expected));
                }
            }
        }
        // What no other has is known only now.
        for (number, line, expected) in left {
            let answer = self.ambiguous(line, expected, until);
            self.put(number, answer);
        }
        sure
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
                let free = self.free(&lines, by, verdicts);
                let found = order::pairs(&lines, &free, since, until, by);
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

    /// What the lines may have, which are alike but for their time and meaning, in order of time.
    fn free(&self, lines: &[(Number, Asked)], by: By, verdicts: Verdicts) -> Vec<Ended> {
        let (Some((_, first)), Some((_, last))) = (lines.first(), lines.last()) else {
            return Vec::new();
        };
        let moment = (first.moment(SLACK).0, last.moment(SLACK).1);
        let found = self.look(first, by, verdicts, moment, usize::MAX);
        let held = found
            .into_iter()
            .filter_map(|number| Some((number, self.window.get(number)?)));
        let free = held.filter(|(_, held)| held.taken & first.bit() == 0);
        let free = free.map(|(number, held)| Ended {
            at: held.brief.left,
            number,
            verdict: held.brief.verdict,
        });
        let mut free: Vec<_> = free.collect();
        free.sort_unstable_by_key(|ended| (ended.at, ended.number));
        free
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

    /// All that fit, the nearest named. Those behind `until` may be other lines'.
    fn ambiguous(&mut self, asked: Asked, expected: Expected, until: Option<u64>) -> Waiting {
        let moment = asked.failed.ended.from;
        for by in BYS {
            // Those of other lines are none of this one's.
            let mut found = self.candidates(&asked, expected, by, asked.bit(), CROWD);
            if found.is_empty() {
                continue;
            }
            if let &[one] = found.as_slice() {
                let left = self.window.get(one).map(|held| held.brief.left);
                if until.is_some_and(|until| left >= Some(until)) {
                    break;
                }
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
