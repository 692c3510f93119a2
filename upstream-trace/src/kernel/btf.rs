//! Reads the kernel's type information (BTF): bytes in, answers out.
//!
//! One pass checks the whole type section, so that lookups need not, and hashes the names of the kinds of types
//! that are asked for. Names and types stay where they are in the bytes.
//! Answers are `Option`s: a kernel that lacks something is normal, only BTF that cannot be walked
//! is an error.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>. Must not know: where the bytes come from, which
//! types the tracer needs.

use std::{
    fmt, iter, mem,
    ops::{Deref, Range},
};

use zerocopy::little_endian::U32;

use super::{
    btf_format::{Header, Kind, MAGIC, Type, VERSION},
    mapping::Mapping,
};

/// Bytes per type in a kernel's BTF are about 25; a guess too low only wastes some memory.
const TYPICAL_TYPE_SIZE: usize = 24;

/// BTF does not tell; this project builds for 64-bit machines only.
const POINTER_SIZE: u32 = 8;

/// Links followed from one type to the next; the kernel's own `MAX_RESOLVE_DEPTH`.
const MAX_CHAIN: usize = 32;

/// Anonymous members looked into for one name. Kernel structs have some dozens at most; one that
/// holds itself, as only malformed BTF can say, would have no end.
const MAX_ANONYMOUS: usize = 1024;

/// Why bytes are not usable BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    #[error("BTF is cut short in its {0}")]
    Truncated(&'static str),
    #[error("not BTF: it starts with {0:#06x} instead of {MAGIC:#06x}")]
    Magic(u16),
    #[error("BTF of a big-endian machine, which is not supported")]
    ByteOrder,
    #[error("BTF version {0} is not supported, only {VERSION}")]
    Version(u8),
    #[error("BTF has types beyond its first 4 GiB")]
    TooLarge,
    #[error("BTF type {id} is of unknown kind {kind}")]
    Kind { id: u32, kind: u8 },
    #[error("BTF type {id} runs past the type section")]
    Type { id: u32 },
    #[error("BTF type {id} has its name outside the string section")]
    Name { id: u32 },
}

/// Where a struct member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost struct.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
}

/// Bytes of BTF, wherever they are.
#[derive(Debug)]
pub enum Bytes {
    Read(Vec<u8>),
    Mapped(Mapping),
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Read(bytes)
    }
}

impl From<Mapping> for Bytes {
    fn from(bytes: Mapping) -> Self {
        Self::Mapped(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

/// A kernel's types.
pub struct Btf {
    bytes: Bytes,
    strings: Range<usize>,
    /// Slot of type 1 first: type 0 is `void` and is not written down.
    slots: Vec<Slot>,
    /// First type per hash of its name; the power-of-two length is the mask.
    buckets: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Slot {
    at: u32,
    /// Next type in the same bucket, always a higher id; 0 ends the list. Before that is known, the hash of the
    /// type's name, or [`UNNAMED`].
    next: u32,
}

/// No hash of a name.
const UNNAMED: u32 = 0;

impl Btf {
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, BtfError> {
        let bytes = bytes.into();
        let (types, strings) = Header::sections(&bytes)?;
        let names = bytes.get(strings.clone()).unwrap_or_default();
        let mut slots = Vec::with_capacity(types.len() / TYPICAL_TYPE_SIZE);
        let mut rest = bytes.get(types.clone()).unwrap_or_default();
        let mut id = 0;
        while !rest.is_empty() {
            id += 1;
            let at = u32::try_from(types.end - rest.len()).map_err(|_| BtfError::TooLarge)?;
            let ty;
            (ty, rest) = Type::read(id, rest)?;
            let next = if ty.name == 0 || !ty.kind.is_looked_up() {
                UNNAMED
            } else {
                let name = names.get(ty.name as usize..);
                hash(name.ok_or(BtfError::Name { id })?)
            };
            slots.push(Slot { at, next });
        }

        let buckets = index(&mut slots);
        Ok(Self {
            bytes,
            strings,
            slots,
            buckets,
        })
    }

    /// All of it, as it was parsed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Finds the member at the dotted `path` in `struct of` or `union of`.
    ///
    /// Anonymous structs and unions on the way are not named. Members that do not start or end on
    /// a byte are not found, nor those behind a pointer. Where several structs have the name, the
    /// first with such a path counts.
    pub fn member(&self, of: &str, path: &str) -> Option<Member> {
        self.aggregates(of).find_map(|id| {
            let (offset, id) = path.split('.').try_fold((0_u32, id), |(base, id), name| {
                let (offset, id) = self.step(id, name)?;
                Some((base.checked_add(offset)?, id))
            })?;
            Some(Member {
                offset,
                size: self.size(id)?,
            })
        })
    }

    /// Names and values of `enum name`, in the order of their declaration. Negative values are
    /// sign-extended.
    pub fn enumerators(&self, name: &str) -> Option<Vec<(String, u64)>> {
        let ty = self.named(name).find_map(|id| {
            self.ty(id)
                .filter(|ty| matches!(ty.kind, Kind::Enum | Kind::Enum64))
        })?;
        let text = |at: U32| Some(String::from_utf8_lossy(self.text(at.get())?).into_owned());
        if ty.kind == Kind::Enum64 {
            let value = |low: U32, high: U32| u64::from(high.get()) << 32 | u64::from(low.get());
            let rows = ty.rows().iter();
            return rows
                .map(|&[name, low, high]| Some((text(name)?, value(low, high))))
                .collect();
        }
        let value = |raw: u32| {
            if ty.flag {
                i64::from(raw.cast_signed()).cast_unsigned()
            } else {
                u64::from(raw)
            }
        };
        let rows = ty.rows().iter();
        rows.map(|&[name, raw]| Some((text(name)?, value(raw.get()))))
            .collect()
    }

    /// Number of arguments that the raw tracepoint `name` hands to a program.
    pub fn tracepoint_args(&self, name: &str) -> Option<u32> {
        let typedef = format!("btf_trace_{name}");
        self.named(&typedef).find_map(|id| {
            let pointer = self.target(id, Kind::Typedef)?;
            let arguments = self.arguments(self.target(pointer, Kind::Pointer)?)?;
            // The first one is the probe's own `void *__data`.
            arguments.checked_sub(1)
        })
    }

    /// Number of arguments of the kernel function `name`.
    pub fn function_args(&self, name: &str) -> Option<u32> {
        self.named(name)
            .find_map(|id| self.arguments(self.target(id, Kind::Function)?))
    }

    /// The typedef called `name`.
    pub fn typedef(&self, name: &str) -> Option<u32> {
        self.of_kind(name, Kind::Typedef)
    }

    /// The function called `name`.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.of_kind(name, Kind::Function)
    }

    fn of_kind(&self, name: &str, kind: Kind) -> Option<u32> {
        self.named(name)
            .find(|&id| self.ty(id).is_some_and(|ty| ty.kind == kind))
    }

    fn arguments(&self, id: u32) -> Option<u32> {
        self.ty(id)
            .filter(|ty| ty.kind == Kind::FunctionProto)
            .map(|ty| ty.count)
    }

    /// The type that type `id` refers to, if it is of `kind`.
    fn target(&self, id: u32, kind: Kind) -> Option<u32> {
        self.ty(id)
            .filter(|ty| ty.kind == kind)
            .map(|ty| ty.size_or_id)
    }

    /// Finds `name` in struct or union `id`: its byte offset and type.
    pub(super) fn step(&self, id: u32, name: &str) -> Option<(u32, u32)> {
        let mut pending = vec![(0_u32, id)];
        let mut budget = MAX_ANONYMOUS;
        while let Some((base, id)) = pending.pop() {
            let Some((_, outer)) = self.aggregate(id) else {
                continue;
            };
            for &[label, id, position] in outer.rows() {
                let offset = || base.checked_add(outer.byte_offset(position.get())?);
                if label == 0 {
                    budget = budget.checked_sub(1)?;
                    pending.extend(offset().map(|offset| (offset, id.get())));
                } else if self.is_named(label.get(), name) {
                    return Some((offset()?, id.get()));
                }
            }
        }
        None
    }

    fn size(&self, mut id: u32) -> Option<u32> {
        let mut elements = 1_u32;
        for _ in 0..MAX_CHAIN {
            let (_, ty) = self.resolve(id)?;
            let size = match ty.kind {
                Kind::Array => {
                    let [[element, _, count]] = ty.rows() else {
                        return None;
                    };
                    elements = elements.checked_mul(count.get())?;
                    id = element.get();
                    continue;
                }
                Kind::Pointer => POINTER_SIZE,
                Kind::Int if ty.is_bitfield() => return None,
                Kind::Int
                | Kind::Float
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64 => ty.size_or_id,
                _ => return None,
            };
            return elements.checked_mul(size);
        }
        None
    }

    /// Structs and unions called `name`.
    pub(super) fn aggregates(&self, name: &str) -> impl Iterator<Item = u32> {
        self.named(name)
            .filter(|&id| self.ty(id).is_some_and(|ty| ty.kind.is_aggregate()))
    }

    /// The struct or union that type `id` is by any name.
    pub(super) fn aggregate(&self, id: u32) -> Option<(u32, Type<'_>)> {
        self.resolve(id).filter(|(_, ty)| ty.kind.is_aggregate())
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<(u32, Type<'_>)> {
        for _ in 0..MAX_CHAIN {
            let ty = self.ty(id)?;
            match ty.kind {
                Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {
                    id = ty.size_or_id;
                }
                _ => return Some((id, ty)),
            }
        }
        None
    }

    /// Types called `name`, of the kinds that are looked up.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = u32> {
        let some = |id| (id != 0).then_some(id);
        let first = self
            .buckets
            .get(self.bucket(name.as_bytes()))
            .copied()
            .and_then(some);
        iter::successors(first, move |&id| some(self.slot(id)?.next))
            .filter(move |&id| self.ty(id).is_some_and(|ty| self.is_named(ty.name, name)))
    }

    pub(super) fn ty(&self, id: u32) -> Option<Type<'_>> {
        let at = self.slot(id)?.at as usize;
        Type::read(id, self.bytes.get(at..)?).ok().map(|(ty, _)| ty)
    }

    fn slot(&self, id: u32) -> Option<&Slot> {
        self.slots.get((id as usize).checked_sub(1)?)
    }

    /// The string at `offset`.
    pub(super) fn text(&self, offset: u32) -> Option<&[u8]> {
        let tail = self.tail(offset)?;
        tail.get(..tail.iter().position(|&byte| byte == 0)?)
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let after = self
            .tail(offset)
            .and_then(|tail| tail.strip_prefix(name.as_bytes()));
        after.is_some_and(|after| after.first() == Some(&0))
    }

    fn tail(&self, offset: u32) -> Option<&[u8]> {
        self.bytes.get(self.strings.clone())?.get(offset as usize..)
    }

    fn bucket(&self, name: &[u8]) -> usize {
        hash(name) as usize & (self.buckets.len() - 1)
    }
}

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btf")
            .field("types", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// The first type in each bucket, the others linked to it. Backwards, so that each bucket lists its types in the order of
/// the BTF.
fn index(slots: &mut [Slot]) -> Vec<u32> {
    let mut buckets = vec![0; slots.len().next_power_of_two()];
    let mask = buckets.len() - 1;
    for (before, slot) in slots.iter_mut().enumerate().rev() {
        let hash = mem::replace(&mut slot.next, 0);
        if hash != UNNAMED
            && let Ok(id) = u32::try_from(before + 1)
            && let Some(head) = buckets.get_mut(hash as usize & mask)
        {
            slot.next = mem::replace(head, id);
        }
    }
    buckets
}

/// Hashes up to the end of a string, which in BTF is a zero byte: eight bytes at a time, since this is
/// most of the time that parsing takes. Nobody gains from making names collide.
fn hash(mut name: &[u8]) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let mut hash = 0_u64;
    loop {
        let (word, rest) = match name.split_first_chunk() {
            Some((word, rest)) => (u64::from_le_bytes(*word), rest),
            None => (
                name.iter()
                    .rev()
                    .fold(0, |word, &byte| word << 8 | u64::from(byte)),
                &[][..],
            ),
        };
        // The highest bit of each zero byte; those above the first one may be wrong.
        let ends = word.wrapping_sub(LOW) & !word & (LOW << 7);
        // All bits below the first such bit: the string's bytes, and seven that are 0.
        let kept = word & (ends.wrapping_sub(1) & !ends);
        hash = (hash.rotate_left(5) ^ kept).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if ends != 0 {
            // The upper bits of a product are the mixed ones.
            return ((hash >> 32) as u32).max(UNNAMED + 1);
        }
        name = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        sample::{self, Sample},
        trim::Keep,
    };

    fn parse(bytes: Vec<u8>) -> Btf {
        Btf::parse(bytes).unwrap()
    }

    fn member(btf: &Btf, of: &str, path: &str) -> Option<(u32, u32)> {
        btf.member(of, path)
            .map(|member| (member.offset, member.size))
    }

    #[test]
    fn walks_over_every_kind() {
        let btf = parse(sample::every_kind());
        assert_eq!(member(&btf, "last", "value"), Some((0, 4)));
    }

    #[test]
    fn finds_members_and_sizes() {
        let btf = parse(sample::every_kind());
        assert_eq!(member(&btf, "outer", "first"), Some((0, 4)));
        assert_eq!(
            member(&btf, "outer", "inner.far"),
            Some((12, 4)),
            "through const and typedef"
        );
        assert_eq!(member(&btf, "outer", "inner"), Some((8, 8)));
        assert_eq!(
            member(&btf, "outer", "anonymous"),
            Some((20, 4)),
            "two anonymous levels down"
        );
        assert_eq!(member(&btf, "outer", "pointer"), Some((24, 8)));
        assert_eq!(
            member(&btf, "outer", "array"),
            Some((32, 24)),
            "array of arrays"
        );
        assert_eq!(member(&btf, "outer", "colour"), Some((56, 4)));
    }

    #[test]
    fn finds_nothing_where_there_is_nothing() {
        let btf = parse(sample::every_kind());
        for path in [
            "", ".", "no", "inner.", ".first", "inner.no", "firs", "first2", "first.x",
        ] {
            assert_eq!(member(&btf, "outer", path), None, "{path}");
        }
        assert_eq!(
            member(&btf, "outer", "pointer.far"),
            None,
            "a pointer is not followed"
        );
        assert_eq!(member(&btf, "outer", "array.far"), None);
        assert_eq!(member(&btf, "", "first"), None);
        assert_eq!(member(&btf, "out", "first"), None);
        assert_eq!(member(&btf, "u32", "first"), None);
        assert_eq!(btf.enumerators("outer"), None);
        assert_eq!(btf.tracepoint_args("outer"), None);
        assert_eq!(btf.function_args("outer"), None);
    }

    #[test]
    fn bitfields_are_not_members() {
        let mut sample = Sample::default();
        let int = sample.int("int", 4);
        let narrow = sample.raw(Kind::Int, "int", false, 0, 4, &[3]);
        let sized = |width: u32, bits: u32| width << 24 | bits;
        sample.flagged(
            "new",
            8,
            &[("bits", int, sized(3, 8)), ("whole", int, sized(0, 32))],
        );
        sample.aggregate(
            Kind::Struct,
            "old",
            4,
            &[("bits", narrow, 8), ("odd", int, 3)],
        );
        let btf = parse(sample.finish());
        assert_eq!(member(&btf, "new", "bits"), None);
        assert_eq!(member(&btf, "new", "whole"), Some((4, 4)));
        assert_eq!(member(&btf, "old", "bits"), None);
        assert_eq!(member(&btf, "old", "odd"), None);
    }

    #[test]
    fn first_struct_of_a_name_with_the_path_counts() {
        let mut sample = Sample::default();
        let int = sample.int("int", 4);
        sample.aggregate(Kind::Struct, "twin", 4, &[("a", int, 0)]);
        sample.aggregate(Kind::Union, "twin", 8, &[("a", int, 32), ("b", int, 0)]);
        let btf = parse(sample.finish());
        assert_eq!(member(&btf, "twin", "a"), Some((0, 4)));
        assert_eq!(member(&btf, "twin", "b"), Some((0, 4)));
    }

    #[test]
    fn cycles_end() {
        let mut sample = Sample::default();
        let first = sample.raw(Kind::Typedef, "ring", false, 0, 2, &[]);
        sample.raw(Kind::Const, "", false, 0, first, &[]);
        let itself = 3;
        sample.aggregate(
            Kind::Struct,
            "itself",
            4,
            &[("", itself, 0), ("", itself, 32)],
        );
        let array = 4;
        sample.raw(Kind::Array, "", false, 0, 0, &[array, array, 2]);
        sample.aggregate(
            Kind::Struct,
            "holder",
            4,
            &[("ring", first, 0), ("array", array, 0)],
        );
        let btf = parse(sample.finish());
        assert_eq!(member(&btf, "itself", "x"), None);
        assert_eq!(member(&btf, "holder", "ring"), None);
        assert_eq!(member(&btf, "holder", "ring.x"), None);
        assert_eq!(member(&btf, "holder", "array"), None);
        assert_eq!(btf.tracepoint_args("x"), None);
    }

    #[test]
    fn reads_enumerators() {
        let btf = parse(sample::every_kind());
        let named = |name: &str, value: u64| (name.to_owned(), value);
        assert_eq!(
            btf.enumerators("colour"),
            Some(vec![named("RED", 0), named("LAST", u64::from(u32::MAX))])
        );
        assert_eq!(
            btf.enumerators("signed"),
            Some(vec![named("MINUS", u64::MAX)])
        );
        assert_eq!(
            btf.enumerators("wide"),
            Some(vec![named("HUGE", 1 << 40 | 2)])
        );
    }

    #[test]
    fn counts_arguments() {
        let btf = parse(sample::every_kind());
        assert_eq!(btf.tracepoint_args("something"), Some(2));
        assert_eq!(btf.function_args("function"), Some(3));
        assert_eq!(btf.function_args("btf_trace_something"), None);
    }

    #[test]
    fn tells_why_bytes_are_refused() {
        let good = sample::every_kind();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Btf::parse(bytes).unwrap_err()
        };
        assert_eq!(
            Btf::parse(Vec::new()).unwrap_err(),
            BtfError::Truncated("header")
        );
        assert_eq!(
            Btf::parse(good[..23].to_vec()).unwrap_err(),
            BtfError::Truncated("header")
        );
        assert_eq!(
            Btf::parse(good[..good.len() - 1].to_vec()).unwrap_err(),
            BtfError::Truncated("string section")
        );
        assert_eq!(
            Btf::parse(good[..30].to_vec()).unwrap_err(),
            BtfError::Truncated("type section")
        );
        assert_eq!(
            Btf::parse(b"\xeb\x9f".to_vec()).unwrap_err(),
            BtfError::ByteOrder
        );
        assert_eq!(
            Btf::parse(b"\x7fELF".to_vec()).unwrap_err(),
            BtfError::Magic(0x457f)
        );
        assert_eq!(with(2, 2), BtfError::Version(2));
        assert_eq!(with(4, 16), BtfError::Truncated("header"));
        assert_eq!(with(31, 20), BtfError::Kind { id: 1, kind: 20 });
        // Type 1 is an integer and takes 16 bytes after the 24 of the header.
        assert_eq!(with(24 + 16 + 3, 1), BtfError::Name { id: 2 });
        // Type 2 has its count in its second word.
        assert_eq!(with(24 + 16 + 4 + 2, 1), BtfError::Type { id: 2 });
    }

    /// Some mutations parse and some do not; none may panic or hang.
    #[test]
    fn survives_broken_bytes() {
        let good = sample::every_kind();
        let keep = Keep {
            members: vec![
                ("outer", "inner.far"),
                ("outer", "anonymous"),
                ("last", "value"),
            ],
            enums: vec!["colour", "signed", "wide"],
            tracepoints: vec!["something"],
            functions: vec!["function"],
        };
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut parsed = 0;
        for _ in 0..5_000 {
            let mut bytes = good.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                // Small numbers make other ids and counts that are valid.
                let below = if random(2) == 0 { 256 } else { 40 };
                bytes[at] = u8::try_from(random(below)).unwrap();
            }
            if random(8) == 0 {
                bytes.truncate(random(bytes.len()));
            }
            let Ok(btf) = Btf::parse(bytes) else { continue };
            parsed += 1;
            for (of, path) in &keep.members {
                btf.member(of, path);
            }
            for name in &keep.enums {
                btf.enumerators(name);
            }
            btf.tracepoint_args("something");
            btf.function_args("function");
            parse(btf.trim(&keep));
        }
        assert!(
            (500..4_500).contains(&parsed),
            "{parsed} parsed: a poor mix"
        );
    }
}
