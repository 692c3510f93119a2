//! Answers on their way out: the records that they name are read in full, and all is written to standard output.
//!
//! Must not know: how an answer was found, how it is spelled.

use std::io::{self, BufWriter, Write as _};

use super::{
    join::{Answer, SLACK, Sureness},
    other_end::other_end,
    report::{self, About, Explained, Found},
    story::{Brief, Story},
    text,
    window::{Number, Window},
};
use crate::{
    exit::{Code, Failure},
    output::{Style, console::Stdout, json, wants_colour},
    record::Connection,
};

/// Answers whose records are read together: lines that several connections fit share most of them.
const TOGETHER: usize = 64;
/// The longest line that is written: a few records, each of some kilobytes.
const ROOM: usize = 1 << 20;

/// What is told of the logs' lines.
#[derive(Debug)]
pub struct Answers {
    /// The names of the logs.
    logs: Vec<String>,
    /// How sure the answers were.
    pub found: Found,
    output: Output,
}

/// A record that an answer names.
struct Named<'a> {
    number: Number,
    brief: &'a Brief,
    /// `None`: it cannot be read.
    record: Option<Connection<'a>>,
}

impl Answers {
    /// About lines of these logs; for people (`text`), or as JSON.
    pub fn new(logs: Vec<String>, text: bool) -> Self {
        Self {
            logs,
            found: Found::default(),
            output: Output::new(text),
        }
    }

    /// Writes them in this order.
    pub fn write(&mut self, answers: &[Answer], window: &Window) -> Result<(), Failure> {
        let mut parts = answers.chunks(TOGETHER);
        parts.try_for_each(|part| self.write_together(part, window))
    }

    /// Reads each record that they name once.
    fn write_together(&mut self, answers: &[Answer], window: &Window) -> Result<(), Failure> {
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
        let mut answers = answers.iter();
        answers.try_for_each(|answer| self.write_one(answer, window, &named))
    }

    /// `named`: the records of this answer and others, by number.
    fn write_one(
        &mut self,
        answer: &Answer,
        window: &Window,
        named: &[Named<'_>],
    ) -> Result<(), Failure> {
        self.found.count(answer.sureness);
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
        let outlives = |one: &&Named<'_>| answer.asked.is_outlived(one.brief);
        let log = self.logs.get(answer.asked.log);
        let about = About {
            log: log.map_or("", String::as_str),
            seq: self.output.seq,
            records: &records,
            other_end: other.as_ref().and_then(Story::connection),
            unreadable: records.is_empty() && !found.is_empty(),
            lived_on: !found.is_empty() && found.iter().all(outlives),
            forgotten: answer.asked.moment(SLACK).0 <= window.forgotten,
        };
        let record = report::explanation(answer, &about);
        self.output.write(&record, |record, style, page| {
            text::explanation(record, style, page);
        })
    }

    /// Writes the account, which is the last line.
    pub fn close(&mut self, account: &Explained) -> Result<(), Failure> {
        self.output.write(account, text::explained)?;
        self.flush()
    }

    /// The number of the next line.
    pub const fn seq(&self) -> u64 {
        self.output.seq
    }

    /// Nothing is held back any longer.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.output.to.flush().map_err(|error| unwritable(&error))
    }
}

/// Standard output.
#[derive(Debug)]
struct Output {
    to: BufWriter<Stdout>,
    /// `None`: JSON.
    style: Option<Style>,
    room: Box<[u8]>,
    page: String,
    /// The number of the next line.
    seq: u64,
}

impl Output {
    fn new(text: bool) -> Self {
        let colour = wants_colour();
        Self {
            to: BufWriter::with_capacity(1 << 16, Stdout),
            style: text.then_some(Style { colour }),
            room: vec![0; ROOM].into_boxed_slice(),
            page: String::new(),
            seq: 0,
        }
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
}

fn unwritable(error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::BrokenPipe => Code::Ok,
        _ => Code::Output,
    };
    Failure::new(code, format!("cannot write standard output: {error}"))
}
