//! The types of the kernels that are supported, saved and cut (`trim`): what the agent finds in each is
//! tested without running it.
//!
//! `cargo xtask save-types` makes the files, and a row of [`KERNELS`] says what has to be in each.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Once,
};

use upstream_trace_common::field::FIELDS;

use super::{btf::Btf, offsets::Offsets, reasons::Reasons, trim::Keep};

/// What is known of one kernel from its sources.
struct Kernel {
    name: &'static str,
    /// Arguments of `tcp_send_reset`, `kfree_skb`, `tcp_retransmit_skb` and `inet_sk_error_report`.
    arguments: [Option<u32>; 4],
    /// Arguments of `inet_csk_accept`.
    accept: u32,
    /// Arguments of `tcp_reset`.
    reset: u32,
    /// The names of reset reasons 0 to 16 are [`REASONS`]; `false`: it has none.
    reasons: bool,
    /// Helpers that it lacks of [`HELPERS`].
    no_helpers: &'static [&'static str],
    /// Fields that it lacks.
    missing: &'static [&'static str],
}

/// By file name.
const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        arguments: [Some(2), Some(2), Some(2), None],
        accept: 4,
        reset: 1,
        reasons: false,
        no_helpers: &HELPERS,
        missing: &[],
    },
    Kernel {
        name: "6.1",
        arguments: [Some(2), Some(3), Some(2), Some(1)],
        accept: 4,
        reset: 2,
        reasons: false,
        no_helpers: &[],
        missing: &[],
    },
    Kernel {
        name: "6.12",
        arguments: [Some(3), Some(4), Some(2), Some(1)],
        accept: 2,
        reset: 2,
        reasons: true,
        no_helpers: &[],
        missing: &[],
    },
    Kernel {
        name: "7.2",
        arguments: [Some(3), Some(4), Some(3), Some(1)],
        accept: 2,
        reset: 2,
        reasons: true,
        no_helpers: &[],
        missing: &[],
    },
];

/// Of `include/net/rstreason.h`, 6.12 to 7.2 alike, the ones before MPTCP's.
const REASONS: [&str; 17] = [
    "NOT_SPECIFIED",
    "NO_SOCKET",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_RFC7323_PAWS",
    "TCP_TOO_OLD_ACK",
    "TCP_ACK_UNSENT_DATA",
    "TCP_FLAGS",
    "TCP_OLD_ACK",
    "TCP_ABORT_ON_DATA",
    "TCP_TIMEWAIT_SOCKET",
    "INVALID_SYN",
    "TCP_ABORT_ON_CLOSE",
    "TCP_ABORT_ON_LINGER",
    "TCP_ABORT_ON_MEMORY",
    "TCP_STATE",
    "TCP_KEEPALIVE_TIMEOUT",
    "TCP_DISCONNECT_WITH_DATA",
];

/// Helpers that not every kernel has.
const HELPERS: [&str; 2] = ["BPF_FUNC_get_current_task_btf", "BPF_FUNC_sock_from_file"];

const TRACEPOINTS: [&str; 7] = [
    "tcp_send_reset",
    "kfree_skb",
    "tcp_retransmit_skb",
    "inet_sk_error_report",
    "tcp_receive_reset",
    "tcp_destroy_sock",
    "inet_sock_set_state",
];

/// Set to a directory of whole BTF files named as those here: these are replaced.
const UPDATE: &str = "UPDATE_BTF";

fn directory() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", "btf"]
        .iter()
        .collect()
}

/// All that the agent asks, and what a hook to come may ask.
fn keep() -> Keep<'static> {
    Keep {
        members: FIELDS.iter().map(|field| (field.of, field.path)).collect(),
        enums: vec!["sk_rst_reason", "skb_drop_reason", "bpf_func_id"],
        tracepoints: TRACEPOINTS.to_vec(),
        functions: vec![
            "inet_csk_accept",
            "tcp_connect",
            "tcp_init_transfer",
            "tcp_reset",
            "tcp_v4_send_reset",
            "tcp_v6_send_reset",
            "tcp_v4_err",
            "tcp_v6_err",
        ],
    }
}

/// The saved files, after they were replaced where that is asked for.
fn files() -> Vec<PathBuf> {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if let Some(whole) = env::var_os(UPDATE) {
            for path in list(Path::new(&whole)) {
                let btf = Btf::parse(fs::read(&path).unwrap()).unwrap();
                let cut = directory().join(path.file_name().unwrap());
                fs::write(cut, btf.trim(&keep())).unwrap();
            }
        }
    });
    list(&directory())
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Every saved kernel, by name and bytes.
pub(super) fn bytes() -> Vec<(String, Vec<u8>)> {
    files()
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

/// The types of the saved kernel of this name.
pub(crate) fn btf(kernel: &str) -> Btf {
    let found = bytes().into_iter().find(|(name, _)| name == kernel);
    let (_, bytes) = found.unwrap_or_else(|| panic!("{kernel}: `cargo xtask save-types` makes it"));
    Btf::parse(bytes).unwrap()
}

fn each(test: impl Fn(&Kernel, &Btf)) {
    for kernel in &KERNELS {
        test(kernel, &btf(kernel.name));
    }
}

#[test]
fn every_field_is_found_but_those_that_a_kernel_lacks() {
    each(|kernel, btf| {
        let offsets = Offsets::resolve(btf);
        let missing: Vec<_> = offsets.missing().map(|field| field.global).collect();
        assert_eq!(missing, kernel.missing, "{}", kernel.name);
        assert_eq!(offsets.missing_required().count(), 0, "{}", kernel.name);
    });
}

#[test]
fn hooks_have_the_arguments_that_their_programs_take() {
    each(|kernel, btf| {
        for (name, count) in TRACEPOINTS.into_iter().zip(kernel.arguments) {
            assert_eq!(btf.tracepoint_args(name), count, "{} {name}", kernel.name);
        }
        // Alike on all of them.
        for (name, count) in [
            ("tcp_receive_reset", 1),
            ("tcp_destroy_sock", 1),
            ("inet_sock_set_state", 3),
        ] {
            assert_eq!(
                btf.tracepoint_args(name),
                Some(count),
                "{} {name}",
                kernel.name
            );
        }
        let accept = btf.function_args("inet_csk_accept");
        assert_eq!(accept, Some(kernel.accept), "{}", kernel.name);
        let reset = btf.function_args("tcp_reset");
        assert_eq!(reset, Some(kernel.reset), "{}", kernel.name);
        for (name, count) in [
            ("tcp_connect", 1),
            ("tcp_init_transfer", 3),
            ("tcp_v4_err", 2),
            ("tcp_v6_err", 6),
        ] {
            let args = btf.function_args(name);
            assert_eq!(args, Some(count), "{} {name}", kernel.name);
        }
    });
}

#[test]
fn reset_reasons_have_their_names() {
    each(|kernel, btf| {
        let reasons = Reasons::of_resets(btf);
        assert_eq!(reasons.is_empty(), !kernel.reasons, "{}", kernel.name);
        for (value, name) in (0_u8..).zip(REASONS) {
            let expected = kernel.reasons.then_some(name);
            assert_eq!(reasons.name(value), expected, "{}", kernel.name);
        }
    });
}

#[test]
fn helpers_are_known_where_they_exist() {
    each(|kernel, btf| {
        let known = btf.enumerators("bpf_func_id").unwrap();
        let lacks: Vec<_> = HELPERS
            .into_iter()
            .filter(|helper| !known.iter().any(|(name, _)| name == helper))
            .collect();
        assert_eq!(lacks, kernel.no_helpers, "{}", kernel.name);
    });
}

/// A file that nothing is expected of would test nothing.
#[test]
fn every_saved_kernel_has_a_row() {
    let mut saved: Vec<_> = bytes().into_iter().map(|(name, _)| name).collect();
    let mut rows = KERNELS.map(|kernel| kernel.name);
    saved.sort_unstable();
    rows.sort_unstable();
    assert_eq!(saved, rows);
}
