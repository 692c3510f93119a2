//! Finished records to lines: selects, numbers, spells, counts, and hands them over in batches.
//!
//! Must not know: how a record came about, how bytes are written.

use std::time::Duration;

use crate::{
    account::Account,
    clock::{self, Anchor},
    exit::{Code, Failure},
    join::engine::{Sink, WallClock as _},
    output::{self, Batch, Destination, Ended, Format, Selection, Style, Weight, Writer, writer},
    record::{Connection, Event, StrayReset},
    settings::Settings,
};

/// How long a reader of the output that has stopped reading is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes after which a batch is handed over before its time. Large, because each hand-over wakes the
/// writer and each write has a price of its own; but its memory, which grows by doubling, should stay in the caches, and be used again.
const BATCH: usize = (1 << 19) - (1 << 14);

/// Opens what the settings name as output.
pub fn open(settings: &Settings) -> Result<Destination, Failure> {
    let destination = match &settings.output {
        Some(path) => Destination::file(path),
        None => Destination::stdout(),
    };
    destination.map_err(|error| Failure::new(Code::Output, error.to_string()))
}

/// Prints records.
#[derive(Debug)]
pub struct Printer {
    writer: Writer,
    batch: Batch,
    format: Format,
    selection: Selection,
    /// Each event has a line of its own, which then stands for it.
    events: bool,
    seq: u64,
    connections: u64,
    resets: u64,
    flagged: u64,
    dropped: Weight,
}

impl Printer {
    /// A printer to what [`open`] returned; from now on there is another thread.
    pub fn start(settings: &Settings, destination: Destination) -> Result<Self, Failure> {
        let writer = Writer::start(destination, writer::DEFAULT_LIMIT);
        let writer = writer.map_err(|error| Failure::new(Code::Output, error.to_string()))?;
        let format = if settings.text {
            Format::Text(Style {
                colour: settings.output.is_none() && output::wants_colour(),
            })
        } else {
            Format::Json
        };
        Ok(Self {
            writer,
            batch: Batch::default(),
            format,
            selection: settings.selection.clone(),
            events: settings.events,
            seq: 0,
            connections: 0,
            resets: 0,
            flagged: 0,
            dropped: Weight::default(),
        })
    }

    /// Hands over what has been printed and tells the account.
    pub fn push(&mut self, account: &mut Account) {
        if !self.batch.is_empty() {
            self.dropped += self.writer.push(&mut self.batch);
        }
        account.connections = self.connections;
        account.resets = self.resets;
        account.flagged = self.flagged;
        account.dropped_lines = self.dropped.lines;
        account.dropped_events = self.dropped.events;
    }

    /// Prints the account.
    pub fn account(&mut self, account: &mut Account, anchor: Anchor) {
        let mut line = account.line(anchor.at(clock::monotonic()));
        line.seq = self.number();
        self.dropped += self.format.stats(&mut self.batch, 0, &line);
        self.push(account);
    }

    /// Waits for what has been printed to be written; what a reader that has stopped does not take is
    /// dropped, and counted in the account.
    pub fn drain(&mut self, account: &mut Account) {
        self.dropped += self.writer.drain(PATIENCE);
        self.push(account);
    }

    /// Ends the writing, after the final account. What is to be said where that was not taken, which else says what is missing;
    /// a failure, where it could not be written.
    pub fn finish(self) -> Result<Option<String>, Failure> {
        let (untaken, ended) = self.writer.finish(PATIENCE);
        let lines = self.dropped.lines + untaken.lines;
        match ended {
            Some(Ended::Failed(reason)) => {
                let lines_were = if lines == 1 { "line was" } else { "lines were" };
                let message = format!("{reason}; {lines} {lines_were} not written");
                Err(Failure::new(Code::Output, message))
            }
            None if untaken.lines > 0 => Ok(Some(format!(
                "the reader of the output has stopped: {lines} lines were dropped, the final account among them"
            ))),
            _ => Ok(None),
        }
    }

    /// Whether whoever read the output has gone.
    pub fn is_unread(&self) -> bool {
        self.writer.is_unread()
    }

    /// Waits until nothing more can be written; why is for [`Printer::finish`] to say.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    fn number(&mut self) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        seq
    }

    fn weight(&self, events: u32) -> u64 {
        if self.events { 0 } else { events.into() }
    }

    fn push_if_large(&mut self) {
        if self.batch.len() >= BATCH {
            self.dropped += self.writer.push(&mut self.batch);
        }
    }
}

impl Sink for Printer {
    fn connection(&mut self, record: &mut Connection<'_>, events: u32) {
        self.connections += 1;
        self.resets += u64::from(record.reset.is_some());
        self.flagged += u64::from(record.flag.is_some());
        if self.selection.connection(record) {
            record.seq = self.number();
            let weight = self.weight(events);
            self.dropped += self.format.connection(&mut self.batch, weight, record);
            self.push_if_large();
        }
    }

    fn reset(&mut self, record: &mut StrayReset<'_>, events: u32) {
        self.resets += 1;
        self.flagged += u64::from(record.flag.is_some());
        if self.selection.reset(record) {
            record.seq = self.number();
            let weight = self.weight(events);
            self.dropped += self.format.reset(&mut self.batch, weight, record);
            self.push_if_large();
        }
    }

    fn event(&mut self, record: &mut Event<'_>) {
        record.seq = self.number();
        self.dropped += self.format.event(&mut self.batch, 1, record);
        self.push_if_large();
    }
}
