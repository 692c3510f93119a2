//! Connections that the kernel established and no process ever accepted.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::connect::{fill, full_queue, give_up, wired};
use super::expect::{
    BY_SERVER, Owner, Reset, client, dropped, queue, queue_of, received, sent, server, stray,
};
use super::feature::Feature;
use super::firewall::{Answer, INPUT};
use super::net::{Sock, State, poll};
use super::{
    BEFORE_PAYLOAD, BEFORE_RESPONSE, Ctx, Expect, Family, Link, Pair, Played, REQUEST, RQ, RS,
    Scenario, Who, alone, plain,
};

const BY_CLIENT: Owner = Owner::Is(Who::Client);
/// A loopback address that no server of the tests has.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

const NEVER_ACCEPTED: Expect = server("never_accepted").any_errno();
const ABORTED_BY_CLIENT: &[Expect] = &[
    client("probe")
        .flag(BEFORE_PAYLOAD)
        .reset(sent("TCP_STATE", BY_CLIENT))
        .aborted()
        .bytes(0, 0)
        .steps(&["connect", "ESTABLISHED", "CLOSE", "reset_sent"]),
    NEVER_ACCEPTED
        .flag(BEFORE_PAYLOAD)
        .reset(received("TCP_STATE", BY_CLIENT))
        .aborted()
        .bytes(0, 0)
        .evidence(&queue(1, 16))
        .steps(&["ESTABLISHED", "reset_received", "CLOSE"]),
];

pub(super) const LIST: &[Scenario] = &[
    Scenario {
        name: "unaccepted_reset",
        story: "the client resets a connection that nobody has accepted",
        slow: false,
        needs: None,
        play: |ctx| unaccepted_reset(ctx, Family::V4),
        records: ABORTED_BY_CLIENT,
        strays: &[],
    },
    Scenario {
        name: "unaccepted_reset_mapped",
        story: "the same, IPv4 by IPv6 sockets: the one that listens is bound to an IPv4 address",
        slow: false,
        needs: None,
        play: |ctx| unaccepted_reset(ctx, Family::Mapped),
        records: ABORTED_BY_CLIENT,
        strays: &[],
    },
    Scenario {
        name: "unaccepted_reset_after_several",
        story: "the same, where several sockets have listened on the port at once before",
        slow: false,
        needs: None,
        play: unaccepted_reset_after_several,
        records: ABORTED_BY_CLIENT,
        strays: &[],
    },
    Scenario {
        name: "unaccepted_by_daemon",
        story: "the same, where who called listen() has forked the server and is gone, as a daemon's parent is",
        // The tracer looks again for who listens a second later.
        slow: true,
        needs: Some(Feature::SocketScan),
        play: unaccepted_by_daemon,
        records: ABORTED_BY_CLIENT,
        strays: &[],
    },
    Scenario {
        name: "accepted_too_late",
        story: "the server accepts a connection that the client has reset already",
        slow: false,
        needs: None,
        play: accepted_too_late,
        records: ABORTED_BY_CLIENT,
        strays: &[],
    },
    Scenario {
        name: "unaccepted_request_reset",
        story: "the client sends a request that nobody accepts, then resets",
        slow: false,
        needs: None,
        play: unaccepted_request_reset,
        records: &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(sent("TCP_STATE", BY_CLIENT))
                .aborted()
                .bytes(RQ, 0),
            NEVER_ACCEPTED
                .flag(BEFORE_RESPONSE)
                .reset(received("TCP_STATE", BY_CLIENT))
                .aborted()
                .bytes(0, RQ)
                .evidence(&queue(1, 16)),
        ],
        strays: &[],
    },
    Scenario {
        name: "listener_closed",
        story: "the server closes its listening socket with a connection in the accept queue",
        slow: false,
        needs: None,
        play: |ctx| listener_closed(ctx, false),
        records: &[
            client("reset_before_payload")
                .flag(BEFORE_PAYLOAD)
                .reset(received("TCP_STATE", BY_SERVER))
                .errno("ECONNRESET")
                .bytes(0, 0)
                .steps(&["connect", "ESTABLISHED", "reset_received", "CLOSE"]),
            NEVER_ACCEPTED
                .flag(BEFORE_PAYLOAD)
                .reset(sent("TCP_STATE", BY_SERVER))
                .bytes(0, 0)
                .steps(&["ESTABLISHED", "CLOSE", "reset_sent"]),
        ],
        strays: &[],
    },
    Scenario {
        name: "listener_closed_request",
        story: "the same, and the client has sent its request",
        slow: false,
        needs: None,
        play: |ctx| listener_closed(ctx, true),
        records: &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(received("TCP_STATE", BY_SERVER))
                .errno("ECONNRESET")
                .bytes(RQ, 0),
            NEVER_ACCEPTED
                .flag(BEFORE_RESPONSE)
                .reset(sent("TCP_STATE", BY_SERVER))
                .bytes(0, RQ),
        ],
        strays: &[],
    },
    Scenario {
        name: "overflow_reset",
        story: "the accept queue is full and tcp_abort_on_overflow is 1",
        slow: true,
        needs: None,
        play: overflow_reset,
        records: &[client("reset_before_payload")
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Any)
            .reset(received("INVALID_SYN", Owner::Any))
            .unseen(&[Feature::UntypedReads], Reset::UNKNOWN)
            .errno("ECONNRESET")
            .bytes(0, 0)
            .evidence(&queue(1, 0))
            .steps(&["connect", "ESTABLISHED", "reset_received", "CLOSE"])],
        strays: &[stray("INVALID_SYN")],
    },
    Scenario {
        name: "descriptors_exhausted",
        story: "the server has no file descriptor left, accepts nothing, and the client resets",
        // The tracer looks at the server while it lives.
        slow: true,
        needs: None,
        play: descriptors_exhausted,
        records: &[
            client("probe")
                .flag(BEFORE_PAYLOAD)
                .reset(sent("TCP_STATE", BY_CLIENT))
                .aborted()
                .bytes(0, 0),
            NEVER_ACCEPTED
                .flag(BEFORE_PAYLOAD)
                .reset(received("TCP_STATE", BY_CLIENT))
                .aborted()
                .bytes(0, 0)
                .evidence(&queue_of(Who::Server, 1, 16)),
        ],
        strays: &[],
    },
    Scenario {
        name: "queue_full_no_descriptor",
        story: "the server has no file descriptor left, its accept queue is full, and the client gives up",
        slow: true,
        needs: None,
        play: queue_full_no_descriptor,
        records: &[client("connect_canceled")
            .peer(Owner::Listener)
            .bytes(0, 0)
            .evidence(&queue_of(Who::Server, 2, 1))
            .steps(&["connect", "CLOSE"])],
        strays: &[],
    },
    Scenario {
        name: "queue_full_on_another_machine",
        story: "the server is in another network namespace, was reached before, its accept queue is full, and the client gives up",
        // The tracer has to hear of the connection before.
        slow: true,
        needs: None,
        play: queue_full_on_another_machine,
        records: &[
            client("ok").bytes(RQ, RS),
            server("ok").bytes(RS, RQ),
            client("connect_canceled")
                .of(1)
                .peer(Owner::Listener)
                .bytes(0, 0)
                .evidence(&queue(2, 1))
                .steps(&["connect", "CLOSE"]),
        ],
        strays: &[],
    },
    plain(
        "queue_full_at_another_address",
        "a firewall drops the SYN, and the queue that is full belongs to a server with the same port at another address",
        queue_full_at_another_address,
        &[client("connect_canceled")
            .peer(Owner::Nobody)
            .bytes(0, 0)
            .evidence(&[dropped("NETFILTER_DROP")])
            .steps(&["connect", "CLOSE"])],
    ),
];

fn unaccepted_reset(ctx: &Ctx, family: Family) -> Result<Played> {
    let mut pair = Pair::queued(ctx, family)?;
    pair.client.abort(pair.c)?;
    pair.end()
}

fn unaccepted_reset_after_several(ctx: &Ctx) -> Result<Played> {
    let (client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = ctx.address(Family::V4);
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let sock = server.socket(&to, 0)?;
        server.set(sock, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        server.listen_on(sock, to, 16)?;
        listeners.push(sock);
    }
    for sock in listeners {
        server.close(sock)?;
    }
    let mut pair = Pair::between(client, server, to)?;
    pair.client.abort(pair.c)?;
    pair.end()
}

fn unaccepted_by_daemon(ctx: &Ctx) -> Result<Played> {
    let (client, mut parent) = (ctx.actor("ut-client")?, ctx.actor("ut-parent")?);
    let to = ctx.address(Family::V4);
    let listener = parent.listen(to, 16)?;
    let server = parent.fork("ut-server")?;
    parent.exit(0)?;
    thread::sleep(SETTLED);
    let mut pair = Pair::waiting(client, server, listener, to)?;
    pair.client.abort(pair.c)?;
    pair.end()
}

fn accepted_too_late(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::queued(ctx, Family::V4)?;
    pair.client.abort(pair.c)?;
    pair.accept()?;
    pair.server.wait_state(pair.s, State::Close)?;
    pair.server.close(pair.s)?;
    pair.end()
}

fn unaccepted_request_reset(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::queued(ctx, Family::V4)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.wait_acked(pair.c)?;
    pair.client.abort(pair.c)?;
    pair.end()
}

/// Longer than a daemon is given to settle, and the tracer takes to look at it.
const SETTLED: Duration = Duration::from_millis(1500);
/// Longer than the tracer takes to hear of what happened.
const HEARD: Duration = Duration::from_millis(300);

fn descriptors_exhausted(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::queued(ctx, Family::V4)?;
    pair.server.have_no_more_files()?;
    pair.server.accept_fails(pair.listener, libc::EMFILE)?;
    pair.client.abort(pair.c)?;
    thread::sleep(HEARD);
    pair.end()
}

fn queue_full_no_descriptor(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let mut filler = ctx.actor("ut-filler")?;
    let to = full_queue(ctx, &mut server, &mut filler)?;
    server.have_no_more_files()?;
    let mut played = Played::new(&client, Some(&server));
    give_up(&mut client, &server, to, &mut played)?;
    thread::sleep(HEARD);
    Ok(played)
}

fn queue_full_on_another_machine(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let mut filler = ctx.actor("ut-filler")?;
    let (_, there) = wired(&mut client, &mut server)?;
    filler.join_netns(&client)?;
    let mut pair = Pair::accepted(client, server, (there, ctx.port).into())?;
    pair.exchange()?;
    pair.close()?;
    thread::sleep(HEARD);
    pair.server.set_backlog(pair.listener, 1)?;
    fill(&mut pair.server, pair.listener, &mut filler, pair.to)?;
    give_up(&mut pair.client, &pair.server, pair.to, &mut pair.played)?;
    pair.end()
}

fn queue_full_at_another_address(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let mut filler = ctx.actor("ut-filler")?;
    filler.join_netns(&server)?;
    full_queue(ctx, &mut server, &mut filler)?;
    let to = (ELSEWHERE, ctx.port).into();
    server.firewall(to, INPUT, Answer::Nothing)?;
    let mut played = Played::new(&client, None);
    give_up(&mut client, &server, to, &mut played)?;
    Ok(played)
}

fn listener_closed(ctx: &Ctx, asked: bool) -> Result<Played> {
    let mut pair = Pair::queued(ctx, Family::V4)?;
    if asked {
        pair.client.send(pair.c, REQUEST)?;
        pair.client.wait_acked(pair.c)?;
    }
    pair.server.close(pair.listener)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

/// The queue has to fill between the SYN and the last ACK of one handshake: the client is made deaf
/// to the SYN-ACK until it has, and its own SYN, sent again a second later, brings another.
fn overflow_reset(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let mut filler = ctx.actor("ut-filler")?;
    server.sysctl("ipv4/tcp_abort_on_overflow", "1")?;
    filler.join_netns(&server)?;
    let to = ctx.address(Family::V4);
    let listener = server.listen(to, 16)?;
    let c: Sock = client.socket(&to, libc::SOCK_NONBLOCK)?;
    client.deafen(c)?;
    client.connect_on(c, to)?.fails_with(libc::EINPROGRESS)?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::of(&mut client, c, &server, to)?);
    filler.connect(to)?;
    server.wait_queued(listener, 1)?;
    server.set_backlog(listener, 0)?;
    client.listen_again(c)?;
    poll("the reset", || {
        thread::sleep(Duration::from_millis(10));
        client.is_in(c, State::Close)
    })?;
    Ok(played)
}
