//! The join from data: lines and records as they come, and which of them belong together.

use std::net::SocketAddr;

use super::{crowd::CROWD, *};
use crate::{
    explain::{
        log::{Format, Span},
        meaning,
        story::Owner,
        window::tests::brief,
    },
    record::Verdict,
};

const START: u64 = 1_000_000_000_000;
const KEEP: u64 = 10_000 * MILLISECOND;

fn at(milliseconds: u64) -> u64 {
    START + milliseconds * MILLISECOND
}

fn port(port: u16) -> SocketAddr {
    SocketAddr::new([127, 0, 0, 1].into(), port)
}

/// A line of the proxy `envoy` that ended `milliseconds` after the start.
fn line(number: u64, milliseconds: u64, nature: Nature) -> Asked {
    Asked {
        log: 0,
        line: number,
        failed: Box::new(Failed {
            format: Format::Envoy,
            began: at(milliseconds),
            ended: Span::new(at(milliseconds), MILLISECOND),
            is_untimed: false,
            connected: None,
            request: "GET / HTTP/1.1".into(),
            status: Some(503),
            flags: None,
            said: None,
            upstream: Some(port(80)),
            name: None,
            local: None,
            pid: None,
            nature,
        }),
    }
}

/// The same line with a second's precision, as NGINX writes it.
fn coarse(number: u64, second: u64, nature: Nature) -> Asked {
    let mut asked = line(number, second * 1_000, nature);
    asked.failed.ended = Span::new(at(second * 1_000), 1_000 * MILLISECOND);
    asked
}

/// One that names the process, which has but one thread.
fn of_one_thread(mut asked: Asked) -> Asked {
    asked.failed.format = Format::NginxError;
    asked.failed.pid = Some(7);
    asked
}

fn with_local(mut asked: Asked, local: u16) -> Asked {
    asked.failed.local = Some(port(local));
    asked
}

struct Play(Join);

impl Play {
    /// The upstream ended each.
    fn new(records: &[(u64, u16, Verdict)]) -> Self {
        Self::ended(records, |_| false)
    }

    /// The proxy ended those from these of its ports.
    fn ended(records: &[(u64, u16, Verdict)], here: impl Fn(u16) -> bool) -> Self {
        among(records.iter().map(|&(milliseconds, local, verdict)| {
            let mut brief = brief(at(milliseconds), [local, 80], verdict);
            brief.outcome.ended_here = here(local);
            brief
        }))
    }

    /// Line, sureness and records of each answer.
    fn answers(mut self, lines: Vec<Asked>) -> Vec<(u64, Sureness, Vec<Number>)> {
        let mut answers = Vec::new();
        for asked in lines {
            self.0.ask(asked);
        }
        self.0.answer(u64::MAX, u64::MAX, |answer| {
            answers.push((answer.asked.line, answer.sureness, answer.found.clone()));
        });
        assert!(self.0.waiting.is_empty() && self.0.crowds.is_empty());
        answers
    }
}

/// A worker with two threads has closed an answer half-way and reset a connection that was idle.
#[test]
fn an_answer_that_was_cut_short_in_order_is_no_reset_nearby() {
    use Verdict::{LocalAbort, Ok, ResetMidStream};
    let answer = |records: &[(u64, u16, Verdict)]| {
        let play = Play::new(records);
        let answers = play.answers(vec![line(1, 100, meaning::CLOSED_INSIDE)]);
        let [(_, sureness, found)] = answers.as_slice() else {
            panic!("one answer");
        };
        (*sureness, found.clone())
    };
    let (closed, reset) = ((100, 5, Ok), (400, 6, ResetMidStream));
    assert_eq!(answer(&[closed, reset]), (Sureness::Unique, vec![0]));
    assert_eq!(answer(&[closed, (98, 7, Ok)]).0, Sureness::Ambiguous);
    assert_eq!(answer(&[(100, 6, ResetMidStream)]).1, [0]);
    assert_eq!(answer(&[(100, 5, LocalAbort)]).1, [0]);
}

#[test]
fn what_the_proxy_ended_is_not_what_the_upstream_did() {
    use Verdict::{LocalAbort, Ok, ResetBeforeResponse};
    for (nature, verdict) in [
        (meaning::TERMINATED, ResetBeforeResponse),
        (meaning::TERMINATED, LocalAbort),
        (meaning::RESET, ResetBeforeResponse),
        (meaning::CLOSED_UNANSWERED, Ok),
        (meaning::CLOSED_INSIDE, Ok),
    ] {
        for ended_here in [false, true] {
            let mut play = Play::new(&[]);
            let mut record = brief(at(100), [5, 80], verdict);
            record.outcome.ended_here = ended_here;
            play.0.window.insert(record, b"");
            let answers = play.answers(vec![line(1, 100, nature)]);
            assert_eq!(answers[0].2.is_empty(), ended_here, "{nature:?}");
        }
    }
}

/// Two lines that tell of the upstream's end, and between them one that fits what the proxy ended as well.
#[test]
fn by_order_as_well_no_line_has_what_the_proxy_ended() {
    let answers = |ended_here| {
        let mut play = Play::new(&[]);
        for (milliseconds, local, ended_here) in
            [(100, 5, ended_here), (160, 6, false), (220, 7, false)]
        {
            let verdict = Verdict::ResetBeforeResponse;
            let mut record = brief(at(milliseconds), [local, 80], verdict);
            record.outcome.ended_here = ended_here;
            play.0.window.insert(record, b"");
        }
        let natures = [
            meaning::TERMINATED,
            meaning::CONNECT_FAILED,
            meaning::TERMINATED,
        ];
        let lines = (1..).zip(natures);
        let lines = lines.map(|(number, nature)| coarse(number, 0, nature));
        let answers = play.answers(lines.collect()).into_iter();
        answers.map(|(_, _, found)| found)
    };
    assert!(answers(false).eq([[0], [1], [2]]));
    assert!(answers(true).eq([[1], [0], [2]]));
}

/// HAProxy's TCP mode: what it ended is as old as the session, a health check that it made meanwhile is not.
#[test]
fn a_connection_of_its_own_began_with_the_line() {
    let answer = |records: &[(u64, u64, u16)]| {
        let mut play = Play::new(&[]);
        for &(started, ended, local) in records {
            let mut record = brief(at(ended), [local, 80], Verdict::Probe);
            record.started = Some(at(started));
            record.outcome.ended_here = true;
            play.0.window.insert(record, b"");
        }
        let mut asked = line(1, 3_000, meaning::NO_ANSWER_ON_TUNNEL);
        asked.failed.began = at(1_000);
        asked.failed.connected = Some(Span::new(at(999), 1_001 * MILLISECOND));
        let [(_, sureness, found)] = play.answers(vec![asked]).try_into().unwrap();
        (sureness, found)
    };
    let (own, check, older) = ((1_000, 3_000, 5), (2_995, 2_996, 6), (500, 3_000, 7));
    assert_eq!(answer(&[own, check, older]), (Sureness::Unique, vec![0]));
    assert_eq!(answer(&[check, older]), (Sureness::None, vec![]));
}

#[test]
fn both_addresses_are_exact() {
    use Verdict::{Ok, Refused, ResetBeforeResponse};
    let play = Play::new(&[
        (100, 5, ResetBeforeResponse),
        (101, 6, Ok),
        // The same addresses, long before.
        (100, 7, Refused),
    ]);
    let lines = vec![
        with_local(line(1, 101, meaning::TERMINATED), 5),
        with_local(line(2, 101, meaning::TERMINATED), 6),
        with_local(line(3, 101, meaning::TERMINATED), 8),
        with_local(line(4, 5_000, meaning::TERMINATED), 7),
    ];
    let expected = [
        (1, Sureness::Exact, vec![0]),
        // What the kernel saw counts, not what the proxy's words made likely.
        (2, Sureness::Exact, vec![1]),
        (3, Sureness::None, vec![]),
        (4, Sureness::None, vec![]),
    ];
    assert_eq!(play.answers(lines), expected);
}

#[test]
fn what_ended_long_after_is_no_reason() {
    let outlived = |nature, left, verdict, ended_here| {
        let mut brief = brief(at(left), [5, 80], verdict);
        brief.outcome.ended_here = ended_here;
        line(1, 500, nature).is_outlived(&brief)
    };
    let given_up = |left| outlived(meaning::NO_ANSWER, left, Verdict::LocalAbort, true);
    assert!(given_up(3_500) && !given_up(1_501) && !given_up(400));
    // The upstream was killed when nobody waited for its answer any more.
    let killed = |left| {
        outlived(
            meaning::NO_ANSWER,
            left,
            Verdict::ResetBeforeResponse,
            false,
        )
    };
    assert!(killed(800) && !killed(502) && !killed(400));
    assert!(!outlived(meaning::NO_ANSWER, 800, Verdict::Timeout, false));
    assert!(!outlived(
        meaning::TERMINATED,
        800,
        Verdict::ResetBeforeResponse,
        false
    ));
}

#[test]
fn a_line_that_is_refused_waits_for_nothing() {
    let mut join = Join::new(None, KEEP);
    join.window
        .insert(brief(at(500), [5, 80], Verdict::Refused), b"");
    join.refuse(line(1, 500, meaning::REFUSED));
    join.refuse(line(2, 500, meaning::NO_SERVER));
    let mut answers = Vec::new();
    join.answer(0, 0, |answer| {
        answers.push((answer.sureness, answer.ahead));
    });
    let expected = [(Sureness::None, true), (Sureness::Elsewhere, true)];
    assert_eq!(answers, expected);
}

#[test]
fn many_streams_of_one_connection() {
    let play = Play::new(&[(100, 5, Verdict::ResetMidStream)]);
    let lines = (1..=9).map(|number| with_local(line(number, 101, meaning::TERMINATED), 5));
    let answers = play.answers(lines.collect());
    assert!(
        answers.len() == 9
            && answers
                .iter()
                .all(|(_, sureness, found)| { *sureness == Sureness::Exact && *found == [0] })
    );
}

#[test]
fn the_same_addresses_in_two_namespaces() {
    let mut join = Join::new(None, KEEP);
    let mut record = brief(at(100), [5, 80], Verdict::ResetBeforeResponse);
    join.window.insert(record, b"");
    record.owner = Some(Owner::new(8, "other"));
    join.window.insert(record, b"");
    let answers = Play(join).answers(vec![with_local(line(1, 101, meaning::TERMINATED), 5)]);
    assert_eq!(answers, [(1, Sureness::Exact, vec![0])]);
}

#[test]
fn alone_is_unique_and_near_is_nearest() {
    use Verdict::{Ok, Refused, ResetBeforeResponse};
    let play = Play::new(&[
        (100, 5, Refused),
        (100, 6, Ok),
        (100, 7, ResetBeforeResponse),
        (600, 8, Refused),
    ]);
    let answers = play.answers(vec![
        line(1, 101, meaning::REFUSED),
        line(2, 101, meaning::TERMINATED),
        line(3, 4_000, meaning::REFUSED),
    ]);
    assert_eq!(
        answers,
        [
            (1, Sureness::Nearest, vec![0]),
            // A healthy one is as close, and possible.
            (2, Sureness::Order, vec![2]),
            (3, Sureness::None, vec![]),
        ]
    );
}

#[test]
fn what_may_be_meant_as_well_is_not_passed_over() {
    use Verdict::{LocalAbort, Ok, ResetIdle};
    for (nature, failed) in [
        (meaning::NO_ANSWER, LocalAbort),
        (meaning::GATEWAY_TIMEOUT, LocalAbort),
        (meaning::BAD_RESPONSE, ResetIdle),
    ] {
        let answer = |records: &[_]| {
            let play = Play::ended(records, |_| true);
            let answers = play.answers(vec![line(1, 500, nature)]);
            (answers[0].1, answers[0].2.clone())
        };
        // What such a request leaves is beside another's.
        let both = answer(&[(500, 5, Ok), (480, 6, failed)]);
        assert_eq!(both, (Sureness::Ambiguous, vec![0, 1]), "{nature:?}");
        assert_eq!(answer(&[(500, 5, Ok)]), (Sureness::Unique, vec![0]));
        assert_eq!(answer(&[(480, 6, failed)]), (Sureness::Unique, vec![0]));
    }
    // The nearest of several proves nothing.
    let records = [(500, 5, Ok), (503, 6, LocalAbort), (506, 7, Ok)];
    let waited = |play: Play| play.answers(vec![line(1, 500, meaning::NO_ANSWER)])[0].1;
    assert_eq!(waited(Play::ended(&records, |_| true)), Sureness::Ambiguous);
    // What the upstream ended is no connection that waited in vain.
    let play = Play::ended(&records, |port| port == 6);
    assert_eq!(waited(play), Sureness::Unique);
    assert_eq!(waited(Play::new(&records)), Sureness::None);
}

#[test]
fn to_anywhere_a_failure_is_no_reason_where_a_healthy_one_is_what_is_left() {
    for (nature, sureness) in [
        (meaning::NO_ANSWER, Sureness::Ambiguous),
        (meaning::TERMINATED, Sureness::Nearest),
    ] {
        let mut join = Join::new(None, KEEP);
        let mut record = brief(at(500), [5, 80], Verdict::ResetBeforeResponse);
        record.outcome.ended_here = nature == meaning::NO_ANSWER;
        record.owner = Some(Owner::new(9, "haproxy"));
        join.window.insert(record, b"");
        let mut asked = line(1, 500, nature);
        (asked.failed.format, asked.failed.upstream) = (Format::HaproxyHttp, None);
        let answers = Play(join).answers(vec![asked]);
        assert_eq!(answers[0].1, sureness, "{nature:?}");
    }
}

#[test]
fn a_connection_of_another_time_is_none() {
    use Verdict::{LocalAbort, Ok, Refused};
    let records = |records: &[(u64, u64, Verdict)]| {
        let mut join = Join::new(None, KEEP);
        for &(started, ended, verdict) in records {
            let mut record = brief(at(ended), [5, 80], verdict);
            record.started = Some(at(started));
            record.outcome.ended_here = verdict != Refused;
            join.window.insert(record, b"");
        }
        Play(join)
    };
    // It began when the request was over.
    let play = records(&[(560, 561, Refused)]);
    let answers = play.answers(vec![line(1, 500, meaning::REFUSED)]);
    assert_eq!(answers, [(1, Sureness::None, vec![])]);
    // One was left before the request that waited in vain.
    let mut asked = line(1, 500, meaning::NO_ANSWER);
    asked.failed.began = at(490);
    let play = records(&[(400, 480, LocalAbort), (490, 500, Ok)]);
    let answers = play.answers(vec![asked]);
    assert_eq!(answers, [(1, Sureness::Unique, vec![1])]);
    // A proxy that found it broken may have looked late.
    let mut asked = line(1, 500, meaning::REFUSED);
    asked.failed.began = at(490);
    let play = records(&[(400, 480, Refused)]);
    assert_eq!(play.answers(vec![asked])[0].1, Sureness::Unique);
}

/// The answers to lines at 500 that fit only one connection.
fn shared(request: &str, format: Format) -> Vec<(Sureness, bool)> {
    let mut join = Join::new(None, KEEP);
    let mut record = brief(at(440), [5, 80], Verdict::ResetBeforeResponse);
    if format == Format::Grpc {
        record.owner = Some(Owner::new(9, "orders"));
    }
    join.window.insert(record, b"");
    for number in 1..=3 {
        let mut asked = line(number, 500, meaning::TERMINATED);
        (asked.failed.request, asked.failed.format) = (request.to_owned(), format);
        join.ask(asked);
    }
    let mut answers = Vec::new();
    join.answer(u64::MAX, u64::MAX, |answer| {
        assert_eq!(answer.found.is_empty(), answer.sureness == Sureness::None);
        answers.push((answer.sureness, answer.of_others));
    });
    answers
}

#[test]
fn many_requests_of_one_connection() {
    use Sureness::{Ambiguous, Unique};
    let one = (Unique, false);
    for (request, format) in [("GET / HTTP/2", Format::Envoy), ("/a.B/c", Format::Grpc)] {
        let answers = shared(request, format);
        assert_eq!(answers, [one, (Ambiguous, true), (Ambiguous, true)]);
    }
    // Of these any may be the one that it is.
    let answers = shared("GET / HTTP/1.1", Format::Envoy);
    assert_eq!(answers, [(Ambiguous, false); 3]);
}

#[test]
fn the_nearest_of_more_than_are_counted() {
    let count = 2 * CROWD as u64;
    let mut join = Join::new(None, KEEP);
    for number in 0..count {
        // All within a second before the line.
        let ended = START + number * 100_000;
        join.window
            .insert(brief(ended, [5, 80], Verdict::Refused), b"");
    }
    let asked = line(1, count / 10 + 1, meaning::REFUSED);
    join.ask(asked);
    join.answer(u64::MAX, u64::MAX, |answer| {
        assert_eq!((answer.candidates, answer.alike), (CROWD, false));
        let nearest: Vec<_> = (count - NAMED as u64..count).rev().collect();
        assert_eq!(answer.found, nearest);
    });
}

#[test]
fn a_line_without_a_record_does_not_get_that_of_another() {
    use Verdict::Refused;
    let lines = || {
        vec![
            line(1, 101, meaning::REFUSED),
            line(2, 600, meaning::REFUSED),
        ]
    };
    let found = |records: &[_]| {
        let answers = Play::new(records).answers(lines()).into_iter();
        answers.map(|(_, _, found)| found).collect::<Vec<_>>()
    };
    assert_eq!(found(&[(100, 5, Refused)]), [vec![0], vec![]]);
    assert_eq!(found(&[(599, 6, Refused)]), [vec![], vec![0]]);
    // Nor where both wait for each other.
    let lines_of = |ends: [u64; 3]| {
        (1..)
            .zip(ends)
            .map(|(number, at)| line(number, at, meaning::REFUSED))
    };
    let play = Play::new(&[(109, 6, Refused), (299, 7, Refused)]);
    let answers = play
        .answers(lines_of([101, 110, 300]).collect())
        .into_iter();
    let found: Vec<_> = answers.map(|(_, _, found)| found).collect();
    assert_eq!(found, [vec![], vec![0], vec![1]]);
    // However late a line is, what no other wants is its own.
    let answers = Play::new(&[(100, 5, Refused)]).answers(lines().split_off(1));
    assert_eq!(answers, [(2, Sureness::Unique, vec![0])]);
}

#[test]
fn a_healthy_connection_is_not_taken_for_want_of_another() {
    let play = Play::new(&[(100, 5, Verdict::Ok)]);
    let answers = play.answers(vec![
        line(1, 101, meaning::RESET),
        line(2, 500, meaning::TERMINATED),
    ]);
    assert!(
        answers
            .iter()
            .all(|(_, sureness, _)| *sureness == Sureness::None)
    );
}

#[test]
fn what_is_close_is_no_worse_than_what_is_likely() {
    use Verdict::{Ok, ResetBeforeResponse};
    let records = [(100, 5, Ok), (600, 6, ResetBeforeResponse)];
    for nature in [meaning::NO_ANSWER, meaning::BAD_RESPONSE] {
        // The reset is another request's.
        let lines = vec![line(1, 100, nature), line(2, 600, meaning::TERMINATED)];
        let mut answers = Play::ended(&records, |port| port == 5).answers(lines);
        assert_eq!(answers.pop(), Some((2, Sureness::Unique, vec![1])));
        assert_eq!(answers.pop().unwrap().2, [0], "{nature:?}");
        let by_proxy = |records: &[_]| {
            let play = Play::ended(records, |_| nature == meaning::NO_ANSWER);
            play.answers(vec![line(1, 100, nature)])
        };
        // Nobody knows whose it is.
        let both = (1, Sureness::Ambiguous, vec![0, 1]);
        assert_eq!(by_proxy(&records), [both]);
        assert_eq!(by_proxy(&records[1..]), [(1, Sureness::Unique, vec![0])]);
    }
}

#[test]
fn as_many_lines_as_records_go_by_order() {
    use Verdict::Refused;
    let records: Vec<_> = (0..5)
        .map(|n| (n * 150, 5 + u16::try_from(n).unwrap(), Refused))
        .collect();
    let lines: Vec<_> = (0..5)
        .map(|number| coarse(number, 0, meaning::REFUSED))
        .collect();
    let answers = Play::new(&records).answers(lines.clone());
    let expected: Vec<_> = (0..5)
        .map(|number| (number, Sureness::Order, vec![number]))
        .collect();
    assert_eq!(answers, expected);
    // One record more or less, and nobody knows whose it is.
    for count in [4, 6] {
        let records: Vec<_> = (0..count)
            .map(|n| (n * 150, 5 + u16::try_from(n).unwrap(), Refused))
            .collect();
        let answers = Play::new(&records).answers(lines.clone());
        assert!(answers.iter().all(|(_, sureness, found)| {
            *sureness == Sureness::Ambiguous && found.len() == NAMED
        }));
    }
}

#[test]
fn order_does_not_take_what_another_line_has() {
    use Verdict::Refused;
    let play = Play::new(&[(100, 5, Refused), (200, 6, Refused), (300, 7, Refused)]);
    let answers = play.answers(vec![
        with_local(coarse(1, 0, meaning::REFUSED), 6),
        coarse(2, 0, meaning::REFUSED),
        coarse(3, 0, meaning::REFUSED),
    ]);
    let found: Vec<_> = answers
        .into_iter()
        .map(|(_, sureness, found)| (sureness, found))
        .collect();
    assert_eq!(
        found,
        [
            (Sureness::Exact, vec![1]),
            (Sureness::Order, vec![0]),
            (Sureness::Order, vec![2])
        ]
    );
}

#[test]
fn two_logs_of_one_proxy_may_have_a_line_each() {
    let play = Play::new(&[(100, 5, Verdict::Refused), (200, 6, Verdict::Refused)]);
    let mut lines: Vec<_> = (1..=4)
        .map(|number| coarse(number, 0, meaning::REFUSED))
        .collect();
    for asked in &mut lines[2..] {
        asked.log = 1;
    }
    let answers = play.answers(lines);
    let found: Vec<_> = answers.into_iter().map(|(_, _, found)| found).collect();
    assert_eq!(found, [[0], [1], [0], [1]]);
}

#[test]
fn another_owner_is_no_candidate() {
    let mut join = Join::new(None, KEEP);
    let mut record = brief(at(100), [5, 80], Verdict::Refused);
    record.owner = Some(Owner::new(9, "curl"));
    join.window.insert(record, b"");
    let answers = Play(join).answers(vec![line(1, 101, meaning::REFUSED)]);
    assert_eq!(answers, [(1, Sureness::None, vec![])]);

    let mut join = Join::new(Some("curl".into()), KEEP);
    join.window.insert(record, b"");
    let answers = Play(join).answers(vec![line(1, 101, meaning::REFUSED)]);
    assert_eq!(answers, [(1, Sureness::Unique, vec![0])]);
}

#[test]
fn without_a_destination_the_owner_has_to_be_known() {
    let owner = |name| Some(Owner::new(9, name));
    let formats = [
        // Only a line that can have no destination is looked for everywhere.
        (Format::NginxAccess, owner("nginx"), Sureness::Nearest),
        (Format::HaproxyHttp, owner("haproxy"), Sureness::Nearest),
        (Format::HaproxyTcp, owner("curl"), Sureness::None),
        (Format::HaproxyTcp, None, Sureness::None),
        (Format::Grpc, owner("curl"), Sureness::None),
        (Format::Grpc, None, Sureness::None),
        (Format::Envoy, owner("envoy"), Sureness::None),
        (Format::NginxError, owner("nginx"), Sureness::None),
    ];
    for (format, owner, sureness) in formats {
        let mut join = Join::new(None, KEEP);
        let mut record = brief(at(100), [5, 80], Verdict::Refused);
        record.owner = owner;
        join.window.insert(record, b"");
        let mut asked = line(1, 101, meaning::REFUSED);
        (asked.failed.format, asked.failed.upstream) = (format, None);
        let answers = Play(join).answers(vec![asked]);
        assert_eq!(answers[0].1, sureness, "{format:?} {owner:?}");
    }
}

/// Which server is meant is not known: what is alone is so by chance.
#[test]
fn without_a_destination_nothing_far_fits() {
    let answers = |ends: &[u64], lines: &[u64]| {
        let mut join = Join::new(Some("envoy".into()), KEEP);
        for &ended in ends {
            join.window
                .insert(brief(at(ended), [5, 80], Verdict::Refused), b"");
        }
        let lines = (1..).zip(lines).map(|(number, &ended)| {
            let mut asked = line(number, ended, meaning::REFUSED);
            (asked.failed.format, asked.failed.upstream) = (Format::HaproxyHttp, None);
            asked
        });
        let answers = Play(join).answers(lines.collect()).into_iter();
        let sureness = answers.map(|(_, sureness, _)| sureness);
        sureness.collect::<Vec<_>>()
    };
    let (ambiguous, nearest) = (Sureness::Ambiguous, Sureness::Nearest);
    assert_eq!(answers(&[400], &[500]), [Sureness::None]);
    assert_eq!(answers(&[490], &[500]), [nearest]);
    assert_eq!(answers(&[490, 495], &[500]), [ambiguous]);
    assert_eq!(answers(&[490], &[500, 501]), [ambiguous, ambiguous]);
    assert_eq!(answers(&[490, 495], &[500, 501]), [ambiguous, ambiguous]);
}

#[test]
fn a_pid_is_surer_than_a_name() {
    let mut join = Join::new(None, KEEP);
    for (pid, local) in [(7, 5), (8, 6)] {
        let mut record = brief(at(100), [local, 80], Verdict::Refused);
        record.owner = Some(Owner::new(pid, "envoy"));
        join.window.insert(record, b"");
    }
    let of = |line_number, pid| {
        let mut asked = line(line_number, 101, meaning::REFUSED);
        asked.failed.pid = Some(pid);
        asked
    };
    // In a container the number may be another one, or another program's.
    let mut other = brief(at(100), [7, 81], Verdict::Refused);
    other.owner = Some(Owner::new(9, "nginx"));
    join.window.insert(other, b"");
    let answers = Play(join).answers(vec![of(1, 8), of(2, 9)]);
    let expected = [
        (1, Sureness::Unique, vec![1]),
        (2, Sureness::Unique, vec![0]),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn without_a_duration_only_both_addresses_tell() {
    let mut asked = line(1, 500, meaning::REFUSED);
    asked.failed.is_untimed = true;
    let records = || Play::new(&[(500, 5, Verdict::Refused)]);
    let answers = records().answers(vec![asked.clone()]);
    assert_eq!(answers, [(1, Sureness::None, vec![])]);
    let answers = records().answers(vec![with_local(asked, 5)]);
    assert_eq!(answers, [(1, Sureness::Exact, vec![0])]);
}

/// Both are told in the same words, of one second: whose answer was cut short is not told from whose never came.
#[test]
fn one_likely_connection_is_not_the_first_of_two_lines() {
    use Verdict::{ClosedBeforeResponse, Ok};
    let line = |number| of_one_thread(coarse(number, 1, meaning::CLOSED_UNANSWERED));
    let answers = |records: &[_]| {
        let answers = Play::new(records).answers(vec![line(1), line(2)]);
        answers
            .into_iter()
            .map(|(_, sureness, found)| (sureness, found.len()))
    };
    let records = [
        (1_100, 5, Ok),
        (1_200, 6, Ok),
        (1_300, 7, ClosedBeforeResponse),
    ];
    assert!(answers(&records).eq([(Sureness::Ambiguous, 3); 2]));
    // What is alone is the first one's.
    let one_each = [(Sureness::Unique, 1), (Sureness::None, 0)];
    assert!(answers(&records[2..]).eq(one_each));
}

#[test]
fn failed_ones_alone_are_no_order_where_a_healthy_one_is_as_likely() {
    use Verdict::{ClosedBeforeResponse, Ok};
    let records = [(1_100, 5, Ok), (1_300, 7, ClosedBeforeResponse)];
    let lines = vec![of_one_thread(coarse(1, 1, meaning::CLOSED_INSIDE))];
    let answers = Play::new(&records).answers(lines);
    assert_eq!(answers, [(1, Sureness::Ambiguous, vec![0, 1])]);
}

/// Which is known to have others.
#[test]
fn a_workers_line_does_not_get_another_workers_connection() {
    let mut join = Join::new(None, KEEP);
    for (pid, local, moment) in [(7, 5, 5_000), (8, 6, 100)] {
        let mut record = brief(at(moment), [local, 80], Verdict::Refused);
        record.owner = Some(Owner::new(pid, "envoy"));
        join.window.insert(record, b"");
    }
    let mut asked = line(1, 101, meaning::REFUSED);
    asked.failed.pid = Some(7);
    let answers = Play(join).answers(vec![asked]);
    assert_eq!(answers, [(1, Sureness::None, vec![])]);
}

#[test]
fn nothing_is_answered_before_its_records_are_known() {
    let mut join = Join::new(None, KEEP);
    join.window
        .insert(brief(at(100), [5, 80], Verdict::Refused), b"");
    join.ask(line(1, 101, meaning::REFUSED));
    join.ask(line(2, 101, meaning::OWN_ANSWER));
    let mut count = 0;
    join.answer(at(500), at(500), |_| count += 1);
    assert_eq!(count, 0, "a second candidate may come");
    let needs = at(102) + SLACK;
    join.answer(needs, at(500), |_| count += 1);
    assert_eq!(count, 2, "in the order of the lines");
}

#[test]
fn a_crowd_that_never_ends_is_settled_in_parts() {
    use Verdict::Refused;
    let records: Vec<_> = (0..20_000_u64)
        .map(|n| (n, 1 + u16::try_from(n % 60_000).unwrap(), Refused))
        .collect();
    let mut play = Play::new(&records);
    let mut right = 0;
    let mut waited = 0;
    for n in 0..20_000 {
        play.0
            .ask(of_one_thread(coarse(n, n / 1_000, meaning::REFUSED)));
        if n % 256 == 0 {
            play.0.answer(u64::MAX, at(n), |answer| {
                right += usize::from(answer.found == [answer.asked.line]);
            });
            waited = waited.max(play.0.waiting.len());
        }
    }
    play.0.answer(u64::MAX, u64::MAX, |answer| {
        right += usize::from(answer.found == [answer.asked.line]);
    });
    assert!(waited <= CROWD + 256, "{waited}");
    assert!(right > 19_000, "{right}");
}

/// Lines of a stream of failures that lasts, `every` so many microseconds, and how many of them get their own connection and how many another's.
/// A line's own has its number for a port; `others` have 60,000, at so many microseconds.
fn stream(
    lines: u64,
    every: u64,
    asked: fn(u64, u64, Nature) -> Asked,
    own: impl Fn(u64) -> Option<u64>,
    others: &[u64],
) -> (usize, usize) {
    let mut records: Vec<_> = others.iter().map(|&at| (at, 60_000)).collect();
    records.extend((0..lines).filter_map(|number| {
        let after = own(number)?;
        Some((number * every + after, u16::try_from(number).unwrap()))
    }));
    records.sort_unstable();
    let mut join = Join::new(None, KEEP / 2);
    for &(microseconds, local) in &records {
        let ended = START + microseconds * 1_000;
        join.window
            .insert(brief(ended, [local, 80], Verdict::Refused), b"");
    }
    let (mut right, mut wrong) = (0, 0);
    let mut count = |answer: Answer| {
        let local = |number: Number| u64::from(records[usize::try_from(number).unwrap()].1);
        if let (false, &[found]) = (answer.sureness == Sureness::Ambiguous, &answer.found[..]) {
            *if local(found) == answer.asked.line {
                &mut right
            } else {
                &mut wrong
            } += 1;
        }
    };
    // Before the first of the others.
    let begin = 100_000;
    for number in 0..lines {
        let milliseconds = (begin + number * every) / 1_000;
        let asked = asked(number, milliseconds, meaning::REFUSED);
        let known = asked.failed.ended.from;
        join.ask(asked);
        if number % 32 == 0 {
            join.answer(u64::MAX, known, &mut count);
            assert!(join.waiting.len() <= CROWD);
        }
    }
    join.answer(u64::MAX, u64::MAX, &mut count);
    assert!(join.waiting.is_empty() && join.crowds.is_empty());
    (right, wrong)
}

#[test]
fn one_connection_more_or_less_does_not_shift_all_lines_behind_it() {
    let second = |number, milliseconds, nature| coarse(number, milliseconds / 1_000, nature);
    let by_one =
        |number, milliseconds, nature| of_one_thread(coarse(number, milliseconds / 1_000, nature));
    let own = |_| Some(101_000);
    let but = |lacking| move |number| (number != lacking).then_some(101_000);
    // As many as lines are left when a crowd of one more than it holds is settled.
    let first = |number| (number < 5_000 - 1 - CROWD as u64).then_some(101_000);
    let tenth = |number| (number % 10 != 0).then_some(100_000);
    // Lines, microseconds between them, their clock, their connections, those of others; how many are right at least.
    let streams = [
        ("as many", stream(120, 50_000, line, own, &[]), 120),
        ("one more", stream(120, 50_000, line, own, &[90_000]), 119),
        ("one less", stream(120, 50_000, line, but(15), &[]), 119),
        (
            "retries",
            stream(
                60,
                210_000,
                line,
                own,
                &[60_000, 1_740_000, 3_420_000, 5_100_000],
            ),
            60,
        ),
        (
            "as many, by the second",
            stream(30, 400_000, second, own, &[]),
            30,
        ),
        (
            "one less, by the second",
            stream(30, 400_000, second, but(5), &[]),
            27,
        ),
        (
            "one more, by the second",
            stream(30, 400_000, second, own, &[2_600_000]),
            27,
        ),
        (
            "as many, densely",
            stream(3_000, 1_000, by_one, |_| Some(100_000), &[]),
            3_000,
        ),
        (
            "one more, then one less",
            stream(100, 20_000, line, but(40), &[510_000]),
            0,
        ),
        (
            "one less, then one more",
            stream(100, 20_000, line, but(20), &[910_000]),
            0,
        ),
        // The crowd is cut behind it.
        (
            "one less before a cut",
            stream(40, 600_000, line, but(31), &[]),
            39,
        ),
        // No moment lies between its lines, and those of the first part have all the connections.
        (
            "all in one second",
            stream(5_000, 100, by_one, first, &[]),
            0,
        ),
        // What is before a second's end in one clock and behind it in the other.
        ("all late, densely", stream(900, 3_000, second, own, &[]), 0),
        (
            "many less, densely",
            stream(2_700, 1_000, second, tenth, &[]),
            0,
        ),
    ];
    for (what, (right, wrong), least) in streams {
        assert!(
            wrong == 0 && right >= least,
            "{what}: {right} right, {wrong} wrong"
        );
    }
}

#[test]
fn crowds_that_want_the_same_connections_take_them_in_the_order_of_their_lines() {
    let mut answers = (0..20).map(|_| {
        let record = |port| (u64::from(port), port, Verdict::ResetBeforeResponse);
        let records: Vec<_> = (100..104).map(record).collect();
        let lines = (1..=8).map(|number| {
            let mut asked = coarse(number, 0, meaning::TERMINATED);
            // Some name the process.
            asked.failed.pid = (number > 4).then_some(7);
            asked
        });
        Play::new(&records).answers(lines.collect())
    });
    let first = answers.next().unwrap();
    assert!(answers.all(|other| other == first), "{first:?}");
}

#[test]
fn lines_of_several_meanings_share_an_order() {
    use Verdict::{Refused, ResetBeforePayload};
    let play = Play::new(&[
        (100, 5, ResetBeforePayload),
        (200, 6, Refused),
        (300, 7, ResetBeforePayload),
    ]);
    let answers = play.answers(vec![
        // Without details Envoy calls an early reset a failure to connect, or a termination.
        coarse(1, 0, meaning::CONNECT_FAILED),
        coarse(2, 0, meaning::CONNECT_FAILED),
        coarse(3, 0, meaning::TERMINATED),
    ]);
    let found: Vec<_> = answers.into_iter().map(|(_, _, found)| found).collect();
    assert_eq!(found, [[0], [1], [2]]);
}

#[test]
fn lines_that_their_clock_does_not_tell_apart_stay_as_written() {
    use Verdict::ResetBeforeResponse;
    let play = Play::new(&[(100, 5, ResetBeforeResponse), (101, 6, ResetBeforeResponse)]);
    // The second line has the earlier time, to a millisecond.
    let lines = vec![
        of_one_thread(line(1, 101, meaning::TERMINATED)),
        of_one_thread(line(2, 100, meaning::TERMINATED)),
    ];
    let order = |line, record| (line, Sureness::Order, vec![record]);
    assert_eq!(play.answers(lines), [order(1, 0), order(2, 1)]);
}

#[test]
fn threads_may_write_about_what_ended_together_in_another_order() {
    use Verdict::{Refused, ResetBeforeResponse};
    // Either may have waited for its thread.
    let play = Play::new(&[(100, 5, Refused), (104, 6, Refused)]);
    let lines = vec![
        line(1, 105, meaning::REFUSED),
        line(2, 107, meaning::REFUSED),
    ];
    let unsure = play.answers(lines).into_iter();
    assert!(
        unsure
            .map(|(_, sureness, _)| sureness)
            .all(|it| it == Sureness::Ambiguous)
    );
    // The first was written before the second ended.
    let play = Play::new(&[(100, 5, Refused), (104, 6, Refused)]);
    let lines = vec![
        line(1, 100, meaning::REFUSED),
        line(2, 105, meaning::REFUSED),
    ];
    let order = |line, record| (line, Sureness::Order, vec![record]);
    assert_eq!(play.answers(lines), [order(1, 0), order(2, 1)]);
    // Only one of them was refused.
    let play = Play::new(&[
        (100, 5, Refused),
        (101, 6, ResetBeforeResponse),
        (104, 7, Refused),
    ]);
    let lines = vec![
        line(1, 101, meaning::REFUSED),
        line(2, 102, meaning::TERMINATED),
        line(3, 105, meaning::REFUSED),
    ];
    let answers = play.answers(lines);
    assert!(
        answers.iter().all(|(line, _, found)| *found == [line - 1]),
        "{answers:?}"
    );
}

/// A connection to the same upstream, of a process with this number and name.
fn owned(milliseconds: u64, local: u16, verdict: Verdict, owner: (u32, &str)) -> Brief {
    let mut record = brief(at(milliseconds), [local, 80], verdict);
    record.owner = Some(Owner::new(owner.0, owner.1));
    record
}

fn among(records: impl IntoIterator<Item = Brief>) -> Play {
    let mut join = Join::new(None, KEEP);
    for record in records {
        join.window.insert(record, b"");
    }
    Play(join)
}

/// The number in the line is that of a container: two of the node have such a process.
#[test]
fn what_the_words_prefer_may_be_another_containers() {
    use Verdict::{Ok, ResetBeforeResponse};
    let mut asked = coarse(1, 1, meaning::TERMINATED);
    asked.failed.format = Format::NginxError;
    let answer = |own: u32, number| {
        let records = [
            owned(1_400, 5, ResetBeforeResponse, (70, "nginx")),
            owned(1_450, 6, Ok, (own, "nginx")),
        ];
        let mut asked = asked.clone();
        asked.failed.pid = number;
        among(records).answers(vec![asked])
    };
    for number in [Some(2), None] {
        assert_eq!(answer(70, number), [(1, Sureness::Order, vec![0])]);
        let either = [(1, Sureness::Ambiguous, vec![0, 1])];
        assert_eq!(answer(80, number), either, "{number:?}");
    }
    // Each has a line, which may have waited in a buffer of its process for longer than the connections are apart.
    let lines = || (1..=2).map(|number| coarse(number, 1, meaning::RESET));
    let records = |other| {
        [(1_200, 5, 70), (1_700, 6, other)]
            .map(|(at, local, pid)| owned(at, local, ResetBeforeResponse, (pid, "envoy")))
    };
    let sure = |other| {
        let answers = among(records(other)).answers(lines().collect());
        answers.iter().all(|answer| answer.1 == Sureness::Order)
    };
    assert!(sure(70) && !sure(80));
}

/// An attempt behind which another server was tried has no line in NGINX's access log.
#[test]
fn an_access_log_does_not_tell_of_each_connection() {
    use Verdict::{Ok, ResetBeforeResponse};
    let answer = |format| {
        let records = [
            owned(1_400, 5, ResetBeforeResponse, (70, "nginx")),
            owned(1_450, 6, Ok, (70, "nginx")),
        ];
        let mut asked = coarse(1, 1, meaning::TERMINATED);
        asked.failed.format = format;
        among(records).answers(vec![asked])
    };
    let order = [(1, Sureness::Order, vec![0])];
    assert_eq!(answer(Format::NginxError), order);
    let either = [(1, Sureness::Ambiguous, vec![0, 1])];
    assert_eq!(answer(Format::NginxAccess), either);
}

#[test]
fn programs_that_share_a_log_do_not_share_connections() {
    let ends = [
        (100, "envoy"),
        (140, "haproxy"),
        (200, "envoy"),
        (240, "haproxy"),
    ];
    let records = (1..)
        .zip(ends)
        .map(|(local, (at, name))| owned(at, local, Verdict::ResetBeforeResponse, (9, name)));
    let lines = (1..).zip(ends).map(|(number, (at, name))| {
        let mut asked = line(number, at, meaning::RESET);
        if name == "haproxy" {
            asked.failed.format = Format::HaproxyHttp;
        }
        asked
    });
    let found = among(records).answers(lines.collect());
    let expected = [1, 2, 3, 4].map(|line| (line, Sureness::Order, vec![line - 1]));
    assert_eq!(found, expected);
}
