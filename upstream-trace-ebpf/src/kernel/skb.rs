//! `struct sk_buff`: the addresses of a packet that provoked a reset, was dropped, or is an ICMP error, and the
//! way that a reset came.

use upstream_trace_common::event::{self, Way};
pub use upstream_trace_common::tcp::flag::{ACK, RST, SYN};

use super::{
    mem::{self, Copied, Memory, Struct},
    sock::Tuple,
};

/// What `field`, one of the packet's header offsets, leads to.
#[inline(always)]
fn header<M: Memory>(skb: Struct<M>, field: &'static u32) -> Option<Struct<Copied>> {
    let head = Struct::new(skb.get(&mem::SKB_HEAD)?)?;
    Some(head.after(usize::from(skb.get::<u16>(field)?)))
}

/// Flags byte of the packet's TCP header; 0 where it cannot be read.
#[inline(always)]
pub fn tcp_flags<M: Memory>(skb: Struct<M>) -> u8 {
    let flags = || {
        // Behind ports, sequence numbers and data offset of `struct tcphdr`.
        header(skb, &mem::SKB_TRANSPORT)?.after(13).read::<u8>()
    };
    flags().unwrap_or(0)
}

/// `LOOPBACK_IFINDEX`, `include/net/flow.h`, in every namespace.
const LOOPBACK: u32 = 1;

/// Whether the packet came by loopback.
#[inline(always)]
pub fn is_loopback<M: Memory>(skb: Struct<M>) -> bool {
    skb.get::<u32>(&mem::SKB_IIF) == Some(LOOPBACK)
}

/// What the packet's IP header tells of its way here.
#[inline(always)]
pub fn way<M: Memory>(skb: Struct<M>) -> Option<Way> {
    let bytes = header(skb, &mem::SKB_NETWORK)?.read::<[u8; 12]>()?;
    match bytes[0] >> 4 {
        // `id` is at 4 and `ttl` at 8 of `struct iphdr`.
        4 => Some(Way {
            id: u16::from_be_bytes([bytes[4], bytes[5]]),
            ttl: bytes[8],
            family: event::IPV4,
        }),
        // `hop_limit` is at 7 of `struct ipv6hdr`.
        6 => Some(Way {
            id: 0,
            ttl: bytes[7],
            family: event::IPV6,
        }),
        _ => None,
    }
}

/// Sequence and acknowledgment number of the packet's TCP header.
#[inline(always)]
pub fn numbers<M: Memory>(skb: Struct<M>) -> Option<[u32; 2]> {
    // Behind the ports of `struct tcphdr`.
    let numbers = header(skb, &mem::SKB_TRANSPORT)?.after(4);
    let [seq, ack]: [u32; 2] = numbers.read()?;
    Some([u32::from_be(seq), u32::from_be(ack)])
}

/// Namespace of the device that the packet came by, while it has one: not once a socket was found for it
/// (`tcp_v4_rcv` clears `skb->dev`).
#[inline(always)]
pub fn netns<M: Memory>(skb: Struct<M>) -> u32 {
    skb.follow(&mem::SKB_DEV)
        .and_then(|dev| dev.by_way_of(&mem::DEV_NET))
        .and_then(|net| net.get(&mem::NET_INUM))
        .unwrap_or(0)
}

/// Both ends as the replying stack sees them: local is the packet's destination. The header bytes lie
/// behind an untyped pointer, so they are copied.
#[inline(always)]
pub fn reply_tuple<M: Memory>(skb: Struct<M>, netns: u32) -> Option<Tuple> {
    let ip = header(skb, &mem::SKB_NETWORK)?;
    let [source_port, destination_port] = header(skb, &mem::SKB_TRANSPORT)?.read()?;
    let family = match ip.read::<u8>()? >> 4 {
        4 => event::IPV4,
        6 => event::IPV6,
        _ => return None,
    };
    let [source, destination] = addresses(ip, family)?;
    let ports = [destination_port, source_port];
    Some(ends(family, [destination, source], ports, netns))
}

/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `struct sock_extended_err`, `include/uapi/linux/errqueue.h`: of ICMP, of `ICMPv6`.
const SO_EE_ORIGIN_ICMP: u8 = 2;
const SO_EE_ORIGIN_ICMP6: u8 = 3;

/// Type and code of an ICMP error.
pub type IcmpError = [u8; 2];

/// The source of the packet's IP header, which for an ICMP error is whoever sent it.
#[inline(always)]
pub fn source<M: Memory>(skb: Struct<M>) -> Option<[u64; 2]> {
    let ip = header(skb, &mem::SKB_NETWORK)?;
    match ip.read::<u8>()? >> 4 {
        4 => Some([u64::from(ip.after(12).read::<u32>()?), 0]),
        6 => ip.after(8).read(),
        _ => None,
    }
}

/// What an error says that is queued for a socket's owner; nothing where it is no ICMP error.
#[inline(always)]
pub fn queued_icmp<M: Memory>(skb: Struct<M>) -> Option<IcmpError> {
    let origin = skb.get_in::<u8>(&mem::SKB_CB, &mem::EXTERR_ORIGIN)?;
    if origin != SO_EE_ORIGIN_ICMP && origin != SO_EE_ORIGIN_ICMP6 {
        return None;
    }
    Some([
        skb.get_in(&mem::SKB_CB, &mem::EXTERR_TYPE)?,
        skb.get_in(&mem::SKB_CB, &mem::EXTERR_CODE)?,
    ])
}

/// Type and code of the ICMP error that the packet is.
#[inline(always)]
pub fn icmp<M: Memory>(skb: Struct<M>) -> Option<IcmpError> {
    header(skb, &mem::SKB_TRANSPORT)?.read()
}

/// Both ends of the TCP packet that an ICMP error over IPv4 quotes, as whoever sent it sees them.
#[inline(always)]
pub fn quoted_v4<M: Memory>(skb: Struct<M>) -> Option<Tuple> {
    // `struct icmphdr` has eight bytes.
    let ip = header(skb, &mem::SKB_TRANSPORT)?.after(8);
    let length = usize::from(ip.read::<u8>()? & 15) * 4;
    let addresses = addresses(ip, event::IPV4)?;
    let ports = ip.after(length).read()?;
    Some(ends(event::IPV4, addresses, ports, netns(skb)))
}

/// The same over IPv6, where the TCP header is so far behind the quoted IP header.
#[inline(always)]
pub fn quoted_v6<M: Memory>(skb: Struct<M>, distance: usize) -> Option<Tuple> {
    // `struct icmp6hdr` has eight bytes.
    let ip = header(skb, &mem::SKB_TRANSPORT)?.after(8);
    let addresses = addresses(ip, event::IPV6)?;
    let ports = ip.after(distance).read()?;
    Some(ends(event::IPV6, addresses, ports, netns(skb)))
}

/// Flags and both ends of a TCP packet, as whoever sent it sees them. By its IP header alone, because where it
/// comes in not all offsets are set yet. Over IPv6 none that has headers between.
#[inline(always)]
pub fn tcp_packet<M: Memory>(skb: Struct<M>) -> Option<(u8, Tuple)> {
    let ip = header(skb, &mem::SKB_NETWORK)?;
    let first = ip.read::<u8>()?;
    let (family, protocol, length) = match first >> 4 {
        4 => (event::IPV4, 9, usize::from(first & 15) * 4),
        6 => (event::IPV6, 6, 40),
        _ => return None,
    };
    if ip.after(protocol).read::<u8>()? != TCP {
        return None;
    }
    let tcp = ip.after(length);
    let flags = tcp.after(13).read::<u8>()?;
    let ports = tcp.read()?;
    let addresses = addresses(ip, family)?;
    // One on its way out has a socket and perhaps no device yet, one on its way in the reverse.
    let netns = match skb.follow(&mem::SKB_SK) {
        Some(sk) => sk.own_netns(),
        None => netns(skb),
    };
    Some((flags, ends(family, addresses, ports, netns)))
}

/// Source and destination of the IP header there.
#[inline(always)]
fn addresses(ip: Struct<Copied>, family: u8) -> Option<[[u64; 2]; 2]> {
    if family == event::IPV4 {
        // `saddr` is at 12 and `daddr` at 16 of `struct iphdr`.
        let [source, destination] = ip.after(12).read::<[u32; 2]>()?;
        Some([[u64::from(source), 0], [u64::from(destination), 0]])
    } else {
        // `saddr` is at 8 and `daddr` at 24 of `struct ipv6hdr`.
        ip.after(8).read()
    }
}

#[inline(always)]
fn ends(
    family: u8,
    [local, remote]: [[u64; 2]; 2],
    [local_port, remote_port]: [u16; 2],
    netns: u32,
) -> Tuple {
    Tuple {
        family,
        local_port: u16::from_be(local_port),
        remote_port: u16::from_be(remote_port),
        netns,
        local,
        remote,
    }
}
