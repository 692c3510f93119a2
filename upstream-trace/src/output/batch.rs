//! Whole lines on their way out: added at the back, written from the front, each with what it stands for.
//!
//! Must not know: what a line says, where it goes.

use std::ops::{AddAssign, SubAssign};

/// How many lines, and how many kernel events they stand for.
#[must_use = "lines that are not printed have to be counted"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub lines: u64,
    pub events: u64,
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.events += other.events;
    }
}

impl SubAssign for Weight {
    fn sub_assign(&mut self, other: Self) {
        self.lines -= other.lines;
        self.events -= other.events;
    }
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Where it ends in `bytes`.
    end: usize,
    events: u64,
}

/// Lines and their weights. Cleared, it keeps its memory.
#[derive(Debug, Default)]
pub struct Batch {
    /// Text up to `end`, then room that has been zeroed once and is never zeroed again.
    bytes: Vec<u8>,
    /// Where the bytes not yet written start.
    start: usize,
    end: usize,
    lines: Vec<Line>,
    /// The first line that is not wholly written.
    first: usize,
}

impl Batch {
    /// No record's line is longer: whoever asks for more room would never have enough.
    const LONGEST_LINE: usize = 1 << 20;

    /// Adds the line that `encode` writes; it returns the length, or `None` for more room. Returns the weight of the line where no room
    /// was enough, and nothing was added.
    pub fn line(&mut self, events: u64, encode: impl Fn(&mut [u8]) -> Option<usize>) -> Weight {
        loop {
            let room = &mut self.bytes[self.end..];
            if let Some(len) = encode(room) {
                self.add(len, events);
                return Weight::default();
            }
            if room.len() > Self::LONGEST_LINE {
                return Weight { lines: 1, events };
            }
            self.bytes.resize((2 * self.bytes.len()).max(4096), 0);
        }
    }

    /// Keeps the lines that fit into `room` bytes, from the first one on; returns the weight of the rest, which are dropped.
    pub(super) fn keep(&mut self, room: usize) -> Weight {
        let mut dropped = Weight::default();
        if self.len() <= room {
            return dropped;
        }
        let fitting = |line: &Line| line.end - self.start <= room;
        let kept = self.first + self.lines[self.first..].partition_point(fitting);
        for line in self.lines.drain(kept..) {
            dropped += Weight {
                lines: 1,
                events: line.events,
            };
        }
        self.end = self.lines.last().map_or(self.start, |line| line.end);
        dropped
    }

    /// Moves all lines of `other` here, if they fit into the memory that is held; whether they did.
    pub(super) fn append(&mut self, other: &mut Self) -> bool {
        let text = &other.bytes[other.start..other.end];
        let Some(room) = self.bytes[self.end..].get_mut(..text.len()) else {
            return false;
        };
        room.copy_from_slice(text);
        let mut start = other.start;
        for line in &other.lines[other.first..] {
            self.add(line.end - start, line.events);
            start = line.end;
        }
        other.clear();
        true
    }

    /// What to write next: everything, or with `most` as many whole lines as fit into it, but at least one.
    pub(super) fn front(&self, most: Option<usize>) -> &[u8] {
        let end = most.map_or(self.end, |most| {
            let lines = &self.lines[self.first..];
            let fitting = lines.partition_point(|line| line.end - self.start <= most);
            lines
                .get(fitting.saturating_sub(1))
                .map_or(self.end, |line| line.end)
        });
        &self.bytes[self.start..end]
    }

    /// Removes what has been written from the front; returns the weight of the lines that it completed.
    pub(super) fn advance(&mut self, written: usize) -> Weight {
        self.start += written;
        let mut done = Weight::default();
        while let Some(line) = self.lines.get(self.first)
            && line.end <= self.start
        {
            self.first += 1;
            done += Weight {
                lines: 1,
                events: line.events,
            };
        }
        done
    }

    /// Drops every line but the rest of one that is partly written.
    pub(super) fn cut(&mut self) {
        let keep = self.first + usize::from(self.begun() > 0);
        self.lines.truncate(keep);
        self.end = self.lines.last().map_or(self.start, |line| line.end);
    }

    /// Bytes written of a line whose rest is not.
    pub(super) fn begun(&self) -> usize {
        let before = self.first.checked_sub(1);
        self.start - before.map_or(0, |before| self.lines[before].end)
    }

    /// Bytes not yet written.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all lines.
    pub fn clear(&mut self) {
        self.lines.clear();
        (self.start, self.end, self.first) = (0, 0, 0);
    }

    /// The weight of the lines not yet written.
    pub fn weight(&self) -> Weight {
        let mut weight = Weight::default();
        for line in &self.lines[self.first..] {
            weight += Weight {
                lines: 1,
                events: line.events,
            };
        }
        weight
    }

    /// Bytes of memory held.
    pub(super) const fn memory(&self) -> usize {
        self.bytes.len()
    }

    fn add(&mut self, len: usize, events: u64) {
        self.end += len;
        self.lines.push(Line {
            end: self.end,
            events,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for (index, text) in lines.iter().enumerate() {
            let unwritten = batch.line(u64::try_from(index).unwrap() + 1, |room| {
                room.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
                Some(text.len())
            });
            assert_eq!(unwritten, weight(0, 0));
        }
        batch
    }

    const fn weight(lines: u64, events: u64) -> Weight {
        Weight { lines, events }
    }

    #[test]
    fn room_grows_for_a_long_line() {
        let long = "x".repeat(100_000) + "\n";
        let batch = batch(&["a\n", &long, "b\n"]);
        assert_eq!(batch.len(), 100_005);
        assert!(batch.front(None).ends_with(b"x\nb\n"));
        assert_eq!(batch.weight(), weight(3, 6));
    }

    #[test]
    fn a_line_that_is_too_long_for_any_room_is_left_out_and_counted() {
        let mut batch = batch(&["one\n"]);
        assert_eq!(batch.line(7, |_| None), weight(1, 7));
        assert_eq!(batch.front(None), b"one\n");
        assert_eq!(batch.weight(), weight(1, 1));
    }

    #[test]
    fn keeps_as_many_whole_lines_as_fit() {
        let mut batch = batch(&["one\n", "two\n", "three\n"]);
        assert_eq!(batch.keep(14), weight(0, 0));
        assert_eq!(batch.keep(13), weight(1, 3));
        assert_eq!(batch.front(None), b"one\ntwo\n");
        assert_eq!(batch.weight(), weight(2, 3));
        assert_eq!(batch.keep(3), weight(2, 3));
        assert!(batch.is_empty());
    }

    #[test]
    fn takes_another_into_the_memory_that_it_has() {
        let mut queue = batch(&["queued\n"]);
        let mut next = batch(&["one\n", "two\n"]);
        assert!(queue.append(&mut next));
        assert!(next.is_empty());
        assert_eq!(queue.front(None), b"queued\none\ntwo\n");
        assert_eq!(queue.weight(), weight(3, 4));

        let long = "x".repeat(queue.memory() - queue.len()) + "\n";
        let mut next = batch(&[&long]);
        assert!(!queue.append(&mut next));
        assert_eq!(
            (queue.weight(), next.weight()),
            (weight(3, 4), weight(1, 1))
        );
    }

    #[test]
    fn front_is_whole_lines_and_at_least_one() {
        let batch = batch(&["one\n", "two\n", "three\n"]);
        assert_eq!(batch.front(Some(9)), b"one\ntwo\n");
        assert_eq!(batch.front(Some(8)), b"one\ntwo\n");
        assert_eq!(batch.front(Some(2)), b"one\n");
    }

    #[test]
    fn a_line_counts_when_its_last_byte_is_written() {
        let mut batch = batch(&["one\n", "two\n", "three\n"]);
        assert_eq!(batch.begun(), 0);
        assert_eq!(batch.advance(2), weight(0, 0));
        assert_eq!(batch.begun(), 2);
        assert_eq!(batch.advance(4), weight(1, 1));
        assert_eq!(batch.begun(), 2);
        assert_eq!(batch.front(Some(1)), b"o\n");
        assert_eq!(batch.weight(), weight(2, 5));
        batch.cut();
        assert_eq!(batch.front(None), b"o\n");
        assert_eq!(batch.advance(2), weight(1, 2));
        assert_eq!(batch.begun(), 0);
        assert!(batch.is_empty());
    }

    #[test]
    fn cut_between_lines_leaves_nothing() {
        let mut batch = batch(&["one\n", "two\n"]);
        batch.cut();
        assert!(batch.is_empty());
        let mut batch = self::batch(&["one\n", "two\n"]);
        let _first = batch.advance(4);
        batch.cut();
        assert!(batch.is_empty());
    }
}
