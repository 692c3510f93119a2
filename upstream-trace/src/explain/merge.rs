//! The lines of all logs in the order of their time.
//!
//! A line whose time cannot be right is known by what comes behind it, or by the clock where logs are followed. Must not know: formats,
//! records, what becomes of a line.

use std::path::PathBuf;

use jiff::tz::TimeZone;

use super::{
    LATE,
    log::{Failed, Reader, Reading},
    source::{Next, Source},
};
use crate::{
    clock,
    exit::{Code, Failure},
    output::console::say,
};

/// How far a line can be ahead of the one behind it: longer than proxies hold one back, and less than time zones differ.
const AHEAD: u64 = 600_000_000_000;

/// The logs.
#[derive(Debug)]
pub struct Merge {
    logs: Vec<Log>,
    pub counts: Counts,
}

/// Lines by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub failed: u64,
    pub fine: u64,
    pub other: u64,
    pub unknown: u64,
}

/// A line about a request.
#[derive(Debug)]
pub struct Line {
    /// Which of the logs.
    pub log: usize,
    pub time: u64,
    /// Its number in the log.
    pub number: u64,
    pub failed: Option<Box<Failed>>,
}

/// One of the logs, and the first of its lines that is not merged yet.
#[derive(Debug)]
struct Log {
    index: usize,
    source: Source,
    reader: Reader,
    follow: bool,
    head: Option<Line>,
    /// The line behind it, where that has to be known.
    next: Option<Line>,
    more: More,
    /// One of its lines was.
    understood: bool,
    unknown: u64,
}

/// When there is something to read behind what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    /// At once, but something else comes first.
    Now,
    Later,
    Never,
}

impl Merge {
    /// Opens files, or standard input for `-`. `follow`: beyond their ends.
    pub fn open(paths: &[PathBuf], follow: bool) -> Result<Self, Failure> {
        let zone = time_zone();
        let logs = paths.iter().enumerate().map(|(index, path)| {
            Ok(Log {
                index,
                source: Source::open(path, follow)?,
                reader: Reader::new(zone.clone()),
                follow,
                head: None,
                next: None,
                more: More::Later,
                understood: false,
                unknown: 0,
            })
        });
        Ok(Self {
            logs: logs.collect::<Result<_, Failure>>()?,
            counts: Counts::default(),
        })
    }

    /// The earliest line of all logs; `None` where there is none now. `now`: the latest time of a line.
    pub fn next(&mut self, now: u64) -> Result<Option<Line>, Failure> {
        let far = now.saturating_add(AHEAD);
        let mut first: Option<(u64, usize)> = None;
        for (index, log) in self.logs.iter_mut().enumerate() {
            log.fill(far, &mut self.counts)?;
            let waits = log.head.is_none() || log.next.is_none() && log.is_beyond(far);
            if log.more == More::Now || waits && log.more == More::Later && !log.follow {
                // Its next line may be the earliest.
                return Ok(None);
            }
            let Some(head) = &log.head else {
                continue;
            };
            if log.is_ahead(head.time) {
                // Or its log would wait behind it for all others.
                first = Some((head.time, index));
                break;
            }
            if first.is_none_or(|(first, _)| head.time < first) {
                first = Some((head.time, index));
            }
        }
        let log = first.and_then(|(_, index)| self.logs.get_mut(index));
        Ok(log.and_then(|log| log.head.take()))
    }

    /// Takes back the line that it gave last.
    pub fn put_back(&mut self, line: Line) {
        if let Some(log) = self.logs.get_mut(line.log) {
            log.head = Some(line);
        }
    }

    /// Whether a line has a time that cannot be right.
    pub fn is_ahead(&self, line: &Line) -> bool {
        let log = self.logs.get(line.log);
        log.is_some_and(|log| log.is_ahead(line.time))
    }

    /// Whether there is more to read at once.
    pub fn is_amid(&self) -> bool {
        self.logs.iter().any(|log| log.more == More::Now)
    }

    /// Whether all logs are read to their ends.
    pub fn is_over(&self) -> bool {
        self.logs.iter().all(|log| log.more == More::Never)
    }

    /// Whether what was read to its end are logs at all.
    pub fn are_logs(&self) -> Result<(), Failure> {
        self.logs.iter().try_for_each(Log::is_one)
    }
}

impl Log {
    /// Reads the next line, and the one behind it where that tells whether it is ahead.
    fn fill(&mut self, far: u64, counts: &mut Counts) -> Result<(), Failure> {
        if self.head.is_none() {
            self.head = self.next.take();
        }
        if self.head.is_none() {
            self.head = self.read(counts)?;
        }
        if !self.follow && self.next.is_none() && self.is_beyond(far) {
            self.next = self.read(counts)?;
        }
        Ok(())
    }

    /// Whether its first line, of this time, cannot be right. It would make all that is not as late seem forgotten.
    fn is_ahead(&self, time: u64) -> bool {
        if self.follow {
            return time > clock::of_day().saturating_add(LATE);
        }
        let next = self.next.as_ref();
        next.is_some_and(|next| time > next.time.saturating_add(AHEAD))
    }

    /// Whether its next line is later than `time`.
    fn is_beyond(&self, time: u64) -> bool {
        self.head.as_ref().is_some_and(|head| head.time > time)
    }

    /// Reads on to the next line that is about a request; `None` where there is none now.
    fn read(&mut self, counts: &mut Counts) -> Result<Option<Line>, Failure> {
        while self.more != More::Never {
            self.more = More::Later;
            let reading = match self.source.next_line()? {
                Next::Line(line) => self.reader.read(line),
                Next::Broken => Reading::Unknown,
                Next::Enough => {
                    self.more = More::Now;
                    break;
                }
                Next::Later => break,
                Next::End => {
                    self.more = More::Never;
                    for _ in 0..self.reader.unfinished() {
                        self.unknown(counts);
                    }
                    break;
                }
            };
            self.understood |=
                !matches!(reading, Reading::Empty | Reading::Part | Reading::Unknown);
            let (time, failed) = match reading {
                Reading::Failed(failed) => {
                    counts.failed += 1;
                    (failed.ended.from, Some(failed))
                }
                Reading::Fine(time) => {
                    counts.fine += 1;
                    (time, None)
                }
                Reading::Other | Reading::Empty => {
                    counts.other += 1;
                    continue;
                }
                Reading::Part => continue,
                Reading::Unknown => {
                    self.unknown(counts);
                    continue;
                }
            };
            return Ok(Some(Line {
                log: self.index,
                time,
                number: self.source.line,
                failed,
            }));
        }
        Ok(None)
    }

    /// One line more that is not understood.
    fn unknown(&mut self, counts: &mut Counts) {
        self.unknown += 1;
        counts.unknown += 1;
        if counts.unknown == 1 {
            let (name, line) = (&self.source.name, self.source.line);
            say(&format!(
                "{name}:{line} has no known format, or is broken; more such lines are only counted"
            ));
        }
    }

    /// Whether what was read to its end is a log at all.
    fn is_one(&self) -> Result<(), Failure> {
        if self.understood || self.unknown == 0 || self.more != More::Never {
            return Ok(());
        }
        let name = &self.source.name;
        let message = format!(
            "{name} has no line that is understood: it has to be a log of Envoy, Istio, NGINX, HAProxy or a gRPC client, with nothing before its lines"
        );
        Err(Failure::new(Code::Input, message))
    }
}

/// That of times which name none.
fn time_zone() -> TimeZone {
    TimeZone::try_system().unwrap_or_else(|error| {
        say(&format!(
            "this machine's time zone is unknown, so times without one are read as UTC: {error}"
        ));
        TimeZone::UTC
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{output::samples::TIME, record::Timestamp};

    pub(in crate::explain) const SECOND: u64 = 1_000_000_000;

    /// Lines of these times, in seconds behind `start`.
    pub(in crate::explain) fn fine(start: u64, seconds: &[u64]) -> String {
        let line = |after: &u64| {
            let time = Timestamp(start + after * SECOND).spell();
            let time = &time.as_str()[..23];
            format!(
                "[{time}Z] \"GET /a HTTP/1.1\" 200 - 0 91 0 - \"-\" \"c\" \"i\" \"h\" \"127.0.0.1:80\"\n"
            )
        };
        seconds.iter().map(line).collect()
    }

    #[test]
    fn a_line_that_is_hours_ahead_keeps_its_log_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let start = TIME.0 / SECOND * SECOND;
        let logs = [("a", &[0, 7_200, 9][..]), ("b", &[1, 5, 100])].map(|(name, seconds)| {
            let path = dir.path().join(name);
            std::fs::write(&path, fine(start, seconds)).unwrap();
            path
        });
        let mut merge = Merge::open(&logs, false).unwrap();
        let mut order = Vec::new();
        while let Some(line) = merge.next(0).unwrap() {
            order.push((line.log, line.time.saturating_sub(start) / SECOND));
        }
        assert_eq!(
            order,
            [(0, 0), (0, 7_200), (1, 1), (1, 5), (0, 9), (1, 100)]
        );
    }

    #[test]
    fn a_line_in_parts_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let line = fine(TIME.0, &[0]);
        let (first, last) = line.split_at(30);
        let mark = "2026-11-29T14:00:00.1Z stdout";
        std::fs::write(&path, format!("{mark} P {first}\n{mark} F {last}")).unwrap();
        let mut merge = Merge::open(&[path], false).unwrap();
        assert_eq!(merge.next(0).unwrap().unwrap().number, 2);
        assert!(merge.next(0).unwrap().is_none());
        let Counts {
            failed,
            fine,
            other,
            unknown,
        } = merge.counts;
        assert_eq!([failed, fine, other, unknown], [0, 1, 0, 0]);
        assert!(merge.is_over() && merge.are_logs().is_ok());
    }
}
