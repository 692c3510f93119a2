//! Resets that come by way of a router: from the other end, from the router, from machines that are not here.
//!
//! What the tracer knows of a machine elsewhere is its packets. Here a raw socket at the first hop sends them, so
//! that both the peer's and the router's are from as far away as a scenario wants.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::connect::wired;
use super::expect::{ALL_RESETS, Expect, Owner, Reset, Who, client, received, sent, server};
use super::forged::{ACK, RST, SYN, Segment};
use super::net::{Sock, State};
use super::process::Actor;
use super::{
    BEFORE_PAYLOAD, BEFORE_RESPONSE, Ctx, Link, Pair, Played, REQUEST, RQ, Scenario, plain,
};

/// Of documentation, RFC 5737: nobody here has it.
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// Where the router's other wire leads.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);

/// Two ends of one wire, RFC 4193.
const HERE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
const THERE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);

/// The peer's first sequence number.
const ISS: u32 = 1_000_000;
/// The TTL of a peer's packets that have passed seven routers.
const SEVEN_AWAY: u8 = 57;

/// A peer elsewhere that has taken the request; then comes a reset.
const fn unanswered(reset: Reset) -> [Expect; 1] {
    [client("reset_before_response")
        .flag(BEFORE_RESPONSE)
        .peer(Owner::Nobody)
        .reset(reset)
        .errno("ECONNRESET")
        .bytes(RQ, 0)
        .steps(&["ESTABLISHED", "reset_received", "CLOSE"])]
}

/// The server resets with the request unanswered; packets arrive with this TTL.
const fn server_resets(ttl: u8) -> [Expect; 2] {
    let by_server = Owner::Is(Who::Server);
    [
        client("reset_before_response")
            .flag(BEFORE_RESPONSE)
            .reset(received("TCP_STATE", by_server).arrives(ttl, Some(ttl)))
            .aborted()
            .errno("ECONNRESET")
            .bytes(RQ, 0),
        server("reset_before_response")
            .flag(BEFORE_RESPONSE)
            .reset(sent("TCP_STATE", by_server))
            .aborted()
            .any_errno()
            .bytes(0, RQ),
    ]
}

const NEIGHBOUR: Reset = Reset::OFF_NODE
    .arrives(64, Some(SEVEN_AWAY))
    .likely("in_path");
const AS_FAR: Reset = Reset::OFF_NODE
    .arrives(SEVEN_AWAY, Some(SEVEN_AWAY))
    .likely("off_node");
const NEARER: Reset = Reset::OFF_NODE
    .arrives(SEVEN_AWAY + 3, Some(SEVEN_AWAY))
    .likely("in_path");
const DETOUR: Reset = Reset::OFF_NODE.arrives(SEVEN_AWAY + 2, Some(SEVEN_AWAY));

pub(super) const LIST: &[Scenario] = &[
    plain(
        "router_resets",
        "a peer on another machine takes the request, the first router on the way resets the connection",
        |ctx| reset_from(ctx, 64),
        &unanswered(NEIGHBOUR),
    ),
    plain(
        "far_router_resets",
        "the same, but it is a router three hops nearer than the peer",
        |ctx| reset_from(ctx, SEVEN_AWAY + 3),
        &unanswered(NEARER),
    ),
    plain(
        "far_peer_resets",
        "a peer on another machine takes the request and resets the connection",
        |ctx| reset_from(ctx, SEVEN_AWAY),
        &unanswered(AS_FAR),
    ),
    plain(
        "reset_by_detour",
        "the same, but the reset comes by a way with two routers less",
        |ctx| reset_from(ctx, SEVEN_AWAY + 2),
        &unanswered(DETOUR),
    ),
    plain(
        "refused_elsewhere",
        "a reset from the first hop answers the SYN to another machine",
        refused,
        &[client("refused")
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Nobody)
            .reset(Reset::OFF_NODE.arrives(64, None))
            .errno("ECONNREFUSED")
            .bytes(0, 0)
            .steps(&["connect", "reset_received", "CLOSE"])],
    ),
    plain(
        "routed_reset",
        "client and server are in namespaces with a router between them, and the server resets with the request unanswered",
        routed_reset,
        &server_resets(63),
    ),
    plain(
        "neighbour_resets_v6",
        "client and server are on one link, by IPv6, and the server resets with the request unanswered",
        on_one_link,
        &server_resets(64),
    ),
    plain(
        "injected_by_router",
        "client and server are in namespaces with a router between them, which resets both with the request unanswered",
        injected,
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(Reset::IN_PATH.arrives(64, Some(63)))
                .unseen(ALL_RESETS, Reset::UNKNOWN)
                .errno("ECONNRESET")
                .bytes(RQ, 0),
            server("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(Reset::IN_PATH.arrives(64, Some(63)))
                .unseen(ALL_RESETS, Reset::UNKNOWN)
                .errno("ECONNRESET")
                .bytes(0, RQ),
        ],
    ),
];

fn on_one_link(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    wired(&mut client, &mut server)?;
    client.address_v6("ut-here", HERE_V6)?;
    server.address_v6("ut-there", THERE_V6)?;
    let mut pair = Pair::accepted(client, server, (THERE_V6, ctx.port).into())?;
    pair.request()?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

/// A client that connects to [`PEER`], and the first hop, which drops what it gets and sends what is said.
struct Elsewhere {
    client: Actor,
    hop: Actor,
    raw: Sock,
    c: Sock,
    /// From the peer to the client.
    way: (SocketAddr, SocketAddr),
    played: Played,
}

impl Elsewhere {
    fn connecting(ctx: &Ctx) -> Result<Self> {
        let (mut client, mut hop) = (ctx.actor("ut-client")?, ctx.actor("ut-hop")?);
        let (_, gateway) = wired(&mut client, &mut hop)?;
        client.default_route(gateway)?;
        hop.sysctl("ipv4/ip_forward", "0")?;
        let raw = hop.raw(libc::IPPROTO_RAW)?;
        let to = (PEER, ctx.port).into();
        let c = client.connect_start(to)?;
        let mut played = Played::new(&client, None);
        played.links.push(Link::of(&mut client, c, &hop, to)?);
        let way = (to, client.local(c)?);
        Ok(Self {
            client,
            hop,
            raw,
            c,
            way,
            played,
        })
    }

    /// A segment from the peer that acknowledges all there is.
    fn answer(&mut self, seq: u32, flags: u8, ttl: u8) -> Result<()> {
        let segment = Segment {
            ack: self.client.written(self.c)?,
            ttl,
            ..Segment::new(seq, flags | ACK)
        };
        self.hop.forge(self.raw, self.way, segment)
    }

    fn connected(&mut self) -> Result<()> {
        let error = self.client.connect_result(self.c)?;
        ensure!(error == 0, "connect() ended with errno {error}");
        Ok(())
    }
}

fn reset_from(ctx: &Ctx, ttl: u8) -> Result<Played> {
    let began = Instant::now();
    let mut there = Elsewhere::connecting(ctx)?;
    there.answer(ISS, SYN, SEVEN_AWAY)?;
    there.connected()?;
    there.client.send(there.c, REQUEST)?;
    there.answer(ISS + 1, 0, SEVEN_AWAY)?;
    there.client.wait_acked(there.c)?;
    // Longer than any round trip so far: sooner, and the peer could not have answered.
    thread::sleep(began.elapsed());
    there.answer(ISS + 1, RST, ttl)?;
    there.client.wait_state(there.c, State::Close)?;
    there.client.receive_fails(there.c, libc::ECONNRESET)?;
    Ok(there.played)
}

fn refused(ctx: &Ctx) -> Result<Played> {
    let mut there = Elsewhere::connecting(ctx)?;
    there.answer(0, RST, 64)?;
    let error = there.client.connect_result(there.c)?;
    ensure!(
        error == libc::ECONNREFUSED,
        "connect() ended with errno {error}"
    );
    Ok(there.played)
}

/// Client, router and server, each in a namespace of its own.
fn routed(ctx: &Ctx) -> Result<(Pair, Actor)> {
    let (mut client, mut router) = (ctx.actor("ut-client")?, ctx.actor("ut-router")?);
    let mut server = ctx.actor("ut-server")?;
    let (_, gateway) = wired(&mut client, &mut router)?;
    server.leave_netns()?;
    server.wire("ut-far", &router, "ut-near")?;
    server.address("ut-far", FAR)?;
    router.address("ut-near", ROUTER)?;
    server.wait_running("ut-far")?;
    router.wait_running("ut-near")?;
    router.sysctl("ipv4/ip_forward", "1")?;
    client.default_route(gateway)?;
    server.default_route(ROUTER)?;
    let mut pair = Pair::accepted(client, server, (FAR, ctx.port).into())?;
    pair.request()?;
    Ok((pair, router))
}

fn routed_reset(ctx: &Ctx) -> Result<Played> {
    let (mut pair, _router) = routed(ctx)?;
    pair.server.abort(pair.s)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.end()
}

fn injected(ctx: &Ctx) -> Result<Played> {
    let (mut pair, mut router) = routed(ctx)?;
    let raw = router.raw(libc::IPPROTO_RAW)?;
    let at_client = pair.client.expected(pair.c)?;
    let at_server = pair.server.expected(pair.s)?;
    router.forge(raw, (pair.to, pair.from), Segment::new(at_client, RST))?;
    router.forge(raw, (pair.from, pair.to), Segment::new(at_server, RST))?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}
