//! Ends that give up, in order or not, with an answer still to come or on its way.

use std::net::SocketAddr;

use anyhow::Result;

use super::expect::{
    BY_SERVER, Found, KILLED, Owner, Reset, client, ignored, no_socket, received, sent, server,
};
use super::feature::Feature;
use super::net::{Sock, State, next_tick};
use super::process::Actor;
use super::reset::{BY_CLIENT, FROM_TIME_WAIT, wait_idle};
use super::{
    BEFORE_RESPONSE, Ctx, Expect, Family, Pair, Played, REQUEST, RESPONSE, RQ, RS, Scenario, alone,
    plain, with_strays,
};

/// The server's end, of [`answer_nobody`].
const ANSWERS_NOBODY: Expect = server("reset_mid_stream")
    .reset(received("TCP_TIMEWAIT_SOCKET", BY_CLIENT))
    .unseen(&[Feature::TimeWaitResets], Reset::UNKNOWN)
    .errno("EPIPE");

/// Both ends of [`asks_for_more`].
const fn leaves_unread(evidence: &'static [Found]) -> [Expect; 2] {
    let client = client("reset_before_response")
        .flag(BEFORE_RESPONSE)
        .reset(sent("TCP_ABORT_ON_CLOSE", BY_CLIENT))
        .evidence(evidence)
        .bytes(2 * RQ, RS);
    let server = server("reset_before_response")
        .flag(BEFORE_RESPONSE)
        .reset(received("TCP_ABORT_ON_CLOSE", BY_CLIENT))
        .errno("ECONNRESET")
        .evidence(evidence)
        .bytes(RS, 2 * RQ);
    [client, server]
}

/// Both ends of [`abort_after_fin`].
const fn aborts_after_fin(evidence: &'static [Found]) -> [Expect; 2] {
    let client = client("ok").evidence(evidence).bytes(RQ, RS);
    let server = server("local_abort")
        .reset(sent("TCP_STATE", BY_SERVER))
        .aborted()
        .evidence(evidence)
        .bytes(RS, RQ);
    [client, server]
}

pub(super) const LIST: &[Scenario] = &[
    plain(
        "given_up_by_shutdown",
        "the client waits in vain and then shuts its side down, as a proxy does that passes a FIN on",
        given_up_by_shutdown,
        &[client("ok").bytes(RQ, 0), server("ok").bytes(0, RQ)],
    ),
    plain(
        "shut_down_both_ways",
        "the client shuts its side down both ways without waiting for the answer, and closes it later, as gRPC's core does",
        shut_down_both_ways,
        &[client("ok").bytes(RQ, 0), server("ok").bytes(0, RQ)],
    ),
    with_strays(
        "answered_too_late",
        "the client waits in vain and closes, then the server answers",
        answered_too_late,
        &[
            client("ok").bytes(RQ, 0),
            ANSWERS_NOBODY.bytes(RS, RQ).steps(&[
                "ESTABLISHED",
                "CLOSE_WAIT",
                "reset_received",
                "CLOSE",
            ]),
        ],
        FROM_TIME_WAIT,
    ),
    with_strays(
        "goodbye_answered",
        "the client has its answer, says goodbye and closes, and the server answers that, as TLS and HTTP/2 do",
        goodbye_answered,
        &[
            client("ok").bytes(2 * RQ, RS),
            ANSWERS_NOBODY.bytes(2 * RS, 2 * RQ),
        ],
        FROM_TIME_WAIT,
    ),
    with_strays(
        "goodbye_to_nobody",
        "the client has its answer, keeps the connection for a while and closes, and the server says goodbye to that, as TLS does",
        goodbye_to_nobody,
        &[client("ok").bytes(RQ, RS), ANSWERS_NOBODY.bytes(2 * RS, RQ)],
        FROM_TIME_WAIT,
    ),
    with_strays(
        "fin_aborted",
        "the client has its answer and closes, and the server, which has read all, closes its side by a reset",
        fin_aborted,
        &aborts_after_fin(&[]),
        &[ignored(None)],
    ),
    with_strays(
        "killed_then_aborted",
        "the same, and the client is killed",
        killed_then_aborted,
        &aborts_after_fin(&[KILLED]),
        &[ignored(None)],
    ),
    plain(
        "reader_stuck",
        "the client stops reading in the middle of a long answer, and resets after a while",
        reader_stuck,
        &[
            client("local_abort")
                .reset(sent("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .aborted()
                .by_chance(),
            server("reset_mid_stream")
                .reset(received("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .errno("ECONNRESET"),
        ],
    ),
    plain(
        "canceled_unread",
        "the client has not read the first answer, asks for more and closes",
        canceled_unread,
        &leaves_unread(&[]),
    ),
    plain(
        "client_killed_unread",
        "the same, and the client is killed",
        client_killed_unread,
        &leaves_unread(&[KILLED]),
    ),
    plain(
        "never_read",
        "the client does not read the answer, and closes after a while",
        never_read,
        &[
            client("local_abort")
                .reset(sent("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .bytes(RQ, RS),
            server("reset_idle")
                .reset(received("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .errno("ECONNRESET")
                .bytes(RS, RQ),
        ],
    ),
    plain(
        "shut_unread",
        "the client shuts its side down and closes at once, as Java does, without reading the answer",
        shut_unread,
        &[
            client("local_abort")
                .reset(sent("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .bytes(RQ, RS),
            server("reset_mid_stream")
                .reset(received("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .errno("EPIPE")
                .bytes(RS, RQ),
        ],
    ),
    plain(
        "shut_never_read",
        "the same after a while",
        shut_never_read,
        &[
            client("local_abort")
                .reset(sent("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .bytes(RQ, RS),
            server("reset_idle")
                .reset(received("TCP_ABORT_ON_CLOSE", BY_CLIENT))
                .errno("EPIPE")
                .bytes(RS, RQ),
        ],
    ),
    Scenario {
        name: "left_in_close_wait",
        story: "the client closes, and its kernel has forgotten the connection when the server does",
        slow: true,
        needs: None,
        play: left_in_close_wait,
        records: &[
            client("ok").bytes(RQ, RS),
            server("reset_idle")
                .reset(received("NO_SOCKET", Owner::Nobody))
                .unseen(&[Feature::ClosedPortResets], Reset::UNKNOWN)
                .any_errno()
                .bytes(RS, RQ)
                .steps(&["CLOSE_WAIT", "LAST_ACK", "reset_received", "CLOSE"]),
        ],
        strays: &[no_socket(None)],
    },
];

fn given_up_by_shutdown(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    wait_idle();
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    pair.server.receive_end(pair.s)?;
    pair.server.close(pair.s)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn shut_down_both_ways(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.client.shutdown(pair.c, libc::SHUT_RDWR)?;
    pair.server.receive_end(pair.s)?;
    pair.server.close(pair.s)?;
    pair.client.wait_state(pair.c, State::Close)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn answered_too_late(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    wait_idle();
    pair.client.close(pair.c)?;
    answer_nobody(pair)
}

fn goodbye_answered(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    next_tick();
    pair.client.send(pair.c, REQUEST)?;
    pair.client.close(pair.c)?;
    pair.server.receive(pair.s, REQUEST)?;
    answer_nobody(pair)
}

fn goodbye_to_nobody(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    wait_idle();
    pair.client.close(pair.c)?;
    answer_nobody(pair)
}

/// The server answers a client that has closed.
fn answer_nobody(mut pair: Pair) -> Result<Played> {
    pair.server.receive_end(pair.s)?;
    let gone = [State::FinWait2, State::TimeWait];
    pair.client.wait_orphan(pair.from, pair.to, &gone)?;
    pair.server.send(pair.s, RESPONSE)?;
    pair.server.wait_state(pair.s, State::Close)?;
    pair.end()
}

fn fin_aborted(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::alone(ctx, Family::V4)?;
    pair.exchange()?;
    pair.client.close(pair.c)?;
    abort_after_fin(&mut pair.server, pair.s, (pair.from, pair.to))?;
    pair.end()
}

fn killed_then_aborted(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::alone(ctx, Family::V4)?;
    pair.exchange()?;
    pair.client.kill();
    abort_after_fin(&mut pair.server, pair.s, (pair.from, pair.to))?;
    Ok(pair.played)
}

/// The server resets what is left of a connection that the client has closed.
fn abort_after_fin(
    server: &mut Actor,
    s: Sock,
    (client, to): (SocketAddr, SocketAddr),
) -> Result<()> {
    server.receive_end(s)?;
    let gone = [State::FinWait2, State::TimeWait];
    server.wait_orphan(client, to, &gone)?;
    server.abort(s)
}

/// So many answers are more than a receiver takes that does not read, and less than a sender keeps.
const MANY: usize = 200;

fn reader_stuck(ctx: &Ctx) -> Result<Played> {
    let (mut client, server) = alone(ctx)?;
    client.sysctl("ipv4/tcp_rmem", "4096 4096 4096")?;
    let mut pair = Pair::accepted(client, server, ctx.address(Family::V4))?;
    pair.request()?;
    for _ in 0..MANY {
        pair.server.send(pair.s, RESPONSE)?;
    }
    wait_idle();
    pair.client.close(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

/// The server has answered once and is asked again; the client has read nothing yet.
fn asks_for_more(ctx: &Ctx) -> Result<Pair> {
    let mut pair = answered_unread(ctx)?;
    next_tick();
    pair.request()?;
    Ok(pair)
}

fn answered_unread(ctx: &Ctx) -> Result<Pair> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.send(pair.s, RESPONSE)?;
    pair.client.wait_unread(pair.c, RS)?;
    Ok(pair)
}

fn canceled_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = asks_for_more(ctx)?;
    pair.client.close(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

fn client_killed_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = asks_for_more(ctx)?;
    pair.client.kill();
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    Ok(pair.played)
}

fn never_read(ctx: &Ctx) -> Result<Played> {
    let mut pair = answered_unread(ctx)?;
    wait_idle();
    pair.client.close(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

fn shut_unread(ctx: &Ctx) -> Result<Played> {
    shut_and_close(answered_unread(ctx)?)
}

fn shut_never_read(ctx: &Ctx) -> Result<Played> {
    let pair = answered_unread(ctx)?;
    wait_idle();
    shut_and_close(pair)
}

fn shut_and_close(mut pair: Pair) -> Result<Played> {
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    pair.server.receive_end(pair.s)?;
    pair.client.close(pair.c)?;
    pair.server.wait_state(pair.s, State::Close)?;
    pair.end()
}

fn left_in_close_wait(ctx: &Ctx) -> Result<Played> {
    let (mut client, server) = alone(ctx)?;
    client.sysctl("ipv4/tcp_fin_timeout", "1")?;
    let mut pair = Pair::accepted(client, server, ctx.address(Family::V4))?;
    pair.exchange()?;
    pair.client.close(pair.c)?;
    pair.server.receive_end(pair.s)?;
    let left = [State::FinWait2, State::TimeWait];
    pair.client.wait_orphan(pair.from, pair.to, &left)?;
    pair.client.wait_forgotten(pair.from, pair.to)?;
    pair.server.close(pair.s)?;
    pair.end()
}
