//! The playbook: what each failure means, where it lies, what to check next, and what the proxies call it.
//!
//! One table ([`rows`]): of a verdict's rows the first, from top to bottom, that holds for what is known of a connection. Where the
//! facts carry no cause, none is named. A live test holds each row against the scenarios that it names.
//! Must not know: how a verdict is reached.

mod markdown;
mod rows;

use std::net::IpAddr;

use super::facts::Facts;
use crate::record::{
    AcceptQueue, Bytes, Cause, Descriptors, Direction, Evidence, Icmp, Layer, Origin, ProxyWords,
    Role, Verdict,
};

use self::rows::{NO_SOCKET, ROWS, STRAY_ROWS};
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
    /// A process still had this end's socket.
    pub is_open: bool,
    /// What else is known.
    pub evidence: Evidence<'a>,
}

/// An end of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// What has to be known besides the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// Nothing.
    None,
    /// The reset came from neither end.
    InPath,
    /// It is likely that the reset came from neither end: its packet came from nearer than the peer's.
    LikelyInPath,
    /// The same, because a filter of this node dropped what may be a copy of the SYN that was reset.
    DroppedCopy,
    /// The reset came from a stack on this node, for one of these reasons (empty: any or none), and this
    /// end sent it (`None`: either).
    OnNode(&'static [&'static str], Option<End>),
    /// That end's side sent the reset.
    SentBy(End),
    /// This end was told so.
    Errno(&'static str),
    /// An end that is on this node sent it, and is known by another address: it is translated on the way (NAT).
    Translated,
    /// The client sent payload.
    Unacknowledged,
    /// An ICMP error answered the SYN that says that nothing is there, or the owner was told so.
    PortUnreachable,
    /// A local port was chosen.
    HasLocalPort,
    /// This end had sent the first FIN, and no process had its socket any more.
    ClosedFirst,
    /// It is not known which end this is.
    EitherEnd,
    /// The other end had sent the first FIN.
    PeerClosedFirst,
    /// The client had sent its FIN when that end reset the connection.
    ClientClosedFirst(End),
    /// The same of a client on this node that had been silent before its FIN, and reset it itself. A goodbye comes with the FIN.
    GaveUp,
    /// This end sent the reset, and it is not known which it is.
    ByThisEnd,
    /// Payload of this end was still on its way.
    Undelivered,
    /// The same of the client's where the server reset, and something had been sent again.
    SentAgain,
    /// Somebody destroyed the socket of the end that sent the reset (`ss -K`).
    Destroyed,
    /// The request was sent after the server's FIN, and reset by whoever is left of the server.
    Late,
    /// The same of one that the server had closed at once, and not because its process came to its end.
    TurnedAway,
    /// The same where it did, and nothing of this request had come.
    EndedBefore,
    /// The owner was told that there is no way to the other end, or nothing there: ICMP errors came.
    ToldUnreachable,
    /// An ICMP error answered the SYN, of the kind by which firewalls and access lists refuse.
    Prohibited,
    /// This node itself answered the SYN with ICMP host unreachable.
    NoNeighbour,
    /// The accept queue at the server, on this node, was full.
    QueueFull,
    /// The process that listens, on this node, had as many descriptors open as it may.
    NoDescriptor,
    /// Both.
    QueueFullNoDescriptor,
    /// A filter of this node dropped the SYN or the answer to it.
    Dropped,
    /// In all the server sent [`ALERT`] bytes, after as much as a TLS client opens with, and ended it then, and not because its
    /// process came to its end.
    Alert,
    /// The server sent nothing at all.
    FirstExchange,
    /// That end closed it, and did because a signal killed its process.
    Killed(End),
    /// The same, by whatever its process came to its end.
    Ended(End),
    /// Either's process came to its end.
    Exited,
    /// That end reset it on purpose, for one of these reasons (empty: any or none).
    Aborted(&'static [&'static str], End),
    /// The server had reset it when what the client sent last arrived; that was the first it sent (`true`), or there
    /// was an answer before.
    Crossed(bool),
}

/// What the kernel says that met a socket whose owner had closed it.
const CLOSED_SERVER: Condition = Condition::OnNode(
    &["TCP_TIMEWAIT_SOCKET", "TCP_ABORT_ON_DATA"],
    Some(End::Server),
);
/// A TLS alert that is not encrypted: a record's header, the level, the description.
const ALERT: u64 = 7;
/// What a TLS client or an HTTP request opens with; a shorter exchange may be any protocol's.
const HELLO: std::ops::RangeInclusive<u64> = 64..=4096;

impl Condition {
    fn holds(self, about: &About<'_>) -> bool {
        let facts = &about.facts;
        let Bytes { sent, received, .. } = facts.counters.bytes;
        let (by_client, by_server) = match facts.role {
            Role::Server => (received, sent),
            _ => (sent, received),
        };
        match self {
            Self::None => true,
            Self::InPath => about.in_path() && !about.likely,
            Self::LikelyInPath => about.in_path() && about.likely,
            Self::DroppedCopy => Self::LikelyInPath.holds(about) && Self::Dropped.holds(about),
            Self::OnNode(reasons, end) => about.reset.is_some_and(|(_, origin, reason)| {
                matches!(origin, Origin::Local | Origin::PeerOnNode)
                    && (reasons.is_empty() || reason.is_some_and(|known| reasons.contains(&known)))
                    && end.is_none_or(|end| about.sender() == Some(end))
            }),
            Self::SentBy(end) => about.sender() == Some(end),
            Self::Errno(name) => about.errno == Some(name),
            Self::Translated => {
                Self::OnNode(&[], None).holds(about) && about.evidence.peer_address.is_some()
            }
            Self::Unacknowledged => by_client > Some(0),
            Self::PortUnreachable => {
                let icmp = about.evidence.icmp;
                Self::Errno("ECONNREFUSED").holds(about)
                    || icmp.is_some_and(|icmp| is_unreachable(about, icmp, PORT))
            }
            Self::HasLocalPort => facts.has_local_port,
            Self::ClosedFirst => facts.closed_first && !about.is_open,
            Self::EitherEnd => facts.role == Role::Unknown,
            Self::PeerClosedFirst => facts.peer_closed_first,
            Self::ClientClosedFirst(end) => {
                about.has_closed_first(End::Client) && about.sender() == Some(end)
            }
            Self::GaveUp => {
                facts.has_waited
                    && Self::ClientClosedFirst(End::Client).holds(about)
                    && Self::OnNode(&[], None).holds(about)
            }
            Self::ByThisEnd => {
                facts.role == Role::Unknown && matches!(about.reset, Some((Direction::Sent, ..)))
            }
            Self::Undelivered => facts.counters.unacked == Some(true),
            Self::SentAgain => about.was_sent_again(),
            Self::Destroyed => facts.destroyed && Self::OnNode(&[], None).holds(about),
            Self::Late => {
                facts.payload_after_fin && about.has_closed_first(End::Server) && !about.in_path()
            }
            Self::TurnedAway => {
                about.is_turned_away()
                    && about.evidence.exit.is_none()
                    && about.met_a_closed_server()
            }
            Self::EndedBefore => {
                let has_begun = by_server == Some(0) && about.came() > Some(0);
                !has_begun && Self::Ended(End::Server).holds(about) && about.met_a_closed_server()
            }
            Self::ToldUnreachable => matches!(
                about.errno,
                Some("EHOSTUNREACH" | "ENETUNREACH" | "ECONNREFUSED")
            ),
            Self::Prohibited => about
                .evidence
                .icmp
                .is_some_and(|icmp| prohibits(about, icmp)),
            Self::NoNeighbour => about.evidence.icmp.is_some_and(|icmp| {
                icmp.from == Some(about.local) && is_unreachable(about, icmp, HOST)
            }),
            Self::QueueFull => about
                .evidence
                .accept_queue
                .is_some_and(AcceptQueue::is_full),
            Self::QueueFullNoDescriptor => {
                Self::QueueFull.holds(about) && Self::NoDescriptor.holds(about)
            }
            Self::NoDescriptor => {
                let descriptors = about.evidence.descriptors;
                descriptors.is_some_and(|Descriptors { open, limit, .. }| open >= limit)
            }
            Self::Dropped => about.evidence.drop_reason.is_some(),
            Self::Alert => {
                about.is_ended_by_alert()
                    && by_server == Some(ALERT)
                    && by_client.is_some_and(|bytes| HELLO.contains(&bytes))
            }
            Self::FirstExchange => by_server == Some(0),
            Self::Killed(end) => {
                Self::Ended(end).holds(about)
                    && about
                        .evidence
                        .exit
                        .is_some_and(|exit| exit.signal.is_some())
            }
            Self::Ended(end) => about.is_by(end) && about.evidence.exit.is_some(),
            Self::Exited => about.evidence.exit.is_some(),
            Self::Aborted(reasons, end) => {
                Self::OnNode(reasons, Some(end)).holds(about) && about.evidence.abort == Some(true)
            }
            Self::Crossed(first) => about.has_crossed() && first == (received == Some(0)),
        }
    }
}

/// `ICMP_NET_ANO`, `ICMP_HOST_ANO`, `ICMP_PKT_FILTERED`, or `ICMPV6_ADM_PROHIBITED`, `ICMPV6_POLICY_FAIL`,
/// `ICMPV6_REJECT_ROUTE`.
fn prohibits(about: &About<'_>, icmp: Icmp) -> bool {
    let error = (icmp.kind, icmp.code);
    if about.local.is_ipv4() {
        matches!(error, (3, 9 | 10 | 13))
    } else {
        matches!(error, (1, 1 | 5 | 6))
    }
}

/// Codes of "destination unreachable" over IPv4 and IPv6: `ICMP_PORT_UNREACH`, `ICMPV6_PORT_UNREACH`.
const PORT: [u8; 2] = [3, 4];
/// `ICMP_HOST_UNREACH`, `ICMPV6_ADDR_UNREACH`.
const HOST: [u8; 2] = [1, 3];

fn is_unreachable(about: &About<'_>, icmp: Icmp, [v4, v6]: [u8; 2]) -> bool {
    let error = (icmp.kind, icmp.code);
    let is_v4 = about.local.is_ipv4();
    error == if is_v4 { (3, v4) } else { (1, v6) }
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
            is_open: false,
            evidence: Evidence::default(),
        }
    }

    fn end(&self) -> Option<End> {
        match self.facts.role {
            Role::Server => Some(End::Server),
            Role::Client => Some(End::Client),
            Role::Unknown => None,
        }
    }

    fn in_path(&self) -> bool {
        matches!(self.reset, Some((_, Origin::InPath, _)))
    }

    /// Whether that end sent the first FIN.
    fn has_closed_first(&self, end: End) -> bool {
        self.end().is_some_and(|this| {
            if this == end {
                self.facts.closed_first
            } else {
                self.facts.peer_closed_first
            }
        })
    }

    /// Payload of the client's that had come to the server.
    fn came(&self) -> Option<u64> {
        let bytes = &self.facts.counters.bytes;
        match self.end()? {
            End::Client => bytes.acked,
            End::Server => bytes.received,
        }
    }

    /// Whether the server closed it at once: nothing of the client's had come to it.
    fn is_turned_away(&self) -> bool {
        self.is_closed_at_once && self.has_closed_first(End::Server) && self.came() == Some(0)
    }

    /// Whether that end, on this node, brought the connection to its end.
    fn is_by(&self, end: End) -> bool {
        match self.reset {
            None if self.verdict == Verdict::ConnectCanceled => end == End::Client,
            None => end == End::Server,
            Some(_) => Condition::OnNode(&[], Some(end)).holds(self),
        }
    }

    /// Whether payload of the client's, something of which had been sent again, was on its way when the server reset.
    fn was_sent_again(&self) -> bool {
        self.facts.role == Role::Client
            && self.sender() == Some(End::Server)
            && Condition::Undelivered.holds(self)
            && self.facts.counters.retransmits > Some(0)
    }

    /// Whether what the client sent last met a connection that the server had reset.
    fn has_crossed(&self) -> bool {
        self.facts.role == Role::Client
            && self.undelivered
            && Condition::OnNode(&[], Some(End::Server)).holds(self)
    }

    /// Whether what the server sent last may have been an alert: it ended the connection then, and its process lived on.
    fn is_ended_by_alert(&self) -> bool {
        let by_server = self.reset.is_none() || self.sender() == Some(End::Server);
        by_server && self.evidence.exit.is_none() && !self.met_a_closed_server()
    }

    /// Whether the server had sent its FIN when what the client sent last was reset for that.
    fn met_a_closed_server(&self) -> bool {
        CLOSED_SERVER.holds(self) || Condition::Late.holds(self)
    }

    /// Which end sent the reset; `None` where there was none, neither did, or it is not known which this end is.
    fn sender(&self) -> Option<End> {
        match (self.reset?, self.end()?) {
            _ if self.in_path() => None,
            ((Direction::Sent, ..), end) => Some(end),
            ((Direction::Received, ..), End::Client) => Some(End::Server),
            ((Direction::Received, ..), End::Server) => Some(End::Client),
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
mod tests {
    use std::{collections::HashSet, env, fs, path::Path};

    use super::{rows::UNSEEN_ROWS, *};
    use crate::record::{
        Endpoint, Exit,
        Verdict::{NeverAccepted, ResetBeforeResponse, ResetMidStream},
    };

    fn about(verdict: Verdict, role: Role) -> About<'static> {
        let facts = Facts {
            role,
            ..Facts::default()
        };
        About::new(verdict, facts, HERE)
    }

    fn with(mut about: About<'_>, set: impl FnOnce(&mut Facts)) -> About<'_> {
        set(&mut about.facts);
        about
    }

    fn bytes(sent: u64, received: u64, acked: u64) -> Bytes {
        Bytes {
            sent: Some(sent),
            received: Some(received),
            acked: Some(acked),
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn icmp(code: u8, from: Option<IpAddr>) -> Evidence<'static> {
        let icmp = Icmp {
            kind: 3,
            code,
            from,
        };
        Evidence {
            icmp: Some(icmp),
            ..Evidence::default()
        }
    }

    fn queue(length: u32, open: u64) -> Evidence<'static> {
        let (limit, most) = (128, 1024);
        Evidence {
            accept_queue: Some(AcceptQueue { length, limit }),
            descriptors: Some(Descriptors {
                pid: 7,
                open,
                limit: most,
            }),
            ..Evidence::default()
        }
    }

    /// Each kind of evidence that rows ask for.
    fn evidences() -> [Evidence<'static>; 9] {
        [
            Evidence::default(),
            icmp(13, None),
            icmp(1, Some(HERE)),
            queue(129, 10),
            queue(1, 1024),
            queue(129, 1024),
            dropped(),
            exit(None),
            exit(Some("SIGKILL")),
        ]
    }

    fn exit(signal: Option<&'static str>) -> Evidence<'static> {
        Evidence {
            exit: Some(Exit { signal }),
            ..Evidence::default()
        }
    }

    fn dropped() -> Evidence<'static> {
        Evidence {
            drop_reason: Some("NETFILTER_DROP"),
            ..Evidence::default()
        }
    }

    /// What is found of how a reset came to be sent.
    fn ways() -> [Evidence<'static>; 6] {
        let translated = Evidence {
            peer_address: Some(Endpoint {
                address: HERE,
                port: 15_001,
            }),
            ..Evidence::default()
        };
        let abort = Evidence {
            abort: Some(true),
            ..Evidence::default()
        };
        let none = Evidence::default();
        let (ended, killed) = (exit(None), exit(Some("SIGKILL")));
        [none, ended, killed, abort, translated, dropped()]
    }

    fn rows() -> impl Iterator<Item = &'static Row> {
        ROWS.iter().flat_map(|(_, rows)| *rows)
    }

    /// Each of them with each of these values.
    fn vary<T: Copy>(
        abouts: &mut Vec<About<'static>>,
        values: &[T],
        set: impl Fn(&mut About<'static>, T),
    ) {
        let with = |(mut about, value)| {
            set(&mut about, value);
            about
        };
        let pairs = abouts
            .iter()
            .flat_map(|&about| values.iter().map(move |&value| (about, value)));
        *abouts = pairs.map(with).collect();
    }

    /// Those of this verdict and end that rows can tell apart.
    fn all_of(verdict: Verdict, role: Role) -> Vec<About<'static>> {
        let (some, hello) = (Some(ALERT), Some(*HELLO.start()));
        let amounts = [
            (None, None),
            (Some(0), Some(0)),
            (hello, Some(0)),
            (Some(0), hello),
            (hello, some),
            (some, hello),
        ];
        // Whether anything had come tells whom a server turned away that closes at once.
        let mut abouts = vec![About {
            is_closed_at_once: true,
            ..about(verdict, role)
        }];
        vary(&mut abouts, &amounts, |about, (sent, received)| {
            about.facts.counters.bytes = Bytes {
                sent,
                received,
                acked: sent,
            };
        });
        let mut resets = abouts.clone();

        // No row asks for both a reset and what the application was told.
        let errnos = [
            None,
            Some("ECONNREFUSED"),
            Some("ENETUNREACH"),
            Some("ECONNABORTED"),
        ];
        vary(&mut abouts, &errnos, |about, errno| about.errno = errno);
        vary(&mut abouts, &evidences(), |about, evidence| {
            about.evidence = evidence;
        });
        vary(&mut abouts, &[false, true], |about, has_port| {
            about.facts.has_local_port = has_port;
        });

        vary(&mut resets, Direction::ALL, |about, direction| {
            about.reset = Some((direction, Origin::Unknown, None));
        });
        let known = Origin::ALL.iter().map(|&origin| (origin, false));
        let origins: Vec<_> = known.chain([(Origin::InPath, true)]).collect();
        vary(&mut resets, &origins, |about, (origin, likely)| {
            about.reset = about
                .reset
                .map(|(direction, _, reason)| (direction, origin, reason));
            about.likely = likely;
        });
        let reasons = [
            None,
            Some("NO_SOCKET"),
            Some("TCP_FLAGS"),
            Some("TCP_KEEPALIVE_TIMEOUT"),
            Some("TCP_ABORT_ON_MEMORY"),
            Some("TCP_ABORT_ON_CLOSE"),
            Some("INVALID_SYN"),
            Some("TCP_TIMEWAIT_SOCKET"),
            Some("TCP_ABORT_ON_DATA"),
        ];
        vary(&mut resets, &reasons, |about, reason| {
            about.reset = about
                .reset
                .map(|(direction, origin, _)| (direction, origin, reason));
        });
        vary(&mut resets, &ways(), |about, evidence| {
            about.evidence = evidence;
        });
        let deliveries = [(false, 0), (true, 0), (true, 1)];
        vary(&mut resets, &deliveries, |about, (on_its_way, again)| {
            about.undelivered = on_its_way;
            about.facts.counters.unacked = Some(on_its_way);
            about.facts.counters.retransmits = Some(again);
        });
        let fins: [fn(&mut Facts); 7] = [
            |facts| facts.destroyed = true,
            |_| {},
            |facts| facts.closed_first = true,
            |facts| facts.peer_closed_first = true,
            |facts| (facts.peer_closed_first, facts.has_waited) = (true, true),
            |facts| (facts.closed_first, facts.payload_after_fin) = (true, true),
            |facts| (facts.peer_closed_first, facts.payload_after_fin) = (true, true),
        ];
        vary(&mut resets, &fins, |about, fin| fin(&mut about.facts));
        abouts.extend(resets);
        abouts
    }

    fn every(mut each: impl FnMut(&About<'_>)) {
        for &verdict in Verdict::ALL {
            for &role in Role::ALL {
                all_of(verdict, role).iter().for_each(&mut each);
            }
        }
    }

    #[test]
    fn every_failure_has_a_row_and_every_row_is_the_outcome_of_something() {
        let mut reached = HashSet::new();
        every(|about| {
            let meaning = meaning(about);
            assert_eq!(meaning.is_none(), about.verdict == Verdict::Ok, "{about:?}");
            reached.extend(meaning.map(|meaning| meaning.hint));
        });
        for row in rows() {
            assert!(reached.contains(row.meaning.hint), "{row:?}");
        }
    }

    #[test]
    fn a_hint_belongs_to_one_row_and_is_one_sentence_to_read() {
        let connections = rows().map(|row| row.meaning);
        let strays = STRAY_ROWS.iter().map(|row| row.meaning);
        let unseen = UNSEEN_ROWS.iter().map(|row| row.meaning);
        let mut hints = HashSet::new();
        for Meaning { hint, .. } in connections.chain(strays).chain(unseen) {
            assert!(hint.ends_with('.') && hint.len() < 250, "{hint}");
            assert!(!hint.contains('|'), "{hint}");
            assert!(hints.insert(hint), "{hint}");
        }
    }

    #[test]
    fn where_both_ends_are_not_known_no_end_is_accused() {
        every(|about| {
            match about.reset {
                Some((_, Origin::OffNode | Origin::Unknown, _)) => {}
                Some((_, Origin::InPath, _)) if about.likely => {}
                _ => return,
            }
            let cause = meaning(about).and_then(|meaning| meaning.cause);
            let accuses_server = cause == Some(Cause::UnhealthyEndpoint);
            let accuses_client = cause == Some(Cause::ClientGaveUp);
            let never_accepted = about.verdict == NeverAccepted;
            assert!(
                !accuses_client && (!accuses_server || never_accepted),
                "{about:?}"
            );
        });
    }

    #[test]
    fn tls_is_named_only_where_the_server_ended_it_after_an_alerts_bytes() {
        let client = about(ResetMidStream, Role::Client);
        let exchange = |sent, received| About {
            reset: Some((Direction::Received, Origin::OffNode, None)),
            ..with(client, |facts| {
                facts.counters.bytes = bytes(sent, received, sent);
            })
        };
        let alert = exchange(517, ALERT);
        let cause = |about: &About<'_>| meaning(about).and_then(|meaning| meaning.cause);
        assert_eq!(cause(&alert), Some(Cause::TlsMismatch));
        let by_client = About {
            reset: Some((Direction::Sent, Origin::Local, None)),
            ..alert
        };
        let in_path = About {
            reset: Some((Direction::Received, Origin::InPath, None)),
            ..alert
        };
        let likely_in_path = About {
            likely: true,
            ..in_path
        };
        for other in [
            likely_in_path,
            exchange(517, ALERT - 1),
            exchange(517, 150),
            // Redis answers a PING of 14 bytes by 7.
            exchange(14, ALERT),
            by_client,
            in_path,
        ] {
            assert_ne!(cause(&other), Some(Cause::TlsMismatch), "{other:?}");
        }
        assert!(
            meaning(&About {
                verdict: Verdict::Ok,
                ..alert
            })
            .is_none()
        );
    }

    #[test]
    fn what_there_was_no_room_for_is_named_only_where_it_was_full() {
        let cause = |verdict, evidence| {
            let about = About {
                evidence,
                ..about(verdict, Role::Client)
            };
            meaning(&about).and_then(|meaning| meaning.cause)
        };
        for verdict in [Verdict::ConnectTimeout, Verdict::ConnectCanceled] {
            let named = |evidence| cause(verdict, evidence);
            assert_eq!(named(queue(129, 10)), Some(Cause::Exhaustion));
            // Where there is room, a SYN is not dropped for want of it.
            let silence = (verdict == Verdict::ConnectTimeout).then_some(Cause::Network);
            assert_eq!(named(queue(3, 1024)), silence);
            assert_eq!(named(queue(128, 1023)), silence);
            // A SYN that was dropped never came to the queue.
            let dropped = Evidence {
                drop_reason: Some("NETFILTER_DROP"),
                ..queue(129, 1024)
            };
            assert_eq!(named(dropped), Some(Cause::Firewall));
        }
    }

    /// What is known decides, not what is likely.
    #[test]
    fn nobody_is_accused_of_what_another_did() {
        let hint = |about: &About<'_>| meaning(about).unwrap().hint;
        let client = |verdict| about(verdict, Role::Client);
        let by_server = |reason| Some((Direction::Received, Origin::PeerOnNode, Some(reason)));

        // A redirect leads to somebody else than the server that the client knows.
        let refused = About {
            reset: by_server("NO_SOCKET"),
            ..client(Verdict::Refused)
        };
        let redirected = About {
            evidence: Evidence {
                peer_address: Some(Endpoint {
                    address: HERE,
                    port: 15_001,
                }),
                ..Evidence::default()
            },
            ..refused
        };
        assert!(hint(&refused).starts_with("Nothing accepts"));
        assert!(hint(&redirected).contains("evidence.peer_address"));

        // A goodbye comes with the client's FIN; who gives up has waited before it. A process that was killed is neither.
        let late_answer = |has_waited, evidence| {
            let server = with(about(ResetMidStream, Role::Server), |facts| {
                (facts.peer_closed_first, facts.has_waited) = (true, has_waited);
            });
            hint(&About {
                evidence,
                reset: Some((
                    Direction::Received,
                    Origin::PeerOnNode,
                    Some("TCP_TIMEWAIT_SOCKET"),
                )),
                ..server
            })
        };
        let nothing = Evidence::default();
        assert!(late_answer(true, nothing).contains("before it had the whole answer"));
        assert!(late_answer(false, nothing).contains("a goodbye"));
        assert!(late_answer(true, exit(Some("SIGKILL"))).contains("evidence.exit"));

        // Of a request that had come in part the killed server is to blame, of one that came later it is not.
        let cut = |came, evidence| {
            let closed = with(client(ResetBeforeResponse), |facts| {
                facts.peer_closed_first = true;
                facts.counters.bytes = bytes(9000, 0, came);
            });
            hint(&About {
                is_closed_at_once: came == 0,
                evidence,
                reset: by_server("TCP_ABORT_ON_DATA"),
                ..closed
            })
        };
        assert!(cut(4000, exit(Some("SIGKILL"))).starts_with("A signal killed"));
        assert!(cut(0, exit(Some("SIGKILL"))).contains("had come to its end"));
        assert!(cut(0, nothing).contains("as soon as it was made"));

        // Whoever has the socket waits for what is cut.
        let closed = |is_open| {
            hint(&About {
                is_open,
                reset: Some((Direction::Received, Origin::OffNode, None)),
                ..with(client(Verdict::ResetIdle), |facts| {
                    facts.closed_first = true;
                })
            })
        };
        assert!(closed(false).contains("harmless") && !closed(true).contains("nobody here"));

        // Some of the request had come where some of it was left unread.
        let crossed = About {
            undelivered: true,
            reset: by_server("TCP_ABORT_ON_CLOSE"),
            ..with(client(ResetBeforeResponse), |facts| {
                facts.counters.bytes = bytes(10_000, 0, 4_000);
            })
        };
        assert!(hint(&crossed).contains("without reading the whole request"));
        let before = About {
            reset: by_server("TCP_STATE"),
            ..crossed
        };
        assert!(hint(&before).contains("when its first request arrived"));

        // A request that was lost is no health check.
        let probe = |sent| {
            hint(&About {
                reset: Some((Direction::Sent, Origin::Local, None)),
                ..with(client(Verdict::Probe), |facts| {
                    facts.counters.bytes = bytes(sent, 0, 0);
                })
            })
        };
        assert!(probe(0).contains("before any payload arrived"));
        assert!(probe(300).contains("never acknowledged"));

        // It may be told only later, to an owner who does not wait for that.
        let unreachable = About {
            evidence: icmp(3, None),
            ..client(Verdict::Unreachable)
        };
        assert!(hint(&unreachable).contains("port unreachable"));
    }

    #[test]
    fn a_filter_likely_refused_a_connection_only_where_it_dropped_a_syn() {
        let unknown = About {
            reset: Some((Direction::Received, Origin::InPath, None)),
            likely: true,
            ..about(Verdict::Refused, Role::Client)
        };
        let copied = About {
            evidence: dropped(),
            ..unknown
        };
        let hint = |about: &About<'_>| meaning(about).unwrap().hint;
        assert!(hint(&unknown).starts_with("A reset answered"));
        assert!(hint(&copied).contains("evidence.drop_reason"));
    }

    #[test]
    fn an_icmp_error_is_a_firewalls_or_this_nodes_own_only_where_it_says_so() {
        let meaning = |evidence| {
            let about = About {
                errno: Some("EHOSTUNREACH"),
                evidence,
                ..about(Verdict::Unreachable, Role::Client)
            };
            *meaning(&about).unwrap()
        };
        let other = meaning(icmp(1, Some([10, 0, 0, 254].into())));
        assert_eq!(meaning(icmp(13, None)).cause, Some(Cause::Firewall));
        assert_eq!(other, meaning(Evidence::default()));
        assert_ne!(meaning(icmp(1, Some(HERE))).hint, other.hint);
    }

    #[test]
    fn an_end_is_not_accused_of_what_the_other_did() {
        let unread = |role, direction, origin| About {
            reset: Some((direction, origin, Some("TCP_ABORT_ON_CLOSE"))),
            ..about(ResetBeforeResponse, role)
        };
        let hint = |about: &About<'_>| meaning(about).unwrap().hint;
        let by_server = [
            unread(Role::Client, Direction::Received, Origin::PeerOnNode),
            unread(Role::Server, Direction::Sent, Origin::Local),
        ];
        let by_client = [
            unread(Role::Client, Direction::Sent, Origin::Local),
            unread(Role::Server, Direction::Received, Origin::PeerOnNode),
        ];
        for about in by_server {
            assert!(hint(&about).starts_with("The server closed"), "{about:?}");
        }
        for about in by_client {
            assert!(hint(&about).starts_with("The client closed"), "{about:?}");
        }
    }

    /// `UPDATE_PLAYBOOK=1 cargo test -p upstream-trace --lib playbook` writes it.
    #[test]
    fn the_page_has_the_table() {
        const BEGIN: &str = "<!-- playbook:begin -->\n";
        const END: &str = "<!-- playbook:end -->";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/output.md");
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (shown, after) = rest.split_once(END).unwrap();
        if env::var_os("UPDATE_PLAYBOOK").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        } else {
            assert!(shown == table(), "UPDATE_PLAYBOOK=1 renews docs/output.md");
        }
    }
}
