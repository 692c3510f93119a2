//! Finished records to lines: selects, numbers, spells, counts, and hands them to the writer in batches.
//!
//! Must not know: how a record came about, how bytes are written.

use std::io::Write as _;

use crate::{
    account::Account,
    clock::Anchor,
    exit::{Code, Failure},
    join::engine::{Sink, WallClock as _},
    output::json,
    record::{Connection, Event, StrayReset},
    settings::{Format, Settings},
};

pub struct Printer {
    out: Box<dyn std::io::Write>,
    buffer: Vec<u8>,
    seq: u64,
    connections: u64,
    resets: u64,
    flagged: u64,
}
impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Printer")
    }
}
impl Printer {
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        let out: Box<dyn std::io::Write> = match &settings.output {
            Some(path) => Box::new(std::fs::File::create(path).map_err(|error| {
                Failure::new(
                    Code::Output,
                    format!("cannot write {}: {error}", path.display()),
                )
            })?),
            None => Box::new(std::io::stdout()),
        };
        Ok(Self {
            out,
            buffer: Vec::new(),
            seq: 0,
            connections: 0,
            resets: 0,
            flagged: 0,
        })
    }
    pub fn push(&mut self, account: &mut Account, _anchor: Anchor) -> Result<(), Failure> {
        account.connections = self.connections;
        account.resets = self.resets;
        account.flagged = self.flagged;
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.out
            .write_all(&self.buffer)
            .map_err(|error| Failure::new(Code::Output, error.to_string()))?;
        self.out.flush().ok();
        self.buffer.clear();
        Ok(())
    }
    pub fn account(&mut self, account: &mut Account, anchor: Anchor) -> Result<(), Failure> {
        let mut line = account.line(anchor.at(crate::clock::monotonic()));
        line.seq = self.seq;
        self.seq += 1;
        json::stats(&mut self.buffer, &line);
        self.push(account, anchor)
    }
    pub fn finish(self) -> Result<(), Failure> {
        Ok(())
    }
    pub async fn closed(&self) {
        std::future::pending().await
    }
}
impl Sink for Printer {
    fn connection(&mut self, record: &mut Connection<'_>, events: u32) {
        record.seq = self.seq;
        self.seq += 1;
        self.connections += 1;
        if record.reset.is_some() {
            self.resets += 1
        }
        if record.flag.is_some() {
            self.flagged += 1
        }
        json::connection(&mut self.buffer, record);
    }
    fn reset(&mut self, record: &mut StrayReset<'_>, events: u32) {
        record.seq = self.seq;
        self.seq += 1;
        self.resets += 1;
        json::reset(&mut self.buffer, record);
    }
    fn event(&mut self, record: &mut Event<'_>) {
        record.seq = self.seq;
        self.seq += 1;
        json::event(&mut self.buffer, record);
    }
}
