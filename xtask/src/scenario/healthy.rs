//! Connections with nothing wrong: whatever their shape, each end says `ok`.

use anyhow::{Result, ensure};

use super::expect::{Owner, client, server};
use super::feature::Feature;
use super::net::{State, next_tick};
use super::{
    Ctx, Expect, Family, Link, Pair, Played, REQUEST, RESPONSE, RQ, RS, Scenario, alone, plain,
};

pub(super) const OK: &[Expect] = &[
    client("ok")
        .bytes(RQ, RS)
        .steps(&["connect", "ESTABLISHED", "FIN_WAIT1", "CLOSE"]),
    server("ok")
        .bytes(RS, RQ)
        .steps(&["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"]),
];
const OK_SERVER_FIRST: &[Expect] = &[
    client("ok").bytes(RQ, RS).steps(&[
        "connect",
        "ESTABLISHED",
        "CLOSE_WAIT",
        "LAST_ACK",
        "CLOSE",
    ]),
    server("ok")
        .bytes(RS, RQ)
        .steps(&["ESTABLISHED", "FIN_WAIT1", "CLOSE"]),
];
const OK_5_TIMES: &[Expect] = &[
    client("ok").bytes(5 * RQ, 5 * RS),
    server("ok").bytes(5 * RS, 5 * RQ),
];
const OK_EMPTY: &[Expect] = &[client("ok").bytes(0, 0), server("ok").bytes(0, 0)];

pub(super) const LIST: &[Scenario] = &[
    Scenario {
        name: "healthy_mptcp",
        story: "a request and its answer by MPTCP: the one TCP connection below it is reported",
        slow: false,
        needs: Some(Feature::Mptcp),
        play: multipath,
        // A kernel thread may close what was below.
        records: &[
            client("ok").peer(Owner::Any).bytes(RQ, RS),
            server("ok").owner(Owner::Any).bytes(RS, RQ),
        ],
        strays: &[],
    },
    plain(
        "healthy",
        "a request, its answer, the client closes",
        |ctx| one(ctx, Family::V4),
        OK,
    ),
    plain(
        "healthy_v6",
        "the same over IPv6",
        |ctx| one(ctx, Family::V6),
        OK,
    ),
    plain(
        "healthy_mapped",
        "the same, IPv4 by IPv6 sockets",
        |ctx| one(ctx, Family::Mapped),
        OK,
    ),
    plain(
        "healthy_server_closes",
        "a request, its answer, the server closes",
        server_closes,
        OK_SERVER_FIRST,
    ),
    plain(
        "healthy_keep_alive",
        "five exchanges on one connection",
        keep_alive,
        OK_5_TIMES,
    ),
    plain(
        "healthy_half_close",
        "the client shuts its side down after the request and gets the answer",
        half_close,
        OK,
    ),
    plain(
        "healthy_shutdown_close",
        "each end shuts its side down and closes at once",
        shutdown_close,
        OK,
    ),
    plain(
        "healthy_no_payload",
        "connected, idle, closed: not a byte either way",
        no_payload,
        OK_EMPTY,
    ),
    plain(
        "healthy_fast_open",
        "the request travels in the SYN (TCP Fast Open)",
        |ctx| fast_open(ctx, false),
        OK,
    ),
    Scenario {
        slow: true,
        ..plain(
            "healthy_fast_open_at_once",
            "the same, and the server accepts before the handshake is complete",
            |ctx| fast_open(ctx, true),
            OK,
        )
    },
    plain(
        "healthy_simultaneous_close",
        "both ends close at once, so that their FINs cross",
        simultaneous_close,
        &[
            // Over FIN_WAIT2, or over CLOSING as well where both FINs are sent again at the same moment.
            client("ok")
                .bytes(RQ, RS)
                .steps(&["connect", "ESTABLISHED", "FIN_WAIT1", "CLOSE"]),
            server("ok")
                .bytes(RS, RQ)
                .steps(&["ESTABLISHED", "FIN_WAIT1", "CLOSING", "CLOSE"]),
        ],
    ),
    plain(
        "healthy_banner",
        "the server speaks first and the client leaves",
        banner,
        &[client("ok").bytes(0, RS), server("ok").bytes(RS, 0)],
    ),
];

fn one(ctx: &Ctx, family: Family) -> Result<Played> {
    let mut pair = Pair::open(ctx, family)?;
    pair.exchange()?;
    pair.close()?;
    pair.end()
}

fn multipath(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    let listener = server.socket_of(&to, 0, libc::IPPROTO_MPTCP)?;
    server.listen_on(listener, to, 16)?;
    let c = client.socket_of(&to, 0, libc::IPPROTO_MPTCP)?;
    let played = Played::new(&client, Some(&server));
    let mut pair = Pair::by(client, server, (listener, c), to, played)?;
    pair.exchange()?;
    pair.close()?;
    // What is below is closed a little later, by whoever comes to it.
    pair.client.wait_orphan(pair.from, to, &[State::TimeWait])?;
    pair.end()
}

fn server_closes(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.server.close(pair.s)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn keep_alive(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    for _ in 0..5 {
        pair.exchange()?;
    }
    pair.close()?;
    pair.end()
}

fn half_close(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    pair.server.receive(pair.s, REQUEST)?;
    pair.server.receive_end(pair.s)?;
    pair.server.send(pair.s, RESPONSE)?;
    pair.server.close(pair.s)?;
    pair.client.receive(pair.c, RESPONSE)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn shutdown_close(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    pair.client.close(pair.c)?;
    pair.server.receive_end(pair.s)?;
    pair.server.shutdown(pair.s, libc::SHUT_RDWR)?;
    pair.server.close(pair.s)?;
    pair.end()
}

fn no_payload(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    next_tick();
    pair.close()?;
    pair.end()
}

fn fast_open(ctx: &Ctx, at_once: bool) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    // Both ends, without a cookie from an earlier connection.
    client.sysctl("ipv4/tcp_fastopen", "519")?;
    let to = ctx.address(Family::V4);
    let listener = server.socket(&to, 0)?;
    server.set(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
    server.listen_on(listener, to, 16)?;
    let c = client.socket(&to, if at_once { libc::SOCK_NONBLOCK } else { 0 })?;
    if at_once {
        // To the SYN-ACK, which comes again a second later.
        client.deafen(c)?;
    }
    client.send_first(c, to, REQUEST)?;
    server.wait_queued(listener, 1)?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::of(&mut client, c, &server, to)?);
    let from = client.local(c)?;
    let s = if at_once {
        let s = server.accept(listener, from)?;
        ensure!(server.is_in(s, State::SynRecv)?, "accepted too late");
        client.listen_again(c)?;
        client.wait_state(c, State::Established)?;
        s
    } else {
        client.wait_acked(c)?;
        server.accept(listener, from)?
    };
    client.wait_acked(c)?;
    ensure!(client.sent_in_syn(c)?, "the request was not in the SYN");
    let mut pair = Pair {
        client,
        server,
        listener,
        c,
        s,
        from,
        to,
        played,
    };
    pair.server.receive(pair.s, REQUEST)?;
    pair.respond()?;
    pair.close()?;
    pair.end()
}

/// Both FINs are lost. The client's, sent again, is the first that arrives, and its acknowledgement is lost
/// too, so that the server's comes before it.
fn simultaneous_close(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::alone(ctx, Family::V4)?;
    pair.exchange()?;
    pair.client.wait_acked(pair.c)?;
    pair.server.wait_acked(pair.s)?;
    pair.client.deafen(pair.c)?;
    pair.server.deafen(pair.s)?;
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    pair.server.shutdown(pair.s, libc::SHUT_WR)?;
    pair.server.listen_again(pair.s)?;
    pair.server.wait_state(pair.s, State::Closing)?;
    pair.client.listen_again(pair.c)?;
    pair.client.receive_end(pair.c)?;
    pair.client.wait_state(pair.c, State::Close)?;
    pair.server.wait_state(pair.s, State::Close)?;
    pair.end()
}

fn banner(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.respond()?;
    pair.close()?;
    pair.end()
}
