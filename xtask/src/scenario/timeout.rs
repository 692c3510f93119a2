//! Established connections that the kernel gives up: nothing comes back any more, or no word that there is room for more.
//!
//! The wire is cut by a socket filter on the server's end that drops everything: no firewall is
//! needed, and nothing but that one connection notices.

use anyhow::Result;

use super::expect::{Owner, client, sent, server};
use super::{Ctx, Expect, Family, Pair, Played, REQUEST, RQ, RS, Scenario, alone};

/// The other end, which hears and sees nothing and is taken away without a word.
const FORGOTTEN: Expect = server("ok").bytes(RS, RQ);

pub(super) const LIST: &[Scenario] = &[
    Scenario {
        name: "user_timeout",
        story: "the request is lost on its way for longer than TCP_USER_TIMEOUT",
        slow: true,
        needs: None,
        play: user_timeout,
        records: &[
            client("timeout")
                .errno("ETIMEDOUT")
                .bytes(2 * RQ, RS)
                .steps(&["connect", "ESTABLISHED", "CLOSE"]),
            FORGOTTEN,
        ],
        strays: &[],
    },
    Scenario {
        name: "keepalive_timeout",
        story: "keep-alive probes of an idle connection are not answered",
        slow: true,
        needs: None,
        play: keepalive_timeout,
        records: &[
            client("timeout")
                .reset(sent("TCP_KEEPALIVE_TIMEOUT", Owner::Any))
                .errno("ETIMEDOUT")
                .bytes(RQ, RS)
                .steps(&["connect", "ESTABLISHED", "reset_sent", "CLOSE"]),
            FORGOTTEN,
        ],
        strays: &[],
    },
    Scenario {
        name: "reader_stopped",
        story: "the server stops reading for longer than TCP_USER_TIMEOUT, and its kernel says that it has no room",
        slow: true,
        needs: None,
        play: reader_stopped,
        records: &[
            client("timeout")
                .errno("ETIMEDOUT")
                .steps(&["connect", "ESTABLISHED", "CLOSE"]),
            server("ok"),
        ],
        strays: &[],
    },
];

fn user_timeout(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.client
        .set(pair.c, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 600)?;
    pair.server.deafen(pair.s)?;
    pair.client.send(pair.c, REQUEST)?;
    pair.client.receive_fails(pair.c, libc::ETIMEDOUT)?;
    pair.server.vanish(pair.s)?;
    pair.end()
}

fn keepalive_timeout(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.server.deafen(pair.s)?;
    for (option, to) in [
        (libc::TCP_KEEPIDLE, 1),
        (libc::TCP_KEEPINTVL, 1),
        (libc::TCP_KEEPCNT, 1),
    ] {
        pair.client.set(pair.c, libc::IPPROTO_TCP, option, to)?;
    }
    pair.client
        .set(pair.c, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    pair.client.receive_fails(pair.c, libc::ETIMEDOUT)?;
    pair.server.vanish(pair.s)?;
    pair.end()
}

/// More than the server's kernel has room for.
const MUCH: [u8; 2000] = [b'.'; 2000];

fn reader_stopped(ctx: &Ctx) -> Result<Played> {
    let (client, mut server) = alone(ctx)?;
    server.sysctl("ipv4/tcp_rmem", "4096 4096 4096")?;
    let mut pair = Pair::accepted(client, server, ctx.address(Family::V4))?;
    pair.client
        .set(pair.c, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 600)?;
    for _ in 0..4 {
        pair.client.send(pair.c, &MUCH)?;
    }
    pair.client.receive_fails(pair.c, libc::ETIMEDOUT)?;
    pair.server.vanish(pair.s)?;
    pair.end()
}
