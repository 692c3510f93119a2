//! The kernels of the matrix: where each comes from and what is to be seen on it.
//!
//! Every difference between kernels stands here or beside a scenario, as data with its reason; what
//! plays and what judges asks no version.

use crate::scenario::feature::Feature;

/// One kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As it is asked for: `--kernels 6.12`.
    pub(super) name: &'static str,
    /// The suite of Debian's archive.
    pub(super) suite: &'static str,
    /// Beginnings of the names of the packages that hold it: the kernel, its modules, and the list of what
    /// needs no module, where those are apart.
    pub(super) packages: &'static [&'static str],
    /// Which of the features that scenarios ask for it has. What is played and what is skipped
    /// follows from it.
    pub(super) features: &'static [Feature],
    /// What the tracer says that it attached, in its order.
    pub(super) hooks: &'static [&'static str],
    /// What it says that this kernel lacks or hides.
    pub(super) limits: &'static [&'static str],
}

/// Every hook at its best.
const ALL_HOOKS: &[&str] = &[
    "tp_btf tcp_destroy_sock",
    "tp_btf tcp_send_reset",
    "tp_btf tcp_receive_reset",
    "tp_btf inet_sk_error_report",
    "tp_btf tcp_retransmit_skb",
    "fentry tcp_connect",
    "fexit inet_csk_accept",
    "iter task_file",
    "tp_btf inet_sock_set_state",
];

/// Every hook of 5.10, whose sockets report no errors to a tracepoint.
const HOOKS_BEFORE_5_14: &[&str] = &[
    "tp_btf tcp_destroy_sock",
    "tp_btf tcp_send_reset",
    "tp_btf tcp_receive_reset",
    "tp_btf tcp_retransmit_skb",
    "fentry tcp_connect",
    "fexit inet_csk_accept",
    "iter task_file",
    "tp_btf inet_sock_set_state",
];

/// Before 6.10.
const UNTRACED_RESETS: &str =
    "not seen on this host: resets sent for closed ports and from TIME_WAIT";
const NO_REASONS: &str =
    "not seen on this host: the kernel's own reasons of resets; they are derived or null";

/// Oldest first.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suite: "bullseye-security",
        packages: &["linux-image-5.10."],
        features: &[],
        hooks: HOOKS_BEFORE_5_14,
        limits: &[
            "not seen on this host: a second look at connections that failed, for where the first was missed",
            UNTRACED_RESETS,
            NO_REASONS,
            "not seen on this host: the kernel's own count of hooks that it skipped; only what follows from others tells",
        ],
    },
    Kernel {
        name: "6.1",
        suite: "bookworm-security",
        packages: &["linux-image-6.1."],
        features: &[Feature::Mptcp],
        hooks: ALL_HOOKS,
        limits: &[UNTRACED_RESETS, NO_REASONS],
    },
    Kernel {
        name: "6.12",
        suite: "bookworm-security",
        packages: &["linux-image-6.12."],
        features: &[Feature::EveryReset, Feature::Mptcp],
        hooks: ALL_HOOKS,
        limits: &[],
    },
    Kernel {
        name: "7.2",
        suite: "trixie-backports",
        packages: &["linux-binary-7.2.", "linux-modules-7.2.", "linux-base-7.2."],
        features: &[Feature::EveryReset, Feature::Mptcp],
        hooks: ALL_HOOKS,
        limits: &[],
    },
];

/// Of packages, the build without drivers for hardware: it boots in a second.
pub(super) const FLAVOUR: &str = "-cloud-amd64";

/// Modules that scenarios need, and those of a guest's disk. What they need in turn is found in them.
pub(super) const MODULES: &[&str] = &["veth", "virtio_pci", "virtio_blk"];

/// Those that a list such as `5.10,6.12` names; `all` is every one.
pub(super) fn named(list: &str) -> Result<Vec<&'static Kernel>, String> {
    if list == "all" {
        return Ok(KERNELS.iter().collect());
    }
    list.split(',')
        .map(|name| {
            let found = KERNELS.iter().find(|kernel| kernel.name == name);
            found.ok_or_else(|| {
                let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
                format!("no kernel {name:?}: there are {} and all", known.join(", "))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_kernels() {
        let names =
            |list| named(list).map(|all| all.iter().map(|one| one.name).collect::<Vec<_>>());
        assert_eq!(names("all"), Ok(vec!["5.10", "6.1", "6.12", "7.2"]));
        assert_eq!(names("7.2,5.10"), Ok(vec!["7.2", "5.10"]));
        for wrong in ["", "6", "6.1,", "5.10 6.1"] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
    }
}
