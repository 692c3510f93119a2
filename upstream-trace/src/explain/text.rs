//! An explanation for people: the log line's essence, then the connection as a ladder below it.
//!
//! Must not know: whether anybody sees it on a terminal, where it is written to.

use std::fmt::{self, Write as _};

use super::{
    join::Sureness,
    report::{Explained, Explanation},
};
use crate::{
    output::{
        Style,
        text::{self, Address, BOLD, Clock, Harmless, Painted, RED, YELLOW},
    },
    record::Connection,
};

/// Room for a connection's ladder; its timeline is bounded.
const LADDER: usize = 32 << 10;

/// Appends an explanation.
pub(super) fn explanation(record: &Explanation<'_>, style: Style, to: &mut String) {
    // A string takes everything.
    let _ = Page { to, style }.explanation(record);
}

/// Appends the account of the run.
pub(super) fn explained(record: &Explained, style: Style, to: &mut String) {
    let _ = Page { to, style }.explained(record);
}

struct Page<'a> {
    to: &'a mut String,
    style: Style,
}

impl Page<'_> {
    const fn paint<'t>(&self, ansi: &'static str, text: &'t str) -> Painted<'t> {
        Painted {
            ansi: if self.style.colour { ansi } else { "" },
            text,
        }
    }

    fn explanation(&mut self, record: &Explanation<'_>) -> fmt::Result {
        write!(self.to, "{}", Clock(record.time))?;
        if let Some(status) = record.status {
            write!(self.to, "  {status}")?;
        }
        if let Some(flags) = record.flags {
            let gap = if record.status.is_some() { " " } else { "  " };
            write!(self.to, "{gap}{}", Harmless(flags))?;
        }
        if let Some(request) = record.request {
            write!(self.to, "  {}", Harmless(request))?;
        }
        match (record.upstream, record.upstream_name) {
            (Some(upstream), _) => write!(self.to, "  to {}", Address(upstream))?,
            (None, Some(name)) => write!(self.to, "  to {}", Harmless(name))?,
            (None, None) => {}
        }
        writeln!(self.to, "  ({}:{})", Harmless(record.log), record.line)?;
        if let Some(said) = record.said {
            writeln!(self.to, "  said:  {}", Harmless(said))?;
        }
        self.found(record)?;
        for connection in record.records {
            self.connection(connection)?;
        }
        if let Some(other) = &record.other_end {
            let (verdict, flag) = (other.verdict.as_str(), other.flag);
            writeln!(
                self.to,
                "  there: {verdict}{}",
                if flag.is_some() { ", flagged" } else { "" }
            )?;
        }
        let label = self.paint(BOLD, "next:");
        writeln!(self.to, "  {label}  {}", Harmless(&record.hint))
    }

    fn found(&mut self, record: &Explanation<'_>) -> fmt::Result {
        let ansi = match record.sureness {
            Sureness::None | Sureness::Ambiguous => YELLOW,
            _ => "",
        };
        let sureness = self.paint(ansi, record.sureness.as_str());
        write!(self.to, "  found: {sureness}")?;
        if let Some(by) = record.by {
            write!(self.to, ", by {}", by.as_str())?;
        }
        if record.candidates > 1 {
            write!(self.to, ", {} candidates", record.candidates)?;
        }
        self.to.write_char('\n')
    }

    /// The tracer's own ladder without what the explanation says itself.
    fn connection(&mut self, record: &Connection<'_>) -> fmt::Result {
        let record = Connection {
            proxy: None,
            hint: None,
            ..*record
        };
        let mut room = vec![0; LADDER];
        let len = text::connection(&record, self.style, &mut room).unwrap_or(0);
        let ladder = String::from_utf8_lossy(room.get(..len).unwrap_or_default());
        ladder
            .lines()
            .try_for_each(|line| writeln!(self.to, "  | {line}"))
    }

    fn explained(&mut self, record: &Explained) -> fmt::Result {
        let found = record.found;
        write!(
            self.to,
            "{} lines: {} failed, {} fine, {} other; of {} connections explained by exact {}, unique {}, nearest {}, order {}; ",
            record.lines,
            record.failed,
            record.fine,
            record.other,
            record.records,
            found.exact,
            found.unique,
            found.nearest,
            found.order,
        )?;
        write!(
            self.to,
            "ambiguous {}, none {}, elsewhere {}",
            found.ambiguous, found.none, found.elsewhere
        )?;
        let bad = [
            (record.unknown, "lines of unknown format"),
            (record.records_unknown, "lines that are no records"),
            (
                record.records_given_up,
                "records given up for want of memory",
            ),
        ];
        for (count, what) in bad.into_iter().filter(|(count, _)| *count > 0) {
            let count = count.to_string();
            write!(self.to, "; {} {what}", self.paint(RED, &count))?;
        }
        self.to.write_char('\n')
    }
}
