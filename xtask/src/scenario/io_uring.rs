//! Connections by `io_uring`: the system call that connects or accepts is not the process's own, and where a
//! worker makes it, not even its thread is.

use anyhow::{Result, ensure};

use super::connect::{CANCELED, CLOSED_PORT, REFUSED, deaf_server};
use super::expect::{DEAF, KILLED_OR_NOT, Stray};
use super::feature::Feature;
use super::healthy::OK;
use super::net::{Sock, State, poll};
use super::ring::By;
use super::{Ctx, Expect, Family, Link, Pair, Played, Scenario, SocketAddr, with_strays};

pub(super) const LIST: &[Scenario] = &[
    of_ring(
        "io_uring",
        "connected and accepted by io_uring, a request, its answer, the client closes",
        |ctx| healthy(ctx, By::Caller),
        OK,
        &[],
    ),
    of_ring(
        "io_uring_worker",
        "the same, both by workers of the kernel's, and the server's waits before the client's comes",
        |ctx| healthy(ctx, By::Worker),
        OK,
        &[],
    ),
    of_ring(
        "io_uring_refused",
        "nothing listens on the port, connected by io_uring",
        |ctx| refused(ctx, By::Caller),
        &[REFUSED],
        CLOSED_PORT,
    ),
    of_ring(
        "io_uring_worker_refused",
        "the same by a worker of the kernel's",
        |ctx| refused(ctx, By::Worker),
        &[REFUSED],
        CLOSED_PORT,
    ),
    of_ring(
        "io_uring_worker_killed",
        "the client is killed while a worker of the kernel's waits in its connect()",
        killed,
        &[CANCELED.evidence(&[DEAF, KILLED_OR_NOT])],
        &[],
    ),
];

const fn of_ring(
    name: &'static str,
    story: &'static str,
    play: fn(&Ctx) -> Result<Played>,
    records: &'static [Expect],
    strays: &'static [Stray],
) -> Scenario {
    Scenario {
        needs: Some(Feature::IoUring),
        ..with_strays(name, story, play, records, strays)
    }
}

fn healthy(ctx: &Ctx, by: By) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = ctx.address(Family::V4);
    let listener = server.listen(to, 16)?;
    let accept = server.ring_accept_pending(listener, by)?;
    let c = client.socket(&to, 0)?;
    let connected = client.ring_connect(c, to, by)?;
    ensure!(connected == 0, "connect() by io_uring: {connected}");
    let s = server.ring_result(&accept)?;
    ensure!(s >= 0, "accept() by io_uring: {s}");
    for actor in [&client, &server] {
        let has_worker = actor.has_worker()?;
        ensure!(has_worker == (by == By::Worker), "a worker: {has_worker}");
    }
    let mut played = Played::new(&client, Some(&server));
    played.links.push(Link::of(&mut client, c, &server, to)?);
    let from = client.local(c)?;
    let mut pair = Pair {
        client,
        server,
        listener,
        c,
        s: Sock(s.into()),
        from,
        to,
        played,
    };
    pair.exchange()?;
    pair.close()?;
    pair.end()
}

fn refused(ctx: &Ctx, by: By) -> Result<Played> {
    let mut client = ctx.actor("ut-client")?;
    let to = ctx.address(Family::V4);
    let mut played = Played::new(&client, None);
    played.links.push(Link::attempt(&client, to)?);
    let sock = client.socket(&to, 0)?;
    let connected = client.ring_connect(sock, to, by)?;
    let refused = -libc::ECONNREFUSED;
    ensure!(connected == refused, "connect() by io_uring: {connected}");
    Ok(played)
}

fn killed(ctx: &Ctx) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let to = deaf_server(ctx, &mut server)?;
    let mut played = Played::new(&client, Some(&server));
    let sock = client.socket(&to, 0)?;
    client.ring_connect_pending(sock, to, By::Worker)?;
    let from = SocketAddr::new(to.ip(), client.wait_connecting(to)?);
    let mut link = Link::attempt(&client, to)?;
    link.client = Some(from);
    played.links.push(link);
    client.kill();
    // What the process still has in the ring the kernel lets go of a little later.
    poll("the socket's end", || {
        Ok(!server.has_orphan(from, to, &[State::SynSent])?)
    })?;
    Ok(played)
}
