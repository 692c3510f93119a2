//! Packets that a firewall of this machine refuses or drops, by nftables in a network namespace of its own.
//!
//! The rules are made by netlink, so that no `nft` has to be installed.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::connect::{attempt, give_up, wired};
use super::expect::{Found, Owner, Reset, client, dropped, icmp, icmp_v6};
use super::feature::Feature;
use super::netns::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, attribute, zero_ended};
use super::process::Actor;
use super::{BEFORE_PAYLOAD, Ctx, Expect, Family, Link, Played, Scenario, alone, plain};

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
const ICMP_HOST_UNREACH: u8 = 1;
const ICMP_PORT_UNREACH: u8 = 3;
const ICMP_PKT_FILTERED: u8 = 13;
const ICMPV6_ADM_PROHIBITED: u8 = 1;
const NF_DROP: u32 = 0;

/// Where a rule looks: `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT` or `NF_INET_POST_ROUTING`.
pub(super) const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`: before what filters, and behind it.
const NAT_DST: i32 = -100;
const NAT_SRC: i32 = 100;

/// What a rule does with a packet for the servers' port.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Reset,
    /// ICMP destination unreachable, with this code.
    Unreachable(u8),
    Nothing,
    /// It goes to this port instead, where it leaves.
    Redirect(u16),
    /// It is sent from the first address of the device that it leaves by.
    Masquerade,
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
    Feature::CountedResets,
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
    Scenario {
        needs: Some(Feature::IcmpErrors),
        ..plain(
            "firewall_says_no_host",
            "a firewall answers the SYN with ICMP host unreachable, and the client, which does not wait in connect(), asks for its error and closes",
            told_at_once,
            &[
                unreachable("EHOSTUNREACH", &rejected(icmp(3, 1, "127.0.0.1")))
                    .steps(&["connect", "CLOSE"]),
            ],
        )
    },
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

/// The socket keeps its state: the error is noted on it, and read before it closes.
fn told_at_once(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    server.listen(to, 16)?;
    server.firewall(to, INPUT, Answer::Unreachable(ICMP_HOST_UNREACH))?;
    let mut played = Played::new(&client, Some(&server));
    let sock = client.connect_start(to)?;
    let told = client.number(sock, libc::SOL_SOCKET, libc::SO_ERROR)?;
    ensure!(told == libc::EHOSTUNREACH.cast_unsigned(), "told {told}");
    played.links.push(Link::of(&mut client, sock, &server, to)?);
    client.close(sock)?;
    Ok(played)
}

fn rejected_out(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let (_, there) = wired(&mut client, &mut server)?;
    let to = (there, ctx.port).into();
    client.firewall(to, OUTPUT, Answer::Reset)?;
    attempt(client, None, to, libc::ECONNREFUSED)
}

fn drops(ctx: &Ctx, hook: u32) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    server.listen(to, 16)?;
    server.firewall(to, hook, Answer::Nothing)?;
    let mut played = Played::new(&client, Some(&server));
    give_up(&mut client, &server, to, &mut played)?;
    Ok(played)
}

impl Actor {
    /// A rule for TCP packets to this port over the same family, where it is.
    pub(super) fn firewall(&mut self, to: SocketAddr, hook: u32, answer: Answer) -> Result<()> {
        let family = match to {
            SocketAddr::V4(_) => libc::NFPROTO_IPV4,
            SocketAddr::V6(_) => libc::NFPROTO_IPV6,
        };
        let message = |kind, flags, body: &[u8]| message(family, kind, flags, body);
        let name = zero_ended("ut");
        let (of, priority) = match answer {
            Answer::Redirect(_) => ("nat", NAT_DST),
            Answer::Masquerade => ("nat", NAT_SRC),
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
        Answer::Masquerade => all.push(("masq", vec![])),
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
