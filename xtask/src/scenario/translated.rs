//! Connections whose ends know each other by other addresses than they have, because a rule translates them on the way.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Result;

use super::connect::{self, attempt, wired};
use super::expect::{
    BY_SERVER, Expect, Found, KILLED, Owner, Reset, Stray, client, no_socket, peer_at, received,
    sent, server, stray, stray_at,
};
use super::feature::Feature;
use super::firewall::{Answer, OUTPUT, POSTROUTING, PREROUTING};
use super::net::{Sock, State, next_tick};
use super::process::Actor;
use super::{
    BEFORE_PAYLOAD, BEFORE_RESPONSE, Ctx, Family, Link, Played, REQUEST, RESPONSE, RQ, RS,
    Scenario, Who, alone, plain, with_strays,
};

/// A port that nothing listens on, and that is not traced.
const DISCARD: u16 = 9;

/// Links: as the client knows its server, and as that knows itself and its client.
const SERVICE: usize = 0;
const BEHIND: usize = 1;

/// Another address of the server's machine, which leads to its first one.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// Another address of the client's machine, which is hidden behind its first one.
const HIDDEN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);

/// Where the server really is, and the client behind a gateway.
const SERVER_IS: Found = peer_at(Who::Server, BEHIND);
const CLIENT_IS: Found = peer_at(Who::Client, SERVICE);

const REFUSED: Expect = connect::REFUSED
    .of(SERVICE)
    .reset(received("NO_SOCKET", Owner::Nobody).arrives(64, None))
    .unseen(
        &[Feature::ClosedPortResets],
        Reset::OFF_NODE.arrives(64, None),
    )
    .evidence(&[stray_at(BEHIND, Feature::ClosedPortResets)]);

/// Who sent it is known as far as both ends ended at about the same time.
const LATE: Reset = received("TCP_TIMEWAIT_SOCKET", Owner::Any).arrives(64, Some(64));

const CLOSED_PORT: Stray = Stray {
    link: BEHIND,
    ..no_socket(Some(BEFORE_PAYLOAD))
};

/// The server reads the request and resets.
const RESET: [Expect; 2] = [
    client("reset_before_response")
        .of(SERVICE)
        .flag(BEFORE_RESPONSE)
        .reset(received("TCP_STATE", BY_SERVER).arrives(64, Some(64)))
        .aborted()
        .errno("ECONNRESET")
        .bytes(RQ, 0)
        .evidence(&[SERVER_IS])
        .steps(&["connect", "ESTABLISHED", "reset_received", "CLOSE"]),
    server("reset_before_response")
        .of(BEHIND)
        .flag(BEFORE_RESPONSE)
        .reset(sent("TCP_STATE", BY_SERVER))
        .aborted()
        .bytes(0, RQ),
];

pub(super) const LIST: &[Scenario] = &[
    plain(
        "refused_by_translation",
        "a rule sends the SYN to another port, which is not traced, and where nothing listens",
        redirected,
        &[connect::REFUSED.evidence(&[stray_at(BEHIND, Feature::ClosedPortResets)])],
    ),
    with_strays(
        "refused_behind_a_service",
        "the SYN is sent on to another address, where nothing listens",
        |ctx| refused(Machines::new(ctx, false, ctx.port)?),
        &[REFUSED],
        &[CLOSED_PORT],
    ),
    with_strays(
        "refused_behind_a_gateway",
        "the same, and the client's address is translated as well",
        |ctx| refused(Machines::new(ctx, true, ctx.port)?),
        &[REFUSED],
        &[CLOSED_PORT],
    ),
    plain(
        "reset_behind_a_service",
        "the connection is sent on to another address, whose server reads the request and resets",
        |ctx| reset(Machines::new(ctx, false, ctx.port)?),
        &RESET,
    ),
    plain(
        "refused_on_another_port",
        "the SYN is sent on to another address and a port that is not traced, where nothing listens",
        |ctx| refused(Machines::new(ctx, false, DISCARD)?),
        &[REFUSED],
    ),
    plain(
        "reset_on_another_port",
        "the connection is sent on to another address and a port that is not traced, whose server resets",
        |ctx| reset(Machines::new(ctx, false, DISCARD)?),
        &[RESET[0].peer(Owner::Nobody)],
    ),
    plain(
        "reset_unread_on_another_port",
        "the same, and the server closes with the request unread",
        unread_on_another_port,
        &[RESET[0]
            .peer(Owner::Nobody)
            .reset(received("TCP_ABORT_ON_CLOSE", BY_SERVER).arrives(64, Some(64)))
            .by_chance()],
    ),
    plain(
        "reset_behind_a_gateway",
        "the same, and the client's address is translated as well",
        |ctx| reset(Machines::new(ctx, true, ctx.port)?),
        &[RESET[0], RESET[1].evidence(&[CLIENT_IS])],
    ),
    Scenario {
        name: "late_request_behind_a_gateway",
        story: "both addresses are translated, the server has closed, the client sends one more request",
        slow: false,
        needs: Some(Feature::AnsweredPackets),
        play: late_request,
        records: &[
            client("reset_before_response")
                .of(SERVICE)
                .flag(BEFORE_RESPONSE)
                .peer(Owner::Any)
                .reset(LATE)
                .errno("EPIPE")
                .bytes(2 * RQ, RS)
                .evidence(&[stray_at(BEHIND, Feature::AnsweredPackets)]),
            server("ok").of(BEHIND).peer(Owner::Any).bytes(RS, RQ),
        ],
        strays: &[Stray {
            link: BEHIND,
            ..stray("TCP_TIMEWAIT_SOCKET")
        }],
    },
    plain(
        "killed_behind_a_gateway",
        "both addresses are translated, and the server is killed after it read the request",
        killed,
        &[
            client("closed_before_response")
                .of(SERVICE)
                .evidence(&[KILLED, SERVER_IS])
                .bytes(RQ, 0),
            server("closed_before_response")
                .of(BEHIND)
                .evidence(&[KILLED, CLIENT_IS])
                .bytes(0, RQ),
        ],
    ),
    plain(
        "answered_behind_a_gateway",
        "both addresses are translated, and all goes well",
        answered,
        &[
            client("ok").of(SERVICE).bytes(RQ, RS),
            server("ok").of(BEHIND).bytes(RS, RQ),
        ],
    ),
];

fn redirected(ctx: &Ctx) -> Result<Played> {
    let (mut client, _server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    client.firewall(to, OUTPUT, Answer::Redirect(DISCARD))?;
    let mut played = attempt(client, None, to, libc::ECONNREFUSED)?;
    let mut behind = played.links[SERVICE];
    behind.server.set_port(DISCARD);
    played.links.push(behind);
    Ok(played)
}

/// Two machines, of which the server's has a service that leads to a port of its own, and the client's perhaps a gateway.
struct Machines {
    client: Actor,
    server: Actor,
    /// The client's socket, with an address.
    sock: Sock,
    service: SocketAddr,
    behind: SocketAddr,
    played: Played,
}

impl Machines {
    fn new(ctx: &Ctx, gateway: bool, port: u16) -> Result<Self> {
        let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
        let (here, there) = wired(&mut client, &mut server)?;
        let service = (SERVICE_ADDRESS, ctx.port).into();
        server.address("ut-there", SERVICE_ADDRESS)?;
        server.firewall(service, PREROUTING, Answer::Redirect(port))?;
        let mut from = here;
        if gateway {
            from = HIDDEN;
            client.address("ut-here", from)?;
            client.firewall(service, POSTROUTING, Answer::Masquerade)?;
        }
        let sock = client.socket(&service, 0)?;
        client.bind(sock, (from, 0).into())?;
        let behind = (there, port).into();
        let mut played = Played::new(&client, Some(&server));
        for address in [service, behind] {
            let link = Link::of(&mut client, sock, &server, address)?;
            played.links.push(link);
        }
        if let Some(client) = &mut played.links[BEHIND].client {
            client.set_ip(here.into());
        }
        Ok(Self {
            client,
            server,
            sock,
            service,
            behind,
            played,
        })
    }

    /// Connects; the server's socket.
    fn connect(&mut self) -> Result<Sock> {
        let listener = self.server.listen(self.behind, 16)?;
        self.client.connect_on(self.sock, self.service)?.ok()?;
        let from = self.played.links[BEHIND].client.expect("it is known");
        self.server.accept(listener, from)
    }

    /// The same, and the server reads the request.
    fn request(&mut self) -> Result<Sock> {
        let accepted = self.connect()?;
        self.client.send(self.sock, REQUEST)?;
        self.server.receive(accepted, REQUEST)?;
        Ok(accepted)
    }

    fn ends_reset(mut self) -> Result<Played> {
        self.client.receive_fails(self.sock, libc::ECONNRESET)?;
        Ok(self.played)
    }
}

fn refused(mut machines: Machines) -> Result<Played> {
    let connected = machines
        .client
        .connect_on(machines.sock, machines.service)?;
    connected.fails_with(libc::ECONNREFUSED)?;
    Ok(machines.played)
}

fn reset(mut machines: Machines) -> Result<Played> {
    let accepted = machines.request()?;
    machines.server.abort(accepted)?;
    machines.ends_reset()
}

fn unread_on_another_port(ctx: &Ctx) -> Result<Played> {
    let mut machines = Machines::new(ctx, false, DISCARD)?;
    let accepted = machines.connect()?;
    machines.client.send(machines.sock, REQUEST)?;
    machines.server.wait_unread(accepted, RQ)?;
    machines.server.close(accepted)?;
    machines.ends_reset()
}

fn late_request(ctx: &Ctx) -> Result<Played> {
    let mut machines = Machines::new(ctx, true, ctx.port)?;
    let accepted = machines.request()?;
    let Machines {
        client,
        server,
        sock,
        behind,
        played,
        ..
    } = &mut machines;
    server.send(accepted, RESPONSE)?;
    client.receive(*sock, RESPONSE)?;
    next_tick();
    server.close(accepted)?;
    client.receive_end(*sock)?;
    client.acknowledge(*sock)?;
    let from = played.links[BEHIND].client.expect("it is known");
    let gone = [State::FinWait2, State::TimeWait];
    server.wait_orphan(*behind, from, &gone)?;
    client.send(*sock, REQUEST)?;
    client.wait_state(*sock, State::Close)?;
    Ok(machines.played)
}

fn killed(ctx: &Ctx) -> Result<Played> {
    let mut machines = Machines::new(ctx, true, ctx.port)?;
    machines.request()?;
    // Else it goes with its last process, and resets what comes after that.
    let _network = File::open(format!("/proc/{}/ns/net", machines.server.pid()))?;
    machines.server.kill();
    machines.client.receive_end(machines.sock)?;
    machines.client.close(machines.sock)?;
    Ok(machines.played)
}

fn answered(ctx: &Ctx) -> Result<Played> {
    let mut machines = Machines::new(ctx, true, ctx.port)?;
    let accepted = machines.request()?;
    machines.server.send(accepted, RESPONSE)?;
    machines.client.receive(machines.sock, RESPONSE)?;
    machines.client.close(machines.sock)?;
    machines.server.receive_end(accepted)?;
    machines.server.close(accepted)?;
    Ok(machines.played)
}
