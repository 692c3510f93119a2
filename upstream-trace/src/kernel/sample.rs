//! BTF made by hand, for tests.

use super::{
    btf_format::{Kind, Type},
    trim::Writer,
};

/// A [`Writer`] that takes names. Each method tells the id of the type it added.
#[derive(Default)]
pub(crate) struct Sample(Writer);

impl Sample {
    pub(super) fn raw(
        &mut self,
        kind: Kind,
        name: &str,
        flag: bool,
        count: usize,
        size_or_id: u32,
        words: &[u32],
    ) -> u32 {
        let name = self.0.string(name.as_bytes());
        let count = u32::try_from(count).unwrap();
        self.0.add(
            &Type {
                kind,
                name,
                flag,
                count,
                size_or_id,
                tail: &[],
            },
            words,
        )
    }

    pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.raw(Kind::Int, name, false, 0, size, &[size * 8])
    }

    /// A type that only refers to another.
    pub(super) fn link(&mut self, kind: Kind, name: &str, id: u32) -> u32 {
        self.raw(kind, name, false, 0, id, &[])
    }

    pub(super) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.raw(Kind::Array, "", false, 0, 0, &[of, of, count])
    }

    /// Members are name, type and bit offset.
    pub(super) fn aggregate(
        &mut self,
        kind: Kind,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let words = self.rows(members);
        self.raw(kind, name, false, members.len(), size, &words)
    }

    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.aggregate(Kind::Struct, name, size, members)
    }

    /// A struct whose members carry bitfield sizes in their upper byte.
    pub(super) fn flagged(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let words = self.rows(members);
        self.raw(Kind::Struct, name, true, members.len(), size, &words)
    }

    pub(crate) fn enumeration(&mut self, name: &str, signed: bool, values: &[(&str, u32)]) -> u32 {
        let words = self.pairs(values);
        self.raw(Kind::Enum, name, signed, values.len(), 4, &words)
    }

    /// Arguments are name and type.
    pub(super) fn prototype(&mut self, arguments: &[(&str, u32)]) -> u32 {
        let words = self.pairs(arguments);
        self.raw(Kind::FunctionProto, "", false, arguments.len(), 0, &words)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }

    fn rows(&mut self, rows: &[(&str, u32, u32)]) -> Vec<u32> {
        rows.iter()
            .flat_map(|&(name, a, b)| [self.0.string(name.as_bytes()), a, b])
            .collect()
    }

    fn pairs(&mut self, pairs: &[(&str, u32)]) -> Vec<u32> {
        pairs
            .iter()
            .flat_map(|&(name, a)| [self.0.string(name.as_bytes()), a])
            .collect()
    }
}

/// One of each kind, `struct last` behind them all.
pub(super) fn every_kind() -> Vec<u8> {
    let mut s = Sample::default();
    let int = s.int("u32", 4);
    let members = [("near", int, 0), ("far", int, 32)];
    let inner = s.aggregate(Kind::Struct, "inner", 8, &members);
    let named = s.link(Kind::Typedef, "inner_t", inner);
    let constant = s.link(Kind::Const, "", named);
    let volatile = s.link(Kind::Volatile, "", int);
    let tagged = s.link(Kind::TypeTag, "tag", volatile);
    let union = s.aggregate(
        Kind::Union,
        "",
        4,
        &[("anonymous", tagged, 0), ("twin", int, 0)],
    );
    let hidden = s.aggregate(Kind::Struct, "", 8, &[("gap", int, 0), ("", union, 32)]);
    let forward = s.link(Kind::Forward, "elsewhere", 0);
    let pointer = s.link(Kind::Pointer, "", forward);
    let restrict = s.link(Kind::Restrict, "", pointer);
    let row = s.array(int, 3);
    let array = s.array(row, 2);
    let colour = s.enumeration("colour", false, &[("RED", 0), ("LAST", u32::MAX)]);
    s.enumeration("signed", true, &[("MINUS", u32::MAX)]);
    let huge = s.0.string(b"HUGE");
    s.raw(Kind::Enum64, "wide", false, 1, 8, &[huge, 2, 1 << 8]);
    let other = s.aggregate(Kind::Struct, "other", 4, &[("hidden", int, 0)]);
    s.flagged(
        "outer",
        72,
        &[
            ("first", int, 0),
            ("inner", constant, 64),
            ("", hidden, 128),
            ("pointer", restrict, 192),
            ("array", array, 256),
            ("colour", colour, 448),
            ("other", other, 480),
        ],
    );
    let prototype = s.prototype(&[("__data", pointer), ("a", int), ("b", int)]);
    let target = s.link(Kind::Pointer, "", prototype);
    s.link(Kind::Typedef, "btf_trace_something", target);
    let function = s.link(Kind::Function, "function", prototype);
    s.raw(Kind::DeclTag, "tag", false, 0, function, &[u32::MAX]);
    let variable = s.raw(Kind::Variable, "variable", false, 0, int, &[1]);
    s.raw(Kind::DataSection, ".data", false, 1, 4, &[variable, 0, 4]);
    s.link(Kind::Float, "double", 8);
    s.aggregate(Kind::Struct, "last", 4, &[("value", int, 0)]);
    s.finish()
}
