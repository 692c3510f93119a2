//! The connections that fit one line, among those that all lines like it may have.
//!
//! Must not know: the window, other lines.

use super::{Asked, By, CLOSE, NAMED, crowd::CROWD, order::Ended};
use crate::explain::window::Number;

/// Connections whose owner is known `by`, in order of time.
pub(super) struct Fitting {
    pub(super) by: By,
    /// One that is possible fits as well as one that is likely.
    pub(super) is_even: bool,
    pub(super) likely: Vec<Ended>,
    pub(super) possible: Vec<Ended>,
}

/// Those that fit one line.
pub(super) struct Fit {
    pub(super) by: By,
    pub(super) nearest: Vec<Ended>,
    /// How many, as far as they were counted.
    pub(super) count: usize,
    /// All have one verdict.
    pub(super) alike: bool,
}

impl Fitting {
    /// `None`: none does.
    pub(super) fn fit(&self, asked: &Asked) -> Option<Fit> {
        let can_be = |own: &&Ended| asked.may_begin(own.started);
        let parts = self.near(asked);
        let first = parts.into_iter().flatten().find(can_be)?;
        // Beyond so many there may be others.
        let mut counted = parts
            .into_iter()
            .flat_map(|part| part.iter().take(CROWD).filter(can_be));
        let count = counted.clone().count().min(CROWD);
        let whole = parts.iter().all(|part| part.len() < CROWD);
        Some(Fit {
            by: self.by,
            nearest: nearest(parts, asked.failed.ended.from, can_be),
            count,
            alike: whole && counted.all(|own| own.outcome.verdict == first.outcome.verdict),
        })
    }

    /// Likely ones, and where none of them is close or the words prefer none, those that are possible and close: a healthy connection is
    /// always near, but a likely one that is far may be another line's.
    fn near(&self, asked: &Asked) -> [&[Ended]; 2] {
        let least = asked.least();
        let within = |all, (from, to): (u64, u64)| between(all, (from.max(least), to));
        let mut close = within(&self.likely, asked.close()).iter();
        let possible = if self.is_even || !close.any(|own| asked.may_begin(own.started)) {
            within(&self.possible, asked.moment(CLOSE))
        } else {
            &[]
        };
        [within(&self.likely, asked.moment(asked.slack())), possible]
    }

    /// It is another line's.
    pub(super) fn remove(&mut self, number: Number) {
        for all in [&mut self.likely, &mut self.possible] {
            all.retain(|own| own.number != number);
        }
    }
}

/// Those that ended from `from` to `to`.
fn between(all: &[Ended], (from, to): (u64, u64)) -> &[Ended] {
    let first = all.partition_point(|own| own.at < from);
    let end = all.partition_point(|own| own.at <= to);
    all.get(first..end).unwrap_or_default()
}

/// The few that ended nearest to a moment, the nearest first.
fn nearest(
    parts: [&[Ended]; 2],
    moment: u64,
    can_be: impl Fn(&&Ended) -> bool + Copy,
) -> Vec<Ended> {
    let mut nearest = Vec::with_capacity(4 * NAMED);
    for part in parts {
        let (before, after) = part.split_at(part.partition_point(|own| own.at < moment));
        nearest.extend(before.iter().rev().filter(can_be).take(NAMED));
        nearest.extend(after.iter().filter(can_be).take(NAMED));
    }
    nearest.sort_unstable_by_key(|own: &Ended| (own.at.abs_diff(moment), own.at, own.number));
    nearest.truncate(NAMED);
    nearest
}
