//! Which records fit a line, by both addresses or by owner, destination, time and verdict.
//!
//! Must not know: other lines.

use std::net::SocketAddr;

use super::{Asked, By, CLOSE, Join, SLACK};
use crate::{
    explain::{
        log::Failed,
        meaning::{Expected, Verdicts},
        story::Brief,
        window::{Held, Kind, Number},
    },
    record::{Role, Verdict},
};

/// How an owner can be known without both addresses, surest first.
pub(super) const BYS: [By; 3] = [By::Pid, By::Name, By::Nobody];

impl Join {
    /// Connections between these two that lived while the request did. One that failed explains more than one that did not.
    pub(super) fn exact(
        &self,
        asked: &Asked,
        local: SocketAddr,
        upstream: SocketAddr,
    ) -> Vec<Number> {
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

    pub(super) fn is_close(&self, asked: &Asked, number: Number) -> bool {
        let (from, to) = asked.close();
        let held = self.window.get(number);
        held.is_some_and(|held| (from..=to).contains(&held.brief.left))
    }

    /// Connections that fit, by the surest knowledge of the owner that finds any. Two are enough to know of several.
    pub(super) fn fitting(&self, asked: &Asked, expected: Expected) -> Option<(By, Vec<Number>)> {
        BYS.into_iter().find_map(|by| {
            let found = self.candidates(asked, expected, by, 0, 2);
            (!found.is_empty()).then_some((by, found))
        })
    }

    /// Likely ones, and where none of them is close, those that are possible and close: a healthy connection is always near, but a likely
    /// one that is far may be another line's.
    /// None that the logs `taken` have a line for.
    pub(super) fn candidates(
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

    /// Connections that this end left then, by this knowledge of the owner; `most` of them.
    pub(super) fn look(
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
}
