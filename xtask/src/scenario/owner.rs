//! Whose connection it was: forked workers, passed descriptors, killed processes, other network
//! namespaces.

use anyhow::Result;

use super::connect::wired;
use super::expect::{BY_SERVER, EXITED, Found, KILLED, Owner, client, received, sent, server};
use super::net::{Sock, State};
use super::process::Actor;
use super::reset::wait_idle;
use super::{
    BEFORE_PAYLOAD, BEFORE_RESPONSE, Ctx, Expect, Family, Pair, Played, REQUEST, RESPONSE, RQ, RS,
    Scenario, Who, plain,
};

const BY_CLIENT: Owner = Owner::Is(Who::Client);

/// Accepted by the server, closed by the worker, who alone held it at the end.
const HANDED_ON: Owner = Owner::By(&[
    ("exact", &[Who::Server]),
    ("inode", &[Who::Server, Who::Worker]),
    ("closer", &[Who::Worker]),
    ("listener", &[Who::Server]),
]);
/// Accepted and closed by the worker; the listening socket is in both.
const PREFORKED: Owner = Owner::By(&[
    ("exact", &[Who::Worker]),
    ("inode", &[Who::Worker]),
    ("closer", &[Who::Worker]),
    ("listener", &[Who::Server, Who::Worker]),
]);
/// The same, where the worker was seen with it.
const WORKERS: Owner = Owner::By(&[
    ("exact", &[Who::Worker]),
    ("inode", &[Who::Worker]),
    ("closer", &[Who::Worker]),
]);
const BY_WORKER: Owner = Owner::By(&[
    ("exact", &[Who::Server, Who::Worker]),
    ("inode", &[Who::Server, Who::Worker]),
    ("closer", &[Who::Worker]),
    ("listener", &[Who::Server]),
]);

/// By the process that asked the kernel for it.
const BY_ADMINISTRATOR: Owner = Owner::By(&[("closer", &[Who::Worker])]);

const fn gone_unread(evidence: &'static [Found]) -> [Expect; 2] {
    let client = client("reset_before_response")
        .flag(BEFORE_RESPONSE)
        .reset(received("TCP_ABORT_ON_CLOSE", BY_SERVER))
        .errno("ECONNRESET")
        .evidence(evidence)
        .bytes(RQ, 0);
    let server = server("reset_before_response")
        .flag(BEFORE_RESPONSE)
        .reset(sent("TCP_ABORT_ON_CLOSE", BY_SERVER))
        .evidence(evidence)
        .bytes(0, RQ);
    [client, server]
}

pub(super) const LIST: &[Scenario] = &[
    plain(
        "worker_closes",
        "the server accepts, a forked worker answers and closes",
        |ctx| worker(ctx, false),
        &[
            client("ok").peer(HANDED_ON).bytes(RQ, RS),
            server("ok").owner(HANDED_ON).bytes(RS, RQ),
        ],
    ),
    plain(
        "worker_resets",
        "the server accepts, a forked worker reads the request and resets",
        |ctx| worker(ctx, true),
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .peer(HANDED_ON)
                .reset(received("TCP_STATE", BY_WORKER))
                .aborted()
                .errno("ECONNRESET")
                .bytes(RQ, 0),
            server("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .owner(HANDED_ON)
                .reset(sent("TCP_STATE", BY_WORKER))
                .aborted()
                .bytes(0, RQ),
        ],
    ),
    plain(
        "prefork_worker",
        "a worker forked before accepts on the inherited socket and answers",
        prefork,
        &[
            client("ok").peer(PREFORKED).bytes(RQ, RS),
            server("ok").owner(PREFORKED).bytes(RS, RQ),
        ],
    ),
    plain(
        "descriptor_passed",
        "the server accepts and passes the connection to a helper, which answers and closes",
        descriptor_passed,
        &[
            client("ok").peer(HANDED_ON).bytes(RQ, RS),
            server("ok").owner(HANDED_ON).bytes(RS, RQ),
        ],
    ),
    plain(
        "worker_is_reset",
        "the same worker, and the client shuts its side down, then resets; the worker closes",
        worker_is_reset,
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .peer(WORKERS)
                .reset(sent("TCP_STATE", BY_CLIENT))
                .aborted()
                .bytes(RQ, 0),
            server("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .owner(WORKERS)
                .reset(received("TCP_STATE", BY_CLIENT))
                .aborted()
                .errno("EPIPE")
                .bytes(0, RQ),
        ],
    ),
    plain(
        "killed_unread",
        "the server is killed with the request unread",
        killed_unread,
        &gone_unread(&[KILLED]),
    ),
    plain(
        "exit_unread",
        "the server ends with the request unread",
        exit_unread,
        &gone_unread(&[EXITED]),
    ),
    plain(
        "killed_unanswered",
        "the server is killed after it read the request",
        killed_unanswered,
        &[
            client("closed_before_response")
                .evidence(&[KILLED])
                .bytes(RQ, 0),
            server("closed_before_response")
                .evidence(&[KILLED])
                .bytes(0, RQ),
        ],
    ),
    plain(
        "killed_answered",
        "the server is killed after it answered",
        killed_answered,
        &[
            client("ok").bytes(RQ, RS).evidence(&[KILLED]),
            server("ok").bytes(RS, RQ).evidence(&[KILLED]),
        ],
    ),
    plain(
        "killed_after_half_close",
        "the server shuts its side down without an answer, the client is killed, the server goes on",
        killed_after_half_close,
        &[
            client("closed_before_response").bytes(RQ, 0),
            server("closed_before_response").bytes(0, RQ),
        ],
    ),
    plain(
        "destroyed",
        "an administrator destroys the server's socket (ss -K) before it has answered",
        destroyed,
        &[
            client("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(received("TCP_STATE", BY_ADMINISTRATOR))
                .errno("ECONNRESET")
                .bytes(RQ, 0),
            server("reset_before_response")
                .flag(BEFORE_RESPONSE)
                .reset(sent("TCP_STATE", BY_ADMINISTRATOR))
                .errno("ECONNABORTED")
                .bytes(0, RQ)
                .steps(&["ESTABLISHED", "reset_sent", "CLOSE"]),
        ],
    ),
    plain(
        "destroyed_idle",
        "the same after an answer, when the connection has been idle",
        destroyed_idle,
        &[
            client("reset_idle")
                .reset(received("TCP_STATE", BY_ADMINISTRATOR))
                .errno("ECONNRESET")
                .bytes(RQ, RS),
            server("local_abort")
                .reset(sent("TCP_STATE", BY_ADMINISTRATOR))
                .errno("ECONNABORTED")
                .bytes(RS, RQ),
        ],
    ),
    plain(
        "netns_healthy",
        "client and server in two network namespaces, a wire between them",
        |ctx| netns(ctx, false),
        &[client("ok").bytes(RQ, RS), server("ok").bytes(RS, RQ)],
    ),
    plain(
        "netns_reset",
        "the same, and the server resets right after accept()",
        |ctx| netns(ctx, true),
        &[
            client("reset_before_payload")
                .flag(BEFORE_PAYLOAD)
                .reset(received("TCP_STATE", BY_SERVER).arrives(64, Some(64)))
                .aborted()
                .errno("ECONNRESET")
                .bytes(0, 0),
            server("reset_before_payload")
                .flag(BEFORE_PAYLOAD)
                .reset(sent("TCP_STATE", BY_SERVER))
                .aborted()
                .bytes(0, 0),
        ],
    ),
];

fn worker(ctx: &Ctx, resets: bool) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    let mut worker = pair.server.fork("ut-worker")?;
    pair.played.has(Who::Worker, &worker);
    pair.server.close(pair.s)?;
    pair.client.send(pair.c, REQUEST)?;
    worker.receive(pair.s, REQUEST)?;
    if resets {
        worker.abort(pair.s)?;
        pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    } else {
        worker.send(pair.s, RESPONSE)?;
        worker.close(pair.s)?;
        pair.client.receive(pair.c, RESPONSE)?;
        pair.client.receive_end(pair.c)?;
        pair.client.close(pair.c)?;
    }
    pair.end()
}

/// A worker forked before has accepted, and read the request.
fn preforked(ctx: &Ctx) -> Result<(Pair, Actor, Sock)> {
    let mut pair = Pair::queued(ctx, Family::V4)?;
    let mut worker = pair.server.fork("ut-worker")?;
    pair.played.has(Who::Worker, &worker);
    let s = worker.accept(pair.listener, pair.from)?;
    pair.client.send(pair.c, REQUEST)?;
    worker.receive(s, REQUEST)?;
    Ok((pair, worker, s))
}

fn prefork(ctx: &Ctx) -> Result<Played> {
    let (mut pair, mut worker, s) = preforked(ctx)?;
    worker.send(s, RESPONSE)?;
    worker.close(s)?;
    pair.client.receive(pair.c, RESPONSE)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn worker_is_reset(ctx: &Ctx) -> Result<Played> {
    let (mut pair, mut worker, s) = preforked(ctx)?;
    pair.client.shutdown(pair.c, libc::SHUT_WR)?;
    worker.receive_end(s)?;
    pair.client.abort(pair.c)?;
    worker.wait_state(s, State::Close)?;
    worker.close(s)?;
    pair.end()
}

fn descriptor_passed(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    let mut helper = ctx.actor("ut-helper")?;
    pair.played.has(Who::Worker, &helper);
    let s = Sock(pair.server.hand_over(pair.s.0, &mut helper)?);
    pair.server.close(pair.s)?;
    pair.client.send(pair.c, REQUEST)?;
    helper.receive(s, REQUEST)?;
    helper.send(s, RESPONSE)?;
    helper.close(s)?;
    pair.client.receive(pair.c, RESPONSE)?;
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    pair.end()
}

fn killed_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::unread(ctx)?;
    pair.server.kill();
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    Ok(pair.played)
}

fn exit_unread(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::unread(ctx)?;
    pair.server.exit(1)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    Ok(pair.played)
}

fn killed_unanswered(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.kill();
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    Ok(pair.played)
}

fn killed_answered(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    pair.server.kill();
    pair.client.receive_end(pair.c)?;
    pair.client.close(pair.c)?;
    Ok(pair.played)
}

fn killed_after_half_close(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    pair.server.shutdown(pair.s, libc::SHUT_WR)?;
    pair.client.receive_end(pair.c)?;
    pair.client.kill();
    pair.server.receive_end(pair.s)?;
    pair.server.close(pair.s)?;
    Ok(pair.played)
}

fn destroyed(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.request()?;
    destroy(ctx, pair)
}

fn destroyed_idle(ctx: &Ctx) -> Result<Played> {
    let mut pair = Pair::open(ctx, Family::V4)?;
    pair.exchange()?;
    wait_idle();
    destroy(ctx, pair)
}

fn destroy(ctx: &Ctx, mut pair: Pair) -> Result<Played> {
    let mut administrator = ctx.actor("ut-admin")?;
    pair.played.has(Who::Worker, &administrator);
    administrator.destroy(pair.to, pair.from)?;
    pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    pair.server.receive_fails(pair.s, libc::ECONNABORTED)?;
    pair.end()
}

fn netns(ctx: &Ctx, resets: bool) -> Result<Played> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    let (_, there) = wired(&mut client, &mut server)?;
    let mut pair = Pair::accepted(client, server, (there, ctx.port).into())?;
    if resets {
        pair.server.abort(pair.s)?;
        pair.client.receive_fails(pair.c, libc::ECONNRESET)?;
    } else {
        pair.exchange()?;
        pair.close()?;
    }
    pair.end()
}
