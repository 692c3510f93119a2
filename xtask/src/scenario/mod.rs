//! Labelled scenarios: real TCP traffic that goes wrong on purpose, and what has to be said of it.
//!
//! One list for the demo, the live tests and the guests of the kernel matrix, so it needs nothing
//! but the kernel: no cargo, no installed program, only root for the scenarios with a private
//! network namespace. Each is played by processes of its own ([`process`]) in an exact order.
//!
//! Must not know: the tracer.

pub mod check;
mod connect;
pub mod expect;
pub mod feature;
mod firewall;
mod forged;
mod giving_up;
mod healthy;
mod io_uring;
pub mod load;
mod net;
mod netns;
mod owner;
pub mod process;
mod queue;
mod reset;
mod ring;
mod router;
mod timeout;
mod translated;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

pub use expect::Who;
use expect::{Expect, Stray};
use feature::{Feature, Features};
use net::Sock;
use process::Actor;

use crate::random::Random;

/// The tracer's `--idle-after`, its default: from here on a connection counts as idle.
pub const IDLE_AFTER: Duration = Duration::from_millis(250);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const RQ: usize = REQUEST.len();
const RS: usize = RESPONSE.len();

const BEFORE_PAYLOAD: &str = "reset_before_payload";
const BEFORE_RESPONSE: &str = "reset_before_response";

/// Where and by whom scenarios are played.
#[derive(Debug)]
pub struct Ctx {
    /// The servers' port.
    pub port: u16,
    zygote: RefCell<Actor>,
}

/// What all actors are forked from, where it was made.
static ROOT: Mutex<Option<Actor>> = Mutex::new(None);

/// Makes all actors copies of the program as it is now, which is small; later it may hold a gigabyte, and a fork then takes
/// many milliseconds. For the main thread: actors die with the thread that their first one was forked from.
pub fn prepare() -> Result<()> {
    let root = Actor::first()?;
    *ROOT.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    Ok(())
}

impl Ctx {
    /// Without [`prepare`] the actors are forked from a copy of the program as it is now.
    pub fn new(port: u16) -> Result<Self> {
        let mut root = ROOT.lock().unwrap_or_else(PoisonError::into_inner);
        let zygote = match &mut *root {
            Some(root) => root.fork("ut-zygote")?,
            None => Actor::first()?,
        };
        Ok(Self {
            port,
            zygote: RefCell::new(zygote),
        })
    }

    /// The same, in a network namespace of its own: thousands of connections would fill the machine's table
    /// of those in `TIME_WAIT`, whose kernel then forgets each at once and resets what still comes for it.
    pub fn apart(port: u16) -> Result<Self> {
        let ctx = Self::new(port)?;
        let mut zygote = ctx.zygote.borrow_mut();
        zygote.leave_netns()?;
        zygote.sysctl("ipv4/tcp_max_tw_buckets", "1000000")?;
        drop(zygote);
        Ok(ctx)
    }

    /// Takes loopback up where we are, which a machine that has just booted has not done.
    pub fn loopback_up(&self) -> Result<()> {
        self.actor("ut-setup")?.link_up("lo")
    }

    fn actor(&self, name: &str) -> Result<Actor> {
        self.zygote.borrow_mut().fork(name)
    }

    fn address(&self, family: Family) -> SocketAddr {
        let ip: IpAddr = match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
            Family::Mapped => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        };
        SocketAddr::new(ip, self.port)
    }
}

/// What the sockets and the packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    /// IPv6 sockets, IPv4 packets.
    Mapped,
}

/// A scenario.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What is done, as a clause: "the server resets ...".
    pub story: &'static str,
    /// Waits for a timer of the kernel's, a second or more.
    pub slow: bool,
    /// Without it the scenario cannot be played.
    pub needs: Option<Feature>,
    play: fn(&Ctx) -> Result<Played>,
    /// The `connection` lines, all of them.
    pub records: &'static [Expect],
    /// The `reset` lines, all of them.
    pub strays: &'static [Stray],
}

impl Scenario {
    /// Whether such a kernel has what it needs.
    pub fn is_playable(&self, kernel: Features) -> bool {
        self.needs.is_none_or(|feature| kernel.has(feature))
    }

    /// Plays it once.
    pub fn play(&self, ctx: &Ctx) -> Result<Played> {
        let began = SystemTime::now();
        let mut played = (self.play)(ctx).with_context(|| format!("scenario {}", self.name))?;
        played.began = began;
        played.ended = SystemTime::now();
        Ok(played)
    }
}

/// How to find a scenario's lines among all others.
#[derive(Clone, Debug)]
pub struct Played {
    pub began: SystemTime,
    pub ended: SystemTime,
    pub links: Vec<Link>,
    pub processes: Vec<Process>,
}

impl Played {
    fn new(client: &Actor, server: Option<&Actor>) -> Self {
        let now = SystemTime::now();
        let mut played = Self {
            began: now,
            ended: now,
            links: Vec::new(),
            processes: Vec::new(),
        };
        played.has(Who::Client, client);
        if let Some(server) = server {
            played.has(Who::Server, server);
        }
        played
    }

    fn has(&mut self, who: Who, actor: &Actor) {
        self.processes.push(Process {
            who,
            pid: actor.pid(),
            name: actor.name().to_owned(),
        });
    }

    /// The process in this part.
    pub fn process(&self, who: Who) -> Option<&Process> {
        self.processes.iter().find(|process| process.who == who)
    }
}

/// Who has a part in a scenario.
#[derive(Clone, Debug)]
pub struct Process {
    pub who: Who,
    pub pid: u32,
    pub name: String,
}

/// One connection of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// As the server sees it; `None` where the kernel chose the port and took it back before it
    /// could be asked.
    pub client: Option<SocketAddr>,
    pub server: SocketAddr,
    pub client_netns: u64,
    pub server_netns: u64,
}

impl Link {
    /// A connection that exists: `sock` of `client` to `server`'s address.
    fn of(client: &mut Actor, sock: Sock, server: &Actor, address: SocketAddr) -> Result<Self> {
        Ok(Self {
            client: Some(canonical(client.local(sock)?)),
            server: canonical(address),
            client_netns: client.netns()?,
            server_netns: server.netns()?,
        })
    }

    /// One that came to nothing, so that its port is not known.
    fn attempt(client: &Actor, address: SocketAddr) -> Result<Self> {
        let netns = client.netns()?;
        let server = canonical(address);
        Ok(Self {
            client: None,
            server,
            client_netns: netns,
            server_netns: netns,
        })
    }
}

/// A v4-mapped address as the IPv4 address that it stands for.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A client, a server, and a connection between them.
struct Pair {
    client: Actor,
    server: Actor,
    listener: Sock,
    /// The client's end.
    c: Sock,
    /// The server's end, once accepted.
    s: Sock,
    /// Where the client is and where the server is.
    from: SocketAddr,
    to: SocketAddr,
    played: Played,
}

impl Pair {
    /// Established and accepted, on loopback.
    fn open(ctx: &Ctx, family: Family) -> Result<Self> {
        let mut pair = Self::queued(ctx, family)?;
        pair.accept()?;
        Ok(pair)
    }

    /// The same, with a network namespace to themselves.
    fn alone(ctx: &Ctx, family: Family) -> Result<Self> {
        let (client, server) = alone(ctx)?;
        Self::accepted(client, server, ctx.address(family))
    }

    /// Established and accepted, with the request there and not read.
    fn unread(ctx: &Ctx) -> Result<Self> {
        let mut pair = Self::open(ctx, Family::V4)?;
        pair.client.send(pair.c, REQUEST)?;
        pair.server.wait_unread(pair.s, RQ)?;
        Ok(pair)
    }

    /// Established, not accepted.
    fn queued(ctx: &Ctx, family: Family) -> Result<Self> {
        let (client, server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
        Self::between(client, server, ctx.address(family))
    }

    /// Established, not accepted, between processes that may live anywhere.
    fn between(client: Actor, mut server: Actor, to: SocketAddr) -> Result<Self> {
        let listener = server.listen(to, 16)?;
        Self::waiting(client, server, listener, to)
    }

    /// The same, and accepted.
    fn accepted(client: Actor, server: Actor, to: SocketAddr) -> Result<Self> {
        let mut pair = Self::between(client, server, to)?;
        pair.accept()?;
        Ok(pair)
    }

    /// As [`Self::between`], where the server listens already.
    fn waiting(
        mut client: Actor,
        mut server: Actor,
        listener: Sock,
        to: SocketAddr,
    ) -> Result<Self> {
        let c = client.connect(to)?;
        server.wait_queued(listener, 1)?;
        let mut played = Played::new(&client, Some(&server));
        played.links.push(Link::of(&mut client, c, &server, to)?);
        let from = client.local(c)?;
        Ok(Self {
            client,
            server,
            listener,
            c,
            s: Sock(-1),
            from,
            to,
            played,
        })
    }

    /// Established and accepted, by sockets that are there already: one more link of what is played.
    fn by(
        mut client: Actor,
        mut server: Actor,
        (listener, c): (Sock, Sock),
        to: SocketAddr,
        mut played: Played,
    ) -> Result<Self> {
        client.connect_on(c, to)?.ok()?;
        played.links.push(Link::of(&mut client, c, &server, to)?);
        let from = client.local(c)?;
        let s = server.accept(listener, from)?;
        Ok(Self {
            client,
            server,
            listener,
            c,
            s,
            from,
            to,
            played,
        })
    }

    fn accept(&mut self) -> Result<()> {
        self.s = self.server.accept(self.listener, self.from)?;
        Ok(())
    }

    /// The client asks, the server has read it.
    fn request(&mut self) -> Result<()> {
        self.client.send(self.c, REQUEST)?;
        self.server.receive(self.s, REQUEST)
    }

    /// The server answers, the client has read it.
    fn respond(&mut self) -> Result<()> {
        self.server.send(self.s, RESPONSE)?;
        self.client.receive(self.c, RESPONSE)
    }

    fn exchange(&mut self) -> Result<()> {
        self.request()?;
        self.respond()
    }

    /// Orderly, the client first.
    fn close(&mut self) -> Result<()> {
        self.client.close(self.c)?;
        self.server.receive_end(self.s)?;
        self.server.close(self.s)
    }

    /// The end: the processes go, and with them what they have open.
    #[expect(clippy::unnecessary_wraps, reason = "every scenario ends with it")]
    fn end(self) -> Result<Played> {
        Ok(self.played)
    }
}

/// A client and a server with a network namespace to themselves. So is whatever needs `TIME_WAIT`: other
/// traffic may fill the table of those on the machine, whose kernel then forgets a connection at once.
fn alone(ctx: &Ctx) -> Result<(Actor, Actor)> {
    let (mut client, mut server) = (ctx.actor("ut-client")?, ctx.actor("ut-server")?);
    client.leave_netns()?;
    server.join_netns(&client)?;
    Ok((client, server))
}

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> + Clone {
    [
        healthy::LIST,
        connect::LIST,
        queue::LIST,
        reset::LIST,
        giving_up::LIST,
        owner::LIST,
        io_uring::LIST,
        timeout::LIST,
        forged::LIST,
        firewall::LIST,
        translated::LIST,
        router::LIST,
    ]
    .into_iter()
    .flatten()
}

/// Those that this kernel can play and that take no time.
pub fn quick(kernel: Features) -> impl Iterator<Item = &'static Scenario> {
    all().filter(move |scenario| scenario.is_playable(kernel) && !scenario.slow)
}

/// The one with this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}

/// One that every kernel can play, without waiting for the kernel's timers.
const fn plain(
    name: &'static str,
    story: &'static str,
    play: fn(&Ctx) -> Result<Played>,
    records: &'static [Expect],
) -> Scenario {
    with_strays(name, story, play, records, &[])
}

/// The same, with resets that no connection's socket sends.
const fn with_strays(
    name: &'static str,
    story: &'static str,
    play: fn(&Ctx) -> Result<Played>,
    records: &'static [Expect],
    strays: &'static [Stray],
) -> Scenario {
    Scenario {
        name,
        story,
        slow: false,
        needs: None,
        play,
        records,
        strays,
    }
}

/// A random order, always the same for a `seed`: a Fisher-Yates shuffle.
pub fn shuffle<T>(deck: &mut [T], seed: u64) {
    let mut random = Random::new(seed);
    for last in (1..deck.len()).rev() {
        let at = random.below(last as u64 + 1);
        deck.swap(last, usize::try_from(at).unwrap_or(last));
    }
}
