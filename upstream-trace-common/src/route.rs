//! The key under which the agent tells the kernel side where an address leads.

/// An address as a network namespace knows it.
pub type Destination = [u64; 3];

/// The address is in network order.
#[must_use]
pub const fn destination(netns: u32, family: u8, address: [u64; 2]) -> Destination {
    let [first, second] = address;
    [first, second, (netns as u64) << 32 | family as u64]
}
