//! The tracer's account of itself: what the kernel side saw, what was delivered, what was lost where.
//!
//! `seen == events + lost`, in events, once nothing is left in the ring. Pure.

use upstream_trace_common::counter;

use crate::record::{Lost, Stats, StatsType, Timestamp};

/// Counts from the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Events taken, from the ring or where the kernel side keeps those of open connections.
    pub taken: u64,
    /// Those of connections that were open when they were taken: the kernel side counts an event when it
    /// writes it into the ring.
    ahead: u64,
    /// Events of connections that were put out of the full table.
    pub evicted: u64,
    /// Events of lines that were dropped.
    pub dropped_events: u64,
    /// Lines that were dropped.
    pub dropped_lines: u64,
    /// Events for which the kernel skipped a hook, as it counted them.
    pub missed: u64,
    /// The same as the join found them.
    pub unseen: u64,
    /// Connections finished.
    pub connections: u64,
    /// Resets.
    pub resets: u64,
    /// Records with a flag.
    pub flagged: u64,
    kernel: [u64; counter::COUNT],
    /// What the last account said of losses.
    told: Lost,
}

impl Account {
    /// A story of so many events came by the ring, so many of them new.
    pub fn told(&mut self, events: u64, new: u64) {
        self.taken += new;
        self.ahead = self.ahead.saturating_sub(events.saturating_sub(new));
    }

    /// So many new events were read where they are kept.
    pub const fn read_ahead(&mut self, new: u64) {
        self.taken += new;
        self.ahead += new;
    }

    /// Takes the kernel side's counters; returns whether it lost events since the last time.
    pub fn kernel(&mut self, counters: [u64; counter::COUNT]) -> bool {
        let before = (self.of(counter::RING_FULL), self.of(counter::READ_FAULT));
        self.kernel = counters;
        before != (self.of(counter::RING_FULL), self.of(counter::READ_FAULT))
    }

    /// Both counts miss some: the kernel's those that it never came to count, the join's those that
    /// left no trace.
    fn missed(&self) -> u64 {
        self.missed.max(self.unseen)
    }

    fn of(&self, index: usize) -> u64 {
        self.kernel.get(index).copied().unwrap_or(0)
    }

    /// Events that were counted and not taken: they are in the ring, or are being written into it.
    pub fn waiting(&self) -> u64 {
        let lost = [counter::RING_FULL, counter::UNMARKED, counter::READ_FAULT];
        let settled: u64 = lost.map(|index| self.of(index)).into_iter().sum();
        (self.of(counter::SEEN) + self.ahead).saturating_sub(self.taken + settled)
    }

    /// What was lost, by cause.
    pub fn lost(&self) -> Lost {
        Lost {
            ring_full: self.of(counter::RING_FULL),
            table_full: self.evicted + self.of(counter::UNMARKED),
            read_fault: self.of(counter::READ_FAULT),
            missed: self.missed(),
            output: self.dropped_events,
        }
    }

    /// Whether anything was lost since the last account.
    pub fn has_news(&self) -> bool {
        self.lost() != self.told
    }

    /// As a line.
    pub fn line(&mut self, time: Timestamp) -> Stats {
        self.told = self.lost();
        Stats {
            schema: crate::record::Schema,
            kind: StatsType,
            time,
            seq: 0,
            seen: self.of(counter::SEEN) + self.ahead + self.missed(),
            events: self
                .taken
                .saturating_sub(self.evicted)
                .saturating_sub(self.dropped_events),
            connections: self.connections,
            resets: self.resets,
            flagged: self.flagged,
            lost: self.told,
            lines_dropped: self.dropped_lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_without_being_counted() {
        let mut account = Account {
            taken: 80,
            evicted: 7,
            dropped_events: 3,
            missed: 2,
            unseen: 5,
            ..Account::default()
        };
        // Two open connections, one of which ended since.
        account.read_ahead(2);
        account.read_ahead(3);
        account.told(8, 5);
        assert!(account.kernel([100, 9, 1, 2]));
        assert!(!account.kernel([100, 9, 1, 2]));
        assert_eq!(account.waiting(), 0);
        account.kernel([103, 9, 1, 2]);
        assert_eq!(account.waiting(), 3);
        account.kernel([100, 9, 1, 2]);
        let line = account.line(Timestamp(0));
        let Lost {
            ring_full,
            table_full,
            read_fault,
            missed,
            output,
        } = line.lost;
        assert_eq!(
            line.seen,
            line.events + ring_full + table_full + read_fault + missed + output
        );
        assert_eq!((line.events, ring_full, read_fault), (80, 9, 1));
    }
}
