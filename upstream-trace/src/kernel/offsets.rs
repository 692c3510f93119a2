//! Finds where the running kernel keeps each field of the shared list.
//!
//! Must not know: where the BTF comes from, what a missing field leads to.

use upstream_trace_common::field::{ABSENT, FIELDS, Field};

use super::btf::Btf;

/// A byte offset for each of [`FIELDS`], or [`ABSENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets([u32; FIELDS.len()]);

impl Offsets {
    pub fn resolve(btf: &Btf) -> Self {
        let mut offsets = [ABSENT; FIELDS.len()];
        for (offset, field) in offsets.iter_mut().zip(FIELDS) {
            // A member that changed its size changed its meaning, or would be read in part.
            if let Some(member) = btf.member(field.of, field.path)
                && member.size == field.size
            {
                *offset = member.offset;
            }
        }
        Self(offsets)
    }

    /// All fields in the order of [`FIELDS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static Field, &u32)> {
        FIELDS.iter().zip(&self.0)
    }

    /// Fields that this kernel does not have, also not with another size that the list names, and should.
    pub fn missing(&self) -> impl Iterator<Item = &'static Field> {
        let found = |wanted: &Field| {
            let mut same = self.iter().filter(|(field, _)| {
                let member = (field.of, field.path);
                member == (wanted.of, wanted.path)
            });
            same.any(|(_, &offset)| offset != ABSENT)
        };
        let fields = self.iter().map(|(field, _)| field);
        fields.filter(move |field| !found(field) && field.loss != Some(""))
    }

    /// Missing fields without which nothing can be traced.
    pub fn missing_required(&self) -> impl Iterator<Item = &'static Field> {
        self.missing().filter(|field| field.loss.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use btf_rs::{BtfType, Type};

    use super::*;
    use crate::kernel::{btf_format::Kind, host, sample::Sample, saved};

    /// Every field of the running kernel, found independently.
    #[test]
    fn agrees_with_btf_rs_on_the_running_kernel() {
        let theirs = btf_rs::Btf::from_file("/sys/kernel/btf/vmlinux").unwrap();
        agree("running", &host::btf().unwrap(), &theirs);
    }

    /// The same for the kernels that are saved.
    #[test]
    fn agrees_with_btf_rs_on_saved_kernels() {
        for (name, bytes) in saved::bytes() {
            let theirs = btf_rs::Btf::from_bytes(&bytes).unwrap();
            agree(&name, &Btf::parse(bytes).unwrap(), &theirs);
        }
    }

    fn agree(kernel: &str, ours: &Btf, theirs: &btf_rs::Btf) {
        let offsets = Offsets::resolve(ours);
        for (field, &offset) in offsets.iter() {
            let expected = oracle(theirs, field.of, field.path)
                .filter(|&(_, size)| size == field.size)
                .map_or(ABSENT, |(offset, _)| offset);
            assert_eq!(
                offset, expected,
                "{kernel} {} {}.{}",
                field.global, field.of, field.path
            );
        }
        assert_eq!(offsets.missing_required().next(), None, "{kernel}");
    }

    /// Every member of the structs that are read, so that the next field is right as well.
    #[test]
    fn agrees_with_btf_rs_on_whole_structs() {
        let ours = host::btf().unwrap();
        let theirs = btf_rs::Btf::from_file("/sys/kernel/btf/vmlinux").unwrap();
        let mut compared = 0;
        for of in FIELDS.iter().map(|field| field.of).collect::<BTreeSet<_>>() {
            let Some(Type::Struct(outer)) = first_struct(&theirs, of) else {
                panic!("no struct {of}");
            };
            let mut members = BTreeMap::new();
            flatten(&theirs, &outer, 0, &mut members);
            for (name, expected) in members {
                let found = ours
                    .member(of, &name)
                    .map(|member| (member.offset, member.size));
                assert_eq!(found, expected, "{of}.{name}");
                compared += 1;
            }
        }
        assert!(compared > 500, "{compared}");
    }

    fn first_struct(btf: &btf_rs::Btf, name: &str) -> Option<Type> {
        let types = btf.resolve_types_by_name(name).ok()?;
        types.into_iter().find(|ty| matches!(ty, Type::Struct(_)))
    }

    fn oracle(btf: &btf_rs::Btf, of: &str, path: &str) -> Option<(u32, u32)> {
        let mut ty = first_struct(btf, of)?;
        let mut base = 0;
        let mut size = 0;
        for name in path.split('.') {
            let (Type::Struct(outer) | Type::Union(outer)) = ty else {
                return None;
            };
            let (member, bits) = seek(btf, &outer, name)?;
            base += bits / 8;
            ty = plain(btf, &member);
            size = width(btf, &ty);
        }
        Some((base, size))
    }

    fn seek(
        btf: &btf_rs::Btf,
        outer: &btf_rs::Struct,
        name: &str,
    ) -> Option<(btf_rs::Member, u32)> {
        outer.members.iter().find_map(|member| {
            let label = btf.resolve_name(member).unwrap();
            if label == name {
                return Some((member.clone(), member.bit_offset()));
            }
            match plain(btf, member) {
                Type::Struct(inner) | Type::Union(inner) if label.is_empty() => {
                    seek(btf, &inner, name).map(|(found, bits)| (found, bits + member.bit_offset()))
                }
                _ => None,
            }
        })
    }

    /// Named members, also those in anonymous ones, with offset and size; `None` for bitfields.
    fn flatten(
        btf: &btf_rs::Btf,
        outer: &btf_rs::Struct,
        base: u32,
        members: &mut BTreeMap<String, Option<(u32, u32)>>,
    ) {
        for member in &outer.members {
            let ty = plain(btf, member);
            let bits = base + member.bit_offset();
            match btf.resolve_name(member).unwrap() {
                name if name.is_empty() => {
                    if let Type::Struct(inner) | Type::Union(inner) = ty {
                        flatten(btf, &inner, bits, members);
                    }
                }
                name => {
                    let bitfield = member.bitfield_size().is_some_and(|width| width != 0);
                    members.insert(name, (!bitfield).then(|| (bits / 8, width(btf, &ty))));
                }
            }
        }
    }

    fn plain(btf: &btf_rs::Btf, of: &dyn BtfType) -> Type {
        let mut ty = btf.resolve_chained_type(of).unwrap();
        while let Type::Typedef(_)
        | Type::Const(_)
        | Type::Volatile(_)
        | Type::Restrict(_)
        | Type::TypeTag(_) = ty
        {
            ty = btf.resolve_chained_type(ty.as_btf_type().unwrap()).unwrap();
        }
        ty
    }

    fn width(btf: &btf_rs::Btf, ty: &Type) -> u32 {
        let size = match ty {
            Type::Int(ty) => ty.size(),
            Type::Float(ty) => ty.size(),
            Type::Enum(ty) => ty.size(),
            Type::Enum64(ty) => ty.size(),
            Type::Struct(ty) | Type::Union(ty) => ty.size(),
            Type::Ptr(_) => 8,
            Type::Array(array) => array.len() * width(btf, &plain(btf, array)) as usize,
            other => panic!("{} has no size", other.name()),
        };
        u32::try_from(size).unwrap()
    }

    fn offset(offsets: &Offsets, global: &str) -> u32 {
        *offsets
            .iter()
            .find(|(field, _)| field.global == global)
            .unwrap()
            .1
    }

    /// The shapes that `struct sock` had in 5.10, where a cgroup is but a number in a union.
    #[test]
    fn absent_is_what_the_kernel_lacks() {
        let mut sample = Sample::default();
        let u8 = sample.int("u8", 1);
        let u16 = sample.int("u16", 2);
        let u32 = sample.int("u32", 4);
        let u64 = sample.int("u64", 8);
        let pointer = sample.link(Kind::Pointer, "", 0);
        let parts = sample.aggregate(
            Kind::Struct,
            "",
            8,
            &[
                ("is_data", u8, 0),
                ("prioidx", u16, 16),
                ("classid", u32, 32),
            ],
        );
        let union = sample.aggregate(Kind::Union, "", 8, &[("", parts, 0), ("val", u64, 0)]);
        let cgroup = sample.aggregate(Kind::Struct, "sock_cgroup_data", 8, &[("", union, 0)]);
        let kuid = sample.aggregate(Kind::Struct, "", 4, &[("val", u32, 0)]);
        let kuid = sample.link(Kind::Typedef, "kuid_t", kuid);
        let net = sample.aggregate(Kind::Struct, "", 8, &[("net", pointer, 0)]);
        let net = sample.link(Kind::Typedef, "possible_net_t", net);
        let addresses = sample.aggregate(
            Kind::Struct,
            "",
            8,
            &[("skc_daddr", u32, 0), ("skc_rcv_saddr", u32, 32)],
        );
        let address = sample.aggregate(Kind::Union, "", 8, &[("pair", u64, 0), ("", addresses, 0)]);
        let common = sample.aggregate(
            Kind::Struct,
            "sock_common",
            16,
            &[("", address, 0), ("skc_net", net, 64)],
        );
        sample.aggregate(
            Kind::Struct,
            "sock",
            40,
            &[
                ("__sk_common", common, 0),
                ("sk_cgrp_data", cgroup, 128),
                ("sk_err", kuid, 192),
                ("sk_protocol", u8, 224),
            ],
        );
        let offsets = Offsets::resolve(&Btf::parse(sample.finish()).unwrap());
        assert_eq!(offset(&offsets, "SK_DADDR"), 0, "0 is an offset");
        assert_eq!(offset(&offsets, "SK_RCV_SADDR"), 4);
        assert_eq!(offset(&offsets, "SK_NET"), 8);
        assert_eq!(offset(&offsets, "SK_ERR"), 24, "a struct around a number");
        assert_eq!(offset(&offsets, "SK_SOCKET"), ABSENT);
        assert_eq!(offset(&offsets, "SK_PROTOCOL"), ABSENT, "of another size");
        let missing: Vec<_> = offsets.missing().map(|field| field.global).collect();
        assert!(missing.contains(&"SK_SOCKET") && missing.contains(&"SK_PROTOCOL"));
        assert_eq!(missing.len(), missed_everywhere() - 4);
        let required: Vec<_> = offsets
            .missing_required()
            .map(|field| field.global)
            .collect();
        assert!(required.contains(&"SK_PROTOCOL") && !required.contains(&"SK_SOCKET"));
    }

    /// How many fields a kernel should have.
    fn missed_everywhere() -> usize {
        let wanted = FIELDS.iter().filter(|field| field.loss != Some(""));
        wanted.count()
    }

    #[test]
    fn one_of_two_sizes_will_do() {
        let mut sample = Sample::default();
        let int = sample.int("int", 4);
        let ports = sample.aggregate(Kind::Struct, "local_ports", 8, &[("range", int, 0)]);
        let v4 = sample.aggregate(
            Kind::Struct,
            "netns_ipv4",
            8,
            &[("ip_local_ports", ports, 0)],
        );
        sample.aggregate(Kind::Struct, "net", 8, &[("ipv4", v4, 0)]);
        let offsets = Offsets::resolve(&Btf::parse(sample.finish()).unwrap());
        assert_eq!(offset(&offsets, "NET_PORT_RANGE"), 0);
        assert_eq!(offset(&offsets, "NET_PORT_RANGE_ENDS"), ABSENT);
        let missing = |global| offsets.missing().any(|field| field.global == global);
        assert!(!missing("NET_PORT_RANGE_ENDS") && !missing("INET_PORT_RANGE"));
        assert!(missing("INET_SPORT"));
    }

    #[test]
    fn without_types_all_is_missing() {
        let offsets = Offsets::resolve(&Btf::parse(Sample::default().finish()).unwrap());
        assert_eq!(offsets.missing().count(), missed_everywhere());
    }
}
