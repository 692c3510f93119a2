//! Numbers that look random and can be had again by their seed: xorshift64.

/// A sequence of them.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        // An odd multiplier keeps the state from being 0.
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next one, less than `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
