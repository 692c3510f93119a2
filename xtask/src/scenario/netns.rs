//! Private network namespaces: made by an actor, gone with it, known to nobody else.
//!
//! Only old `ioctl`s and a few netlink messages, so that a scenario needs no `ip` or `ss` to be installed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};

use super::net::{Sock, poll, sockaddr};
use super::process::{Actor, Call};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
/// `include/uapi/linux/sock_diag.h`.
const SOCK_DESTROY: u16 = 21;
const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

const SIOCADDRT: i64 = 0x890B;
const SIOCGIFFLAGS: i64 = 0x8913;
const SIOCGIFINDEX: i64 = 0x8933;
const SIOCSIFFLAGS: i64 = 0x8914;

impl Actor {
    /// Moves to a network namespace of its own, where only loopback exists.
    pub(super) fn leave_netns(&mut self) -> Result<()> {
        let call = Call::new("unshare", libc::SYS_unshare).value(libc::CLONE_NEWNET);
        self.call(&call)?.ok()?;
        self.link_up("lo")
    }

    /// Moves to where `other` is.
    pub(super) fn join_netns(&mut self, other: &Self) -> Result<()> {
        let fd = self.open(&format!("/proc/{}/ns/net", other.pid()), libc::O_RDONLY)?;
        let call = Call::new("setns", libc::SYS_setns)
            .value(fd.0)
            .value(libc::CLONE_NEWNET);
        self.call(&call)?.ok()?;
        self.close(fd)
    }

    /// Inode number of its network namespace.
    pub(super) fn netns(&self) -> Result<u64> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let link = std::fs::read_link(&path).with_context(|| path.clone())?;
        let link = link.to_str().context("not text")?;
        let inode = link
            .strip_prefix("net:[")
            .and_then(|rest| rest.strip_suffix(']'));
        Ok(inode
            .with_context(|| format!("{path} is {link}"))?
            .parse()?)
    }

    /// Sets `net.NAME` where it is.
    pub(super) fn sysctl(&mut self, name: &str, value: &str) -> Result<()> {
        let fd = self.open(&format!("/proc/sys/net/{name}"), libc::O_WRONLY)?;
        let len = i64::try_from(value.len()).expect("small");
        let call = Call::new("write", libc::SYS_write)
            .value(fd.0)
            .bytes(value.as_bytes());
        self.call(&call.value(len))?
            .ok()
            .with_context(|| format!("net/{name} = {value}"))?;
        self.close(fd)
    }

    fn open(&mut self, path: &str, flags: i32) -> Result<Sock> {
        let call = Call::new("openat", libc::SYS_openat)
            .value(libc::AT_FDCWD)
            .text(path);
        let call = call.value(flags | libc::O_CLOEXEC).value(0);
        Ok(Sock(
            self.call(&call)?.ok().with_context(|| path.to_owned())?,
        ))
    }

    /// One `ioctl` on an interface; the structure as the kernel left it.
    fn interface(&mut self, request: i64, name: &'static str, value: &[u8]) -> Result<Box<[u8]>> {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let sock = self.socket(&any, 0)?;
        let call = Call::new(name, libc::SYS_ioctl)
            .value(sock.0)
            .value(request)
            .bytes(value);
        let (_, answer) = self.call(&call)?.full()?;
        self.close(sock)?;
        Ok(answer)
    }

    pub(super) fn link_up(&mut self, link: &str) -> Result<()> {
        let flags = u16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("small");
        self.interface(
            SIOCSIFFLAGS,
            "SIOCSIFFLAGS",
            &ifreq(link, &flags.to_ne_bytes()),
        )?;
        Ok(())
    }

    /// Waits until `link`, whose other end has come up after it, carries packets: the kernel sees
    /// to that a little later, and drops what is sent before.
    pub(super) fn wait_running(&mut self, link: &str) -> Result<()> {
        poll(&format!("{link} to run"), || {
            let answer = self.interface(SIOCGIFFLAGS, "SIOCGIFFLAGS", &ifreq(link, &[]))?;
            let flags = u16::from_ne_bytes([answer[16], answer[17]]);
            Ok(i32::from(flags) & libc::IFF_RUNNING != 0)
        })?;
        // The flag is set a moment before the queue is: this waits for the same lock.
        self.link_up(link)
    }

    /// Gives `link` this address in a /24, and takes it up.
    pub(super) fn address(&mut self, link: &str, address: Ipv4Addr) -> Result<()> {
        self.add_address(link, libc::AF_INET, 24, 0, &address.octets())?;
        self.link_up(link)
    }

    /// Gives `link` this address in a /64, which nobody else may have.
    pub(super) fn address_v6(&mut self, link: &str, address: Ipv6Addr) -> Result<()> {
        self.add_address(link, libc::AF_INET6, 64, IFA_F_NODAD, &address.octets())
    }

    /// At once with its prefix: one that is changed later goes for a moment, and masquerading forgets then, sometimes much later, what it
    /// has translated to it (`masq_inet_event`).
    fn add_address(
        &mut self,
        link: &str,
        family: i32,
        prefix: u8,
        flags: u8,
        address: &[u8],
    ) -> Result<()> {
        let answer = self.interface(SIOCGIFINDEX, "SIOCGIFINDEX", &ifreq(link, &[]))?;
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        let mut body = vec![u8::try_from(family)?, prefix, flags, 0];
        body.extend(&answer[16..20]);
        body.extend(attribute(IFA_LOCAL, address));
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        self.netlink(libc::NETLINK_ROUTE, &message(RTM_NEWADDR, flags, &body))
            .with_context(|| format!("an address on {link}"))
    }

    /// Sends everything that has no nearer route to `gateway`.
    pub(super) fn default_route(&mut self, gateway: Ipv4Addr) -> Result<()> {
        // struct rtentry: an unused word, destination, gateway, mask, flags.
        let mut entry = vec![0; 8];
        entry.extend(sockaddr((Ipv4Addr::UNSPECIFIED, 0).into()));
        entry.extend(sockaddr((gateway, 0).into()));
        entry.extend(sockaddr((Ipv4Addr::UNSPECIFIED, 0).into()));
        entry.extend(3_u16.to_ne_bytes());
        entry.resize(120, 0);
        self.interface(SIOCADDRT, "SIOCADDRT", &entry)?;
        Ok(())
    }

    /// A wire from `link` here to `its_link` where `other` is.
    pub(super) fn wire(&mut self, link: &str, other: &Self, its_link: &str) -> Result<()> {
        let mut peer = interface_header();
        peer.extend(attribute(IFLA_IFNAME, &zero_ended(its_link)));
        peer.extend(attribute(IFLA_NET_NS_PID, &other.pid().to_ne_bytes()));
        let mut info = attribute(IFLA_INFO_KIND, b"veth");
        info.extend(attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer)));
        let mut body = interface_header();
        body.extend(attribute(IFLA_IFNAME, &zero_ended(link)));
        body.extend(attribute(IFLA_LINKINFO, &info));

        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        self.netlink(libc::NETLINK_ROUTE, &message(RTM_NEWLINK, flags, &body))
            .with_context(|| format!("veth {link}"))
    }

    /// Destroys the IPv4 connection that one end sees as `local` and `remote`: `ss -K`.
    pub(super) fn destroy(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        // struct inet_diag_req_v2: family, protocol, two unused bytes, states, then the socket.
        let family = u8::try_from(libc::AF_INET)?;
        let protocol = u8::try_from(libc::IPPROTO_TCP)?;
        let mut request = vec![family, protocol, 0, 0];
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(local.port().to_be_bytes());
        request.extend(remote.port().to_be_bytes());
        for end in [local, remote] {
            // As in struct sockaddr_in, in the first of four words.
            request.extend(&sockaddr(end)[4..8]);
            request.extend([0; 12]);
        }
        // Any interface; INET_DIAG_NOCOOKIE.
        request.extend(0_u32.to_ne_bytes());
        request.extend(u64::MAX.to_ne_bytes());
        let request = message(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &request);
        self.netlink(libc::NETLINK_SOCK_DIAG, &request)
            .context("SOCK_DESTROY")
    }

    /// Asks the kernel for something and waits for its answer.
    pub(super) fn netlink(&mut self, protocol: i32, request: &[u8]) -> Result<()> {
        let call = Call::new("socket", libc::SYS_socket).value(libc::AF_NETLINK);
        let call = call.value(libc::SOCK_RAW | libc::SOCK_CLOEXEC);
        let sock = Sock(self.call(&call.value(protocol))?.ok()?);
        self.send(sock, request)?;
        let call = Call::new("recvfrom", libc::SYS_recvfrom)
            .value(sock.0)
            .space(256)
            .value(256);
        let (_, answer) = self.call(&call.value(0).value(0).value(0))?.full()?;
        self.close(sock)?;
        // struct nlmsgerr follows the 16 bytes of header.
        match i32::from_ne_bytes(answer[16..20].try_into()?) {
            0 => Ok(()),
            error => bail!("netlink: {}", std::io::Error::from_raw_os_error(-error)),
        }
    }
}

/// struct nlmsghdr and what follows it.
pub(super) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).expect("small");
    let mut message = Vec::new();
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

pub(super) fn zero_ended(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// struct ifinfomsg, nothing asked for.
fn interface_header() -> Vec<u8> {
    vec![0; 16]
}

/// struct nlattr and its padding.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("small");
    let mut bytes = Vec::new();
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// struct ifreq.
fn ifreq(link: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes.extend(value);
    bytes.resize(40, 0);
    bytes
}
