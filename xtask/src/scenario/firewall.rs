//! Packets that a firewall of this machine refuses or drops, by nftables in a network namespace of its own.
//!
//! The rules are made by netlink, so that no `nft` has to be installed.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::connect::{HERE, attempt, wired};
use super::expect::{
    ALL_RESETS, BY_SERVER, Found, Owner, Reset, Stray, client, dropped, icmp, icmp_v6, no_socket,
    received, sent, server,
};
use super::feature::Feature;
use super::netns::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, attribute, zero_ended};
use super::process::Actor;
use super::{
    BEFORE_PAYLOAD, BEFORE_RESPONSE, Ctx, Expect, Family, Link, Played, REQUEST, RQ, Scenario,
    alone, plain, with_strays,
};

/// `include/uapi/linux/netfilter/nfnetlink.h`.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
/// `include/uapi/linux/netfilter/nf_tables.h`.
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_NEWCHAIN: u16 = NFT_MSG_NEWTABLE | 3;
const NFT_MSG_NEWRULE: u16 = NFT_MSG_NEWTABLE | 6;
const NFT_REG_1: u32 = 1;
const NFT_REG_VERDICT: u32 = 0;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
const NFT_REJECT_TCP_RST: u32 = 1;
/// Codes of `ICMP_DEST_UNREACH`, and of `ICMPV6_DEST_UNREACH`.
const ICMP_PORT_UNREACH: u8 = 3;
const ICMP_PKT_FILTERED: u8 = 13;
const ICMPV6_ADM_PROHIBITED: u8 = 1;
const NF_DROP: u32 = 0;

/// Where a rule looks: `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN` or `NF_INET_LOCAL_OUT`.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`: before what filters.
const NAT_DST: i32 = -100;

/// A port that nothing listens on, and that is not traced.
const DISCARD: u16 = 9;

/// What a rule does with a packet for the servers' port.
#[derive(Clone, Copy)]
enum Answer {
    Reset,
    /// ICMP destination unreachable, with this code.
    Unreachable(u8),
    Nothing,
    /// It goes to this port instead, where it leaves.
    Redirect(u16),
}

const DROPPED: &[Expect] = &[client("connect_canceled")
    .peer(Owner::Any)
    .bytes(0, 0)
    .evidence(DROP)
    .steps(&["connect", "CLOSE"])];

/// Where an end answers a SYN with a reset, neither the other end nor who sent it is known by this one's addresses: only that the SYN
/// was dropped says that no translated address is behind it.
const KNOWN_TO_BE_DROPPED: &[Feature] = &[
    Feature::ClosedPortResets,
    Feature::TimeWaitResets,
    Feature::DropReasons,
];

const DROP: &[Found] = &[dropped("NETFILTER_DROP")];

/// Both the packet is dropped and an answer made.
const fn rejected([kind, code, from]: [Found; 3]) -> [Found; 4] {
    [kind, code, from, dropped("NETFILTER_DROP")]
}

/// Refused by an ICMP error, which the client is told of like this.
const fn unreachable(errno: &'static str, evidence: &'static [Found]) -> Expect {
    client("unreachable")
        .peer(Owner::Nobody)
        .errno(errno)
        .bytes(0, 0)
        .evidence(evidence)
        .steps(&["connect", "syn_retransmit", "CLOSE"])
}

/// The first answer comes while `connect()` still holds the socket, and is lost on it.
const fn slow(
    name: &'static str,
    story: &'static str,
    play: fn(&Ctx) -> Result<Played>,
    records: &'static [Expect],
) -> Scenario {
    Scenario {
        slow: true,
        ..plain(name, story, play, records)
    }
}

pub(super) const LIST: &[Scenario] = &[
    plain(
        "firewall_resets",
        "a firewall on the server's machine answers the SYN with a reset, although a server listens",
        |ctx| refused(ctx, Family::V4, Answer::Reset, libc::ECONNREFUSED),
        &[client("refused")
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Nobody)
            .reset(Reset::IN_PATH)
            .unseen(KNOWN_TO_BE_DROPPED, Reset::UNKNOWN)
            .errno("ECONNREFUSED")
            .bytes(0, 0)
            .evidence(DROP)
            .steps(&["connect", "reset_received", "CLOSE"])],
    ),
    plain(
        "firewall_resets_out",
        "a firewall on the client's machine answers the SYN with a reset, which never leaves for the server's",
        rejected_out,
        &[client("refused")
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Nobody)
            .reset(Reset::IN_PATH)
            .unseen(KNOWN_TO_BE_DROPPED, Reset::OFF_NODE)
            .errno("ECONNREFUSED")
            .bytes(0, 0)
            .evidence(DROP)
            .steps(&["connect", "reset_received", "CLOSE"])],
    ),
    plain(
        "refused_by_translation",
        "a rule sends the SYN to another port, where nothing listens: the reset comes from the port that was asked for",
        translated,
        &[client("refused")
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Nobody)
            .reset(Reset::UNKNOWN)
            .unseen(ALL_RESETS, received("NO_SOCKET", Owner::Nobody))
            .errno("ECONNREFUSED")
            .bytes(0, 0)
            .steps(&["connect", "reset_received", "CLOSE"])],
    ),
    with_strays(
        "refused_behind_a_service",
        "the SYN is sent on to another address, where nothing listens",
        refused_behind,
        &[client("refused")
            .of(SERVICE)
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Nobody)
            .reset(
                received("NO_SOCKET", Owner::Nobody)
                    .translated()
                    .arrives(64, None),
            )
            .unseen(
                &[Feature::ClosedPortResets],
                Reset::OFF_NODE.arrives(64, None),
            )
            .errno("ECONNREFUSED")
            .bytes(0, 0)
            .steps(&["connect", "reset_received", "CLOSE"])],
        &[Stray {
            link: BEHIND,
            ..no_socket(Some(BEFORE_PAYLOAD))
        }],
    ),
    plain(
        "reset_behind_a_service",
        "the connection is sent on to another address, whose server reads the request and resets",
        reset_behind,
        &[
            client("reset_before_response")
                .of(SERVICE)
                .flag(BEFORE_RESPONSE)
                .peer(Owner::Nobody)
                .reset(
                    received("TCP_STATE", BY_SERVER)
                        .translated()
                        .arrives(64, Some(64)),
                )
                .aborted()
                .errno("ECONNRESET")
                .bytes(RQ, 0)
                .steps(&["connect", "ESTABLISHED", "reset_received", "CLOSE"]),
            server("reset_before_response")
                .of(BEHIND)
                .flag(BEFORE_RESPONSE)
                .peer(Owner::Nobody)
                .reset(sent("TCP_STATE", BY_SERVER))
                .aborted()
                .bytes(0, RQ),
        ],
    ),
    slow(
        "firewall_unreachable",
        "a firewall answers the SYN with ICMP port unreachable",
        |ctx| {
            let answer = Answer::Unreachable(ICMP_PORT_UNREACH);
            refused(ctx, Family::V4, answer, libc::ECONNREFUSED)
        },
        &[unreachable(
            "ECONNREFUSED",
            &rejected(icmp(3, 3, "127.0.0.1")),
        )],
    ),
    slow(
        "firewall_prohibits",
        "a firewall answers the SYN with ICMP administratively prohibited",
        |ctx| {
            let answer = Answer::Unreachable(ICMP_PKT_FILTERED);
            refused(ctx, Family::V4, answer, libc::EHOSTUNREACH)
        },
        &[unreachable(
            "EHOSTUNREACH",
            &rejected(icmp(3, 13, "127.0.0.1")),
        )],
    ),
    slow(
        "firewall_prohibits_v6",
        "a firewall answers the SYN with ICMPv6 administratively prohibited",
        |ctx| {
            let answer = Answer::Unreachable(ICMPV6_ADM_PROHIBITED);
            refused(ctx, Family::V6, answer, libc::EACCES)
        },
        &[unreachable("EACCES", &rejected(icmp_v6(1, 1, "::1")))],
    ),
    plain(
        "firewall_drops_in",
        "a firewall drops the SYN where it arrives, and the client gives up",
        |ctx| drops(ctx, INPUT),
        DROPPED,
    ),
    plain(
        "firewall_drops_out",
        "a firewall drops the SYN where it leaves, and the client gives up",
        |ctx| drops(ctx, OUTPUT),
        DROPPED,
    ),
];

fn refused(ctx: &Ctx, family: Family, answer: Answer, errno: i32) -> Result<Played> {
    let (client, mut server) = alone(ctx)?;
    let to = ctx.address(family);
    server.listen(to, 16)?;
    server.firewall(to, INPUT, answer)?;
    attempt(client, Some(&server), to, errno)
}

fn rejected_out(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let (_, there) = wired(&mut client, &mut server)?;
    let to = (there, ctx.port).into();
    client.firewall(to, OUTPUT, Answer::Reset)?;
    attempt(client, None, to, libc::ECONNREFUSED)
}

fn translated(ctx: &Ctx) -> Result<Played> {
    let (mut client, _server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    client.firewall(to, OUTPUT, Answer::Redirect(DISCARD))?;
    attempt(client, None, to, libc::ECONNREFUSED)
}

/// Links: as the client knows its server, and as that knows itself.
const SERVICE: usize = 0;
const BEHIND: usize = 1;

/// Another address of the server's machine, which leads to its first one.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// Two machines, and both addresses of the server's.
fn service(ctx: &Ctx, client: &mut Actor, server: &mut Actor) -> Result<[SocketAddr; 2]> {
    let (_, there) = wired(client, server)?;
    server.address("ut-there:1", SERVICE_ADDRESS)?;
    let both = [SERVICE_ADDRESS, there].map(|address| SocketAddr::from((address, ctx.port)));
    server.firewall(both[SERVICE], PREROUTING, Answer::Redirect(ctx.port))?;
    Ok(both)
}

fn refused_behind(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let both = service(ctx, &mut client, &mut server)?;
    let mut played = Played::new(&client, Some(&server));
    let sock = client.socket(&both[SERVICE], 0)?;
    client.bind(sock, (HERE, 0).into())?;
    for address in both {
        played
            .links
            .push(Link::of(&mut client, sock, &server, address)?);
    }
    client
        .connect_on(sock, both[SERVICE])?
        .fails_with(libc::ECONNREFUSED)?;
    Ok(played)
}

fn reset_behind(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let both = service(ctx, &mut client, &mut server)?;
    let listener = server.listen(both[BEHIND], 16)?;
    let c = client.connect(both[SERVICE])?;
    let from = client.local(c)?;
    let s = server.accept(listener, from)?;
    let mut played = Played::new(&client, Some(&server));
    for address in both {
        played
            .links
            .push(Link::of(&mut client, c, &server, address)?);
    }
    client.send(c, REQUEST)?;
    server.receive(s, REQUEST)?;
    server.abort(s)?;
    client.receive_fails(c, libc::ECONNRESET)?;
    Ok(played)
}

fn drops(ctx: &Ctx, hook: u32) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    server.listen(to, 16)?;
    server.firewall(to, hook, Answer::Nothing)?;
    let sock = client.connect_start(to)?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::of(&mut client, sock, &server, to)?);
    client.close(sock)?;
    Ok(played)
}

impl Actor {
    /// A rule for TCP packets to this port over the same family, where it is.
    fn firewall(&mut self, to: SocketAddr, hook: u32, answer: Answer) -> Result<()> {
        let family = match to {
            SocketAddr::V4(_) => libc::NFPROTO_IPV4,
            SocketAddr::V6(_) => libc::NFPROTO_IPV6,
        };
        let message = |kind, flags, body: &[u8]| message(family, kind, flags, body);
        let name = zero_ended("ut");
        let (of, priority) = match answer {
            Answer::Redirect(_) => ("nat", NAT_DST),
            _ => ("filter", 0),
        };
        let place = [number(1, hook), number(2, priority.cast_unsigned())].concat();
        let chain = [
            attribute(1, &name),
            attribute(3, &name),
            attribute(4, &place),
            attribute(7, &zero_ended(of)),
        ];
        let rule = [
            attribute(1, &name),
            attribute(2, &name),
            attribute(4, &expressions(to.port(), answer)),
        ];
        let (request, create) = (NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_CREATE);
        let mut batch = message(NFNL_MSG_BATCH_BEGIN, request, &[]);
        batch.extend(message(NFT_MSG_NEWTABLE, create, &attribute(1, &name)));
        batch.extend(message(NFT_MSG_NEWCHAIN, create, &chain.concat()));
        batch.extend(message(NFT_MSG_NEWRULE, create | NLM_F_ACK, &rule.concat()));
        batch.extend(message(NFNL_MSG_BATCH_END, request, &[]));
        self.netlink(libc::NETLINK_NETFILTER, &batch)
    }
}

/// `tcp dport PORT`, then the answer.
fn expressions(port: u16, answer: Answer) -> Vec<u8> {
    let load = [
        number(1, NFT_REG_1),
        number(2, NFT_PAYLOAD_TRANSPORT_HEADER),
        number(3, 2),
        number(4, 2),
    ];
    let same = [
        number(1, NFT_REG_1),
        number(2, 0),
        attribute(3, &attribute(1, &port.to_be_bytes())),
    ];
    let mut all = vec![("payload", load.concat()), ("cmp", same.concat())];
    match answer {
        Answer::Reset => all.push(("reject", number(1, NFT_REJECT_TCP_RST))),
        Answer::Unreachable(code) => {
            let what = [number(1, NFT_REJECT_ICMP_UNREACH), attribute(2, &[code])];
            all.push(("reject", what.concat()));
        }
        Answer::Nothing => {
            let verdict = attribute(2, &attribute(2, &number(1, NF_DROP)));
            let what = [number(1, NFT_REG_VERDICT), verdict];
            all.push(("immediate", what.concat()));
        }
        Answer::Redirect(port) => {
            let port = attribute(2, &attribute(1, &port.to_be_bytes()));
            all.push(("immediate", [number(1, NFT_REG_1), port].concat()));
            all.push(("redir", number(1, NFT_REG_1)));
        }
    }
    all.iter()
        .flat_map(|(name, data)| {
            let name = attribute(1, &zero_ended(name));
            attribute(1, &[name, attribute(2, data)].concat())
        })
        .collect()
}

/// A number as nftables wants it.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// `struct nlmsghdr` and `struct nfgenmsg`.
fn message(family: i32, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let resource = match kind {
        NFNL_MSG_BATCH_BEGIN | NFNL_MSG_BATCH_END => NFNL_SUBSYS_NFTABLES,
        _ => 0,
    };
    let family = u8::try_from(family).expect("small");
    let general = [&[family, 0][..], &resource.to_be_bytes(), body].concat();
    super::netns::message(kind, flags, &general)
}
