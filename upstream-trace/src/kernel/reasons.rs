//! Names of the kernel's own reasons for sending a reset (`enum sk_rst_reason`, since 6.10).
//!
//! The values shifted within 6.10 to 6.12, so they are read from each kernel. Must not know: what
//! a reason means.

use super::btf::Btf;

const PREFIX: &str = "SK_RST_REASON_";

/// Reason names by value; empty where the kernel gives no reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResetReasons(Vec<Option<String>>);

impl ResetReasons {
    pub fn from_btf(btf: &Btf) -> Self {
        let mut names = Vec::new();
        for (name, value) in btf.enumerators("sk_rst_reason").unwrap_or_default() {
            // Reasons travel as one byte.
            let Ok(value) = u8::try_from(value) else {
                continue;
            };
            let value = usize::from(value);
            if names.len() <= value {
                names.resize(value + 1, None);
            }
            if let Some(slot) = names.get_mut(value) {
                *slot = Some(name.strip_prefix(PREFIX).unwrap_or(&name).to_owned());
            }
        }
        Self(names)
    }

    /// The name without `SK_RST_REASON_`.
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
        let reasons = ResetReasons::from_btf(&Btf::parse(sample.finish()).unwrap());
        assert_eq!(reasons.name(0), Some("OTHER"));
        assert_eq!(reasons.name(1), None, "a gap");
        assert_eq!(reasons.name(3), Some("B"));
        assert_eq!(reasons.name(4), None);
        assert_eq!(reasons.name(255), None);
        assert!(!reasons.is_empty());
    }

    #[test]
    fn a_kernel_without_reasons_has_no_names() {
        let reasons = ResetReasons::from_btf(&Btf::parse(Sample::default().finish()).unwrap());
        assert!(reasons.is_empty());
        assert_eq!(reasons.name(0), None);
    }

    #[test]
    fn all_or_nothing_on_the_running_kernel() {
        let reasons = ResetReasons::from_btf(&host::btf().unwrap());
        // The first two never moved.
        let expected = (!reasons.is_empty()).then_some("NO_SOCKET");
        assert_eq!(reasons.name(1), expected);
    }
}
