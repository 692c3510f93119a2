//! Segments that no stack sent: put on loopback by a raw socket, as a middlebox, a scan or an attacker
//! would send them.
//!
//! What a reset does that is not exactly right is nobody's end: most of these say that nothing is said.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};

use super::expect::{ALL_RESETS, Reset, client, ignored, no_socket, server};
use super::net::{Sock, State, poll, sockaddr};
use super::process::{Actor, Call};
use super::{BEFORE_RESPONSE, Ctx, Family, Link, Pair, Played, RQ, RS, Scenario, with_strays};

/// `include/uapi/linux/tcp.h`.
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_RECV_QUEUE: i32 = 1;
const TCP_SEND_QUEUE: i32 = 2;
/// Out of repair, without the segment that would tell the other end.
const TCP_REPAIR_OFF_NO_WP: i32 = -1;

/// Flags of a TCP header.
pub(super) const SYN: u8 = 1 << 1;
pub(super) const RST: u8 = 1 << 2;
pub(super) const ACK: u8 = 1 << 4;

/// A segment without payload.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) seq: u32,
    /// What it acknowledges, where [`ACK`] is among its flags.
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) ttl: u8,
}

impl Segment {
    pub(super) const fn new(seq: u32, flags: u8) -> Self {
        Self {
            seq,
            ack: 0,
            flags,
            ttl: 64,
        }
    }
}

pub(super) const LIST: &[Scenario] = &[
    with_strays(
        "injected_reset",
        "something on the way resets both ends while the request is not answered",
        injected,
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(Reset::IN_PATH)
                .unseen(ALL_RESETS, Reset::UNKNOWN)
                .errno("ECONNRESET")
                .bytes(RQ, 0)
                .steps(&["ESTABLISHED", "reset_received", "CLOSE"]),
            server("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(Reset::IN_PATH)
                .unseen(ALL_RESETS, Reset::UNKNOWN)
                .errno("ECONNRESET")
                .bytes(0, RQ)
                .steps(&["ESTABLISHED", "reset_received", "CLOSE"]),
        ],
        &[],
    ),
    with_strays(
        "challenged_reset",
        "a reset inside the window but not at its edge is refused by a challenge ACK, and the connection goes on",
        challenged,
        &[client("ok").bytes(RQ, RS), server("ok").bytes(RS, RQ)],
        &[ignored(Some("TCP_RESET"))],
    ),
    with_strays(
        "reset_in_time_wait",
        "a reset ends the client's TIME_WAIT after an orderly close",
        in_time_wait,
        &[client("ok").bytes(RQ, RS), server("ok").bytes(RS, RQ)],
        &[ignored(None)],
    ),
    with_strays(
        "half_open_reset",
        "a SYN comes from an address that never sent one, whose stack resets the half-open request",
        half_open_request,
        &[],
        &[no_socket(None), ignored(None)],
    ),
    with_strays(
        "reset_to_listener",
        "a reset comes for a listening socket",
        to_listener,
        &[],
        &[ignored(Some("TCP_RESET"))],
    ),
];

impl Actor {
    /// A socket beside those of this protocol; by `IPPROTO_RAW` one that only sends whole packets.
    pub(super) fn raw(&mut self, protocol: i32) -> Result<Sock> {
        let call = Call::new("socket", libc::SYS_socket).value(libc::AF_INET);
        let call = call.value(libc::SOCK_RAW | libc::SOCK_CLOEXEC);
        Ok(Sock(self.call(&call.value(protocol))?.ok()?))
    }

    /// Sends a segment that claims to be `from` there.
    pub(super) fn forge(
        &mut self,
        raw: Sock,
        (from, to): (SocketAddr, SocketAddr),
        Segment {
            seq,
            ack,
            flags,
            ttl,
        }: Segment,
    ) -> Result<()> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
            bail!("only for IPv4");
        };
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, ttl, 6, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        segment.extend(seq.to_be_bytes());
        segment.extend(ack.to_be_bytes());
        segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let sum = checksum(source, destination, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet.extend(segment);
        let call = Call::new("sendto", libc::SYS_sendto)
            .value(raw.0)
            .bytes(&packet);
        let call = call.value(i64::try_from(packet.len())?).value(0);
        self.call(&call.bytes(&sockaddr((destination, 0).into())).value(16))?
            .ok()?;
        Ok(())
    }

    /// The sequence number that the socket expects next.
    pub(super) fn expected(&mut self, sock: Sock) -> Result<u32> {
        self.sequence(sock, TCP_RECV_QUEUE)
    }

    /// The sequence number that an acknowledgement of all that was written has.
    pub(super) fn written(&mut self, sock: Sock) -> Result<u32> {
        self.sequence(sock, TCP_SEND_QUEUE)
    }

    fn sequence(&mut self, sock: Sock, queue: i32) -> Result<u32> {
        self.set(sock, libc::IPPROTO_TCP, TCP_REPAIR, 1)?;
        self.set(sock, libc::IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)?;
        let seq = self.number(sock, libc::IPPROTO_TCP, TCP_QUEUE_SEQ)?;
        self.set(sock, libc::IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)?;
        Ok(seq)
    }

    /// A port that is taken and that no socket answers at.
    fn deserted(&mut self) -> Result<SocketAddr> {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let sock = self.socket(&any, 0)?;
        self.bind(sock, any)?;
        self.local(sock)
    }
}

/// Of a segment of an even number of bytes, RFC 9293.
fn checksum(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> u16 {
    let length = u32::try_from(segment.len()).expect("small").to_be_bytes();
    let pseudo = [
        &source.octets()[..],
        &destination.octets(),
        &[0, 6],
        &length,
    ]
    .concat();
    let words = pseudo.chunks_exact(2).chain(segment.chunks_exact(2));
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded")
}

fn injected(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    let mut middle = ctx.actor("ut-middle")?;
    let raw = middle.raw(libc::IPPROTO_RAW)?;
    let (at_client, at_server) = (pair.client.expected(pair.c)?, pair.server.expected(pair.s)?);
    middle.forge(raw, (pair.to, pair.from), Segment::new(at_client, RST))?;
    middle.forge(raw, (pair.from, pair.to), Segment::new(at_server, RST))?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.server.receive_fails(pair.s, libc::ECONNRESET)?;
    pair.end()
}

fn challenged(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    let mut middle = ctx.actor("ut-middle")?;
    let raw = middle.raw(libc::IPPROTO_RAW)?;
    let beyond = pair.client.expected(pair.c)?.wrapping_add(1);
    middle.forge(raw, (pair.to, pair.from), Segment::new(beyond, RST))?;
    pair.respond()?;
    pair.close()?;
    pair.end()
}

fn in_time_wait(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::alone(ctx, Family::V4)?;
    pair.exchange()?;
    // The other end's FIN takes one more.
    let last = pair.client.expected(pair.c)?.wrapping_add(1);
    pair.close()?;
    let waiting = [State::TimeWait];
    pair.client.wait_orphan(pair.from, pair.to, &waiting)?;
    let mut middle = ctx.actor("ut-middle")?;
    middle.join_netns(&pair.client)?;
    let raw = middle.raw(libc::IPPROTO_RAW)?;
    middle.forge(raw, (pair.to, pair.from), Segment::new(last, RST))?;
    poll("the end of TIME_WAIT", || {
        Ok(!pair.client.has_orphan(pair.from, pair.to, &waiting)?)
    })?;
    pair.end()
}

/// A server, and where a client would be.
fn without_client(ctx: &Ctx) -> Result<(Actor, Actor, Link, SocketAddr)> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = ctx.address(Family::V4);
    server.listen(to, 16)?;
    let from = client.deserted()?;
    let mut link = Link::attempt(&client, to)?;
    link.client = Some(from);
    Ok((client, server, link, from))
}

fn half_open_request(ctx: &Ctx) -> Result<Played> {
    forged_to_listener(ctx, SYN)
}

fn to_listener(ctx: &Ctx) -> Result<Played> {
    forged_to_listener(ctx, RST)
}

fn forged_to_listener(ctx: &Ctx, flags: u8) -> Result<Played> {
    let (client, server, link, from) = without_client(ctx)?;
    let mut middle = ctx.actor("ut-middle")?;
    let raw = middle.raw(libc::IPPROTO_RAW)?;
    middle.forge(raw, (from, link.server), Segment::new(1, flags))?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(link);
    Ok(played)
}
