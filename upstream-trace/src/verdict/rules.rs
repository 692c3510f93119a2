//! The contract's table of verdicts, as code: one function, top to bottom, milder where in doubt.
//!
//! Must not know: lines that are printed; of the kernel, more than its errnos.

use super::facts::Facts;
use crate::{
    record::{Direction, Flag, Role, Verdict},
    tcp::errno::{EBADMSG, ECONNABORTED, ECONNREFUSED, ECONNRESET, EPIPE, ETIMEDOUT},
};

/// A verdict and its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What became of the connection.
    pub verdict: Verdict,
    /// Whether that is a reset that no application asked for.
    pub flag: Option<Flag>,
}

/// What the kernel leaves for other reasons than having given up: a kill of one that had sent its FIN, which sends no reset; what a BPF
/// sockmap or TLS in the kernel could not pass on.
const NOT_GIVEN_UP: [u32; 3] = [ECONNABORTED, EPIPE, EBADMSG];

/// Judges a connection that ended; `idle_after_us` parts `reset_mid_stream` from `reset_idle`.
pub fn judge(facts: &Facts, idle_after_us: u64) -> Judgement {
    // A server's socket never connects: Fast Open's is there before the handshake is complete.
    if facts.established || facts.role == Role::Server {
        judge_established(facts, idle_after_us)
    } else {
        judge_connecting(facts)
    }
}

const REFUSED: Judgement = Judgement {
    verdict: Verdict::Refused,
    flag: Some(Flag::ResetBeforePayload),
};

const fn plain(verdict: Verdict) -> Judgement {
    Judgement {
        verdict,
        flag: None,
    }
}

fn judge_connecting(facts: &Facts) -> Judgement {
    let never_left = facts.counters.any_segment_out == Some(false) || !facts.has_local_port;
    match (facts.reset, facts.err) {
        (Some(Direction::Received), _) => REFUSED,
        // By an ICMP error as well, but that was not seen, and the reset's event may be lost.
        (_, ECONNREFUSED) if facts.reset_unseen && !facts.icmp => REFUSED,
        (_, ETIMEDOUT) => plain(Verdict::ConnectTimeout),
        // An administrator's kill.
        (_, ECONNABORTED) => plain(Verdict::ConnectCanceled),
        // The owner may have been told by a soft error, which leaves no other trace.
        (_, 0) if facts.icmp => plain(Verdict::Unreachable),
        (_, 0) if never_left => plain(Verdict::NoLocalPort),
        (_, 0) => plain(Verdict::ConnectCanceled),
        _ => plain(Verdict::Unreachable),
    }
}

fn judge_established(facts: &Facts, idle_after_us: u64) -> Judgement {
    // The event of the reset itself may be lost; what the application was told is not.
    let told_of_reset = is_of_reset(facts).then_some(Direction::Received);
    let reset = facts.reset.or(told_of_reset);
    let never_accepted = facts.role == Role::Server && facts.accepted == Some(false);
    if facts.err == ETIMEDOUT {
        return plain(Verdict::Timeout);
    }
    let Some(direction) = reset else {
        return plain(match () {
            () if never_accepted => Verdict::NeverAccepted,
            () if facts.err != 0 && !NOT_GIVEN_UP.contains(&facts.err) => Verdict::Timeout,
            () if closed_unanswered(facts) => Verdict::ClosedBeforeResponse,
            () => Verdict::Ok,
        });
    };
    let by_payload = judge_reset(facts, direction, idle_after_us);
    if never_accepted {
        return Judgement {
            verdict: Verdict::NeverAccepted,
            ..by_payload
        };
    }
    by_payload
}

/// What `tcp_reset()` leaves: `EPIPE` behind the peer's FIN (`CLOSE_WAIT`), else `ECONNRESET`.
fn is_of_reset(facts: &Facts) -> bool {
    facts.err == ECONNRESET || facts.err == EPIPE && facts.peer_closed_first
}

/// A reset of an established connection, by what payload there was.
fn judge_reset(facts: &Facts, direction: Direction, idle_after_us: u64) -> Judgement {
    if no_payload(facts) {
        let verdict = if connector_reset(facts, direction) {
            Verdict::Probe
        } else {
            Verdict::ResetBeforePayload
        };
        return Judgement {
            verdict,
            flag: Some(Flag::ResetBeforePayload),
        };
    }
    if unanswered(facts, facts.counters.last_payload_of_reset()) {
        return Judgement {
            verdict: Verdict::ResetBeforeResponse,
            flag: Some(Flag::ResetBeforeResponse),
        };
    }
    let is_idle = facts
        .counters
        .idle_us()
        .is_none_or(|idle| idle >= idle_after_us);
    // What was still on its way had not been answered, however long it stood still.
    let on_its_way = facts.role != Role::Unknown && facts.counters.unacked == Some(true);
    plain(match direction {
        Direction::Sent => Verdict::LocalAbort,
        Direction::Received if is_idle && !on_its_way => Verdict::ResetIdle,
        Direction::Received => Verdict::ResetMidStream,
    })
}

/// No byte was received or acknowledged, either way.
fn no_payload(facts: &Facts) -> bool {
    let counters = &facts.counters;
    let none_received = counters.received_any == Some(false);
    let none_acked = counters.bytes.acked == Some(0) || counters.sent_any == Some(false);
    none_received && none_acked && facts.peer_received_payload != Some(true)
}

/// The end that connected reset its own connection.
fn connector_reset(facts: &Facts, direction: Direction) -> bool {
    match (facts.role, direction) {
        (Role::Client, Direction::Sent) => !facts.destroyed,
        (Role::Server, Direction::Received) => {
            !facts.reset_in_path && !facts.reset_by_stranger && !facts.destroyed
        }
        _ => false,
    }
}

/// A request was sent and no byte of a response came back, from the client's side; a response that the client has nothing of counts as
/// none, unless its FIN came first: then it may have given up before. Of an end that may be either's nobody knows which payload is the request.
/// Nor is the last payload always a request.
fn unanswered(facts: &Facts, last: Option<Direction>) -> bool {
    let request = match facts.role {
        Role::Server => Direction::Received,
        Role::Client => Direction::Sent,
        Role::Unknown => return false,
    };
    let lost = request == Direction::Received
        && facts.peer_received_payload == Some(false)
        && facts.counters.received_any == Some(true)
        && !facts.peer_closed_first;
    let is_latest = last == Some(request);
    lost || is_latest && !is_goodbye(facts) && !is_during_response(facts)
}

/// What the client sent last is most likely a goodbye (TLS's `close_notify` for one), for it had received what it was owed and was done.
fn is_goodbye(facts: &Facts) -> bool {
    if facts.role == Role::Server {
        // The client closed right behind it, while this end was about to close as well.
        let is_unread = facts.peer_closed_first && facts.counters.leaves_alert();
        return facts.peer_said_goodbye || is_unread;
    }
    if facts.left_unanswered || facts.counters.received_any != Some(true) {
        return false;
    }
    let is_alert = facts.counters.ends_in_alert();
    let closed = !facts.is_open;
    match facts.reset {
        // A FIN followed at once, and what came met nobody.
        Some(Direction::Sent) => is_alert || facts.closed_first && closed && !facts.has_waited,
        // The server closed behind what it sent; the client took it and closed as well. Or the server did not read the goodbye, which is
        // then no FIN of its: the client, whose answer had just come, waited for nothing.
        Some(Direction::Received) => {
            let behind_answer = facts.closed_behind_payload || is_behind_answer(facts);
            is_alert && (facts.peer_closed_first || behind_answer)
                || facts.peer_closed_first && facts.closed_behind_payload && closed
        }
        None => false,
    }
}

/// Whether neither end had closed yet, and the server's last payload had just come to the client.
fn is_behind_answer(facts: &Facts) -> bool {
    !facts.closed_first && !facts.peer_closed_first && facts.counters.has_just_received()
}

/// What came last from the client came while a response was on its way to it, or after the server had sent one and closed.
fn is_during_response(facts: &Facts) -> bool {
    let counters = &facts.counters;
    // An acknowledgement of all that the client has comes with its payload.
    let on_its_way = counters.unacked == Some(true);
    let after_it = facts.closed_first && facts.closed_behind_payload && facts.payload_after_fin;
    facts.role == Role::Server && counters.sent_any == Some(true) && (on_its_way || after_it)
}

/// The end that owed a response closed first, in order, without one.
fn closed_unanswered(facts: &Facts) -> bool {
    let server_closed_first = match facts.role {
        Role::Server => facts.closed_first,
        // After a half-close the client still waits for its answer.
        _ => facts.peer_closed_first || facts.closed_first && facts.half_closed,
    };
    // What came after that is the goodbye of a protocol (TLS's `close_notify` for one) rather than a request.
    let is_unanswered = unanswered(facts, facts.counters.last_payload());
    server_closed_first && is_unanswered && !facts.payload_after_fin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::Bytes,
        verdict::facts::{Counters, TOGETHER_US},
    };

    const IDLE_AFTER_US: u64 = 250_000;

    fn counters(sent: u64, received: u64) -> Counters {
        Counters {
            bytes: Bytes {
                sent: Some(sent),
                received: Some(received),
                acked: Some(sent),
            },
            sent_any: Some(sent > 0),
            received_any: Some(received > 0),
            unacked: Some(false),
            unread: Some(0),
            since_sent_us: (sent > 0).then_some(20_000),
            since_received_us: (received > 0).then_some(10_000),
            any_segment_out: Some(true),
            ..Counters::default()
        }
    }

    fn established(role: Role, sent: u64, received: u64) -> Facts {
        Facts {
            role,
            established: true,
            accepted: Some(true),
            has_local_port: true,
            counters: counters(sent, received),
            ..Facts::default()
        }
    }

    fn verdict(facts: &Facts) -> Verdict {
        judge(facts, IDLE_AFTER_US).verdict
    }

    fn reset(direction: Direction, facts: Facts) -> Judgement {
        judge(
            &Facts {
                reset: Some(direction),
                ..facts
            },
            IDLE_AFTER_US,
        )
    }

    fn flagged(verdict: Verdict, flag: Flag) -> Judgement {
        Judgement {
            verdict,
            flag: Some(flag),
        }
    }

    const BEFORE_PAYLOAD: Flag = Flag::ResetBeforePayload;
    const BEFORE_RESPONSE: Flag = Flag::ResetBeforeResponse;

    #[test]
    fn connecting() {
        let facts = Facts {
            role: Role::Client,
            has_local_port: true,
            counters: Counters {
                any_segment_out: Some(true),
                ..Counters::default()
            },
            ..Facts::default()
        };
        assert_eq!(
            reset(Direction::Received, Facts { err: 111, ..facts }),
            flagged(Verdict::Refused, BEFORE_PAYLOAD)
        );
        assert_eq!(
            verdict(&Facts { err: 110, ..facts }),
            Verdict::ConnectTimeout
        );
        assert_eq!(verdict(&Facts { err: 113, ..facts }), Verdict::Unreachable);
        // An ICMP port unreachable: the same errno as a reset, but there was none.
        assert_eq!(verdict(&Facts { err: 111, ..facts }), Verdict::Unreachable);
        assert_eq!(verdict(&facts), Verdict::ConnectCanceled);
        assert_eq!(
            verdict(&Facts {
                icmp: true,
                ..facts
            }),
            Verdict::Unreachable
        );
        assert_eq!(
            verdict(&Facts {
                has_local_port: false,
                ..facts
            }),
            Verdict::NoLocalPort
        );
        let never_left = Counters {
            any_segment_out: Some(false),
            ..Counters::default()
        };
        assert_eq!(
            verdict(&Facts {
                counters: never_left,
                ..facts
            }),
            Verdict::NoLocalPort
        );
    }

    /// A BPF sockmap leaves `EPIPE` where no reset came, TLS in the kernel `EBADMSG`.
    #[test]
    fn an_error_of_another_layer_is_neither_a_reset_nor_a_timeout() {
        let told = |err, peer_closed_first| {
            verdict(&Facts {
                err,
                peer_closed_first,
                closed_first: !peer_closed_first,
                ..established(Role::Client, 64, 64)
            })
        };
        assert_eq!(told(EPIPE, true), Verdict::ResetMidStream);
        assert_eq!(told(EPIPE, false), Verdict::Ok);
        assert_eq!(told(EBADMSG, false), Verdict::Ok);
        assert_eq!(told(113, false), Verdict::Timeout);
    }

    #[test]
    fn resets_before_payload_and_probes() {
        let [client, server] = [Role::Client, Role::Server].map(|role| established(role, 0, 0));
        let before_payload = flagged(Verdict::ResetBeforePayload, BEFORE_PAYLOAD);
        let probe = flagged(Verdict::Probe, BEFORE_PAYLOAD);
        assert_eq!(reset(Direction::Received, client), before_payload);
        assert_eq!(reset(Direction::Sent, server), before_payload);
        assert_eq!(reset(Direction::Sent, client), probe);
        assert_eq!(reset(Direction::Received, server), probe);
        let killed = Facts {
            destroyed: true,
            ..client
        };
        assert_eq!(reset(Direction::Sent, killed), before_payload);
        let killed_there = Facts {
            destroyed: true,
            ..server
        };
        assert_eq!(reset(Direction::Received, killed_there), before_payload);
        let forgotten = Facts {
            reset_by_stranger: true,
            ..server
        };
        assert_eq!(reset(Direction::Received, forgotten), before_payload);
        let in_path = Facts {
            reset_in_path: true,
            ..server
        };
        assert_eq!(reset(Direction::Received, in_path), before_payload);
    }

    #[test]
    fn a_request_counts_once_it_is_acknowledged_or_seen_to_arrive() {
        let mut facts = established(Role::Client, 64, 0);
        let before_response = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        assert_eq!(reset(Direction::Received, facts), before_response);
        facts.counters.bytes.acked = Some(0);
        assert_eq!(
            reset(Direction::Received, facts).verdict,
            Verdict::ResetBeforePayload
        );
        facts.peer_received_payload = Some(true);
        assert_eq!(reset(Direction::Received, facts), before_response);
    }

    #[test]
    fn resets_after_an_answer() {
        let answered = established(Role::Client, 64, 64);
        assert_eq!(
            reset(Direction::Received, answered),
            plain(Verdict::ResetMidStream)
        );
        assert_eq!(reset(Direction::Sent, answered), plain(Verdict::LocalAbort));
        let mut idle = answered;
        idle.counters.since_sent_us = Some(500_000);
        idle.counters.since_received_us = Some(IDLE_AFTER_US);
        assert_eq!(reset(Direction::Received, idle), plain(Verdict::ResetIdle));
        let mut asked_again = idle;
        asked_again.counters.since_sent_us = Some(1000);
        assert_eq!(
            reset(Direction::Received, asked_again),
            flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE)
        );
    }

    #[test]
    fn a_server_sees_the_mirror_image() {
        let asked = established(Role::Server, 0, 64);
        assert_eq!(
            reset(Direction::Sent, asked),
            flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE)
        );
        let mut answered = established(Role::Server, 64, 64);
        answered.counters.since_sent_us = Some(5_000);
        assert_eq!(
            reset(Direction::Received, answered),
            plain(Verdict::ResetMidStream)
        );
    }

    #[test]
    fn nobody_accepted() {
        let facts = Facts {
            accepted: Some(false),
            ..established(Role::Server, 0, 0)
        };
        assert_eq!(verdict(&facts), Verdict::NeverAccepted);
        assert_eq!(
            reset(Direction::Received, facts),
            flagged(Verdict::NeverAccepted, BEFORE_PAYLOAD)
        );
        let asked = Facts {
            counters: counters(0, 64),
            ..facts
        };
        assert_eq!(
            reset(Direction::Sent, asked),
            flagged(Verdict::NeverAccepted, BEFORE_RESPONSE)
        );
        let unknown = Facts {
            accepted: None,
            ..facts
        };
        assert_eq!(verdict(&unknown), Verdict::Ok);
    }

    #[test]
    fn orderly_closes() {
        let unanswered = established(Role::Client, 64, 0);
        let peer_first = Facts {
            peer_closed_first: true,
            ..unanswered
        };
        assert_eq!(verdict(&peer_first), Verdict::ClosedBeforeResponse);
        // The client gave up waiting: its own affair.
        let closed_first = Facts {
            closed_first: true,
            ..unanswered
        };
        assert_eq!(verdict(&closed_first), Verdict::Ok);
        let half_closed = Facts {
            half_closed: true,
            ..closed_first
        };
        assert_eq!(verdict(&half_closed), Verdict::ClosedBeforeResponse);
        let answered = Facts {
            peer_closed_first: true,
            ..established(Role::Client, 64, 64)
        };
        assert_eq!(verdict(&answered), Verdict::Ok);
        let nothing = Facts {
            peer_closed_first: true,
            ..established(Role::Client, 0, 0)
        };
        assert_eq!(verdict(&nothing), Verdict::Ok);
        let server = Facts {
            closed_first: true,
            ..established(Role::Server, 0, 64)
        };
        assert_eq!(verdict(&server), Verdict::ClosedBeforeResponse);
    }

    /// php-fpm reads the end of the request when it has answered, and shut its side down.
    #[test]
    fn within_a_jiffy_what_is_unread_was_asked_last_only_of_one_that_resets() {
        let mut server = Facts {
            closed_first: true,
            ..established(Role::Server, 80, 232)
        };
        server.counters.since_sent_us = server.counters.since_received_us;
        server.counters.unread = Some(64);
        assert_eq!(verdict(&server), Verdict::Ok);
        assert_eq!(
            reset(Direction::Sent, server),
            flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE)
        );
    }

    #[test]
    fn a_goodbye_after_the_fin_is_no_request() {
        let mut facts = Facts {
            peer_closed_first: true,
            payload_after_fin: true,
            ..established(Role::Client, 64, 64)
        };
        facts.counters.since_sent_us = Some(4_000);
        assert_eq!(verdict(&facts), Verdict::Ok);
        facts.payload_after_fin = false;
        assert_eq!(
            verdict(&facts),
            Verdict::ClosedBeforeResponse,
            "it may have crossed the FIN"
        );
    }

    /// The client said goodbye and closed; the rest of the answer, or the server's own goodbye, met nobody.
    #[test]
    fn a_client_that_has_its_answer_and_closes_is_owed_none() {
        let mut facts = Facts {
            closed_first: true,
            ..established(Role::Client, 64, 64)
        };
        facts.counters.since_sent_us = Some(4_000);
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        let sent = |facts| reset(Direction::Sent, facts);
        assert_eq!(sent(facts), plain(Verdict::LocalAbort));
        let waited = Facts {
            has_waited: true,
            ..facts
        };
        assert_eq!(sent(waited), unanswered);
        let waits = Facts {
            is_open: true,
            ..facts
        };
        assert_eq!(sent(waits), unanswered, "a half-close");
        let mut had_nothing = facts;
        had_nothing.counters.received_any = Some(false);
        assert_eq!(sent(had_nothing), unanswered);
        assert_eq!(reset(Direction::Received, facts), unanswered);
    }

    /// The server answered and closed, the client took the answer and closed as well.
    #[test]
    fn of_two_that_closed_behind_an_answer_none_is_owed_one() {
        let mut facts = Facts {
            peer_closed_first: true,
            closed_behind_payload: true,
            ..established(Role::Client, 64, 64)
        };
        facts.counters.since_sent_us = Some(4_000);
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        let received = |facts| reset(Direction::Received, facts);
        assert_eq!(received(facts), plain(Verdict::ResetMidStream));
        let waits = Facts {
            is_open: true,
            ..facts
        };
        assert_eq!(received(waits), unanswered, "another request");
        let idle = Facts {
            closed_behind_payload: false,
            ..facts
        };
        assert_eq!(received(idle), unanswered, "a keep-alive race");

        let mut server = Facts {
            closed_first: true,
            closed_behind_payload: true,
            payload_after_fin: true,
            ..established(Role::Server, 64, 64)
        };
        let sent = |facts| reset(Direction::Sent, facts);
        assert_eq!(sent(server), plain(Verdict::LocalAbort));
        server.payload_after_fin = false;
        assert_eq!(sent(server), unanswered);
    }

    #[test]
    fn an_alert_on_its_way_to_a_server_that_closed_is_no_request() {
        for (bytes, verdict) in [
            (22, Verdict::ResetBeforeResponse),
            (23, Verdict::ResetMidStream),
            (24, Verdict::ResetMidStream),
            (31, Verdict::ResetMidStream),
            (32, Verdict::ResetBeforeResponse),
            // Java's, in TLS 1.3.
            (40, Verdict::ResetMidStream),
        ] {
            let mut facts = Facts {
                peer_closed_first: true,
                is_open: true,
                ..established(Role::Client, 700, 2000)
            };
            facts.counters.since_sent_us = Some(4_000);
            facts.counters.bytes.acked = Some(700 - bytes);
            facts.counters.unacked = Some(true);
            assert_eq!(reset(Direction::Received, facts).verdict, verdict);
            facts.peer_closed_first = false;
            facts.counters.since_received_us = Some(TOGETHER_US + 1);
            let open = reset(Direction::Received, facts).verdict;
            assert_eq!(open, Verdict::ResetBeforeResponse);
        }
    }

    /// nginx answers, says goodbye, and closes without a look at the client's.
    #[test]
    fn an_alert_behind_the_answer_is_no_request_though_the_server_sent_no_fin() {
        let mut facts = Facts {
            closed_first: true,
            closed_behind_payload: true,
            ..established(Role::Client, 730, 1771)
        };
        facts.counters.since_sent_us = Some(0);
        facts.counters.since_received_us = Some(4_000);
        facts.counters.bytes.acked = Some(730 - 31);
        facts.counters.unacked = Some(true);
        let received = |facts| reset(Direction::Received, facts);
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        assert_eq!(received(facts), plain(Verdict::ResetMidStream));
        facts.closed_behind_payload = false;
        assert_eq!(received(facts), unanswered, "it had waited");
        facts.closed_first = false;
        assert_eq!(received(facts), plain(Verdict::ResetMidStream), "no FIN");
        facts.counters.since_received_us = Some(TOGETHER_US + 1);
        assert_eq!(received(facts), unanswered, "it waits");
    }

    #[test]
    fn what_has_an_alerts_size_is_none_before_a_handshake_can_have_been() {
        let late = |bytes: u64, received| {
            let mut facts = Facts {
                peer_closed_first: true,
                is_open: true,
                ..established(Role::Client, bytes + 24, received)
            };
            facts.counters.since_sent_us = Some(4_000);
            facts.counters.bytes.acked = Some(bytes);
            reset(Direction::Received, facts).verdict
        };
        assert_eq!(late(101, 101), Verdict::ResetMidStream);
        for (acked, received) in [(101, 100), (100, 101), (7, 5)] {
            let verdict = late(acked, received);
            assert_eq!(verdict, Verdict::ResetBeforeResponse);
        }
    }

    #[test]
    fn a_goodbye_to_a_server_that_left_a_request_unanswered_hides_that_not() {
        let mut facts = Facts {
            peer_closed_first: true,
            payload_after_fin: true,
            is_open: true,
            ..established(Role::Client, 700, 2000)
        };
        facts.counters.since_sent_us = Some(4_000);
        facts.counters.bytes.acked = Some(700 - 24);
        let received = |facts| reset(Direction::Received, facts);
        assert_eq!(received(facts), plain(Verdict::ResetMidStream));
        facts.left_unanswered = true;
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        assert_eq!(received(facts), unanswered);
    }

    /// As the client's own record has it.
    #[test]
    fn a_clients_goodbye_is_one_to_the_server_as_well() {
        let mut facts = established(Role::Server, 700, 64);
        facts.counters.since_received_us = Some(4_000);
        let received = |facts| reset(Direction::Received, facts);
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        facts.counters.since_sent_us = Some(20_000);
        assert_eq!(received(facts), unanswered);
        facts.peer_said_goodbye = true;
        assert_eq!(received(facts), plain(Verdict::ResetMidStream));
    }

    /// Both close at the same moment.
    #[test]
    fn a_goodbye_that_the_server_did_not_read_is_no_request() {
        let mut facts = Facts {
            peer_closed_first: true,
            ..established(Role::Server, 1500, 700)
        };
        facts.counters.since_received_us = Some(4_000);
        let sent = |facts| reset(Direction::Sent, facts);
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        for (unread, expected) in [
            (24, plain(Verdict::LocalAbort)),
            (40, plain(Verdict::LocalAbort)),
            (64, unanswered),
        ] {
            facts.counters.unread = Some(unread);
            assert_eq!(sent(facts), expected, "{unread}");
        }
        facts.counters.unread = Some(24);
        facts.peer_closed_first = false;
        assert_eq!(sent(facts), unanswered, "the client waits");
        facts.peer_closed_first = true;
        facts.counters.bytes.received = Some(124);
        assert_eq!(sent(facts), unanswered, "too short for a handshake");
    }

    /// What a client sends acknowledges all that it has.
    #[test]
    fn payload_that_comes_during_a_response_waits_for_none() {
        let mut facts = established(Role::Server, 5000, 64);
        facts.counters.since_received_us = Some(4_000);
        let unanswered = flagged(Verdict::ResetBeforeResponse, BEFORE_RESPONSE);
        assert_eq!(reset(Direction::Received, facts), unanswered);
        facts.counters.unacked = Some(true);
        let judged = reset(Direction::Received, facts);
        assert_eq!(judged, plain(Verdict::ResetMidStream));
    }

    #[test]
    fn timeouts_and_lost_reset_events() {
        let facts = established(Role::Client, 64, 0);
        assert_eq!(
            verdict(&Facts {
                err: ETIMEDOUT,
                ..facts
            }),
            Verdict::Timeout
        );
        // A keep-alive that gives up sends a reset as well.
        let keepalive = Facts {
            err: ETIMEDOUT,
            ..facts
        };
        assert_eq!(reset(Direction::Sent, keepalive), plain(Verdict::Timeout));
        assert_eq!(verdict(&Facts { err: 113, ..facts }), Verdict::Timeout);
        assert_eq!(
            verdict(&Facts { err: 104, ..facts }),
            Verdict::ResetBeforeResponse
        );
    }

    #[test]
    fn in_doubt_the_milder_verdict() {
        let mut same_jiffy = established(Role::Client, 64, 64);
        same_jiffy.counters.since_sent_us = same_jiffy.counters.since_received_us;
        assert_eq!(
            reset(Direction::Received, same_jiffy),
            plain(Verdict::ResetMidStream)
        );
        let unread = Facts {
            counters: Counters::default(),
            ..established(Role::Client, 0, 0)
        };
        assert_eq!(
            reset(Direction::Received, unread),
            plain(Verdict::ResetIdle)
        );
    }
}
