//! Which connection failed the request of a log line, and how sure that is.
//!
//! By both addresses where the log has them. Else by owner, destination and time: first whoever alone fits; then, where as many
//! connections as lines fit each other, by their order; and last whoever alone fits closely. What is left is ambiguous and says so.
//! A moment on a busy machine is long: by nearness alone a line would take the connection of the line behind it.
//!
//! Here a line comes, waits and is answered. `find` looks up what fits it, `crowd` settles lines that several connections fit: `order` says
//! which of those are whose, `fit` what is left for one.
//! Must not know: where lines and records come from, how an answer is spelled.

mod crowd;
mod find;
mod fit;
mod order;

use std::collections::VecDeque;

use hashbrown::HashMap;

use self::crowd::{Crowd, Key};
use super::{
    log::Failed,
    meaning::{Expected, Nature, Outcome},
    story::Brief,
    window::{Number, Window},
};
use crate::record::{Verdict, words};

const MILLISECOND: u64 = 1_000_000;
/// How far a log line and the moment when the proxy left its connection may be apart.
pub const SLACK: u64 = 1_000 * MILLISECOND;
/// How far they are where neither waits for a processor.
const CLOSE: u64 = 30 * MILLISECOND;
/// How far a line may be before what it tells of: a proxy looks at its clock once for all that has happened.
const EARLY: u64 = MILLISECOND;
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

/// Logs at most: each has a bit in what a record has explained already ([`Window::take`]).
pub const MOST_LOGS: usize = 64;

/// A log line with what it needs to be found again.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which of the logs, less than [`MOST_LOGS`].
    pub log: usize,
    /// The line's number in it.
    pub line: u64,
    pub failed: Box<Failed>,
}

impl Asked {
    /// The log's bit for [`Window::take`].
    fn bit(&self) -> u64 {
        1 << (self.log % MOST_LOGS)
    }

    fn expected(&self) -> Option<Expected> {
        match self.failed.nature {
            Nature::Connection(expected) => Some(expected),
            Nature::Elsewhere(_) => None,
        }
    }

    fn allows(&self, outcome: Outcome) -> bool {
        let expected = self.expected();
        expected.is_some_and(|expected| expected.likely.or(expected.possible).fits(outcome))
    }

    /// Whether the proxy waited no longer.
    fn waits(&self) -> bool {
        self.expected().is_some_and(Expected::is_timeout)
    }

    /// Up to when its connection may have ended: it is told of what has happened, but ends what it waits for no longer when it pleases.
    fn latest(&self) -> u64 {
        let early = if self.waits() { CLOSE } else { EARLY };
        self.failed.ended.to.saturating_add(early)
    }

    /// When its connection ended, where neither waits for a processor.
    fn close(&self) -> (u64, u64) {
        (self.moment(CLOSE).0, self.latest())
    }

    /// Whether the connection went on when the request was over. What the upstream did after the proxy had waited in vain is not why; only what
    /// the kernel gave up was dead by then.
    pub fn is_outlived(&self, brief: &Brief) -> bool {
        let by_upstream = !brief.outcome.ended_here && brief.outcome.verdict != Verdict::Timeout;
        let slack = if self.waits() && by_upstream {
            EARLY
        } else {
            SLACK
        };
        brief.left > self.moment(slack).1
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
    /// All that fit have another line.
    pub of_others: bool,
    /// The line's time cannot be right.
    pub ahead: bool,
}

impl Answer {
    const fn none(asked: Asked) -> Self {
        Self {
            asked,
            sureness: Sureness::None,
            by: None,
            found: Vec::new(),
            candidates: 0,
            alike: true,
            of_others: false,
            ahead: false,
        }
    }
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

    /// Takes the next line, of a time that cannot be right: nothing is looked for.
    pub fn refuse(&mut self, asked: Asked) {
        let none = match asked.failed.nature {
            Nature::Elsewhere(_) => Sureness::Elsewhere,
            Nature::Connection(_) => Sureness::None,
        };
        self.waiting.push_back(Waiting::Done(Answer {
            sureness: none,
            ahead: true,
            ..Answer::none(asked)
        }));
    }

    /// Answers what can be answered: all records up to `records` and all lines up to `lines` are known.
    pub fn answer(&mut self, records: u64, lines: u64, mut answered: impl FnMut(Answer)) {
        self.open(records);
        self.close_crowds(lines);
        let is_done = |waiting: &mut Waiting| matches!(waiting, Waiting::Done(_));
        while let Some(Waiting::Done(answer)) = self.waiting.pop_front_if(is_done) {
            self.first += 1;
            answered(answer);
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

    fn put(&mut self, number: Number, answer: Waiting) {
        if let Some(slot) = self.slot(number) {
            *slot = answer;
        }
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
                self.put(number, next);
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
        if failed.is_untimed || failed.upstream.is_none() && failed.format.names_servers() {
            return done(asked, Sureness::None, None, Vec::new(), 0);
        }
        if records < Self::needs(failed) {
            return Waiting::Open(asked);
        }
        match self.fitting(&asked, expected) {
            Some((by, fitting)) => match fitting.as_slice() {
                // To anywhere, one that is alone is alone by chance.
                [one]
                    if failed.upstream.is_some()
                        && self.is_close(&asked, *one)
                        && self.may_have(&asked, *one) =>
                {
                    self.sure(asked, Sureness::Unique, by, vec![*one])
                }
                // One that is far may be a nearer line's, which takes it first.
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
}

fn done(
    asked: Asked,
    sureness: Sureness,
    by: Option<By>,
    found: Vec<Number>,
    candidates: usize,
) -> Waiting {
    Waiting::Done(Answer {
        sureness,
        by,
        found,
        candidates,
        alike: candidates <= 1,
        ..Answer::none(asked)
    })
}

#[cfg(test)]
mod tests;
