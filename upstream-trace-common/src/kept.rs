//! Resets of connections that were not asked for, which the kernel side keeps: one that was asked for may have received one, its other
//! end hidden from it by another port or address.

use core::hint::black_box;

use zerocopy::{FromBytes, Immutable, KnownLayout, transmute_ref};

use crate::event::Full;

/// One of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct KeptReset {
    /// Where no socket sent it, `stats` has the numbers of the one that the packet was meant for.
    pub full: Full,
    /// Of the words of `full`; another while it is written.
    pub sum: u64,
    /// How many write it or are about to.
    pub claims: u64,
}

impl KeptReset {
    #[inline]
    fn sum(full: &Full) -> u64 {
        // From memory: what was written there may be a pointer, with which the verifier allows no arithmetic.
        let words: &[u64; size_of::<Full>() / 8] = transmute_ref!(black_box(full));
        words
            .iter()
            .fold(0_u64, |sum, word| sum.rotate_left(1) ^ word)
    }

    /// It is whole now.
    #[inline]
    pub fn seal(&mut self) {
        self.sum = Self::sum(&self.full);
    }

    /// The reset, unless there is none yet or it is being written.
    pub fn whole(&self) -> Option<&Full> {
        let is_whole = self.full.base.ktime != 0 && self.sum == Self::sum(&self.full);
        is_whole.then_some(&self.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_reset_is_whole_once_it_is_sealed_and_none_of_it_changed() {
        let mut kept = KeptReset::default();
        assert_eq!(kept.whole(), None, "there is none");
        kept.full.base.ktime = 5;
        kept.full.stats.rcv_nxt = 7;
        assert_eq!(kept.whole(), None);
        kept.seal();
        assert_eq!(kept.whole(), Some(&kept.full));
        kept.full.actor.tgid = 9;
        assert_eq!(kept.whole(), None);
    }
}
