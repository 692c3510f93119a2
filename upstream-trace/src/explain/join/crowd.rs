//! Lines that several connections fit wait for each other, and are settled together: by their order, by nearness, or as ambiguous.
//!
//! Must not know: how an order tells which connection is whose.

use std::net::SocketAddr;

use super::{
    Answer, Asked, By, Join, MILLISECOND, SLACK, Sureness, Waiting, done,
    fit::{Fit, Fitting},
    order::{self, Cut, Ended, Lines},
};
use crate::{
    explain::{
        log::Format,
        meaning::{Expected, Verdicts},
        window::Number,
    },
    record::Verdict,
};

/// Lines of one kind that wait for each other at most.
pub(super) const CROWD: usize = 4_096;
/// How long they wait for each other.
const LONG: u64 = 2_500 * MILLISECOND;

/// What makes lines so alike that only their order tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    log: usize,
    format: Format,
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
            format: asked.failed.format,
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
            let Some(expected) = line.expected() else {
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
            let moments = Moments::of(&lines, Asked::close);
            let mut rest = Lines::new();
            for (number, line) in lines {
                if let Some((by, one)) = self.nearest_of(&line, expected, &moments) {
                    let answer = self.sure(line, Sureness::Nearest, by, vec![one]);
                    self.put(number, answer);
                } else {
                    rest.push((number, line));
                }
            }
            left.push((expected, rest));
        }
        // What no other has is known only now.
        for (expected, lines) in left {
            self.settle_rest(lines, expected, until);
        }
        sure
    }

    /// Gives back the lines that cannot be paired.
    fn settle_by_order(&mut self, mut lines: Lines, since: Cut, until: Option<u64>) -> Lines {
        let expected = || lines.iter().filter_map(|(_, line)| line.expected());
        let (Some(like), Some(all)) = (Like::of(&lines), expected().reduce(Expected::and)) else {
            return lines;
        };
        // To anywhere, as many are so by chance.
        if like.first.failed.upstream.is_none() {
            return lines;
        }
        let possible = all.likely.or(all.possible);
        let sets: &[Verdicts] = if lines.iter().any(|(_, line)| line.is_even()) {
            &[possible]
        } else if all.likely.has(Verdict::Ok) {
            // A healthy connection is as likely, so that failed ones alone are no set of their own.
            &[all.likely, possible]
        } else {
            &[all.likely, possible.failed(), possible]
        };
        for &by in self.bys(&like.first) {
            let sets = match like.first.failed.pid {
                _ if self.is_one_process(&like.first, by, possible, like.moment) => sets,
                None => &[possible],
                // A process of a container, and its lines are of one.
                Some(_) => continue,
            };
            for &verdicts in sets {
                if lines.is_empty() {
                    return lines;
                }
                let free = self.held(&like, by, verdicts, Whose::Nobodys);
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

    /// Whether all that the line, and those like it, may have by this knowledge of the owner is one process's. Where several are called alike, as in several
    /// containers, what the words prefer may be another's, and the line's own one that is only possible.
    fn is_one_process(
        &self,
        asked: &Asked,
        by: By,
        possible: Verdicts,
        moment: (u64, u64),
    ) -> bool {
        if by == By::Pid {
            return true;
        }
        let held = self.look(asked, by, possible, moment);
        let mut pids = held.map(|(_, held)| held.brief.owner.map(|owner| owner.pid));
        let first = pids.next();
        pids.all(|pid| Some(pid) == first)
    }

    /// What the lines may have, which are alike but for their time and meaning, in order of time.
    fn held(&self, like: &Like, by: By, verdicts: Verdicts, whose: Whose) -> Vec<Ended> {
        let taken = if whose == Whose::Any {
            0
        } else {
            like.first.bit()
        };
        let found = self.look(&like.first, by, verdicts, like.moment);
        let found = found.filter(|(_, held)| held.taken & taken == 0);
        let mut found: Vec<_> = found
            .map(|(number, held)| Ended {
                at: held.brief.left,
                started: held.brief.started,
                pid: held.brief.owner.map(|owner| owner.pid),
                number,
                outcome: held.brief.outcome,
            })
            .collect();
        found.sort_unstable_by_key(|ended| (ended.at, ended.number));
        found
    }

    /// The likely connection that alone is close to this line, and to none of the others.
    fn nearest_of(
        &self,
        asked: &Asked,
        expected: Expected,
        others: &Moments,
    ) -> Option<(By, Number)> {
        let all = expected.likely.or(expected.possible);
        let close = if asked.is_even() {
            all
        } else {
            expected.likely
        };
        for &by in self.bys(asked) {
            let mut found = self
                .look(asked, by, close, asked.close())
                .filter(|(_, held)| asked.can_be(held));
            let Some((one, held)) = found.next() else {
                continue;
            };
            // This line is one of those.
            let alone = found.next().is_none() && others.around(held.brief.left) <= 1;
            // To anywhere only what failed is looked at, so where a healthy one fits as well this one says nothing.
            let tells = asked.failed.upstream.is_some() || !expected.is_even();
            let likely = tells && expected.likely.fits(held.brief.outcome);
            let is_one_process = self.is_one_process(asked, by, all, asked.close());
            let is_free = held.taken & asked.bit() == 0;
            return (alone && likely && is_one_process && is_free).then_some((by, one));
        }
        None
    }

    /// Lines of one meaning that are told apart neither by their order nor by nearness: each with all that fit it.
    fn settle_rest(&mut self, lines: Lines, expected: Expected, until: Option<u64>) {
        let Some(like) = Like::of(&lines) else {
            return;
        };
        let is_even = like.first.is_even();
        let mut free = self.fitting_all(&like, expected, is_even, Whose::Nobodys);
        let near = Moments::of(&lines, |line| line.moment(line.slack()));
        // Looked for only where a line is left with none, or with one that it is not alone with.
        let (mut all, mut even) = (None, None);
        for (number, line) in lines {
            let answer = if let Some(fit) = free.iter().find_map(|owned| owned.fit(&line)) {
                match *fit.nearest.as_slice() {
                    // Behind `until` it may be another line's.
                    [one] if until.is_some_and(|until| one.at >= until) => of_others(line),
                    // What another line may have as well leaves each with what its words mean less often.
                    [one]
                        if line.failed.upstream.is_some()
                            && !line.shares_connections()
                            && near.around(one.at) > 1 =>
                    {
                        let any = || self.fitting_all(&like, expected, true, Whose::Nobodys);
                        let mut even = even.get_or_insert_with(any).iter();
                        let fit = even.find_map(|owned| owned.fit(&line)).unwrap_or(fit);
                        ambiguous(line, &fit, Whose::Nobodys)
                    }
                    [one] if line.failed.upstream.is_some() => {
                        for owned in &mut free {
                            owned.remove(one.number);
                        }
                        self.sure(line, Sureness::Unique, fit.by, vec![one.number])
                    }
                    _ => ambiguous(line, &fit, Whose::Nobodys),
                }
            } else {
                let any = || self.fitting_all(&like, expected, is_even, Whose::Any);
                let mut all = all.get_or_insert_with(any).iter();
                match all.find_map(|owned| owned.fit(&line)) {
                    Some(fit) if line.shares_connections() => ambiguous(line, &fit, Whose::Any),
                    Some(_) => of_others(line),
                    None => done(line, Sureness::None, None, Vec::new(), 0),
                }
            };
            self.put(number, answer);
        }
    }

    /// What each knowledge of the owner finds for lines of this meaning; with `is_even` what is only possible is as good as what is likely.
    fn fitting_all(
        &self,
        like: &Like,
        expected: Expected,
        is_even: bool,
        whose: Whose,
    ) -> Vec<Fitting> {
        let held = |by, verdicts| self.held(like, by, verdicts, whose);
        let all = expected.likely.or(expected.possible);
        let fitting = |by| Fitting {
            by,
            is_even: is_even || !self.is_one_process(&like.first, by, all, like.moment),
            likely: held(by, expected.likely),
            possible: held(by, expected.possible),
        };
        self.bys(&like.first).iter().copied().map(fitting).collect()
    }
}

/// Several fit, or one that another line may have, or one to a server that the line does not name.
fn ambiguous(asked: Asked, fit: &Fit, whose: Whose) -> Waiting {
    Waiting::Done(Answer {
        sureness: Sureness::Ambiguous,
        by: Some(fit.by),
        found: fit.nearest.iter().map(|own| own.number).collect(),
        candidates: fit.count,
        alike: fit.alike,
        of_others: whose == Whose::Any,
        ..Answer::none(asked)
    })
}

/// All that fit are other lines'.
fn of_others(asked: Asked) -> Waiting {
    Waiting::Done(Answer {
        of_others: true,
        ..Answer::none(asked)
    })
}

/// Lines that are alike but for their time and meaning.
struct Like {
    first: Asked,
    /// When their connections may have ended.
    moment: (u64, u64),
}

impl Like {
    fn of(lines: &[(Number, Asked)]) -> Option<Self> {
        let ((_, first), (_, last)) = lines.first().zip(lines.last())?;
        Some(Self {
            first: first.clone(),
            moment: (first.moment(SLACK).0, last.moment(SLACK).1),
        })
    }
}

/// Which connections are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those that no line of the log has.
    Nobodys,
    Any,
}

/// When the connections of several lines may have ended.
struct Moments {
    from: Vec<u64>,
    to: Vec<u64>,
}

impl Moments {
    fn of(lines: &[(Number, Asked)], when: impl Fn(&Asked) -> (u64, u64)) -> Self {
        let (mut from, mut to): (Vec<_>, Vec<_>) = lines.iter().map(|(_, line)| when(line)).unzip();
        from.sort_unstable();
        to.sort_unstable();
        Self { from, to }
    }

    /// How many of them are around this one.
    fn around(&self, at: u64) -> usize {
        let begun = self.from.partition_point(|from| *from <= at);
        begun - self.to.partition_point(|to| *to < at)
    }
}
