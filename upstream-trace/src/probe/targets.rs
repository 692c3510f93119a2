//! What programs attach to, as aya wants it told: types that it looks up by name.
//!
//! Reading all of the kernel's types takes aya longer than the verifier takes for all programs, so it gets
//! types that are `void` but for those few, which keep their ids. Must not know: programs.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::Btf;
use aya_obj::btf::{BtfType, Func, FuncLinkage, Typedef};

use super::catalog::{Kind, Rung};
use crate::kernel::btf;

/// Kind of a `struct btf_type` in its `info`, `include/uapi/linux/btf.h`.
const TYPEDEF: u32 = 8 << 24;

/// What a rung attaches to, with the id that it has in the kernel's types.
#[derive(Debug)]
struct Target {
    id: u32,
    name: String,
    /// A typedef; else a function.
    is_typedef: bool,
}

impl Target {
    fn of(rung: &Rung, btf: &btf::Btf) -> Option<Self> {
        let (name, is_typedef) = match rung.kind {
            Kind::Tracepoint => (format!("btf_trace_{}", rung.target), true),
            Kind::Fentry | Kind::Fexit => (rung.target.to_owned(), false),
            Kind::Iterator => (format!("bpf_iter_{}", rung.target), false),
            Kind::Kprobe | Kind::Kretprobe => return None,
        };
        let id = if is_typedef {
            btf.typedef(&name)
        } else {
            btf.function(&name)
        }?;
        Some(Self {
            id,
            name,
            is_typedef,
        })
    }
}

/// The targets of some rungs, as far as the kernel has them. The types up to the last of them take megabytes, and are kept
/// only as long as programs are loaded.
#[derive(Debug)]
pub struct Targets {
    /// In the order of their ids.
    targets: Vec<Target>,
    types: Mutex<Option<Arc<Btf>>>,
}

impl Targets {
    /// Looks them up in `btf`.
    pub fn new<'a>(btf: &btf::Btf, rungs: impl Iterator<Item = &'a Rung>) -> Self {
        let mut targets: Vec<_> = rungs.filter_map(|rung| Target::of(rung, btf)).collect();
        targets.sort_unstable_by_key(|target| target.id);
        Self {
            targets,
            types: Mutex::new(None),
        }
    }

    /// The types among which each rung has its target, made if they are not there: to ask early saves waiting for them.
    pub fn types(&self) -> Arc<Btf> {
        let mut made = self.made();
        Arc::clone(made.get_or_insert_with(|| Arc::new(types(&self.targets))))
    }

    /// Gives their memory back. They are made anew for whoever asks all the same.
    pub fn forget_types(&self) {
        let types = self.made().take();
        drop(types);
    }

    fn made(&self) -> MutexGuard<'_, Option<Arc<Btf>>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Types that are `void` but for `targets`, which are in the order of their ids. Added one by one: to have
/// them parsed takes aya several times as long.
fn types(targets: &[Target]) -> Btf {
    let mut types = Btf::new();
    let mut next = 1;
    for target in targets {
        while next < target.id {
            next = types.add_type(BtfType::Unknown) + 1;
        }
        let name = types.add_string(&target.name);
        let ty = if target.is_typedef {
            BtfType::Typedef(typedef(name))
        } else {
            BtfType::Func(Func::new(name, 0, FuncLinkage::Static))
        };
        next = types.add_type(ty) + 1;
    }
    types
}

/// A typedef of `void`, for which aya has no constructor.
fn typedef(name: u32) -> Typedef {
    // SAFETY: three integers in C's order, name, `info` and type, for which any bits are valid. Only this
    // version of aya-obj is built with.
    unsafe { mem::transmute([name, TYPEDEF, 0]) }
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use super::*;
    use crate::{kernel::host, probe::catalog::CATALOG};

    /// In the running kernel, as aya finds them in all of its types.
    #[test]
    fn targets_keep_their_ids() {
        let btf = host::btf().unwrap();
        let rungs = || CATALOG.iter().flat_map(|entry| entry.rungs);
        let targets = Targets::new(&btf, rungs());
        let all = Btf::from_sys_fs().unwrap();
        let mut found = [0; 2];
        for rung in rungs() {
            let Some(target) = Target::of(rung, &btf) else {
                continue;
            };
            let kind = if target.is_typedef {
                BtfKind::Typedef
            } else {
                BtfKind::Func
            };
            let id = all.id_by_type_name_kind(&target.name, kind).unwrap();
            assert_eq!(target.id, id, "{}", target.name);
            let types = targets.types();
            let id = types.id_by_type_name_kind(&target.name, kind).unwrap();
            assert_eq!(target.id, id, "{}", target.name);
            found[usize::from(target.is_typedef)] += 1;
        }
        assert!(found.iter().all(|&found| found >= 5), "{found:?}");
        let types = targets.types();
        let other = types.id_by_type_name_kind("tcp_sendmsg", BtfKind::Func);
        assert!(other.is_err(), "{other:?}");
    }

    #[test]
    fn types_between_targets_are_void() {
        let target = |id, name: &str, is_typedef| Target {
            id,
            name: name.to_owned(),
            is_typedef,
        };
        let types = types(&[
            target(1, "f", false),
            target(2, "s", true),
            target(5, "t", true),
            target(7, "g", false),
        ]);
        let id = |name, kind| types.id_by_type_name_kind(name, kind).ok();
        for (name, expected) in [("f", 1), ("g", 7)] {
            assert_eq!(id(name, BtfKind::Func), Some(expected));
            assert_eq!(id(name, BtfKind::Typedef), None);
        }
        for (name, expected) in [("s", 2), ("t", 5)] {
            assert_eq!(id(name, BtfKind::Typedef), Some(expected));
            assert_eq!(id(name, BtfKind::Func), None);
        }
    }
}
