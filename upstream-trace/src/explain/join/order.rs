//! Which connection is whose where only their order tells: as many lines as connections between two moments belong together in their order,
//! as far as none of them can be swapped.
//!
//! Must not know: where lines and connections are kept.

use std::iter;

use super::{Asked, By, CLOSE};
use crate::explain::{log::Format, meaning::Outcome, window::Number};

/// Lines with their numbers, in order of time.
pub(super) type Lines = Vec<(Number, Asked)>;

/// A connection that a line may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// When this end left it.
    pub at: u64,
    pub started: Option<u64>,
    /// Of its owner.
    pub pid: Option<u32>,
    pub number: Number,
    pub outcome: Outcome,
}

/// The beginning of a crowd, or of what is left of it when its first lines are settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub at: u64,
    /// No connection of these lines is before it, and none of those settled behind it.
    pub sure: bool,
}

impl Cut {
    /// Where no line was before.
    pub(super) const NONE: Self = Self { at: 0, sure: true };
    /// Between lines of one time, of which more may come.
    pub(super) const NOWHERE: Self = Self {
        at: u64::MAX,
        sure: false,
    };
}

/// What lies between two lines, as far as the log's clock tells them apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// Lines before it.
    pub lines: usize,
    /// The middle.
    pub at: u64,
    pub width: u64,
}

/// The connection of each line, whose owner is known `by`. `free` are all that they may have, by time; none of theirs is behind `until`.
///
/// The connections of the lines before a quiet moment, when none ended, are before it as well, where nothing waits for a processor. So lines and
/// connections are counted from one such moment to the next: one too many or too few does not matter beyond.
pub(super) fn pairs(
    lines: &[(Number, Asked)],
    free: &[Ended],
    since: Cut,
    until: Option<u64>,
    by: By,
) -> Vec<Option<Number>> {
    let Some((_, first)) = lines.first() else {
        return Vec::new();
    };
    let before = |moment: u64| free.partition_point(|ended| ended.at < moment);
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
        if !sure || !fit(lines, free) {
            pairs.extend(iter::repeat_n(None, lines.len()));
        } else if one_by_one {
            pairs.extend(free.iter().map(|own| Some(own.number)));
        } else {
            pairs.extend(unswapped(lines, free));
        }
        (begin, sure) = (end, true);
    }
    pairs
}

/// Whether there are as many of one as of the other, and each line can have the connection at its place.
fn fit(lines: &[(Number, Asked)], free: &[Ended]) -> bool {
    let fits = |((_, line), own): (&(Number, Asked), &Ended)| {
        let (from, to) = line.close();
        let in_time = (from.max(line.least())..=to).contains(&own.at);
        line.allows(own.outcome) && in_time && line.may_begin(own.started)
    };
    free.len() == lines.len() && lines.iter().zip(free).all(fits)
}

/// The connection at each line's place where no other can be the line's, although several threads may have written of what ended at about the
/// same time in another order: no line has a connection that ended after it, and none is swapped with one that is far.
fn unswapped(lines: &[(Number, Asked)], free: &[Ended]) -> Vec<Option<Number>> {
    let mut pairs = Vec::with_capacity(lines.len());
    let (mut begin, mut latest) = (0, 0);
    for (end, (_, line)) in (1..).zip(lines) {
        latest = latest.max(line.latest());
        if free.get(end).is_some_and(|next| next.at <= latest) {
            continue;
        }
        // All lines so far are before all connections behind.
        let knot = free.get(begin..end).unwrap_or_default();
        // Each process's lines may have waited in a buffer of its own.
        let is_one_process = knot
            .iter()
            .all(|own| own.pid == knot.first().and_then(|own| own.pid));
        let far = if is_one_process {
            CLOSE
        } else {
            CLOSE + line.failed.ended.width()
        };
        for (own, (_, line)) in knot.iter().zip(lines.get(begin..end).unwrap_or_default()) {
            let first = knot.partition_point(|other| other.at < own.at.saturating_sub(far));
            let near = knot.iter().skip(first);
            let near = near.take_while(|other| other.at <= own.at.saturating_add(far));
            // One of them is its own.
            let other = near.filter(|other| line.allows(other.outcome)).nth(1);
            pairs.push(other.is_none().then_some(own.number));
        }
        begin = end;
    }
    pairs
}

/// Where one line ended before the next, as far as the log's clock tells.
pub(super) fn gaps(lines: &[(Number, Asked)]) -> Vec<Gap> {
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
pub(super) fn sort(lines: &mut [(Number, Asked)]) {
    let mut before = 0;
    lines.sort_by_cached_key(|(_, line)| {
        let ended = line.failed.ended;
        if !(ended.from..=ended.to).contains(&before) {
            before = ended.from;
        }
        before
    });
}

impl Format {
    /// Whether a process has but one thread, which writes in the order in which its connections ended.
    const fn is_written_by_one_thread(self) -> bool {
        matches!(self, Self::NginxError | Self::NginxAccess)
    }
}
