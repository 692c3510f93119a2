//! Which records fit a line, by both addresses or by owner, destination, time and verdict.
//!
//! Must not know: other lines.

use std::net::SocketAddr;

use super::{Asked, By, CLOSE, EARLY, Join, SLACK};
use crate::{
    explain::{
        log::{Failed, Format},
        meaning::{Expected, Verdicts},
        story::Brief,
        window::{Held, Kind, Number},
    },
    record::{Role, Verdict},
};

impl Expected {
    /// Whether a connection that only may be meant fits as well as a likely one, where both are close: the proxy ended it when it pleased,
    /// or disliked bytes that the kernel does not look at.
    pub(super) const fn is_even(self) -> bool {
        self.is_timeout() || self.talk.is_some()
    }
}

impl Asked {
    /// Whether a connection that only may be meant fits as well as a likely one: by the line's words, or because a likely one may have no line.
    pub(super) fn is_even(&self) -> bool {
        let by_words = self.expected().is_some_and(Expected::is_even);
        by_words || !self.failed.format.tells_of_each_connection()
    }

    /// Whether its connection may have other requests at the same time.
    pub(super) fn shares_connections(&self) -> bool {
        self.failed.format == Format::Grpc || self.failed.request.ends_with("HTTP/2")
    }

    /// How far its connection may be: to anywhere there is always one within a second.
    pub(super) fn slack(&self) -> u64 {
        self.failed.upstream.map_or(CLOSE, |_| SLACK)
    }

    /// Whether the request can have waited on a connection that began then: none began when it was over.
    pub(super) fn may_begin(&self, started: Option<u64>) -> bool {
        let (from, to) = self.begun();
        started.is_none_or(|at| (from..=to).contains(&at))
    }

    fn begun(&self) -> (u64, u64) {
        let over = self.failed.ended.to.saturating_add(CLOSE);
        let own = self.failed.connected;
        own.map_or((0, over), |own| (own.from, own.to.min(over)))
    }

    /// The earliest end of such a connection: where the proxy waited in vain, it had left none before.
    pub(super) fn least(&self) -> u64 {
        let Failed { began, ended, .. } = *self.failed;
        let waits = self.waits() && began < ended.from;
        if waits {
            began.saturating_sub(EARLY)
        } else {
            0
        }
    }

    pub(super) fn can_be(&self, held: &Held) -> bool {
        let Brief { started, left, .. } = held.brief;
        self.may_begin(started) && left >= self.least()
    }
}

impl Join {
    /// Connections between these two that lived while the request did. One that failed explains more than one that did not.
    pub(super) fn exact(
        &self,
        asked: &Asked,
        local: SocketAddr,
        upstream: SocketAddr,
    ) -> Vec<Number> {
        let failed = &asked.failed;
        let from = failed.began.saturating_sub(SLACK);
        let numbers = self.window.between(local, upstream).into_iter();
        let living: Vec<_> = numbers
            .filter_map(|number| Some((number, &self.window.get(number)?.brief)))
            .filter(|(_, brief)| brief.ended >= from && asked.may_begin(brief.started))
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

    /// Whether no line of the same log has the connection already, unless they can share it.
    pub(super) fn may_have(&self, asked: &Asked, number: Number) -> bool {
        let held = self.window.get(number);
        asked.shares_connections() || held.is_some_and(|held| held.taken & asked.bit() == 0)
    }

    pub(super) fn is_close(&self, asked: &Asked, number: Number) -> bool {
        let (from, to) = asked.close();
        let held = self.window.get(number);
        held.is_some_and(|held| (from..=to).contains(&held.brief.left))
    }

    /// How the owner can be known without both addresses, surest first. A proxy in a container may write a pid that is not the kernel's: then
    /// there is no record of it, or it is another program's, and the name is what is left.
    pub(super) fn bys(&self, asked: &Asked) -> &'static [By] {
        let owner = asked.failed.pid.and_then(|pid| self.window.owner(pid));
        let name = self.name(&asked.failed);
        match owner {
            Some(owner) if name.is_some_and(|name| owner.is_called(name)) => &[By::Pid, By::Nobody],
            Some(_) => &[By::Pid, By::Name, By::Nobody],
            None => &[By::Name, By::Nobody],
        }
    }

    /// The name of the proxy's processes.
    fn name(&self, failed: &Failed) -> Option<&str> {
        self.process.as_deref().or(failed.format.program())
    }

    /// Connections that fit, by the surest knowledge of the owner that finds any. Two are enough to know of several: one that is only
    /// possible and close is another as well.
    pub(super) fn fitting(&self, asked: &Asked, expected: Expected) -> Option<(By, Vec<Number>)> {
        self.bys(asked).iter().find_map(|&by| {
            let likely = self.look(asked, by, expected.likely, asked.moment(asked.slack()));
            let possible = self.look(asked, by, expected.possible, asked.moment(CLOSE));
            let found = likely
                .chain(possible)
                .filter(|(_, held)| asked.can_be(held));
            let found: Vec<_> = found.map(|(number, _)| number).take(2).collect();
            (!found.is_empty()).then_some((by, found))
        })
    }

    /// Connections that this end left then, by this knowledge of the owner: those that failed in order of time, then those that did not.
    pub(super) fn look<'a>(
        &'a self,
        asked: &'a Asked,
        by: By,
        verdicts: Verdicts,
        moment: (u64, u64),
    ) -> impl Iterator<Item = (Number, &'a Held)> {
        let failed = &asked.failed;
        let left = move |kind| self.window.left(kind, failed.upstream, moment);
        let fine = verdicts.has(Verdict::Ok).then(|| left(Kind::Fine));
        let all = left(Kind::Failed).chain(fine.into_iter().flatten());
        all.filter(move |(_, held)| {
            let brief = &held.brief;
            verdicts.fits(brief.outcome)
                && brief.role != Role::Server
                && self.owned(failed, brief, by)
        })
    }

    /// Whether the connection belongs to the proxy that wrote the line.
    fn owned(&self, failed: &Failed, brief: &Brief, by: By) -> bool {
        let name = self.name(failed);
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
}
