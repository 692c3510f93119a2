//! The playbook as a table in Markdown.
//!
//! Must not know: whether a row holds.

use std::fmt::Write as _;

use super::{
    ALERT, Condition, End, HELLO, Meaning, Shown,
    rows::{ROWS, STRAY_ROWS, UNSEEN_ROWS},
};

/// The whole table in Markdown, as docs/output.md shows it.
pub fn table() -> String {
    let mut text = String::from(
        "| what became of it | what is known besides | `cause` | `layer` | Envoy | Envoy before | NGINX | `hint` | shown by |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let code = |text: &str| format!("`{text}`");
    for (verdicts, rows) in ROWS {
        let verdicts: Vec<_> = verdicts
            .iter()
            .map(|verdict| code(verdict.as_str()))
            .collect();
        let verdicts = verdicts.join(", ");
        for row in *rows {
            let known = row.condition.words();
            line(&mut text, &verdicts, &known, &row.meaning, row.shown);
        }
    }
    for row in STRAY_ROWS {
        line(
            &mut text,
            "`reset` line",
            row.words,
            &row.meaning,
            row.shown,
        );
    }
    for row in UNSEEN_ROWS {
        line(
            &mut text,
            "-",
            row.words,
            &row.meaning,
            Shown::NotInTheKernel,
        );
    }
    text
}

fn line(text: &mut String, what: &str, known: &str, meaning: &Meaning, shown: Shown) {
    let code = |text: &str| format!("`{text}`");
    let cause = meaning
        .cause
        .map_or("-".to_owned(), |cause| code(cause.as_str()));
    let [envoy, before, nginx] = meaning.proxy.map_or(["-"; 3].map(str::to_owned), |proxy| {
        let mut envoy = format!("{} {}", code(proxy.envoy_flag), proxy.envoy_reason);
        if let (Some(flag), Some(reason)) = (proxy.envoy_flag_other, proxy.envoy_reason_other) {
            // Writing into a string cannot fail.
            let _ = write!(envoy, ", or {} {reason}", code(flag));
        }
        [
            envoy,
            proxy.envoy_reason_old.to_owned(),
            proxy.nginx_error.to_owned(),
        ]
    });
    let shown = match shown {
        Shown::Played(names) => names.join(", "),
        Shown::FromData => "data only".to_owned(),
        Shown::NotInTheKernel => "not visible in the kernel".to_owned(),
    };
    let layer = code(meaning.layer.as_str());
    let hint = meaning.hint;
    let _ = writeln!(
        text,
        "| {what} | {known} | {cause} | {layer} | {envoy} | {before} | {nginx} | {hint} | {shown} |"
    );
}

impl Condition {
    fn words(self) -> String {
        let name = |end| match end {
            End::Client => "the client",
            End::Server => "the server",
        };
        match self {
            Self::None => "-".to_owned(),
            Self::InPath => "the reset came from neither end".to_owned(),
            Self::LikelyInPath => "the reset's packet came from nearer than the peer's".to_owned(),
            Self::DroppedCopy => {
                "the reset likely came from neither end: a filter of this node dropped what may be a copy of the SYN".to_owned()
            }
            Self::OnNode(reasons, end) => {
                let end = end.map_or("an end", name);
                let mut text = format!("reset by {end}, which is on this node");
                for (index, reason) in reasons.iter().enumerate() {
                    let before = if index == 0 { ": " } else { ", " };
                    text += before;
                    text += reason;
                }
                text
            }
            Self::SentBy(end) => format!("reset by {}", name(end)),
            Self::Errno(errno) => format!("told {errno}"),
            Self::Translated => {
                "reset by an end, which is on this node and has another address".to_owned()
            }
            Self::Unacknowledged => "the client sent payload".to_owned(),
            Self::PortUnreachable => {
                "ICMP port unreachable answered the SYN, or told ECONNREFUSED".to_owned()
            }
            Self::ClosedFirst => "after this end's FIN, its socket closed".to_owned(),
            Self::EitherEnd => "which end this is is not known".to_owned(),
            Self::PeerClosedFirst => "after the other end's FIN".to_owned(),
            Self::ClientClosedFirst(end) => {
                format!("reset by {}, after the client's FIN", name(end))
            }
            Self::GaveUp => {
                "reset by the client, which is on this node, after its FIN, before which it had been silent".to_owned()
            }
            Self::ByThisEnd => "reset by this end; which it is is not known".to_owned(),
            Self::Undelivered => "payload of this end was still on its way".to_owned(),
            Self::SentAgain => {
                "reset by the server, payload of the client's was still on its way, and something had been sent again"
                    .to_owned()
            }
            Self::Destroyed => "somebody destroyed the socket that sent the reset".to_owned(),
            Self::Late => "the request was sent after the server's FIN".to_owned(),
            Self::TurnedAway => "the server had closed it at once, before anything came".to_owned(),
            Self::EndedBefore => {
                "the server had closed it as its process came to its end, before the request came"
                    .to_owned()
            }
            Self::HasLocalPort => "a local port was chosen or bound".to_owned(),
            Self::ToldUnreachable => {
                "told EHOSTUNREACH, ENETUNREACH or ECONNREFUSED".to_owned()
            }
            Self::Prohibited => "an ICMP error that says prohibited answered the SYN".to_owned(),
            Self::NoNeighbour => {
                "this node's own ICMP host unreachable answered the SYN".to_owned()
            }
            Self::QueueFull => "the accept queue at the server, on this node, was full".to_owned(),
            Self::NoDescriptor => {
                "the process that listens, on this node, had no file descriptor left".to_owned()
            }
            Self::QueueFullNoDescriptor => {
                "the accept queue at the server, on this node, was full, and its process had no file descriptor left"
                    .to_owned()
            }
            Self::Dropped => "a filter of this node dropped the SYN or its answer".to_owned(),
            Self::Alert => format!(
                "ended by the server, which sent {ALERT} bytes in all, the client {} to {}",
                HELLO.start(),
                HELLO.end()
            ),
            Self::FirstExchange => "the server sent nothing at all".to_owned(),
            Self::Killed(end) => format!("a signal killed the process of {}", name(end)),
            Self::Ended(end) => format!("the process of {} came to its end", name(end)),
            Self::Exited => "the process of an end came to its end".to_owned(),
            Self::Aborted(reasons, end) => {
                format!(
                    "{}; SO_LINGER was 0",
                    Self::OnNode(reasons, Some(end)).words()
                )
            }
            Self::Crossed(first) => {
                let which = if first { "first" } else { "next" };
                format!(
                    "reset by the server, which is on this node and did not receive the {which} request"
                )
            }
        }
    }
}
