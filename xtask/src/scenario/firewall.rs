//! Packets that a firewall of this machine refuses or drops, by nftables in a network namespace of its own.
//!
//! The rules are made by netlink, so that no `nft` has to be installed.

use anyhow::Result;

use super::expect::{Owner, Reset, client};
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
const ICMP_PORT_UNREACH: u8 = 3;
const NF_DROP: u32 = 0;

/// Where a rule looks: `NF_INET_LOCAL_IN` or `NF_INET_LOCAL_OUT`.
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;

/// What a rule does with a packet for the servers' port.
#[derive(Clone, Copy)]
enum Answer {
    Reset,
    Unreachable,
    Nothing,
}

const DROPPED: &[Expect] = &[client("connect_canceled")
    .peer(Owner::Any)
    .bytes(0, 0)
    .steps(&["connect", "CLOSE"])];

pub(super) const LIST: &[Scenario] = &[
    plain(
        "firewall_resets",
        "a firewall on the server's machine answers the SYN with a reset, although a server listens",
        |ctx| refused(ctx, Answer::Reset),
        &[client("refused")
            .flag(BEFORE_PAYLOAD)
            .peer(Owner::Nobody)
            .reset(Reset::IN_PATH)
            .unseen(Reset::UNKNOWN)
            .errno("ECONNREFUSED")
            .bytes(0, 0)
            .steps(&["connect", "reset_received", "CLOSE"])],
    ),
    Scenario {
        // The first answer comes while connect() still holds the socket, and is lost on it.
        slow: true,
        ..plain(
            "firewall_unreachable",
            "a firewall answers the SYN with ICMP port unreachable",
            |ctx| refused(ctx, Answer::Unreachable),
            &[client("unreachable")
                .peer(Owner::Nobody)
                .errno("ECONNREFUSED")
                .bytes(0, 0)
                .steps(&["connect", "syn_retransmit", "CLOSE"])],
        )
    },
    plain(
        "firewall_drops_in",
        "a firewall drops the SYN where it arrives, and the client gives up",
        |ctx| dropped(ctx, INPUT),
        DROPPED,
    ),
    plain(
        "firewall_drops_out",
        "a firewall drops the SYN where it leaves, and the client gives up",
        |ctx| dropped(ctx, OUTPUT),
        DROPPED,
    ),
];

fn refused(ctx: &Ctx, answer: Answer) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    server.listen(to, 16)?;
    server.firewall(INPUT, ctx.port, answer)?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::attempt(&client, to)?);
    let sock = client.socket(&to, 0)?;
    client
        .connect_on(sock, to)?
        .fails_with(libc::ECONNREFUSED)?;
    Ok(played)
}

fn dropped(ctx: &Ctx, hook: u32) -> Result<Played> {
    let (mut client, mut server) = alone(ctx)?;
    let to = ctx.address(Family::V4);
    server.listen(to, 16)?;
    server.firewall(hook, ctx.port, Answer::Nothing)?;
    let sock = client.connect_start(to)?;
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::of(&mut client, sock, &server, to)?);
    client.close(sock)?;
    Ok(played)
}

impl Actor {
    /// A rule for TCP packets to `port`, where it is.
    fn firewall(&mut self, hook: u32, port: u16, answer: Answer) -> Result<()> {
        let name = zero_ended("ut");
        let place = [number(1, hook), number(2, 0)].concat();
        let chain = [
            attribute(1, &name),
            attribute(3, &name),
            attribute(4, &place),
            attribute(7, &zero_ended("filter")),
        ];
        let rule = [
            attribute(1, &name),
            attribute(2, &name),
            attribute(4, &expressions(port, answer)),
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
    let (name, what) = match answer {
        Answer::Reset => ("reject", number(1, NFT_REJECT_TCP_RST)),
        Answer::Unreachable => {
            let code = attribute(2, &[ICMP_PORT_UNREACH]);
            (
                "reject",
                [number(1, NFT_REJECT_ICMP_UNREACH), code].concat(),
            )
        }
        Answer::Nothing => {
            let verdict = attribute(2, &attribute(2, &number(1, NF_DROP)));
            ("immediate", [number(1, NFT_REG_VERDICT), verdict].concat())
        }
    };
    let all = [
        ("payload", load.concat()),
        ("cmp", same.concat()),
        (name, what),
    ];
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

/// `struct nlmsghdr` and `struct nfgenmsg`, of IPv4.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let resource = match kind {
        NFNL_MSG_BATCH_BEGIN | NFNL_MSG_BATCH_END => NFNL_SUBSYS_NFTABLES,
        _ => 0,
    };
    let family = u8::try_from(libc::NFPROTO_IPV4).expect("small");
    let general = [&[family, 0][..], &resource.to_be_bytes(), body].concat();
    super::netns::message(kind, flags, &general)
}
