//! Connections that are never established, and sockets that are used again.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::expect::{
    DEAF, KILLED, Owner, Stray, client, icmp, no_socket, ports, queue, received, sent, server,
};
use super::feature::Feature;
use super::net::Sock;
use super::process::Actor;
use super::{
    BEFORE_PAYLOAD, Ctx, Expect, Family, Link, Pair, Played, RQ, RS, Scenario, SocketAddr, Who,
    alone, with_strays,
};

pub(super) const REFUSED: Expect = client("refused")
    .flag(BEFORE_PAYLOAD)
    .peer(Owner::Nobody)
    .reset(received("NO_SOCKET", Owner::Nobody))
    .unseen(
        &[Feature::ClosedPortResets],
        received("NO_SOCKET", Owner::Nobody),
    )
    .errno("ECONNREFUSED")
    .bytes(0, 0)
    .steps(&["connect", "reset_received", "CLOSE"]);
pub(super) const CLOSED_PORT: &[Stray] = &[no_socket(Some(BEFORE_PAYLOAD))];

pub(super) const CANCELED: Expect = client("connect_canceled")
    .peer(Owner::Any)
    .bytes(0, 0)
    .evidence(&[DEAF])
    .steps(&["connect", "CLOSE"]);
const NO_ROOM: &[Expect] = &[client("connect_canceled")
    .peer(Owner::Listener)
    .bytes(0, 0)
    .evidence(&queue(2, 1))
    .steps(&["connect", "CLOSE"])];

pub(super) const LIST: &[Scenario] = &[
    with_strays(
        "refused",
        "nothing listens on the port",
        |ctx| refused(ctx, Family::V4),
        &[REFUSED],
        CLOSED_PORT,
    ),
    with_strays(
        "refused_v6",
        "nothing listens on the port, IPv6",
        |ctx| refused(ctx, Family::V6),
        &[REFUSED],
        CLOSED_PORT,
    ),
    with_strays(
        "refused_mapped",
        "nothing listens on the port, IPv4 by an IPv6 socket",
        |ctx| refused(ctx, Family::Mapped),
        &[REFUSED],
        CLOSED_PORT,
    ),
    Scenario {
        name: "refused_beside_a_raw_socket",
        story: "the same, where a raw socket's filter drops its copies of what arrives",
        slow: false,
        // Whose copy was dropped is not told before.
        needs: Some(Feature::DropSockets),
        play: refused_beside_a_raw_socket,
        records: &[REFUSED],
        strays: CLOSED_PORT,
    },
    with_strays(
        "refused_nonblocking",
        "nothing listens on the port, and the client does not wait in connect()",
        refused_nonblocking,
        &[REFUSED],
        CLOSED_PORT,
    ),
    with_strays(
        "retry_same_fd",
        "refused, then tried again with the same socket once a server is up",
        retry_same_fd,
        &[
            REFUSED,
            client("ok").of(1).bytes(RQ, RS),
            server("ok").of(1).bytes(RS, RQ),
        ],
        CLOSED_PORT,
    ),
    with_strays(
        "disconnect_reuse",
        "the client dissolves an answered connection by connect(AF_UNSPEC) and uses the socket again",
        disconnect_reuse,
        &[
            client("local_abort")
                .reset(sent("TCP_STATE", Owner::Is(Who::Client)))
                .bytes(RQ, RS)
                .steps(&["connect", "ESTABLISHED", "CLOSE", "reset_sent"]),
            server("reset_mid_stream")
                .reset(received("TCP_STATE", Owner::Is(Who::Client)))
                .errno("ECONNRESET")
                .bytes(RS, RQ)
                .steps(&["ESTABLISHED", "reset_received", "CLOSE"]),
            client("ok").of(1).bytes(RQ, RS),
            server("ok").of(1).bytes(RS, RQ),
        ],
        &[],
    ),
    with_strays(
        "no_local_port",
        "every local port is in use for that destination",
        no_local_port,
        &[
            client("no_local_port")
                .peer(Owner::Any)
                .errno("EADDRNOTAVAIL")
                .evidence(&ports(40000, 40001))
                .steps(&["connect", "CLOSE"]),
            client("ok").of(1).bytes(0, 0),
            server("ok").of(1).bytes(0, 0),
        ],
        &[],
    ),
    with_strays(
        "connect_canceled",
        "the SYN is not answered, because the accept queue is full, and the client gives up",
        canceled,
        NO_ROOM,
        &[],
    ),
    with_strays(
        "connect_canceled_lost",
        "the SYN is lost on its way and the client gives up",
        canceled_lost,
        &[CANCELED],
        &[],
    ),
    with_strays(
        "connect_canceled_far",
        "the SYN is lost on a router that forwards nothing, and the client gives up",
        canceled_far,
        &[client("connect_canceled")
            .peer(Owner::Nobody)
            .bytes(0, 0)
            .steps(&["connect", "CLOSE"])],
        &[],
    ),
    with_strays(
        "connect_killed",
        "the client is killed while it waits in connect()",
        killed,
        &[CANCELED.evidence(&[DEAF, KILLED])],
        &[],
    ),
    Scenario {
        name: "connect_timeout",
        story: "the SYNs are not answered, because the accept queue is full, until the kernel gives up",
        slow: true,
        needs: None,
        play: timed_out,
        records: &[client("connect_timeout")
            .peer(Owner::Listener)
            .errno("ETIMEDOUT")
            .bytes(0, 0)
            .evidence(&queue(2, 1))
            .steps(&["connect", "syn_retransmit", "CLOSE"])],
        strays: &[],
    },
    Scenario {
        name: "connect_user_timeout",
        story: "the SYNs are lost on a router that forwards nothing for longer than TCP_USER_TIMEOUT",
        slow: true,
        needs: None,
        play: user_timed_out,
        records: &[client("connect_timeout")
            .peer(Owner::Nobody)
            .errno("ETIMEDOUT")
            .bytes(0, 0)
            // None is sent again while the first one still waits for the router's hardware address.
            .steps(&["connect", "CLOSE"])],
        strays: &[],
    },
    Scenario {
        name: "unreachable_net",
        story: "a router on the way answers: network unreachable",
        // The first answer comes while connect() still holds the socket, and is lost on it.
        slow: true,
        needs: None,
        play: unreachable_net,
        records: &[client("unreachable")
            .peer(Owner::Nobody)
            .errno("ENETUNREACH")
            .evidence(&icmp(3, 0, "10.77.0.2"))
            .steps(&["connect", "CLOSE"])],
        strays: &[],
    },
    with_strays(
        "unreachable_host",
        "no machine with that address answers on the local network",
        unreachable_host,
        &[client("unreachable")
            .peer(Owner::Nobody)
            .errno("EHOSTUNREACH")
            .evidence(&icmp(3, 1, "10.77.0.1"))
            .steps(&["connect", "CLOSE"])],
        &[],
    ),
];

fn refused(ctx: &Ctx, family: Family) -> Result<Played> {
    let client = ctx.actor("ut-client")?;
    attempt(client, None, ctx.address(family), libc::ECONNREFUSED)
}

fn refused_beside_a_raw_socket(ctx: &Ctx) -> Result<Played> {
    let (mut client, _) = alone(ctx)?;
    let raw = client.raw(libc::IPPROTO_TCP)?;
    client.deafen(raw)?;
    attempt(client, None, ctx.address(Family::V4), libc::ECONNREFUSED)
}

fn refused_nonblocking(ctx: &Ctx) -> Result<Played> {
    let mut client = ctx.actor("ut-client")?;
    let to = ctx.address(Family::V4);
    let mut played = Played::new(&client, None);
    played.links.push(Link::attempt(&client, to)?);
    let sock = client.connect_start(to)?;
    let errno = client.connect_result(sock)?;
    ensure!(
        errno == libc::ECONNREFUSED,
        "connect() ended with errno {errno}"
    );
    Ok(played)
}

fn retry_same_fd(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = ctx.address(Family::V4);
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::attempt(&client, to)?);
    let c = client.socket(&to, 0)?;
    client.connect_on(c, to)?.fails_with(libc::ECONNREFUSED)?;
    let listener = server.listen(to, 16)?;
    reuse(client, server, listener, c, to, played)
}

fn disconnect_reuse(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.client.disconnect(pair.c)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    reuse(
        pair.client,
        pair.server,
        pair.listener,
        pair.c,
        pair.to,
        pair.played,
    )
}

/// A healthy exchange on a socket that has been used before.
fn reuse(
    client: Actor,
    server: Actor,
    listener: Sock,
    c: Sock,
    to: SocketAddr,
    played: Played,
) -> Result<Played> {
    let mut pair = Pair::by(client, server, (listener, c), to, played)?;
    pair.exchange()?;
    pair.close()?;
    pair.end()
}

fn no_local_port(ctx: &Ctx) -> Result<Played> {
    let (mut client, server) = alone(ctx)?;
    client.sysctl("ipv4/ip_local_port_range", "40000 40001")?;
    let mut pair = Pair::accepted(client, server, ctx.address(Family::V4))?;
    let mut filler = ctx.actor("ut-filler")?;
    filler.join_netns(&pair.client)?;
    filler.connect(pair.to)?;
    let attempt = Link::attempt(&pair.client, pair.to)?;
    let sock = pair.client.socket(&pair.to, 0)?;
    pair.client
        .connect_on(sock, pair.to)?
        .fails_with(libc::EADDRNOTAVAIL)?;
    pair.close()?;
    pair.played.links.insert(0, attempt);
    pair.end()
}

/// A server whose accept queue is full, so that the kernel drops every further SYN.
pub(super) fn full_queue(ctx: &Ctx, server: &mut Actor, filler: &mut Actor) -> Result<SocketAddr> {
    let to = ctx.address(Family::V4);
    let listener = server.listen(to, 1)?;
    fill(server, listener, filler, to)?;
    Ok(to)
}

/// Fills the accept queue of a listener whose backlog is 1: the kernel lets in one more.
pub(super) fn fill(
    server: &mut Actor,
    listener: Sock,
    filler: &mut Actor,
    to: SocketAddr,
) -> Result<()> {
    filler.connect(to)?;
    filler.connect(to)?;
    server.wait_queued(listener, 2)
}

/// The client connects and gives up: one more link of what is played.
pub(super) fn give_up(
    client: &mut Actor,
    server: &Actor,
    to: SocketAddr,
    played: &mut Played,
) -> Result<()> {
    let sock = client.connect_start(to)?;
    played.links.push(Link::of(client, sock, server, to)?);
    client.close(sock)
}

fn canceled(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let mut filler = ctx.actor("ut-filler")?;
    let to = full_queue(ctx, &mut server, &mut filler)?;
    let mut played = Played::new(&client, Some(&server));
    give_up(&mut client, &server, to, &mut played)?;
    Ok(played)
}

pub(super) fn deaf_server(ctx: &Ctx, server: &mut Actor) -> Result<SocketAddr> {
    let to = ctx.address(Family::V4);
    let listener = server.listen(to, 16)?;
    server.deafen(listener)?;
    Ok(to)
}

fn canceled_lost(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = deaf_server(ctx, &mut server)?;
    let mut played = Played::new(&client, Some(&server));
    give_up(&mut client, &server, to, &mut played)?;
    Ok(played)
}

fn killed(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = deaf_server(ctx, &mut server)?;
    let mut played = Played::new(&client, Some(&server));
    let sock = client.socket(&to, 0)?;
    client.connect_pending(sock, to)?;
    let port = client.wait_connecting(to)?;
    let mut link = Link::attempt(&client, to)?;
    link.client = Some(SocketAddr::new(to.ip(), port));
    played.links.push(link);
    client.kill();
    Ok(played)
}

fn timed_out(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let mut filler = ctx.actor("ut-filler")?;
    let to = full_queue(ctx, &mut server, &mut filler)?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::attempt(&client, to)?);
    let sock = client.socket(&to, 0)?;
    client.set(sock, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    client.connect_on(sock, to)?.fails_with(libc::ETIMEDOUT)?;
    Ok(played)
}

fn user_timed_out(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut router) = (ctx.actor("ut-client")?, ctx.actor("ut-router")?);
    let to = far(ctx, &mut client, &mut router, "0")?;
    let mut played = Played::new(&client, None);
    played.links.push(Link::attempt(&client, to)?);
    let sock = client.socket(&to, 0)?;
    client.set(sock, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1200)?;
    client.connect_on(sock, to)?.fails_with(libc::ETIMEDOUT)?;
    Ok(played)
}

fn canceled_far(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut router) = (ctx.actor("ut-client")?, ctx.actor("ut-router")?);
    let to = far(ctx, &mut client, &mut router, "0")?;
    let mut played = Played::new(&client, None);
    give_up(&mut client, &router, to, &mut played)?;
    Ok(played)
}

pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

fn unreachable_net(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut router) = (ctx.actor("ut-client")?, ctx.actor("ut-router")?);
    let to = far(ctx, &mut client, &mut router, "1")?;
    attempt(client, None, to, libc::ENETUNREACH)
}

/// An address that `client` reaches only by way of `router`, if that has a way.
fn far(ctx: &Ctx, client: &mut Actor, router: &mut Actor, forwards: &str) -> Result<SocketAddr> {
    wired(client, router)?;
    router.sysctl("ipv4/ip_forward", forwards)?;
    client.default_route(THERE)?;
    Ok((ELSEWHERE, ctx.port).into())
}

fn unreachable_host(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut other) = (ctx.actor("ut-client")?, ctx.actor("ut-other")?);
    wired(&mut client, &mut other)?;
    // One question instead of three, a second apart.
    client.sysctl("ipv4/neigh/ut-here/mcast_solicit", "1")?;
    client.sysctl("ipv4/neigh/ut-here/retrans_time_ms", "50")?;
    let to = (NOBODY, ctx.port).into();
    attempt(client, None, to, libc::EHOSTUNREACH)
}

/// Two machines with a wire between them: [`HERE`] and [`THERE`].
pub(super) fn wired(here: &mut Actor, there: &mut Actor) -> Result<(Ipv4Addr, Ipv4Addr)> {
    here.leave_netns()?;
    there.leave_netns()?;
    here.wire("ut-here", there, "ut-there")?;
    here.address("ut-here", HERE)?;
    there.address("ut-there", THERE)?;
    here.wait_running("ut-here")?;
    there.wait_running("ut-there")?;
    Ok((HERE, THERE))
}

/// A `connect()` that fails.
pub(super) fn attempt(
    mut client: Actor,
    server: Option<&Actor>,
    to: SocketAddr,
    errno: i32,
) -> Result<Played> {
    let mut played = Played::new(&client, server);
    played.links.push(Link::attempt(&client, to)?);
    let sock = client.socket(&to, 0)?;
    client.connect_on(sock, to)?.fails_with(errno)?;
    Ok(played)
}
