//! What programs attach to, as aya wants it told: types that it looks up by name.
//!
//! Reading all of the kernel's types takes aya longer than the verifier takes for all programs, so it gets
//! types that are `void` but for those few, which keep their ids. Must not know: programs.

use aya::{Btf, BtfError, Endianness};
use aya_obj::btf::{BtfType, Func, FuncLinkage};
use zerocopy::IntoBytes as _;

use super::catalog::{Kind, Rung};
use crate::kernel::btf;

/// Words of `struct btf_header` and of `struct btf_type`, `include/uapi/linux/btf.h`.
const MAGIC_AND_VERSION: u32 = 0x0001_eb9f;
const HEADER_SIZE: u32 = 24;
const TYPEDEF: u32 = 8 << 24;
const FUNCTION: u32 = 12 << 24;

/// What a rung attaches to, with the id that it has in `btf`.
struct Target {
    id: u32,
    name: String,
    info: u32,
}

impl Target {
    fn of(rung: &Rung, btf: &btf::Btf) -> Option<Self> {
        let (name, info) = match rung.kind {
            Kind::Tracepoint => (format!("btf_trace_{}", rung.target), TYPEDEF),
            Kind::Fentry | Kind::Fexit => (rung.target.to_owned(), FUNCTION),
            Kind::Iterator => (format!("bpf_iter_{}", rung.target), FUNCTION),
            Kind::Kprobe | Kind::Kretprobe => return None,
        };
        let id = match info {
            TYPEDEF => btf.typedef(&name),
            _ => btf.function(&name),
        }?;
        Some(Self { id, name, info })
    }
}

/// The targets of `rungs`, as far as `btf` has them.
pub fn types<'a>(btf: &btf::Btf, rungs: impl Iterator<Item = &'a Rung>) -> Result<Btf, BtfError> {
    let mut targets: Vec<_> = rungs.filter_map(|rung| Target::of(rung, btf)).collect();
    targets.sort_unstable_by_key(|target| target.id);
    // Functions can be added one by one, which is quick; typedefs can only be parsed.
    let typedef = targets.iter().rposition(|target| target.info == TYPEDEF);
    let added = targets.split_off(typedef.map_or(0, |last| last + 1));
    let mut types = Btf::parse(&bytes(&targets), Endianness::default())?;
    let mut next = targets.last().map_or(1, |target| target.id + 1);
    for Target { id, name, .. } in added {
        while next < id {
            next = types.add_type(BtfType::Unknown) + 1;
        }
        let name = types.add_string(&name);
        let function = Func::new(name, 0, FuncLinkage::Static);
        next = types.add_type(BtfType::Func(function)) + 1;
    }
    Ok(types)
}

/// BTF of `targets`, which are in the order of their ids.
fn bytes(targets: &[Target]) -> Vec<u8> {
    let last = targets.last().map_or(0, |target| target.id);
    let mut types = vec![[0_u32; 3]; last as usize];
    let mut strings = vec![0];
    for Target { id, name, info } in targets {
        if let Some(ty) = types.get_mut(*id as usize - 1) {
            *ty = [length(&strings), *info, 0];
        }
        strings.extend(name.bytes());
        strings.push(0);
    }
    let types_size = last * 12;
    let header = [
        MAGIC_AND_VERSION,
        HEADER_SIZE,
        0,
        types_size,
        types_size,
        length(&strings),
    ];
    [header.as_bytes(), types.as_bytes(), &strings].concat()
}

/// A handful of names.
fn length(strings: &[u8]) -> u32 {
    u32::try_from(strings.len()).unwrap_or(u32::MAX)
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
        let types = types(&btf, rungs()).unwrap();
        let all = Btf::from_sys_fs().unwrap();
        let mut found = 0;
        for target in rungs().filter_map(|rung| Target::of(rung, &btf)) {
            let kind = match target.info {
                TYPEDEF => BtfKind::Typedef,
                _ => BtfKind::Func,
            };
            let id = all.id_by_type_name_kind(&target.name, kind).unwrap();
            assert_eq!(target.id, id, "{}", target.name);
            let id = types.id_by_type_name_kind(&target.name, kind).unwrap();
            assert_eq!(target.id, id, "{}", target.name);
            found += 1;
        }
        assert!(found >= 5, "{found}");
        let other = types.id_by_type_name_kind("tcp_sendmsg", BtfKind::Func);
        assert!(other.is_err(), "{other:?}");
    }

    #[test]
    fn any_order_of_ids_will_do() {
        let target = |id, name: &str, info| Target {
            id,
            name: name.to_owned(),
            info,
        };
        let targets = [target(2, "f", FUNCTION), target(5, "t", TYPEDEF)];
        let types = Btf::parse(&bytes(&targets), Endianness::default()).unwrap();
        assert_eq!(types.id_by_type_name_kind("f", BtfKind::Func).unwrap(), 2);
        let typedef = types.id_by_type_name_kind("t", BtfKind::Typedef);
        assert_eq!(typedef.unwrap(), 5);
        Btf::parse(&bytes(&[]), Endianness::default()).unwrap();
    }
}
