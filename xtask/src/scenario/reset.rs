//! Resets of accepted connections: by whom, and after how much of the conversation.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::expect::{BY_SERVER, Owner, Reset, Stray, client, received, sent, server, stray};
use super::feature::Feature;
use super::net::{State, next_tick};
use super::{
    BEFORE_PAYLOAD, BEFORE_RESPONSE, Ctx, Expect, Family, IDLE_AFTER, Pair, Played, REQUEST,
    RESPONSE, RQ, RS, Scenario, Who, alone, plain,
};

pub(super) const BY_CLIENT: Owner = Owner::Is(Who::Client);
const RECEIVED: &[&str] = &["ESTABLISHED", "reset_received", "CLOSE"];
const SENT: &[&str] = &["ESTABLISHED", "CLOSE", "reset_sent"];

/// What the server says that reset on purpose.
const fn server_resets(verdict: &'static str, reason: &'static str) -> Expect {
    server(verdict)
        .reset(sent(reason, BY_SERVER))
        .aborted()
        .steps(SENT)
}

/// What its client says.
const fn client_is_reset(verdict: &'static str, reason: &'static str) -> Expect {
    client(verdict)
        .reset(received(reason, BY_SERVER))
        .aborted()
        .errno("ECONNRESET")
        .steps(RECEIVED)
}

/// What the client says that reset on purpose.
const fn client_resets(verdict: &'static str, reason: &'static str) -> Expect {
    client(verdict)
        .reset(sent(reason, BY_CLIENT))
        .aborted()
        .steps(SENT)
}

/// What its server says.
const fn server_is_reset(verdict: &'static str, reason: &'static str) -> Expect {
    server(verdict)
        .reset(received(reason, BY_CLIENT))
        .aborted()
        .errno("ECONNRESET")
        .steps(RECEIVED)
}

const AFTER_ACCEPT: &[Expect] = &[
    client_is_reset("reset_before_payload", "TCP_STATE")
        .flag(BEFORE_PAYLOAD)
        .bytes(0, 0),
    server_resets("reset_before_payload", "TCP_STATE")
        .flag(BEFORE_PAYLOAD)
        .bytes(0, 0),
];

/// Both ends of [`client_aborts_unanswered`].
const CLIENT_ABORTS_UNANSWERED: &[Expect] = &[
    client_resets("reset_before_response", "TCP_STATE")
        .flag(BEFORE_RESPONSE)
        .bytes(RQ, 0),
    server_is_reset("reset_before_response", "TCP_STATE")
        .flag(BEFORE_RESPONSE)
        .bytes(0, RQ),
];

pub(super) const LIST: &[Scenario] = &[
    plain(
        "reset_after_accept",
        "the server resets right after accept()",
        |ctx| after_accept(ctx, Family::V4),
        AFTER_ACCEPT,
    ),
    plain(
        "reset_after_accept_v6",
        "the server resets right after accept(), IPv6",
        |ctx| after_accept(ctx, Family::V6),
        AFTER_ACCEPT,
    ),
    plain(
        "reset_after_accept_mapped",
        "the server resets right after accept(), IPv4 by IPv6 sockets",
        |ctx| after_accept(ctx, Family::Mapped),
        AFTER_ACCEPT,
    ),
    plain(
        "reset_after_request",
        "the server reads the request and resets",
        after_request,
        &[
            client_is_reset("reset_before_response", "TCP_STATE")
                .flag(BEFORE_RESPONSE)
                .bytes(RQ, 0),
            server_resets("reset_before_response", "TCP_STATE")
                .flag(BEFORE_RESPONSE)
                .bytes(0, RQ),
        ],
    ),
    plain(
        "close_unread",
        "the server closes with the request unread",
        close_unread,
        &[
            client_is_reset("reset_before_response", "TCP_ABORT_ON_CLOSE")
                .by_chance()
                .flag(BEFORE_RESPONSE)
                .bytes(RQ, 0),
            server_resets("reset_before_response", "TCP_ABORT_ON_CLOSE")
                .by_chance()
                .flag(BEFORE_RESPONSE)
                .bytes(0, RQ),
        ],
    ),
    plain(
        "abort_unread",
        "the server resets on purpose with the request unread",
        abort_unread,
        &[
            client_is_reset("reset_before_response", "TCP_ABORT_ON_CLOSE")
                .flag(BEFORE_RESPONSE)
                .bytes(RQ, 0),
            server_resets("reset_before_response", "TCP_ABORT_ON_CLOSE")
                .flag(BEFORE_RESPONSE)
                .bytes(0, RQ),
        ],
    ),
    plain(
        "closed_without_answer",
        "the server reads the request and closes in good order without an answer",
        closed_without_answer,
        &[
            client("closed_before_response").bytes(RQ, 0).steps(&[
                "connect",
                "ESTABLISHED",
                "CLOSE_WAIT",
                "LAST_ACK",
                "CLOSE",
            ]),
            server("closed_before_response").bytes(0, RQ).steps(&[
                "ESTABLISHED",
                "FIN_WAIT1",
                "CLOSE",
            ]),
        ],
    ),
    plain(
        "pooled_closed_without_answer",
        "the second request on a kept connection is read and not answered, the server closes",
        pooled_closed_without_answer,
        &[
            client("closed_before_response").bytes(2 * RQ, RS),
            server("closed_before_response").bytes(RS, 2 * RQ),
        ],
    ),
    plain(
        "reset_mid_response",
        "the server resets in the middle of its answer",
        mid_response,
        &[
            client_is_reset("reset_mid_stream", "TCP_STATE").bytes(RQ, RS / 2),
            server_resets("local_abort", "TCP_STATE").bytes(RS / 2, RQ),
        ],
    ),
    plain(
        "alert_then_reset",
        "the server answers what it does not accept by a TLS alert and resets",
        alert_then_reset,
        &[
            client_is_reset("reset_mid_stream", "TCP_STATE").bytes(2 * RQ, ALERT.len()),
            server_resets("local_abort", "TCP_STATE").bytes(ALERT.len(), 2 * RQ),
        ],
    ),
    plain(
        "reset_after_response",
        "the server resets right after its answer",
        after_response,
        &[
            client_is_reset("reset_mid_stream", "TCP_STATE").bytes(RQ, RS),
            server_resets("local_abort", "TCP_STATE").bytes(RS, RQ),
        ],
    ),
    plain(
        "pooled_reset_idle",
        "the server resets a kept connection that has been idle",
        pooled_idle,
        &[
            client_is_reset("reset_idle", "TCP_STATE").bytes(RQ, RS),
            server_resets("local_abort", "TCP_STATE").bytes(RS, RQ),
        ],
    ),
    plain(
        "pooled_reset_new_request",
        "the server reads a second request on a kept connection and resets",
        |ctx| pooled_new_request(ctx, false),
        &[
            client_is_reset("reset_before_response", "TCP_STATE")
                .flag(BEFORE_RESPONSE)
                .bytes(2 * RQ, RS),
            server_resets("reset_before_response", "TCP_STATE")
                .flag(BEFORE_RESPONSE)
                .bytes(RS, 2 * RQ),
        ],
    ),
    plain(
        "pooled_reset_after_idle",
        "the same after the connection has been idle",
        |ctx| pooled_new_request(ctx, true),
        &[
            client_is_reset("reset_before_response", "TCP_STATE")
                .flag(BEFORE_RESPONSE)
                .bytes(2 * RQ, RS),
            server_resets("reset_before_response", "TCP_STATE")
                .flag(BEFORE_RESPONSE)
                .bytes(RS, 2 * RQ),
        ],
    ),
    plain(
        "pooled_close_unread",
        "the server closes a kept connection with the second request unread",
        pooled_close_unread,
        &[
            client_is_reset("reset_before_response", "TCP_ABORT_ON_CLOSE")
                .by_chance()
                .flag(BEFORE_RESPONSE)
                .bytes(2 * RQ, RS),
            server_resets("reset_before_response", "TCP_ABORT_ON_CLOSE")
                .by_chance()
                .flag(BEFORE_RESPONSE)
                .bytes(RS, 2 * RQ),
        ],
    ),
    Scenario {
        name: "late_request",
        story: "the server has closed a kept connection, the client sends one more request",
        slow: false,
        needs: None,
        play: |ctx| late_request(ctx, Family::V4, rest),
        records: LATE_REQUEST,
        strays: FROM_TIME_WAIT,
    },
    Scenario {
        name: "late_request_v6",
        story: "the same over IPv6, and the server has closed right behind its answer",
        slow: false,
        needs: None,
        play: |ctx| late_request(ctx, Family::V6, next_tick),
        records: LATE_REQUEST,
        strays: FROM_TIME_WAIT,
    },
    Scenario {
        name: "late_request_forgotten",
        story: "the same, when the server's kernel has forgotten the connection; its port still listens",
        slow: true,
        needs: None,
        play: late_request_forgotten,
        records: &late("TCP_FLAGS", &[Feature::UntypedReads]),
        strays: &[stray("TCP_FLAGS")],
    },
    Scenario {
        name: "half_open",
        story: "the server's kernel has forgotten the connection; its port still listens when the request comes",
        slow: false,
        needs: None,
        play: half_open,
        records: &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .peer(Owner::Any)
                .reset(received("TCP_FLAGS", Owner::Any))
                .unseen(&[Feature::UntypedReads], Reset::UNKNOWN)
                .errno("ECONNRESET")
                .bytes(2 * RQ, RS)
                .steps(RECEIVED),
            server("ok").bytes(RS, RQ),
        ],
        strays: &[stray("TCP_FLAGS")],
    },
    plain(
        "data_after_shutdown",
        "the server shuts a kept connection down both ways, one more request comes after that",
        |ctx| data_after_shutdown(ctx, answered),
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(received("TCP_ABORT_ON_DATA", BY_SERVER))
                .errno("EPIPE")
                .bytes(2 * RQ, RS)
                .steps(&[
                    "connect",
                    "ESTABLISHED",
                    "CLOSE_WAIT",
                    "reset_received",
                    "CLOSE",
                ]),
            // As far as this end goes, its last payload was the answer.
            server("local_abort")
                .reset(sent("TCP_ABORT_ON_DATA", BY_SERVER))
                .any_errno()
                .bytes(RS, RQ)
                .steps(&["ESTABLISHED", "FIN_WAIT1", "CLOSE", "reset_sent"]),
        ],
    ),
    plain(
        "left_unanswered",
        "the server takes the next request and shuts down both ways without answering it, the client says goodbye after that",
        |ctx| data_after_shutdown(ctx, unanswered),
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(received("TCP_ABORT_ON_DATA", BY_SERVER))
                .errno("EPIPE")
                .bytes(3 * RQ, RS),
            server("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(sent("TCP_ABORT_ON_DATA", BY_SERVER))
                .any_errno()
                .bytes(RS, 2 * RQ),
        ],
    ),
    plain(
        "data_after_shutdown_first",
        "the server shuts down both ways before the first request, which comes after that",
        |ctx| data_after_shutdown(ctx, |_| Ok(())),
        &[
            // Not one byte was taken by the other end.
            client("reset_before_payload")
                .flag(BEFORE_PAYLOAD)
                .reset(received("TCP_ABORT_ON_DATA", BY_SERVER))
                .errno("EPIPE")
                .bytes(RQ, 0)
                .steps(&[
                    "connect",
                    "ESTABLISHED",
                    "CLOSE_WAIT",
                    "reset_received",
                    "CLOSE",
                ]),
            server("reset_before_payload")
                .flag(BEFORE_PAYLOAD)
                .reset(sent("TCP_ABORT_ON_DATA", BY_SERVER))
                .any_errno()
                .bytes(0, 0)
                .steps(&["ESTABLISHED", "FIN_WAIT1", "CLOSE", "reset_sent"]),
        ],
    ),
    plain(
        "health_check",
        "a health check: the client connects and resets, the server had accepted",
        health_check,
        &[
            client_resets("probe", "TCP_STATE")
                .flag(BEFORE_PAYLOAD)
                .bytes(0, 0),
            server_is_reset("probe", "TCP_STATE")
                .flag(BEFORE_PAYLOAD)
                .bytes(0, 0),
        ],
    ),
    plain(
        "client_aborts_unanswered",
        "the client resets as soon as its request has come",
        |ctx| client_aborts_unanswered(ctx, || ()),
        CLIENT_ABORTS_UNANSWERED,
    ),
    plain(
        "client_times_out",
        "the client waits for the answer in vain, and resets",
        |ctx| client_aborts_unanswered(ctx, rest),
        CLIENT_ABORTS_UNANSWERED,
    ),
    plain(
        "client_aborts_answered",
        "the client resets right after the answer",
        |ctx| client_aborts(ctx, false),
        &[
            client_resets("local_abort", "TCP_STATE").bytes(RQ, RS),
            server_is_reset("reset_mid_stream", "TCP_STATE").bytes(RS, RQ),
        ],
    ),
    plain(
        "client_aborts_idle",
        "the client resets a kept connection that has been idle",
        |ctx| client_aborts(ctx, true),
        &[
            client_resets("local_abort", "TCP_STATE").bytes(RQ, RS),
            server_is_reset("reset_idle", "TCP_STATE").bytes(RS, RQ),
        ],
    ),
    plain(
        "idle_closed_then_aborted",
        "the client closes its side of a kept connection that has been idle, then aborts it",
        idle_closed_then_aborted,
        &[
            client_resets("local_abort", "TCP_STATE").bytes(RQ, RS),
            server_is_reset("reset_idle", "TCP_STATE")
                .errno("EPIPE")
                .bytes(RS, RQ),
        ],
    ),
    plain(
        "client_closes_unread",
        "the client closes with the answer unread",
        client_closes_unread,
        &[
            client_resets("local_abort", "TCP_ABORT_ON_CLOSE")
                .by_chance()
                .bytes(RQ, RS),
            server_is_reset("reset_mid_stream", "TCP_ABORT_ON_CLOSE")
                .by_chance()
                .bytes(RS, RQ),
        ],
    ),
];

/// Fatal, `unrecognized_name`.
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// The request comes after the server's close, and is reset for this reason, which takes `needed` to be seen.
const fn late(reason: &'static str, needed: &'static [Feature]) -> [Expect; 2] {
    let client = client("reset_before_response")
        .flag(BEFORE_RESPONSE)
        .reset(received(reason, BY_SERVER))
        .unseen(needed, Reset::UNKNOWN)
        .errno("EPIPE")
        .bytes(2 * RQ, RS)
        .steps(&[
            "connect",
            "ESTABLISHED",
            "CLOSE_WAIT",
            "reset_received",
            "CLOSE",
        ]);
    let server = server("ok")
        .bytes(RS, RQ)
        .steps(&["ESTABLISHED", "FIN_WAIT1", "CLOSE"]);
    [client, server]
}
const LATE_REQUEST: &[Expect] = &late("TCP_TIMEWAIT_SOCKET", &[Feature::TimeWaitResets]);
pub(super) const FROM_TIME_WAIT: &[Stray] = &[Stray {
    needs: Some(Feature::TimeWaitResets),
    ..stray("TCP_TIMEWAIT_SOCKET")
}];

pub(super) fn wait_idle() {
    thread::sleep(IDLE_AFTER + IDLE_AFTER / 5);
}

fn after_accept(ctx: &Ctx, family: Family) -> Result<Played> {
    let mut pair = Pair::open(ctx, family)?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn after_request(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn close_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::unread(ctx)?;
    pair.server.close(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn abort_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::unread(ctx)?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn closed_without_answer(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.close(pair.s)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn pooled_closed_without_answer(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    next_tick();
    pair.request()?;
    pair.server.close(pair.s)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn mid_response(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.send(pair.s, &RESPONSE[..RS / 2])?;
    pair.client.receive(pair.c, &RESPONSE[..RS / 2])?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn after_response(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn pooled_idle(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    wait_idle();
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn pooled_new_request(ctx: &Ctx, idle: bool) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    if idle {
        wait_idle();
    } else {
        next_tick();
    }
    pair.request()?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn pooled_close_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    next_tick();
    pair.client.send(pair.c, REQUEST)?;
    pair.server.wait_unread(pair.s, RQ)?;
    pair.server.close(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

/// Two requests stand for a TLS client's first words, which are longer than one.
fn alert_then_reset(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.request()?;
    pair.server.send(pair.s, ALERT)?;
    pair.client.receive(pair.c, ALERT)?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

/// Longer than a server takes that closes right behind its answer, or a client that never meant to wait.
fn rest() {
    thread::sleep(Duration::from_millis(80));
}

/// The server answers and, after a `pause`, closes, the client keeps its end.
fn close_at_server(pair: &mut Pair, pause: fn()) -> Result<()> {
    pair.exchange()?;
    pause();
    pair.server.close(pair.s)?;
    pair.client.receive_end(pair.c)?;
    pair.client.acknowledge(pair.c)
}

fn late_request(ctx: &Ctx, family: Family, pause: fn()) -> Result<Played> {
    let mut pair = Pair::alone(ctx, family)?;
    close_at_server(&mut pair, pause)?;
    let gone = [State::FinWait2, State::TimeWait];
    pair.server.wait_orphan(pair.to, pair.from, &gone)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.wait_state(pair.c, State::Close)?;
    pair.end()
}

fn late_request_forgotten(ctx: &Ctx) -> Result<Played> {
    let (client, mut server) = alone(ctx)?;
    server.sysctl("ipv4/tcp_fin_timeout", "1")?;
    let mut pair = Pair::accepted(client, server, ctx.address(Family::V4))?;
    close_at_server(&mut pair, rest)?;
    pair.server.wait_forgotten(pair.to, pair.from)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.wait_state(pair.c, State::Close)?;
    pair.end()
}

fn half_open(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    next_tick();
    pair.server.vanish(pair.s)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

/// The connection is kept after an answer.
fn answered(pair: &mut Pair) -> Result<()> {
    pair.exchange()?;
    rest();
    Ok(())
}

/// And asked for more.
fn unanswered(pair: &mut Pair) -> Result<()> {
    answered(pair)?;
    pair.request()?;
    rest();
    Ok(())
}

fn data_after_shutdown(ctx: &Ctx, before: fn(&mut Pair) -> Result<()>) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    before(&mut pair)?;
    pair.server.shutdown(pair.s, libc::SHUT_RDWR)?;
    pair.client.wait_state(pair.c, State::CloseWait)?;
    pair.client.acknowledge(pair.c)?;
    pair.server.wait_state(pair.s, State::FinWait2)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.wait_state(pair.c, State::Close)?;
    pair.end()
}

fn health_check(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.client.abort(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

fn client_aborts_unanswered(ctx: &Ctx, pause: fn()) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pause();
    pair.client.abort(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

fn client_aborts(ctx: &Ctx, idle: bool) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    if idle {
        wait_idle();
    }
    pair.client.abort(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

fn idle_closed_then_aborted(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    wait_idle();
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    pair.client.abort(pair.c)?;
    pair.server.receive_end(pair.s)?;
    pair.end()
}

fn client_closes_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.send(pair.s, RESPONSE)?;
    pair.client.wait_unread(pair.c, RS)?;
    pair.client.close(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}
