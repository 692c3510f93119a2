//! Three network namespaces: the proxy's, a middle host's that forwards and breaks what passes, and the upstream's behind it.
//!
//! They have no names and are gone with the last process or descriptor that holds them. Must not know: proxies, what is said of a fault.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::fault::{Fault, Place};
use crate::provision::Network as Programs;
use crate::workspace::run;

const PATIENCE: Duration = Duration::from_secs(5);
/// Ports that the kernel may choose in the proxy's namespace: few enough to use them all up.
pub const LOCAL_PORTS: std::ops::RangeInclusive<u16> = 30_000..=31_999;
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// There is no default route.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// The namespaces.
#[derive(Debug)]
pub struct Network {
    proxy: File,
    upstream: File,
    /// Held, not entered again.
    _middle: File,
}

impl Network {
    /// Makes them, wires them, and waits until packets pass. `port` is that of a fault's upstream.
    pub fn make(programs: &Programs, port: fn(Fault) -> u16) -> Result<Self> {
        let (proxy, middle, upstream) = (fresh()?, fresh()?, fresh()?);
        let ip = |line: &str| run(Command::new(&programs.ip).args(line.split(' ')));
        let ips = |lines: &[&str]| lines.iter().try_for_each(|line| ip(line));
        // By this process's descriptor: they have no other name.
        let there = |netns: &File| format!("/proc/{}/fd/{}", process::id(), netns.as_raw_fd());
        inside(&middle, || {
            ip(&format!(
                "link add m0 type veth peer name p0 netns {}",
                there(&proxy)
            ))?;
            ip(&format!(
                "link add m1 type veth peer name u0 netns {}",
                there(&upstream)
            ))?;
            ips(&[
                "link set lo up",
                "addr add 10.77.0.1/24 dev m0",
                "link set m0 up",
                "addr add 10.78.0.1/24 dev m1",
                "link set m1 up",
            ])?;
            sysctl("ipv4/ip_forward", "1")?;
            run(Command::new(&programs.nft).arg(table("forward", &in_the_middle(port))))?;
            // Else it answers some of the connects only, and the others are lost.
            sysctl("ipv4/icmp_ratelimit", "0")?;
            sysctl("netfilter/nf_conntrack_tcp_loose", "0")?;
            sysctl("netfilter/nf_conntrack_tcp_timeout_established", "1")
        })?;
        inside(&proxy, || {
            ips(&[
                "link set lo up",
                "addr add 10.77.0.2/24 dev p0",
                "link set p0 up",
                "route add 10.78.0.0/24 via 10.77.0.1",
            ])?;
            run(Command::new(&programs.nft).arg(table("output", &[local_reject(port)])))?;
            let range = format!("{} {}", LOCAL_PORTS.start(), LOCAL_PORTS.end());
            sysctl("ipv4/ip_local_port_range", &range)?;
            sysctl("ipv4/tcp_tw_reuse", "1")?;
            // A connection that the proxy has closed, and whose other end is silent, ends within the second.
            sysctl("ipv4/tcp_orphan_retries", "1")
        })?;
        inside(&upstream, || {
            ips(&[
                "link set lo up",
                "addr add 10.78.0.2/24 dev u0",
                "link set u0 up",
                "route add default via 10.78.0.1",
            ])
        })?;
        let network = Self {
            proxy,
            upstream,
            _middle: middle,
        };
        network.wait_until_open()?;
        Ok(network)
    }

    /// Runs it, and the threads and processes that it starts, where the proxy is. Its processes end with it.
    pub fn with_the_proxy<T: Send>(&self, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(&self.proxy, what)
    }

    /// The same where upstreams of this place are.
    pub fn at<T: Send>(&self, place: Place, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match place {
            Place::Behind => inside(&self.upstream, what),
            Place::Here | Place::Nowhere => inside(&self.proxy, what),
        }
    }

    /// An interface carries packets a little later than it is up.
    fn wait_until_open(&self) -> Result<()> {
        let listener = inside(&self.upstream, || Ok(TcpListener::bind((UPSTREAM, 0))?))?;
        let address = listener.local_addr()?;
        let brief = Duration::from_millis(100);
        let began = Instant::now();
        while inside(&self.proxy, || {
            Ok(TcpStream::connect_timeout(&address, brief)?)
        })
        .is_err()
        {
            ensure!(
                began.elapsed() < PATIENCE,
                "the middle host forwards nothing"
            );
        }
        Ok(())
    }
}

/// The address of upstreams of this place.
pub const fn address(place: Place) -> Ipv4Addr {
    match place {
        Place::Here => Ipv4Addr::LOCALHOST,
        Place::Behind => UPSTREAM,
        Place::Nowhere => NOWHERE,
    }
}

/// What the middle host does to packets. Answers to a request are not touched, resets to dead connections least of all.
fn in_the_middle(port: fn(Fault) -> u16) -> [String; 8] {
    let rules = [
        (Fault::SynDropped, "dport", "drop"),
        (
            Fault::RejectedByIcmp,
            "dport",
            "reject with icmp admin-prohibited",
        ),
        // The goodbye is lost, and on a longer wire the request would have crossed it.
        (Fault::RacedByClose, "sport", "tcp flags & fin == fin drop"),
        (
            Fault::RacedByReset,
            "sport",
            "tcp flags & (rst | ack) == rst | ack drop",
        ),
        // As long as only requests are.
        (
            Fault::ResetInPath,
            "dport",
            "meta length > 200 reject with tcp reset",
        ),
        (
            Fault::LostInPath,
            "dport",
            "tcp flags & syn == syn update @young { tcp sport }",
        ),
        // Behind the first request, which still passes.
        (Fault::LostInPath, "dport", "tcp sport != @young drop"),
        (
            Fault::ForgottenInPath,
            "dport",
            "ct state invalid reject with tcp reset",
        ),
    ];
    rules.map(|(fault, end, action)| format!("tcp {end} {} {action}", port(fault)))
}

/// What the firewall on the proxy's own host does.
fn local_reject(port: fn(Fault) -> u16) -> String {
    format!(
        "tcp dport {} reject with tcp reset",
        port(Fault::RejectedByReset)
    )
}

fn table(hook: &str, rules: &[String]) -> String {
    let rules = rules.join("; ");
    let young = "set young { type inet_service; flags dynamic,timeout; timeout 400ms; };";
    format!(
        "table inet faults {{ {young} chain broken {{ type filter hook {hook} priority 0; {rules}; }}; }}"
    )
}

/// A new namespace. A thread makes it, because a thread's is its own.
fn fresh() -> Result<File> {
    let made = thread::spawn(|| {
        // SAFETY: takes numbers only; the namespace is of this thread alone, which ends.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error()).context("no network namespace: not root?");
        }
        File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
    });
    made.join().map_err(|_| anyhow!("a thread panicked"))?
}

fn inside<T: Send>(netns: &File, what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        // SAFETY: takes numbers only; the descriptor is open. The thread ends with what runs in it.
        if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error()).context("setns");
        }
        what()
    };
    let done = thread::scope(|scope| scope.spawn(enter).join());
    done.map_err(|_| anyhow!("a thread panicked"))?
}

/// Sets `net.NAME` of the namespace where the caller is.
fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).with_context(|| format!("{path} = {value}"))
}
