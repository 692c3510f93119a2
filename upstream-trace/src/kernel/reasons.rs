//! Names of the kernel's own reasons for sending a reset (`enum sk_rst_reason`, since 6.10) and for dropping
//! a packet (`enum skb_drop_reason`, since 5.17).
//!
//! The values shifted from release to release, so they are read from each kernel. Must not know: what
//! a reason means.

use super::btf::Btf;

/// That of a socket's own filter (`SO_ATTACH_FILTER`, `SO_ATTACH_BPF`).
const SOCKET_FILTER: &str = "SOCKET_FILTER";
/// The reasons for which a filter drops a packet that is in order.
const FILTERS: [&str; 6] = [
    "NETFILTER_DROP",
    SOCKET_FILTER,
    "BPF_CGROUP_EGRESS",
    "TC_INGRESS",
    "TC_EGRESS",
    "IP_RPFILTER",
];

/// Those for which TCP drops a reset that it does not obey: its sequence number is not the one expected, or it came
/// for a listening socket.
const RESETS: [&str; 4] = [
    "TCP_RESET",
    "TCP_OLD_SEQUENCE",
    "TCP_INVALID_SEQUENCE",
    "TCP_INVALID_END_SEQUENCE",
];

/// That of one that ended a `TIME_WAIT` or a half-open request, and of much else.
pub const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Reason names by value; empty where the kernel gives no reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<Option<String>>);

impl Reasons {
    /// Those for sending a reset.
    pub fn of_resets(btf: &Btf) -> Self {
        Self::of(btf, "sk_rst_reason", "SK_RST_REASON_")
    }

    /// Those for dropping a packet.
    pub fn of_drops(btf: &Btf) -> Self {
        Self::of(btf, "skb_drop_reason", "SKB_DROP_REASON_")
    }

    fn of(btf: &Btf, names_of: &str, prefix: &str) -> Self {
        let mut names = Vec::new();
        for (name, value) in btf.enumerators(names_of).unwrap_or_default() {
            // Reasons travel as one byte.
            let Ok(value) = u8::try_from(value) else {
                continue;
            };
            let value = usize::from(value);
            if names.len() <= value {
                names.resize(value + 1, None);
            }
            if let Some(slot) = names.get_mut(value) {
                *slot = Some(name.strip_prefix(prefix).unwrap_or(&name).to_owned());
            }
        }
        Self(names)
    }

    /// A bit for each value below 128 that is a filter's, the low 64 first; `with_socket`: the kernel tells what the packet came for. Without
    /// that a raw socket's filter, which drops a copy, looks like that of the socket that was meant.
    pub fn filters(&self, with_socket: bool) -> [u64; 2] {
        self.bits(|name| FILTERS.contains(&name) && (with_socket || name != SOCKET_FILTER))
    }

    /// The same of those for which a reset is dropped that ended no connection; `with_socket`: the kernel tells what
    /// it came for.
    pub fn resets(&self, with_socket: bool) -> [u64; 2] {
        self.bits(|name| RESETS.contains(&name) || with_socket && name == NOT_SPECIFIED)
    }

    /// That for which a packet is dropped that no socket waited for; 0 where there is none.
    pub fn no_socket(&self) -> u32 {
        let value = (1..=u8::MAX).find(|&value| self.name(value) == Some("NO_SOCKET"));
        value.map_or(0, u32::from)
    }

    fn bits(&self, is_wanted: impl Fn(&str) -> bool) -> [u64; 2] {
        let wanted = (0..128).filter(|&value| self.name(value).is_some_and(&is_wanted));
        let mut bits = [0; 2];
        for value in wanted {
            if let Some(word) = bits.get_mut(usize::from(value / 64)) {
                *word |= 1 << (value % 64);
            }
        }
        bits
    }

    /// The name without what all have in front.
    pub fn name(&self, value: u8) -> Option<&str> {
        self.0.get(usize::from(value))?.as_deref()
    }

    /// Whether this kernel gives reasons at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{host, sample::Sample};

    #[test]
    fn names_come_from_the_kernel() {
        let mut sample = Sample::default();
        let values = [
            ("SK_RST_REASON_B", 3),
            ("OTHER", 0),
            ("SK_RST_REASON_FAR", 256),
        ];
        sample.enumeration("sk_rst_reason", false, &values);
        let reasons = Reasons::of_resets(&Btf::parse(sample.finish()).unwrap());
        assert_eq!(reasons.name(0), Some("OTHER"));
        assert_eq!(reasons.name(1), None, "a gap");
        assert_eq!(reasons.name(3), Some("B"));
        assert_eq!(reasons.name(4), None);
        assert_eq!(reasons.name(255), None);
        assert!(!reasons.is_empty());
    }

    #[test]
    fn filters_and_resets_are_told_from_other_drops() {
        let mut sample = Sample::default();
        let values = [
            ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
            ("SKB_DROP_REASON_NO_SOCKET", 3),
            ("SKB_DROP_REASON_SOCKET_FILTER", 5),
            ("SKB_DROP_REASON_TCP_RESET", 65),
            ("SKB_DROP_REASON_NETFILTER_DROP", 12),
            ("SKB_DROP_REASON_TC_INGRESS", 70),
        ];
        sample.enumeration("skb_drop_reason", false, &values);
        let reasons = Reasons::of_drops(&Btf::parse(sample.finish()).unwrap());
        assert_eq!(reasons.filters(true), [1 << 12 | 1 << 5, 1 << 6]);
        assert_eq!(reasons.filters(false), [1 << 12, 1 << 6]);
        assert_eq!(
            (reasons.no_socket(), Reasons::default().no_socket()),
            (3, 0)
        );
        assert_eq!(reasons.resets(false), [0, 1 << 1]);
        assert_eq!(reasons.resets(true), [1 << 2, 1 << 1]);
        assert_eq!(reasons.name(12), Some("NETFILTER_DROP"));
        assert_eq!(Reasons::default().filters(true), [0; 2]);
    }

    #[test]
    fn a_kernel_without_reasons_has_no_names() {
        let reasons = Reasons::of_resets(&Btf::parse(Sample::default().finish()).unwrap());
        assert!(reasons.is_empty());
        assert_eq!(reasons.name(0), None);
    }

    #[test]
    fn all_or_nothing_on_the_running_kernel() {
        let reasons = Reasons::of_resets(&host::btf().unwrap());
        // The first two never moved.
        let expected = (!reasons.is_empty()).then_some("NO_SOCKET");
        assert_eq!(reasons.name(1), expected);
    }
}
