//! The playbook, held against every situation that its rows can tell apart.

use std::{collections::HashSet, env, fs, path::Path};

use super::{
    condition::{ALERT, ALERT_BYTES, HELLO_BYTES},
    rows::UNSEEN_ROWS,
    *,
};
use crate::{
    record::{
        AcceptQueue, Bytes, Descriptors, Endpoint, Exit, Icmp, Role,
        Verdict::{NeverAccepted, ResetBeforeResponse, ResetMidStream},
    },
    verdict::facts::TOGETHER_US,
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

/// Payload went both ways right before the end.
fn just_now(facts: &mut Facts) {
    let counters = &mut facts.counters;
    (counters.since_sent_us, counters.since_received_us) = (Some(0), Some(0));
}

/// Segments of payload were sent again, so many times.
fn sent_again(facts: &mut Facts, times: u32) {
    facts.counters.retransmits = Some(times);
    facts.counters.resent_any = Some(times > 0);
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

/// Where a signal killed a process, that may have been the one that closed first.
fn vary_killed(abouts: &mut Vec<About<'static>>) {
    let killed = abouts.iter().filter(|about| {
        let by_signal = |exit: Exit<'_>| exit.signal.is_some();
        about.evidence.exit.is_some_and(by_signal)
    });
    let first = killed.map(|&about| About {
        is_closer_killed: true,
        ..about
    });
    let first: Vec<_> = first.collect();
    abouts.extend(first);
}

/// How both ends came to close, and what was on its way.
const CLOSES: &[fn(&mut Facts)] = &[
    |facts| facts.counters.since_received_us = Some(1_000_000),
    |facts| {
        let counters = &mut facts.counters;
        (counters.since_sent_us, counters.since_received_us) = (Some(1_000_000), None);
    },
    |facts| facts.counters.bytes.acked = Some(0),
    |facts| facts.peer_seen = true,
    |facts| facts.left_unanswered = true,
    |facts| facts.counters.unread = Some(64),
    |facts| (facts.counters.bytes, facts.counters.unread) = (bytes(600, 624, 600), Some(24)),
    |facts| facts.peer_unaccepted = true,
    |facts| (facts.peer_unaccepted, facts.closed_first) = (true, true),
    |facts| facts.destroyed = true,
    |_| {},
    |facts| (facts.closed_first, facts.is_open) = (true, true),
    |facts| facts.closed_first = true,
    |facts| facts.peer_closed_first = true,
    |facts| {
        facts.peer_closed_first = true;
        (facts.is_open, facts.closed_behind_payload) = (true, true);
    },
    |facts| {
        facts.peer_closed_first = true;
        (facts.has_waited, facts.peer_unanswered) = (true, true);
    },
    |facts| (facts.closed_first, facts.payload_after_fin) = (true, true),
    |facts| (facts.peer_closed_first, facts.payload_after_fin) = (true, true),
];

/// Those of this verdict and end that rows can tell apart.
fn all_of(verdict: Verdict, role: Role) -> Vec<About<'static>> {
    let (some, hello) = (Some(ALERT_BYTES), Some(*HELLO_BYTES.start()));
    let amounts = [
        (None, None),
        (Some(0), Some(0)),
        (hello, Some(0)),
        (Some(0), hello),
        (hello, some),
        (some, hello),
    ];
    // Whether anything had come tells whom a server turned away that closes at once; who closes at once waits for no greeting.
    let mut abouts = vec![About {
        is_closed_at_once: verdict != Verdict::Probe,
        ..with(about(verdict, role), just_now)
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
    let waiting = [(false, 0), (true, 0), (true, 1)];
    vary(&mut abouts, &waiting, |about, (waits, again)| {
        about.facts.counters.unacked = Some(waits);
        sent_again(&mut about.facts, again);
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
    let deliveries = [(false, 0), (true, 0), (true, 1), (true, 3)];
    vary(&mut resets, &deliveries, |about, (on_its_way, again)| {
        about.undelivered = on_its_way;
        about.facts.counters.unacked = Some(on_its_way);
        sent_again(&mut about.facts, again);
    });
    vary_killed(&mut resets);
    vary(&mut resets, CLOSES, |about, close| close(&mut about.facts));
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
    let (from, to) = HELLO_BYTES.into_inner();
    let sizes = format!("sent {ALERT_BYTES} bytes in all, the client {from} to {to}");
    assert!(ALERT.words().ends_with(&sizes));

    let client = about(ResetMidStream, Role::Client);
    let exchange = |sent, received| About {
        reset: Some((Direction::Received, Origin::OffNode, None)),
        ..with(with(client, just_now), |facts| {
            facts.counters.bytes = bytes(sent, received, sent);
        })
    };
    let alert = exchange(517, ALERT_BYTES);
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
    // Redis answers PING by 7 bytes as well, and may be killed while it is asked for more.
    let long_ago = with(alert, |facts| {
        facts.counters.since_received_us = Some(400_000);
    });
    for other in [
        long_ago,
        likely_in_path,
        exchange(517, ALERT_BYTES - 1),
        exchange(517, 150),
        // Redis answers a PING of 14 bytes by 7.
        exchange(14, ALERT_BYTES),
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

    // A goodbye comes with the client's FIN, or when it has its answer; who gives up has waited for that. A process that was killed
    // is neither.
    let late_answer = |has_waited, peer_unanswered, evidence| {
        let server = with(about(ResetMidStream, Role::Server), |facts| {
            facts.peer_closed_first = true;
            (facts.has_waited, facts.peer_unanswered) = (has_waited, peer_unanswered);
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
    assert!(late_answer(true, true, nothing).contains("before the answer came"));
    assert!(late_answer(false, true, nothing).contains("a goodbye"));
    assert!(late_answer(true, false, nothing).contains("a goodbye"));
    assert!(late_answer(true, true, exit(Some("SIGKILL"))).contains("evidence.exit"));

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
            reset: Some((Direction::Received, Origin::OffNode, None)),
            ..with(client(Verdict::ResetIdle), |facts| {
                facts.closed_first = true;
                facts.is_open = is_open;
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

/// The hint for a reset by the server, on this node, for this reason.
fn by_server_here(
    reason: &'static str,
    verdict: Verdict,
    set: impl FnOnce(&mut Facts),
) -> &'static Meaning {
    let reset = Some((Direction::Received, Origin::PeerOnNode, Some(reason)));
    let about = with(about(verdict, Role::Client), set);
    meaning(&About { reset, ..about }).unwrap()
}

#[test]
fn who_closes_right_behind_an_answer_has_no_idle_timeout() {
    for reason in ["TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"] {
        let cause = |behind| {
            let meaning = by_server_here(reason, ResetBeforeResponse, |facts| {
                (facts.peer_closed_first, facts.closed_behind_payload) = (true, behind);
            });
            meaning.cause
        };
        assert_eq!(cause(false), Some(Cause::IdleClose));
        assert_eq!(cause(true), None);
    }
}

/// One retransmission long ago says nothing of what met a closed server.
#[test]
fn what_met_a_closed_server_was_not_lost() {
    let lost = |reason| {
        let meaning = by_server_here(reason, ResetBeforeResponse, |facts| {
            facts.counters.unacked = Some(true);
            sent_again(facts, 1);
        });
        meaning.hint.contains("MTU")
    };
    assert!(lost("TCP_ABORT_ON_TIMEOUT") && !lost("TCP_ABORT_ON_DATA"));
}

/// Lost on the way, it was not late: the server closed because nothing came.
#[test]
fn what_was_sent_again_until_a_server_closed_raced_with_no_idle_timeout() {
    let lost = |verdict, again, acked| {
        let meaning = by_server_here("TCP_TIMEWAIT_SOCKET", verdict, |facts| {
            facts.peer_closed_first = true;
            facts.counters.bytes = bytes(900, 0, acked);
            facts.counters.unacked = Some(true);
            sent_again(facts, again);
        });
        meaning.cause.is_none() && meaning.hint.contains("lost on the way")
    };
    assert!(lost(Verdict::ResetBeforePayload, 1, 0) && lost(ResetBeforeResponse, 3, 600));
    assert!(!lost(Verdict::ResetBeforePayload, 0, 0) && !lost(ResetBeforeResponse, 2, 600));
}

/// Nor did the client give up on an answer that never came to it.
#[test]
fn an_answer_that_was_sent_again_in_vain_was_lost() {
    let cause = |again, acked| {
        let server = with(about(ResetMidStream, Role::Server), |facts| {
            (facts.peer_closed_first, facts.has_waited) = (true, true);
            facts.peer_unanswered = true;
            facts.counters.bytes = bytes(1500, 90, acked);
            facts.counters.unacked = Some(true);
            sent_again(facts, again);
        });
        let reset = Some((
            Direction::Received,
            Origin::PeerOnNode,
            Some("TCP_ABORT_ON_DATA"),
        ));
        meaning(&About { reset, ..server }).unwrap().cause
    };
    assert_eq!(cause(0, 0), Some(Cause::ClientGaveUp));
    assert_eq!(cause(1, 0), None);
    // A reader that was slow.
    assert_eq!(cause(9, 700), Some(Cause::ClientGaveUp));
}

/// Both ends say so, where one of them knows.
#[test]
fn a_client_that_reset_while_its_answer_was_lost_did_not_wait_for_a_slow_server() {
    let hint = |role, direction, set: fn(&mut Facts)| {
        let mut about = with(about(ResetBeforeResponse, role), set);
        about.facts.counters.since_sent_us = Some(1_000_000);
        about.reset = Some((direction, Origin::PeerOnNode, Some("TCP_STATE")));
        meaning(&about).unwrap().hint
    };
    let by_client = |set| hint(Role::Client, Direction::Sent, set);
    let lost = "lost on the way";
    assert!(by_client(|facts| facts.peer_sent_in_vain = true).contains(lost));
    assert!(!by_client(|_| ()).contains(lost));
    let at_server = hint(Role::Server, Direction::Received, |facts| {
        facts.counters.bytes = bytes(500, 90, 0);
        facts.counters.unacked = Some(true);
        sent_again(facts, 1);
    });
    assert!(at_server.contains(lost));
}

/// Nor for a greeting, where the reset was this end's own.
#[test]
fn who_aborts_a_silent_connection_had_not_waited_for_a_greeting() {
    let greeting = |abort| {
        let evidence = Evidence {
            abort,
            ..Evidence::default()
        };
        let client = with(about(Verdict::Probe, Role::Client), |facts| {
            facts.closed_first = true;
        });
        let about = About {
            reset: Some((Direction::Sent, Origin::Local, Some("TCP_STATE"))),
            evidence,
            ..client
        };
        meaning(&about).unwrap().hint.contains("greeting")
    };
    assert!(greeting(None) && !greeting(Some(true)));
}

/// Two that close at once: neither FIN is the first for both.
#[test]
fn a_goodbye_that_met_a_closed_server_is_no_crash_whoever_closed_first() {
    for reason in ["TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"] {
        for client_first in [false, true] {
            let meaning = by_server_here(reason, ResetMidStream, |facts| {
                facts.closed_first = client_first;
                facts.peer_closed_first = !client_first;
            });
            assert!(meaning.hint.contains("goodbye") && !meaning.hint.contains("crash"));
        }
    }
}

/// What the listener's end then does to it is not why.
#[test]
fn a_client_that_had_left_before_it_was_accepted_is_no_victim() {
    for verdict in [Verdict::ResetBeforePayload, ResetBeforeResponse] {
        let of = |closed_first| {
            by_server_here("TCP_ABORT_ON_CLOSE", verdict, |facts| {
                facts.peer_unaccepted = true;
                facts.closed_first = closed_first;
            })
        };
        assert_eq!(of(false).cause, Some(Cause::UnhealthyEndpoint));
        let left = of(true);
        assert!(left.cause.is_none() && left.hint.starts_with("The client had closed"));
    }
}

/// The server leaks the connection, and a new one from the same port hits it.
#[test]
fn a_client_that_had_closed_in_order_met_no_firewall() {
    let says = |peer_closed_first| {
        let server = with(about(Verdict::ResetBeforePayload, Role::Server), |facts| {
            facts.peer_closed_first = peer_closed_first;
        });
        let origin = Origin::PeerOnNode;
        let reset = Some((
            Direction::Received,
            origin,
            Some("TCP_INVALID_ACK_SEQUENCE"),
        ));
        let meaning = meaning(&About { reset, ..server }).unwrap();
        (meaning.hint.contains("firewall"), meaning.proxy.is_some())
    };
    assert_eq!((says(true), says(false)), ((false, false), (true, true)));
}

#[test]
fn a_reset_that_answers_the_last_fin_is_harmless() {
    for (reason, origin) in [
        (Some("TCP_FLAGS"), Origin::PeerOnNode),
        (Some("TCP_ABORT_ON_DATA"), Origin::PeerOnNode),
        (None, Origin::OffNode),
    ] {
        let harmless = |unacked, is_open| {
            let client = with(about(ResetMidStream, Role::Client), |facts| {
                (facts.peer_closed_first, facts.is_open) = (true, is_open);
                facts.counters.unacked = Some(unacked);
            });
            let reset = Some((Direction::Received, origin, reason));
            let meaning = meaning(&About { reset, ..client }).unwrap();
            meaning.proxy.is_none() && meaning.hint.contains("the last FIN")
        };
        assert!(harmless(false, false), "{origin:?}");
        assert!(!harmless(true, false) && !harmless(false, true));
    }
}

/// Java's `Socket.close` sends a FIN, and a reset at once where data was not read.
#[test]
fn who_closes_with_data_unread_answered_nothing() {
    let says = |verdict, origin, reason, (is_open, unacked)| {
        let server = with(about(verdict, Role::Server), |facts| {
            (facts.peer_closed_first, facts.is_open) = (true, is_open);
            facts.counters.unacked = Some(unacked);
        });
        let reset = Some((Direction::Received, origin, reason));
        let hint = meaning(&About { reset, ..server }).unwrap().hint;
        hint.contains("unread") || hint.contains("without reading")
    };
    let unread = (Origin::PeerOnNode, Some("TCP_ABORT_ON_CLOSE"));
    for verdict in [ResetMidStream, Verdict::ResetIdle] {
        for close in [(true, false), (true, true), (false, false)] {
            assert!(says(verdict, unread.0, unread.1, close));
        }
        let late = Some("TCP_ABORT_ON_DATA");
        assert!(!says(verdict, Origin::PeerOnNode, late, (true, true)));
    }
    assert!(says(ResetMidStream, Origin::OffNode, None, (true, false)));
    for close in [(true, true), (false, false)] {
        assert!(!says(ResetMidStream, Origin::OffNode, None, close));
    }
}

/// Nor has a proxy a word for a goodbye that it did not read.
#[test]
fn a_goodbye_that_is_left_unread_cut_nothing() {
    let says = |unread| {
        let client = with(about(Verdict::LocalAbort, Role::Client), |facts| {
            facts.counters.bytes = bytes(600, 2024, 600);
            facts.counters.unread = Some(unread);
        });
        let reset = Some((Direction::Sent, Origin::Local, Some("TCP_ABORT_ON_CLOSE")));
        let meaning = meaning(&About { reset, ..client }).unwrap();
        (meaning.proxy.is_none(), meaning.hint.contains("harmless."))
    };
    assert_eq!((says(24), says(25)), ((true, true), (false, false)));
}

/// A proxy says that its client is gone where it cut something off itself.
#[test]
fn a_downstream_that_left_is_told_of_only_where_the_proxy_may_have_cut_an_answer() {
    let says = |role, reason, abort| {
        let reset = Some((Direction::Sent, Origin::Local, Some(reason)));
        let evidence = Evidence {
            abort,
            ..Evidence::default()
        };
        let about = About {
            reset,
            evidence,
            ..about(Verdict::LocalAbort, role)
        };
        meaning(&about).unwrap().proxy.map(|words| words.envoy_flag)
    };
    let cut = [("TCP_STATE", Some(true)), ("TCP_ABORT_ON_CLOSE", None)];
    for (reason, abort) in cut {
        assert_eq!(says(Role::Client, reason, abort), Some("DC"));
        assert_eq!(says(Role::Server, reason, abort), None);
    }
    // What came after an orderly close is most often a goodbye.
    assert_eq!(says(Role::Client, "TCP_ABORT_ON_DATA", None), None);
}

#[test]
fn a_server_that_closed_with_a_request_unanswered_had_not_been_idle() {
    for reason in ["TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"] {
        let left = by_server_here(reason, ResetBeforeResponse, |facts| {
            (facts.peer_closed_first, facts.left_unanswered) = (true, true);
        });
        assert!(left.cause.is_none() && left.hint.contains("payload unanswered"));
    }
}

#[test]
fn a_client_that_resets_behind_its_last_payload_has_not_waited() {
    let resets = |since, set: fn(&mut Facts)| {
        let mut client = about(ResetBeforeResponse, Role::Client);
        client.facts.counters.since_sent_us = Some(since);
        let client = with(client, set);
        let reset = Some((Direction::Sent, Origin::Local, Some("TCP_STATE")));
        let Meaning { cause, hint, .. } = meaning(&About { reset, ..client }).unwrap();
        (*cause, *hint)
    };
    let gave_up = Some(Cause::ClientGaveUp);
    assert!(resets(TOGETHER_US, |_| {}).1.contains("within 50 ms"));
    assert_eq!(resets(TOGETHER_US + 1, |_| {}).0, gave_up);
    // Sent again just now, it was first sent long ago; but not before the connection began.
    let again = |facts: &mut Facts| {
        facts.counters.unacked = Some(true);
        sent_again(facts, 1);
    };
    let (cause, hint) = resets(0, again);
    assert!(cause.is_none() && hint.contains("on its way"));
    let young = |facts: &mut Facts| {
        facts.counters.unacked = Some(true);
        sent_again(facts, 4);
        facts.counters.lived_us = Some(6_000);
    };
    assert!(resets(0, young).1.contains("within 50 ms"));
    // An answer had just come to what was still being asked.
    let answered = |facts: &mut Facts| facts.counters.since_received_us = Some(0);
    let (cause, hint) = resets(TOGETHER_US + 1, answered);
    assert!(cause.is_none() && hint.contains("early answer"));
}

#[test]
fn who_does_not_read_is_told_so_before_anything_else() {
    let idle = |unread| {
        let client = with(about(Verdict::ResetIdle, Role::Client), |facts| {
            facts.counters.unread = Some(unread);
        });
        let reset = Some((Direction::Received, Origin::PeerOnNode, Some("TCP_FLAGS")));
        meaning(&About { reset, ..client }).unwrap().hint
    };
    assert!(idle(64).contains("had not read") && idle(0).contains("no longer knew"));

    let has_no_room = |sent, since| {
        let server = with(about(Verdict::LocalAbort, Role::Server), |facts| {
            facts.counters.bytes = bytes(sent, 90, 128_000);
            facts.counters.unacked = Some(true);
            facts.counters.since_sent_us = Some(since);
        });
        let reset = Some((Direction::Sent, Origin::Local, Some("TCP_STATE")));
        let meaning = meaning(&About { reset, ..server }).unwrap();
        meaning.hint.contains("no room")
    };
    assert!(has_no_room(128_000, TOGETHER_US + 1));
    assert!(!has_no_room(129_000, TOGETHER_US + 1));
    // Whoever read until now is not stuck.
    assert!(!has_no_room(128_000, TOGETHER_US));
}

#[test]
fn a_queue_was_full_only_for_a_connection_that_nobody_had() {
    let full = |seen| {
        let before = by_server_here("TCP_FLAGS", Verdict::ResetBeforePayload, |facts| {
            facts.peer_seen = seen;
        });
        before.hint.contains("accept queue")
    };
    assert!(full(false) && !full(true));
    // A server that had closed it, and forgot it, had no use for it any more.
    let late = by_server_here("TCP_FLAGS", Verdict::ResetBeforePayload, |facts| {
        (facts.peer_closed_first, facts.payload_after_fin) = (true, true);
    });
    assert_eq!(late.cause, Some(Cause::IdleClose));
}

#[test]
fn a_host_that_does_not_know_the_connection_answered_nothing() {
    let unknown = |set: fn(&mut Facts)| {
        let meaning = by_server_here("NO_SOCKET", ResetBeforeResponse, set);
        meaning.hint.contains("does not know the connection")
    };
    assert!(unknown(|_| ()));
    assert!(unknown(|facts| facts.closed_first = true));
    let before = by_server_here("NO_SOCKET", Verdict::ResetBeforePayload, |_| ());
    assert!(before.hint.contains("does not know the connection"));
    // Nor did whoever was killed before.
    let killed = About {
        reset: Some((Direction::Received, Origin::PeerOnNode, Some("TCP_FLAGS"))),
        evidence: exit(Some("SIGKILL")),
        ..about(ResetBeforeResponse, Role::Client)
    };
    let meaning = meaning(&killed).unwrap();
    assert!(meaning.hint.contains("does not know") && meaning.cause.is_none());
}

#[test]
fn who_could_send_nothing_again_is_told_to_look_at_home() {
    let here = |again| {
        let timeout = with(about(Verdict::Timeout, Role::Client), |facts| {
            facts.counters.unacked = Some(true);
            sent_again(facts, again);
        });
        meaning(&timeout).unwrap().hint.contains("this node itself")
    };
    assert!(here(0) && !here(1));
}

#[test]
fn a_client_that_says_nothing_and_resets_checks_health() {
    let checks = |verdict, role, sent, direction| {
        let mut about = about(verdict, role);
        about.facts.counters.bytes = match role {
            Role::Client => bytes(sent, 104, sent),
            _ => bytes(104, sent, 104),
        };
        about.reset = Some((direction, Origin::Local, Some("TCP_ABORT_ON_CLOSE")));
        meaning(&about).unwrap().hint.contains("health check")
    };
    let (sent, received) = (Direction::Sent, Direction::Received);
    assert!(checks(Verdict::LocalAbort, Role::Client, 0, sent));
    assert!(checks(ResetMidStream, Role::Server, 0, received));
    assert!(!checks(Verdict::LocalAbort, Role::Client, 9, sent));
    assert!(!checks(Verdict::LocalAbort, Role::Server, 0, sent));
}

/// A greeting is short, whoever was killed did not check, nor did a host that knows nothing of it.
#[test]
fn a_download_that_is_cut_is_no_health_check() {
    let checks = |received, reason, evidence| {
        let client = with(about(ResetMidStream, Role::Server), |facts| {
            facts.counters.bytes = bytes(received, 0, received);
        });
        let reset = Some((Direction::Received, Origin::PeerOnNode, Some(reason)));
        let about = About {
            reset,
            evidence,
            ..client
        };
        meaning(&about).unwrap().hint.contains("health check")
    };
    let (abort, nothing) = ("TCP_ABORT_ON_CLOSE", Evidence::default());
    assert!(checks(4096, abort, nothing) && !checks(4097, abort, nothing));
    assert!(!checks(100, abort, exit(Some("SIGKILL"))));
    assert!(!checks(100, "NO_SOCKET", nothing));
}
