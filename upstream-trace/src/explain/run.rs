//! The run of `upstream-trace explain`: reads logs and records side by side in order of time, and writes the answers.
//!
//! Lines of several logs are merged by their time; records are read as far ahead as the line at hand needs, and forgotten `--window`
//! behind it. What is followed happens now, so there the clock says which lines and records are late; what is not followed is waited
//! for, however slowly a pipe brings it. Must not know: formats, how a line and a record are joined.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    path::PathBuf,
    time::Duration,
};

use jiff::tz::TimeZone;

use super::{
    join::{Answer, Asked, Join, MOST_LOGS, SLACK, Sureness},
    log::{Failed, Reader, Reading},
    report::{self, About, Explained, ExplainedType},
    source::{Next, Source},
    story::{Brief, Kind, SCHEMA, Story},
    text,
    window::{Number, Window},
};
use crate::{
    clock,
    exit::{Code, Failure},
    output::{Style, console::say, json, wants_colour},
    record::{Connection, Schema, Timestamp},
    stop::Stop,
};

/// Records are in order of time but for this. The tracer holds one for up to a second where nobody is known to have sent its reset
/// (`RESET_PATIENCE_NS`); that one comes in time all the same, for a line waits for the records of a second beyond its end (`SLACK`):
/// only one that ended some 200 ms or more after its line may come too late, and is not found for it.
const JITTER: u64 = 250_000_000;
/// Later than this after its time no record and no line is waited for.
const LATE: u64 = 1_000_000_000;
/// How far a line can be ahead of the one behind it: longer than proxies hold one back, and less than time zones differ.
const AHEAD: u64 = 600_000_000_000;
/// Lines between two looks at what can be answered.
const BATCH: usize = 256;
/// Looks at the records when told to stop: enough for what was written just now, not for all of a long file.
const PARTING: usize = 64;
/// Between two looks at files that may have grown.
const TICK: Duration = Duration::from_millis(50);
/// Answers whose records are read together: lines that several connections fit share most of them.
const TOGETHER: usize = 64;
/// The longest line that is written: a few records, each of some kilobytes.
const ROOM: usize = 1 << 20;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    pub records: PathBuf,
    /// Empty: standard input.
    pub logs: Vec<PathBuf>,
    pub follow: bool,
    pub text: bool,
    /// How long records are kept, and how far lines may be out of order.
    pub window: Duration,
    /// Name of the proxy's processes.
    pub process: Option<String>,
    /// Addresses of servers that a log names.
    pub servers: Vec<(String, std::net::SocketAddr)>,
}

/// Explains until the logs end, or until told to stop.
pub fn run(settings: Settings) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start: {error}")))?;
    let run = Run::open(settings)?;
    match runtime.block_on(run.drive()) {
        // The reader of the output is gone.
        Err(failure) if failure.code == Code::Ok => Ok(()),
        ended => ended,
    }
}

/// One of the logs, and the first of its lines that is not merged yet.
#[derive(Debug)]
struct Log {
    source: Source,
    head: Option<Head>,
    /// The line behind it, where that has to be known.
    next: Option<Head>,
    /// There is more to read, but something else comes first.
    amid: bool,
    over: bool,
    /// One of its lines was.
    understood: bool,
    unknown: u64,
}

/// A line about a request.
#[derive(Debug)]
struct Head {
    time: u64,
    line: u64,
    failed: Option<Box<Failed>>,
}

/// The records, in order.
#[derive(Debug)]
struct Records {
    source: Source,
    /// All that ended before this are read, but for some that were held long ([`JITTER`]).
    seen: u64,
    over: bool,
    follow: bool,
    /// More are needed: they are there and the next to be read (`Busy`), or a pipe has yet to bring them (`Idle`).
    lacking: Option<Progress>,
    count: u64,
    /// Lines of the tracer that tell of no connection.
    other: u64,
    unknown: u64,
}

#[derive(Debug)]
struct Run {
    settings: Settings,
    logs: Vec<Log>,
    records: Records,
    reader: Reader,
    join: Join,
    counts: Explained,
    output: Output,
    /// The latest time of a line.
    now: u64,
    /// Up to when records are needed for lines that wait.
    need: u64,
    /// The time of the lines when answers were last looked for.
    answered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Busy,
    Idle,
    Done,
}

impl Run {
    fn open(mut settings: Settings) -> Result<Self, Failure> {
        if settings.logs.is_empty() {
            settings.logs.push("-".into());
        }
        let inputs = settings.logs.iter().chain([&settings.records]);
        if inputs.filter(|path| path.as_os_str() == "-").count() > 1 {
            let message = "standard input can be the records (--records -) or one log (none or -): name a file for the other";
            return Err(Failure::new(Code::Usage, message));
        }
        if settings.logs.len() > MOST_LOGS {
            let given = settings.logs.len();
            let message = format!(
                "{given} logs are more than the {MOST_LOGS} that fit into one run: start several"
            );
            return Err(Failure::new(Code::Usage, message));
        }
        let open = |path: &PathBuf| {
            Source::open(path, settings.follow).map_err(|error| unreadable(&path.display(), &error))
        };
        let records = open(&settings.records)?;
        let logs = settings.logs.iter().map(|path| {
            Ok(Log {
                source: open(path)?,
                head: None,
                next: None,
                amid: false,
                over: false,
                understood: false,
                unknown: 0,
            })
        });
        let logs = logs.collect::<Result<_, Failure>>()?;
        let keep = u64::try_from(settings.window.as_nanos()).unwrap_or(u64::MAX);
        let colour = wants_colour();
        Ok(Self {
            logs,
            records: Records {
                source: records,
                seen: 0,
                over: false,
                follow: settings.follow,
                lacking: None,
                count: 0,
                other: 0,
                unknown: 0,
            },
            reader: Reader::new(time_zone()),
            join: Join::new(settings.process.clone(), keep),
            counts: Explained {
                schema: Schema,
                kind: ExplainedType,
                time: Timestamp(0),
                seq: 0,
                lines: 0,
                failed: 0,
                fine: 0,
                other: 0,
                unknown: 0,
                found: report::Found::default(),
                records: 0,
                records_unknown: 0,
                records_given_up: 0,
            },
            output: Output {
                to: BufWriter::with_capacity(1 << 16, io::stdout()),
                style: settings.text.then_some(Style { colour }),
                room: vec![0; ROOM].into_boxed_slice(),
                page: String::new(),
                seq: 0,
            },
            now: 0,
            need: 0,
            answered: 0,
            settings,
        })
    }

    async fn drive(mut self) -> Result<(), Failure> {
        let mut stop = Stop::listen()?;
        loop {
            let progress = self.step()?;
            if progress == Progress::Done {
                break;
            }
            let rest = async {
                if progress == Progress::Idle {
                    tokio::time::sleep(TICK).await;
                } else {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = rest => {}
            }
        }
        self.finish()
    }

    /// Merges and joins some lines.
    fn step(&mut self) -> Result<Progress, Failure> {
        for _ in 0..BATCH {
            // No line goes past records that it may need.
            if self.records.lacking.is_some() {
                self.answer(self.now)?;
                if self.records.lacking.is_some() {
                    return self.wait();
                }
            }
            let Some((log, head)) = self.next_head()? else {
                return self.caught_up();
            };
            if self.is_ahead(log, head.time) {
                if let Some(failed) = head.failed {
                    self.join.refuse(Asked {
                        log,
                        line: head.line,
                        failed,
                    });
                }
                continue;
            }
            // Answer what waits before its records are forgotten.
            if head.time > self.answered.saturating_add(self.keep() / 4) {
                self.answer(head.time)?;
                if self.records.lacking.is_some() {
                    self.put_back(log, head);
                    return self.wait();
                }
            }
            self.now = self.now.max(head.time);
            self.counts.time = Timestamp(self.now);
            if let Some(failed) = head.failed {
                self.ask(log, head.line, failed);
            }
        }
        self.answer(self.now)?;
        Ok(Progress::Busy)
    }

    fn keep(&self) -> u64 {
        u64::try_from(self.settings.window.as_nanos()).unwrap_or(u64::MAX)
    }

    fn ask(&mut self, log: usize, line: u64, mut failed: Box<Failed>) {
        if let (None, Some(name)) = (failed.upstream, &failed.name) {
            let known = self
                .settings
                .servers
                .iter()
                .find(|(known, _)| known == name);
            failed.upstream = known.map(|(_, address)| *address);
        }
        self.need = self.need.max(Join::needs(&failed));
        self.join.ask(Asked { log, line, failed });
    }

    /// No more lines for now.
    fn caught_up(&mut self) -> Result<Progress, Failure> {
        if self.logs.iter().any(|log| log.amid) {
            return Ok(Progress::Busy);
        }
        let mut lines = self.now;
        if self.settings.follow {
            let now = clock::of_day();
            // Records that come meanwhile are read at once, or a file that is cut off between two lines of the log would not be noticed.
            self.need = self.need.max(now);
            lines = lines.max(now.saturating_sub(LATE));
        }
        self.answer(lines)?;
        if self.records.lacking.is_none() && self.logs.iter().all(|log| log.over) {
            return Ok(Progress::Done);
        }
        self.wait()
    }

    /// For more lines or records.
    fn wait(&mut self) -> Result<Progress, Failure> {
        if self.records.lacking == Some(Progress::Busy) {
            return Ok(Progress::Busy);
        }
        self.output.flush()?;
        Ok(Progress::Idle)
    }

    /// Reads the records that lines need, answers, forgets. All lines before `lines` are known.
    fn answer(&mut self, lines: u64) -> Result<(), Failure> {
        self.records.lacking = None;
        let until = self.need.max(self.now);
        self.answer_with(until, lines)?;
        if self.records.lacking.is_none() && self.join.lacks() > self.records.seen {
            self.answer_with(self.join.lacks(), lines)?;
        }
        // Lines that are open for want of records need all of theirs.
        if self.records.lacking.is_none() {
            self.answered = lines;
            self.join.expire(lines);
        }
        Ok(())
    }

    fn answer_with(&mut self, until: u64, lines: u64) -> Result<(), Failure> {
        let oldest = self.now.saturating_sub(self.keep());
        self.records.advance(until, oldest, &mut self.join.window)?;
        if self.records.lacking.is_some() {
            return Ok(());
        }
        let mut answers = Vec::new();
        let counts = &mut self.counts.found;
        self.join.answer(self.records.seen, lines, |answer| {
            counts.count(answer.sureness);
            answers.push(answer);
        });
        let mut answers = answers.chunks(TOGETHER);
        answers.try_for_each(|some| self.output.answers(&self.join.window, some, &self.logs))
    }

    fn finish(mut self) -> Result<(), Failure> {
        for _ in 0..PARTING {
            self.answer(self.now)?;
            if self.records.lacking != Some(Progress::Busy) {
                break;
            }
        }
        // What still waits gets no more records and no more lines. Nobody knows whether it is among those that are left unread.
        if self.records.lacking != Some(Progress::Busy) {
            self.records.seen = u64::MAX;
            self.now = u64::MAX;
            self.answer(u64::MAX)?;
        }
        let counts = Explained {
            seq: self.output.seq,
            lines: self.counts.failed + self.counts.fine + self.counts.other + self.counts.unknown,
            records: self.records.count,
            records_unknown: self.records.unknown,
            records_given_up: self.join.window.given_up,
            ..self.counts
        };
        self.output.explained(&counts)?;
        self.output.flush()?;
        self.records.are_some_of_all()?;
        self.logs.iter().try_for_each(Log::is_one)
    }

    fn put_back(&mut self, log: usize, head: Head) {
        if let Some(log) = self.logs.get_mut(log) {
            log.head = Some(head);
        }
    }

    /// The earliest line of all logs; `None` where there is none now.
    fn next_head(&mut self) -> Result<Option<(usize, Head)>, Failure> {
        let mut first: Option<(u64, usize)> = None;
        for index in 0..self.logs.len() {
            self.fill(index)?;
            let Some(log) = self.logs.get(index) else {
                continue;
            };
            let far = self.now.saturating_add(AHEAD);
            let waits = log.head.is_none() || log.next.is_none() && log.is_beyond(far);
            if log.amid || waits && !log.over && !self.settings.follow {
                // Its next line may be the earliest.
                return Ok(None);
            }
            let Some(time) = log.head.as_ref().map(|head| head.time) else {
                continue;
            };
            if self.is_ahead(index, time) {
                // Or its log would wait behind it for all others.
                first = Some((time, index));
                break;
            }
            if first.is_none_or(|(first, _)| time < first) {
                first = Some((time, index));
            }
        }
        let Some((_, index)) = first else {
            return Ok(None);
        };
        let head = self.logs.get_mut(index).and_then(|log| log.head.take());
        Ok(head.map(|head| (index, head)))
    }

    /// Whether a line has a time that cannot be right. It would make all that is not as late seem forgotten.
    fn is_ahead(&self, log: usize, time: u64) -> bool {
        if self.settings.follow {
            return time > clock::of_day().saturating_add(LATE);
        }
        let next = self.logs.get(log).and_then(|log| log.next.as_ref());
        next.is_some_and(|next| time > next.time.saturating_add(AHEAD))
    }

    /// Reads the next line of a log, and the one behind it where that tells whether it is ahead.
    fn fill(&mut self, index: usize) -> Result<(), Failure> {
        let far = self.now.saturating_add(AHEAD);
        let Some(log) = self.logs.get_mut(index) else {
            return Ok(());
        };
        if log.head.is_none() {
            log.head = log.next.take();
        }
        if log.head.is_none() {
            log.head = log.read(&mut self.reader, &mut self.counts)?;
        }
        if !self.settings.follow && log.next.is_none() && log.is_beyond(far) {
            log.next = log.read(&mut self.reader, &mut self.counts)?;
        }
        Ok(())
    }
}

impl Log {
    /// Whether its next line is later than `time`.
    fn is_beyond(&self, time: u64) -> bool {
        self.head.as_ref().is_some_and(|head| head.time > time)
    }

    /// Reads on to the next line that is about a request; `None` where there is none now.
    fn read(
        &mut self,
        reader: &mut Reader,
        counts: &mut Explained,
    ) -> Result<Option<Head>, Failure> {
        self.amid = false;
        while !self.over {
            let reading = match self.source.next_line() {
                Ok(Next::Line(line)) => reader.read(line),
                Ok(Next::Broken) => Reading::Unknown,
                Ok(Next::Enough) => {
                    self.amid = true;
                    break;
                }
                Ok(Next::Later) => break,
                Ok(Next::End) => {
                    self.over = true;
                    break;
                }
                Err(error) => return Err(unreadable(&self.source.name, &error)),
            };
            self.understood |= !matches!(reading, Reading::Empty | Reading::Unknown);
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
                Reading::Unknown => {
                    self.unknown += 1;
                    counts.unknown += 1;
                    if counts.unknown == 1 {
                        let (name, line) = (&self.source.name, self.source.line);
                        say(&format!(
                            "{name}:{line} has no known format, or is broken; more such lines are only counted"
                        ));
                    }
                    continue;
                }
            };
            return Ok(Some(Head {
                time,
                line: self.source.line,
                failed,
            }));
        }
        Ok(None)
    }

    /// Whether what was read to its end is a log at all.
    fn is_one(&self) -> Result<(), Failure> {
        if self.understood || self.unknown == 0 || !self.over {
            return Ok(());
        }
        let name = &self.source.name;
        let message = format!(
            "{name} has no line that is understood: it has to be a log of Envoy, Istio, NGINX, HAProxy or a gRPC client, with nothing before its lines"
        );
        Err(Failure::new(Code::Input, message))
    }
}

impl Records {
    /// Reads all that ended up to `until`, and keeps those that did not end before `oldest`.
    fn advance(&mut self, until: u64, oldest: u64, window: &mut Window) -> Result<(), Failure> {
        while !self.over && self.seen < until {
            match self.source.next_line() {
                Ok(Next::Line(line)) => match Kind::read(line) {
                    Kind::Connection(brief) => {
                        self.count += 1;
                        self.seen = self.seen.max(brief.ended.saturating_sub(JITTER));
                        if brief.ended >= oldest {
                            window.insert(brief, line);
                        } else {
                            window.forgotten = window.forgotten.max(brief.ended);
                        }
                    }
                    Kind::Other => self.other += 1,
                    Kind::Foreign(schema) => {
                        let (name, line) = (&self.source.name, self.source.line);
                        let message = format!(
                            "{name}:{line} is of {schema}, this upstream-trace reads {SCHEMA}"
                        );
                        return Err(Failure::new(Code::Input, message));
                    }
                    Kind::Broken => self.unknown += 1,
                },
                Ok(Next::Broken) => self.unknown += 1,
                Ok(Next::Enough) => {
                    self.are_some()?;
                    self.lacking = Some(Progress::Busy);
                    break;
                }
                Ok(Next::Later) => {
                    if self.follow {
                        self.seen = self.seen.max(clock::of_day().saturating_sub(LATE));
                    } else {
                        self.lacking = Some(Progress::Idle);
                    }
                    break;
                }
                Ok(Next::End) => {
                    self.are_some_of_all()?;
                    self.over = true;
                    self.seen = u64::MAX;
                }
                Err(error) => return Err(unreadable(&self.source.name, &error)),
            }
        }
        Ok(())
    }

    /// Whether there was anything of the tracer's in all that there is, which may be nothing.
    fn are_some_of_all(&self) -> Result<(), Failure> {
        if self.unknown == 0 {
            return Ok(());
        }
        self.are_some()
    }

    /// Whether there was anything of the tracer's: else every answer would be that there is none.
    fn are_some(&self) -> Result<(), Failure> {
        if self.count + self.other > 0 {
            return Ok(());
        }
        let name = &self.source.name;
        let message = format!(
            "{name} has no record: it has to be what upstream-trace prints as JSON, not with --format text"
        );
        Err(Failure::new(Code::Input, message))
    }
}

/// Where answers go.
#[derive(Debug)]
struct Output {
    to: BufWriter<Stdout>,
    /// `None`: JSON.
    style: Option<Style>,
    room: Box<[u8]>,
    page: String,
    seq: u64,
}

/// A record that an answer names.
struct Named<'a> {
    number: Number,
    brief: &'a Brief,
    /// `None`: it cannot be read.
    record: Option<Connection<'a>>,
}

impl Output {
    /// Writes several answers, and reads each record that they name once.
    fn answers(
        &mut self,
        window: &Window,
        answers: &[Answer],
        logs: &[Log],
    ) -> Result<(), Failure> {
        let mut numbers: Vec<_> = answers.iter().flat_map(|one| &one.found).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let held = numbers
            .iter()
            .filter_map(|number| Some((*number, window.get(*number)?)));
        let held: Vec<_> = held.collect();
        let lines: Vec<_> = held.iter().map(|(_, held)| held.text.line()).collect();
        let stories: Vec<_> = lines.iter().map(|line| Story::read(line)).collect();
        let named: Vec<_> = held
            .iter()
            .zip(&stories)
            .map(|((number, held), story)| Named {
                number: *number,
                brief: &held.brief,
                record: story.as_ref().and_then(Story::connection),
            })
            .collect();
        answers.iter().try_for_each(|answer| {
            let log = logs.get(answer.asked.log);
            let log = log.map_or("", |log| log.source.name.as_str());
            self.answer(window, answer, log, &named)
        })
    }

    /// Writes one. `named`: the records of this one and others, by number.
    fn answer(
        &mut self,
        window: &Window,
        answer: &Answer,
        log: &str,
        named: &[Named<'_>],
    ) -> Result<(), Failure> {
        let place = |number: &Number| named.binary_search_by_key(number, |one| one.number).ok();
        let found = answer.found.iter().filter_map(place);
        let found: Vec<_> = found.filter_map(|place| named.get(place)).collect();
        let records: Vec<_> = found.iter().filter_map(|one| one.record).collect();
        let other = match (found.as_slice(), records.as_slice(), answer.sureness) {
            (_, _, Sureness::Ambiguous) => None,
            ([one], [record], _) => other_end(window, one.brief, record.netns),
            _ => None,
        };
        let other = other.as_deref().and_then(Story::read);
        let outlives = |one: &&Named<'_>| answer.asked.is_outlived(one.brief.left);
        let about = About {
            log,
            seq: self.seq,
            records: &records,
            other_end: other.as_ref().and_then(Story::connection),
            unreadable: records.is_empty() && !found.is_empty(),
            lived_on: !found.is_empty() && found.iter().all(outlives),
            forgotten: answer.asked.moment(SLACK).0 <= window.forgotten,
        };
        let record = report::explanation(answer, &about);
        self.write(&record, |record, style, page| {
            text::explanation(record, style, page);
        })
    }

    fn explained(&mut self, record: &Explained) -> Result<(), Failure> {
        self.write(record, text::explained)
    }

    fn write<T: serde::Serialize>(
        &mut self,
        record: &T,
        spell: impl Fn(&T, Style, &mut String),
    ) -> Result<(), Failure> {
        self.seq += 1;
        let written = if let Some(style) = self.style {
            self.page.clear();
            spell(record, style, &mut self.page);
            self.to.write_all(self.page.as_bytes())
        } else {
            let len = json::line(record, &mut self.room).unwrap_or(0);
            self.to.write_all(self.room.get(..len).unwrap_or_default())
        };
        written.map_err(|error| unwritable(&error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(|error| unwritable(&error))
    }
}

/// The record of the other end: the same addresses the other way round at the same time, ended the nearest. Each network namespace has
/// loopback addresses of its own.
fn other_end(window: &Window, brief: &Brief, netns: Option<u32>) -> Option<Vec<u8>> {
    let began = |brief: &Brief| brief.started.unwrap_or(0);
    let there = window.between(brief.remote, brief.local).into_iter();
    let mut there: Vec<_> = there
        .filter_map(|number| window.get(number))
        .filter(|held| held.brief.ended.abs_diff(brief.ended) <= LATE)
        .filter(|held| began(&held.brief) <= brief.ended && began(brief) <= held.brief.ended)
        .collect();
    there.sort_by_key(|held| held.brief.ended.abs_diff(brief.ended));
    let is_here = |line: &Vec<u8>| {
        let story = Story::read(line);
        let there = story.as_ref().and_then(Story::connection);
        there.is_some_and(|there| there.netns == netns)
    };
    let local = brief.local.ip().is_loopback();
    let mut lines = there.iter().map(|held| held.text.line());
    lines.find(|line| !local || is_here(line))
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

fn unreadable(name: &dyn std::fmt::Display, error: &io::Error) -> Failure {
    Failure::new(Code::Input, format!("cannot read {name}: {error}"))
}

fn unwritable(error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::BrokenPipe => Code::Ok,
        _ => Code::Output,
    };
    Failure::new(code, format!("cannot write standard output: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::samples::{TIME, endpoint, healthy},
        record::{Role, Verdict},
    };

    const MILLISECOND: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLISECOND;

    fn settings(records: PathBuf, logs: Vec<PathBuf>, follow: bool) -> Settings {
        Settings {
            records,
            logs,
            follow,
            text: false,
            window: Duration::from_secs(5),
            process: None,
            servers: Vec::new(),
        }
    }

    #[test]
    fn standard_input_is_opened_once() {
        for logs in [&[][..], &["-"], &["/dev/null", "-"]] {
            let logs = logs.iter().map(PathBuf::from).collect();
            let refused = Run::open(settings("-".into(), logs, false)).unwrap_err();
            assert_eq!(refused.code, Code::Usage);
        }
        assert!(Run::open(settings("-".into(), vec!["/dev/null".into()], false)).is_ok());
        assert!(Run::open(settings("/dev/null".into(), Vec::new(), false)).is_ok());
    }

    #[test]
    fn more_logs_than_fit_are_refused() {
        let open = |count| {
            let logs = vec!["/dev/null".into(); count];
            Run::open(settings("/dev/null".into(), logs, false))
        };
        assert!(open(MOST_LOGS).is_ok());
        assert_eq!(open(MOST_LOGS + 1).unwrap_err().code, Code::Usage);
    }

    /// Lines of these times, in seconds behind `start`.
    fn fine(start: u64, seconds: &[u64]) -> String {
        let line = |after: &u64| {
            let time = Timestamp(start + after * SECOND).spell();
            let time = &time.as_str()[..23];
            format!(
                "[{time}Z] \"GET /a HTTP/1.1\" 200 - 0 91 0 - \"-\" \"c\" \"i\" \"h\" \"127.0.0.1:80\"\n"
            )
        };
        seconds.iter().map(line).collect()
    }

    /// How far the run has come, in seconds behind `start`, when it has read lines of these times.
    fn reached(follow: bool, start: u64, seconds: &[u64]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let [records, log] = ["run.json", "access.log"].map(|name| dir.path().join(name));
        std::fs::write(&records, "").unwrap();
        std::fs::write(&log, fine(start, seconds)).unwrap();
        let mut run = Run::open(settings(records, vec![log], follow)).unwrap();
        while run.step().unwrap() == Progress::Busy {}
        assert_eq!(run.counts.fine, seconds.len() as u64);
        assert_eq!(run.now, run.counts.time.0);
        run.now.saturating_sub(start) / SECOND
    }

    #[test]
    fn a_line_that_is_hours_ahead_does_not_lead_the_others() {
        let start = TIME.0 / SECOND * SECOND;
        assert_eq!(reached(false, start, &[0, 7_200, 9]), 9);
        assert_eq!(reached(false, start, &[7_200, 9]), 9);
        // A quiet time, an order that is not quite right, and the last of all.
        assert_eq!(reached(false, start, &[0, 7_200, 7_201]), 7_201);
        assert_eq!(reached(false, start, &[0, 70, 9]), 70);
        assert_eq!(reached(false, start, &[0, 7_200]), 7_200);
        let now = clock::of_day() / SECOND * SECOND;
        assert_eq!(reached(true, now - 10 * SECOND, &[0, 3_600, 9]), 9);
        assert_eq!(reached(true, now - 10 * SECOND, &[0, 3_600]), 0);
    }

    #[test]
    fn a_line_that_is_hours_ahead_keeps_its_log_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let start = TIME.0 / SECOND * SECOND;
        let logs = [&[0, 7_200, 9][..], &[1, 5, 100]].map(|seconds| {
            let path = dir
                .path()
                .join(seconds.len().to_string() + &seconds[0].to_string());
            std::fs::write(&path, fine(start, seconds)).unwrap();
            path
        });
        let records = dir.path().join("run.json");
        std::fs::write(&records, "").unwrap();
        let mut run = Run::open(settings(records, logs.into(), false)).unwrap();
        let mut order = Vec::new();
        while let Some((log, head)) = run.next_head().unwrap() {
            order.push((log, head.time.saturating_sub(start) / SECOND));
        }
        assert_eq!(
            order,
            [(0, 0), (0, 7_200), (1, 1), (1, 5), (0, 9), (1, 100)]
        );
    }

    #[test]
    fn a_stretch_without_a_record_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let [records, log] = ["run.json", "access.log"].map(|name| dir.path().join(name));
        std::fs::write(&log, fine(TIME.0, &[0])).unwrap();
        for (content, refused) in [
            (vec![0; 200 << 10], true),
            (b"x\n".repeat(100 << 10), true),
            // The tracer may yet begin.
            (Vec::new(), false),
            (b"x\n".to_vec(), false),
        ] {
            std::fs::write(&records, content).unwrap();
            let mut run = Run::open(settings(records.clone(), vec![log.clone()], true)).unwrap();
            let failed = (0..4).find_map(|_| run.step().err());
            assert_eq!(
                failed.map(|failure| failure.code),
                refused.then_some(Code::Input)
            );
        }
    }

    /// The end that the server has of the connection in [`healthy`], between these addresses.
    fn there(from: u64, to: u64, netns: u32, addresses: [&str; 2]) -> Connection<'static> {
        Connection {
            local: endpoint(addresses[1]),
            remote: endpoint(addresses[0]),
            role: Role::Server,
            netns: Some(netns),
            started: Some(Timestamp(from)),
            time: Timestamp(to),
            verdict: Verdict::ResetMidStream,
            ..healthy()
        }
    }

    /// Which of these is the other end of a connection in the network namespace 1.
    fn found(addresses: [&str; 2], others: &[Connection<'_>]) -> Option<u64> {
        let mut window = Window::default();
        let mut room = vec![0; ROOM];
        let mut brief = None;
        let here = Connection {
            local: endpoint(addresses[0]),
            remote: endpoint(addresses[1]),
            ..healthy()
        };
        for record in [&here].into_iter().chain(others) {
            let len = json::connection(record, &mut room).unwrap();
            let line = &room[..len - 1];
            let Kind::Connection(read) = Kind::read(line) else {
                panic!("no connection");
            };
            brief.get_or_insert(read);
            window.insert(read, line);
        }
        let other = other_end(&window, &brief.unwrap(), Some(1));
        other.map(|line| Story::read(&line).unwrap().connection().unwrap().time.0)
    }

    #[test]
    fn the_other_end_lived_at_the_same_time_in_the_same_place() {
        let began = TIME.0 - 12 * MILLISECOND;
        for (addresses, is_local) in [
            (["10.0.0.1:1", "10.0.0.2:80"], false),
            (["127.0.0.1:1", "127.0.0.1:80"], true),
            (["[::1]:1", "[::1]:80"], true),
        ] {
            let own = there(began, TIME.0, 1, addresses);
            assert_eq!(found(addresses, &[own]), Some(TIME.0));
            // The ports were used before.
            let before = there(
                began - 100 * MILLISECOND,
                began - 50 * MILLISECOND,
                1,
                addresses,
            );
            assert_eq!(found(addresses, &[before]), None, "{addresses:?}");
            // Another namespace's, and nearer.
            let other = there(began, TIME.0, 2, addresses);
            let own = there(began, TIME.0 + MILLISECOND, 1, addresses);
            let expected = if is_local { own.time } else { other.time };
            assert_eq!(found(addresses, &[other, own]), Some(expected.0));
        }
    }
}
