//! Healthy traffic in quantity: one client, one server, one connection after another.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;
use libc::c_int;

use super::net::Sock;
use super::process::Actor;
use super::{Ctx, Family, REQUEST, RESPONSE};

/// What a healthy connection looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Three exchanges.
    KeepAlive,
    /// The client shuts its side down after the request.
    HalfClose,
    /// No payload.
    Idle,
}

/// The two ends of it.
#[derive(Debug)]
pub struct Load {
    client: Actor,
    server: Actor,
    to: SocketAddr,
    protocol: c_int,
    listener: Sock,
}

impl Load {
    /// A server that listens, and its client; over IPv6 or IPv4.
    pub fn new(ctx: &Ctx, v6: bool) -> Result<Self> {
        Self::prepared(ctx, v6, |_, _| Ok(()))
    }

    /// The same by MPTCP, over IPv4.
    pub fn multipath(ctx: &Ctx) -> Result<Self> {
        Self::between(ctx, Family::V4, libc::IPPROTO_MPTCP, |_, _| Ok(()))
    }

    /// The same; `prepare` is called with both process ids, the client's first, before the server listens.
    pub fn prepared(
        ctx: &Ctx,
        v6: bool,
        prepare: impl FnOnce(u32, u32) -> Result<()>,
    ) -> Result<Self> {
        let family = if v6 { Family::V6 } else { Family::V4 };
        Self::between(ctx, family, 0, prepare)
    }

    fn between(
        ctx: &Ctx,
        family: Family,
        protocol: c_int,
        prepare: impl FnOnce(u32, u32) -> Result<()>,
    ) -> Result<Self> {
        let (client, mut server) = (ctx.actor("ut-load-client")?, ctx.actor("ut-load-server")?);
        prepare(client.pid(), server.pid())?;
        let to = ctx.address(family);
        let listener = server.socket_of(&to, 0, protocol)?;
        server.listen_on(listener, to, 16)?;
        Ok(Self {
            client,
            server,
            to,
            protocol,
            listener,
        })
    }

    /// The client's process id.
    pub fn client_pid(&self) -> u32 {
        self.client.pid()
    }

    /// The server's process id.
    pub fn server_pid(&self) -> u32 {
        self.server.pid()
    }

    /// One connection from beginning to end.
    pub fn one(&mut self, shape: Shape) -> Result<()> {
        self.open()?.finish(shape)
    }

    /// One by plain TCP that the client resets while it waits to be accepted.
    pub fn unaccepted(&mut self) -> Result<()> {
        let c = self.client.connect(self.to)?;
        self.server.wait_queued(self.listener, 1)?;
        self.client.abort(c)
    }

    /// A connection that stays open until told otherwise.
    pub fn open(&mut self) -> Result<Open<'_>> {
        let c = self.client.socket_of(&self.to, 0, self.protocol)?;
        self.client.connect_on(c, self.to)?.ok()?;
        let from = self.client.local(c)?;
        let s = self.server.accept(self.listener, from)?;
        Ok(Open { load: self, c, s })
    }
}

/// An open connection of a [`Load`].
#[derive(Debug)]
pub struct Open<'a> {
    load: &'a mut Load,
    c: Sock,
    s: Sock,
}

impl Open<'_> {
    /// Its exchanges and its orderly end.
    pub fn finish(self, shape: Shape) -> Result<()> {
        let Self {
            load: Load { client, server, .. },
            c,
            s,
        } = self;
        match shape {
            Shape::Idle => {}
            Shape::KeepAlive => {
                for _ in 0..3 {
                    client.send(c, REQUEST)?;
                    server.receive(s, REQUEST)?;
                    server.send(s, RESPONSE)?;
                    client.receive(c, RESPONSE)?;
                }
            }
            Shape::HalfClose => {
                client.send(c, REQUEST)?;
                client.shutdown(c, libc::SHUT_WR)?;
                server.receive(s, REQUEST)?;
                server.send(s, RESPONSE)?;
                client.receive(c, RESPONSE)?;
            }
        }
        client.close(c)?;
        server.receive_end(s)?;
        server.close(s)
    }
}

/// Healthy connections to `port` for half a second, at least a hundred and at most a thousand over each family, whose sockets the
/// kernel keeps apart. An end that was kept from its hook is noticed when the socket's memory is used again.
pub fn use_memory_again(port: u16) -> Result<()> {
    /// Of 2,000 local ports that there are where proxies are played.
    const MOST: u32 = 1000;
    let ctx = Ctx::new(port)?;
    let mut loads = [Load::new(&ctx, false)?, Load::new(&ctx, true)?];
    let began = Instant::now();
    let mut count = 0;
    while count < 100 || count < MOST && began.elapsed() < Duration::from_millis(500) {
        for load in &mut loads {
            load.one(Shape::KeepAlive)?;
        }
        count += 1;
    }
    Ok(())
}

/// The same for memory that lay fallow: one connection after the other uses what was freed last, so there are
/// many at once. Wants ephemeral ports for them.
pub fn use_fallow_memory_again() -> Result<()> {
    const AT_ONCE: usize = 300;
    let families: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for ip in families {
        let listener = TcpListener::bind((ip, 0))?;
        let address = listener.local_addr()?;
        let pairs: Result<Vec<_>> = (0..AT_ONCE)
            .map(|_| Ok((TcpStream::connect(address)?, listener.accept()?)))
            .collect();
        drop(pairs?);
    }
    Ok(())
}
