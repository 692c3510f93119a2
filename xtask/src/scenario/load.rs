//! Healthy traffic in quantity: one client, one server, one connection after another.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;

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
    to: std::net::SocketAddr,
    listener: Sock,
}

impl Load {
    /// A server that listens, and its client; over IPv6 or IPv4.
    pub fn new(ctx: &Ctx, v6: bool) -> Result<Self> {
        Self::prepared(ctx, v6, |_, _| Ok(()))
    }

    /// The same; `prepare` is called with both process ids, the client's first, before the server listens.
    pub fn prepared(
        ctx: &Ctx,
        v6: bool,
        prepare: impl FnOnce(u32, u32) -> Result<()>,
    ) -> Result<Self> {
        let (client, mut server) = (ctx.actor("ut-load-client")?, ctx.actor("ut-load-server")?);
        prepare(client.pid(), server.pid())?;
        let to = ctx.address(if v6 { Family::V6 } else { Family::V4 });
        let listener = server.listen(to, 16)?;
        Ok(Self {
            client,
            server,
            to,
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

    /// A connection that stays open until told otherwise.
    pub fn open(&mut self) -> Result<Open<'_>> {
        let c = self.client.connect(self.to)?;
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

/// Healthy connections to `port` for half a second, at least a hundred and at most a thousand. An end that was kept from its
/// hook is noticed when the socket's memory is used again.
pub fn use_memory_again(port: u16) -> Result<()> {
    /// Of 2,000 local ports that there are where proxies are played.
    const MOST: u32 = 1000;
    let mut load = Load::new(&Ctx::new(port)?, false)?;
    let began = Instant::now();
    let mut count = 0;
    while count < 100 || count < MOST && began.elapsed() < Duration::from_millis(500) {
        load.one(Shape::KeepAlive)?;
        count += 1;
    }
    Ok(())
}

/// The same for memory that lay fallow: one connection after the other uses what was freed last, so there are
/// many at once. Wants ephemeral ports for them.
pub fn use_fallow_memory_again() -> Result<()> {
    const AT_ONCE: usize = 300;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let pairs: Result<Vec<_>> = (0..AT_ONCE)
        .map(|_| Ok((TcpStream::connect(address)?, listener.accept()?)))
        .collect();
    drop(pairs?);
    Ok(())
}
