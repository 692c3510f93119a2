//! `struct sk_buff`: the addresses of the packet that provoked a reset.

use upstream_trace_common::event;

use super::{
    mem::{self, Copied, Memory, Struct},
    sock::Tuple,
};
use crate::maps::set;

/// Whether headers can be read at all; where not, the agent says at start what is not seen.
#[inline(always)]
pub fn is_readable() -> bool {
    set::CAN_PROBE_READ() != 0
}

/// Flags byte of the packet's TCP header; 0 where it cannot be read.
#[inline(always)]
pub fn tcp_flags<M: Memory>(skb: Struct<M>) -> u8 {
    let flags = || {
        let head: *const u8 = skb.get(&mem::SKB_HEAD)?;
        let transport = usize::from(skb.get::<u16>(&mem::SKB_TRANSPORT)?);
        // Behind ports, sequence numbers and data offset of `struct tcphdr`.
        Copied::read::<u8>(head.wrapping_add(transport + 13))
    };
    flags().unwrap_or(0)
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
    let head: *const u8 = skb.get(&mem::SKB_HEAD)?;
    let network = usize::from(skb.get::<u16>(&mem::SKB_NETWORK)?);
    let transport = usize::from(skb.get::<u16>(&mem::SKB_TRANSPORT)?);
    let ip = head.wrapping_add(network);
    let [source_port, destination_port] =
        Copied::read::<[u16; 2]>(head.wrapping_add(transport).cast())?;
    let version = Copied::read::<u8>(ip)? >> 4;
    let (family, local, remote) = match version {
        4 => {
            // `saddr` is at 12 and `daddr` at 16 of `struct iphdr`.
            let [source, destination] = Copied::read::<[u32; 2]>(ip.wrapping_add(12).cast())?;
            let words = |address| [u64::from(address), 0];
            (event::IPV4, words(destination), words(source))
        }
        6 => {
            // `saddr` is at 8 and `daddr` at 24 of `struct ipv6hdr`.
            let [source, destination] = Copied::read::<[[u64; 2]; 2]>(ip.wrapping_add(8).cast())?;
            (event::IPV6, destination, source)
        }
        _ => return None,
    };
    Some(Tuple {
        family,
        local_port: u16::from_be(destination_port),
        remote_port: u16::from_be(source_port),
        netns,
        local,
        remote,
    })
}
