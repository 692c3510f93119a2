//! The key under which the agent tells the kernel side where connections lead.

/// An address and port as a network namespace knows them.
pub type Destination = [u64; 3];

/// The address is in network order, the port in the machine's.
#[must_use]
pub const fn destination(netns: u32, family: u8, address: [u64; 2], port: u16) -> Destination {
    let [first, second] = address;
    let place = (netns as u64) << 32 | (port as u64) << 16 | family as u64;
    [first, second, place]
}
