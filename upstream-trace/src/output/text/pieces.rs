//! What texts for people are made of: times, ends, processes, colours, and words from outside that may do no harm to a terminal.
//!
//! Must not know: in which text they are.

use std::{
    fmt::{self, Display, Formatter, Write as _},
    net::SocketAddr,
};

use crate::record::{Attribution, Endpoint, Process, Timestamp};

pub(crate) const RED: &str = "\x1b[31m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const BOLD: &str = "\x1b[1m";

/// Our own text in a colour; none where `ansi` is empty.
pub(crate) struct Painted<'a> {
    pub(crate) ansi: &'static str,
    pub(crate) text: &'a str,
}

impl Display for Painted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let reset = if self.ansi.is_empty() { "" } else { "\x1b[0m" };
        write!(f, "{}{}{reset}", self.ansi, self.text)
    }
}

/// `2026-11-21 11:34:03.123Z`
pub(crate) struct Clock(pub(crate) Timestamp);

impl Display for Clock {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0.spell();
        let (date, time) = text.as_str().split_once('T').unwrap_or_default();
        write!(f, "{date} {}Z", time.get(..12).unwrap_or_default())
    }
}

/// `12.412 ms`
pub(super) struct Milliseconds(pub(super) u64);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000, self.0 % 1_000)
    }
}

/// `512 B`; `?` where it could not be read.
pub(super) struct Amount(pub(super) Option<u64>);

impl Display for Amount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} B"),
            None => f.write_str("?"),
        }
    }
}

/// `10.0.0.1:80`, `[::1]:80`
pub(crate) struct Address(pub(crate) Endpoint);

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.0.address, self.0.port))
    }
}

/// An address, or `?`.
pub(super) struct Known(pub(super) Option<Endpoint>);

impl Display for Known {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(endpoint) => Address(endpoint).fmt(f),
            None => f.write_str("?"),
        }
    }
}

/// `nginx[34]`, with how it was found where that is less than certain.
pub(crate) struct Owner<'a>(pub(crate) Option<Process<'a>>);

impl Display for Owner<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(process) = self.0 else {
            return f.write_str("?");
        };
        let comm = Harmless(process.comm.unwrap_or("?"));
        write!(f, "{comm}[{}]", process.pid)?;
        match process.attribution {
            Attribution::Exact => Ok(()),
            found => write!(f, " ({})", found.as_str()),
        }
    }
}

/// `NO_SOCKET (kernel)`
pub(super) struct Reason<'a>(pub(super) Option<&'a str>, pub(super) &'static str);

impl Display for Reason<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(reason) => write!(f, "{} ({})", Harmless(reason), self.1),
            None => f.write_str("reason unknown"),
        }
    }
}

/// Text from outside, its control characters escaped.
pub(crate) struct Harmless<'a>(pub(crate) &'a str);

impl Display for Harmless<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if crate::output::is_control(character) {
                let escape = crate::output::escape_control(character);
                escape
                    .into_iter()
                    .try_for_each(|byte| f.write_char(byte.into()))?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}
