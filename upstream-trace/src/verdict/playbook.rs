//! The playbook: what each failure means, where it lies, what to check next, and what the proxies call it.
//!
//! One table ([`rows`]): of a verdict's rows the first, from top to bottom, that holds for what is known of a connection. Where the
//! facts carry no cause, none is named. A live test holds each row against the scenarios that it names.
//! Must not know: how a verdict is reached.

mod condition;
mod markdown;
mod rows;

use std::net::IpAddr;

use super::facts::Facts;
use crate::record::{Cause, Direction, Evidence, Layer, Origin, ProxyWords, Verdict};

use self::{
    condition::Condition,
    rows::{NO_SOCKET, ROWS, STRAY_ROWS},
};
pub use self::{
    markdown::table,
    rows::{BREAKER_OPEN, NO_HEALTHY_HOST, NOT_UNDERSTOOD},
};

/// What a row is chosen by.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct About<'a> {
    /// What became of the connection.
    pub verdict: Verdict,
    /// What is known of it from its own socket.
    pub facts: Facts,
    /// Which way the reset went, whose stack sent it, and the kernel's reason for it.
    pub reset: Option<(Direction, Origin, Option<&'a str>)>,
    /// That is likely, and no more.
    pub likely: bool,
    /// The other end, on this node as well, did not receive all that this one sent.
    pub undelivered: bool,
    /// What the application was told.
    pub errno: Option<&'static str>,
    /// This end's address.
    pub local: IpAddr,
    /// The first FIN came at once.
    pub is_closed_at_once: bool,
    /// The exit is that of the end that closed first, and the other one reset the connection.
    pub is_closer_killed: bool,
    /// What else is known.
    pub evidence: Evidence<'a>,
}

/// An end of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

impl About<'_> {
    /// Nothing else is known.
    #[must_use]
    pub fn new(verdict: Verdict, facts: Facts, local: IpAddr) -> Self {
        Self {
            verdict,
            facts,
            reset: None,
            likely: false,
            undelivered: false,
            errno: None,
            local,
            is_closed_at_once: false,
            is_closer_killed: false,
            evidence: Evidence::default(),
        }
    }
}

/// What shows that the row is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// These scenarios end in it, one end or both.
    Played(&'static [&'static str]),
    /// It takes a firewall, another machine or an administrator, so it is tested from data only.
    FromData,
    /// Not visible in the kernel.
    NotInTheKernel,
}

/// What is said of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The root cause; `None` where what is known carries none.
    pub cause: Option<Cause>,
    /// Where it lies.
    pub layer: Layer,
    /// What it means and the next thing to check.
    pub hint: &'static str,
    /// What a proxy reports whose upstream connection, or that of whose client's, ended this way.
    pub proxy: Option<ProxyWords<'static>>,
}

/// A row about connections of the verdicts of its group.
#[derive(Clone, Copy, Debug)]
struct Row {
    condition: Condition,
    meaning: Meaning,
    shown: Shown,
}

/// A reset that belongs to no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrayKind {
    /// Sent, to a SYN for which there is no socket.
    NoListener,
    /// Sent from `TIME_WAIT`.
    FromTimeWait,
    /// The same from a port that nobody has listened on.
    FromClosedClient,
    /// Sent by a listening socket, or for a half-open request.
    FromListener,
    /// Sent, to any other segment for which there is no socket.
    NoSocket,
    /// The same from a port that nobody has listened on.
    NoSocketClient,
    /// Received in `TIME_WAIT`.
    InTimeWait,
    /// Received by a half-open request.
    HalfOpen,
    /// Received by a listening socket.
    AtListener,
    /// Received by a connection, with another sequence number than the expected one.
    Unexpected,
    /// Received by a listening socket or, the same, by a connection.
    Ignored,
}

impl StrayKind {
    /// What it is where nobody has listened on the port at this end.
    #[must_use]
    pub const fn of_client(self) -> Self {
        match self {
            Self::FromTimeWait => Self::FromClosedClient,
            Self::NoSocket => Self::NoSocketClient,
            other => other,
        }
    }

    /// Which way it went.
    pub const fn direction(self) -> Direction {
        match self {
            Self::NoListener
            | Self::FromTimeWait
            | Self::FromClosedClient
            | Self::FromListener
            | Self::NoSocket
            | Self::NoSocketClient => Direction::Sent,
            Self::InTimeWait
            | Self::HalfOpen
            | Self::AtListener
            | Self::Unexpected
            | Self::Ignored => Direction::Received,
        }
    }
}

/// A row about resets that belong to no connection.
#[derive(Clone, Copy, Debug)]
struct StrayRow {
    stray: StrayKind,
    words: &'static str,
    meaning: Meaning,
    shown: Shown,
}

/// A row about what a proxy reports without a failed connection behind it.
#[derive(Clone, Copy, Debug)]
struct UnseenRow {
    words: &'static str,
    meaning: Meaning,
}

/// What the playbook says; `None` for `ok`.
pub fn meaning(about: &About<'_>) -> Option<&'static Meaning> {
    // Most connections are: no row has to say no to each.
    if about.verdict == Verdict::Ok {
        return None;
    }
    let groups = ROWS
        .iter()
        .filter(|(verdicts, _)| verdicts.contains(&about.verdict));
    let mut rows = groups.flat_map(|(_, rows)| *rows);
    let row = rows.find(|row| row.condition.holds(about));
    row.map(|row| &row.meaning)
}

/// What it says of a reset that belongs to no connection.
pub fn stray(stray: StrayKind) -> &'static Meaning {
    let row = STRAY_ROWS.iter().find(|row| row.stray == stray);
    row.map_or(&NO_SOCKET.meaning, |row| &row.meaning)
}

/// Each verdict with the proxies' words that a row has for it.
#[cfg(test)]
pub(crate) fn spoken() -> impl Iterator<Item = (Verdict, ProxyWords<'static>)> {
    ROWS.iter().flat_map(|(verdicts, rows)| {
        let words = rows.iter().filter_map(|row| row.meaning.proxy);
        words.flat_map(|words| verdicts.iter().map(move |&verdict| (verdict, words)))
    })
}

#[cfg(test)]
mod tests;
