//! How BTF lies in bytes: the header, and the record of each kind of type.
//!
//! Must not know: what is looked up.

use std::ops::Range;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::btf::BtfError;

pub(super) const MAGIC: u16 = 0xeb9f;
pub(super) const VERSION: u8 = 1;
const HEADER_LEN: u32 = 24;
const _: () = assert!(size_of::<Header>() == HEADER_LEN as usize);

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: U16,
    version: u8,
    flags: u8,
    len: U32,
    types: U32,
    types_len: U32,
    strings: U32,
    strings_len: U32,
}

impl Header {
    /// The header of BTF that has its strings after its types.
    #[cfg(test)]
    pub(super) fn new(types_len: u32, strings_len: u32) -> Self {
        Self {
            magic: U16::new(MAGIC),
            version: VERSION,
            flags: 0,
            len: U32::new(HEADER_LEN),
            types: U32::ZERO,
            types_len: U32::new(types_len),
            strings: U32::new(types_len),
            strings_len: U32::new(strings_len),
        }
    }

    /// Where the types and the strings are.
    pub(super) fn sections(bytes: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
        let truncated = BtfError::Truncated("header");
        let (magic, _) = U16::ref_from_prefix(bytes).map_err(|_| truncated)?;
        match magic.get() {
            MAGIC => {}
            other if other == MAGIC.swap_bytes() => return Err(BtfError::ByteOrder),
            other => return Err(BtfError::Magic(other)),
        }
        let (header, _) = Self::ref_from_prefix(bytes).map_err(|_| truncated)?;
        if header.version != VERSION {
            return Err(BtfError::Version(header.version));
        }
        // A longer header is a newer one: it has more sections, which are not looked at.
        if header.len.get() < HEADER_LEN {
            return Err(truncated);
        }
        let section = |offset: U32, len: U32, name| {
            let start = header.len.get() as usize + offset.get() as usize;
            let range = start..start + len.get() as usize;
            let fits = range.end <= bytes.len();
            fits.then_some(range).ok_or(BtfError::Truncated(name))
        };
        let types = section(header.types, header.types_len, "type section")?;
        Ok((
            types,
            section(header.strings, header.strings_len, "string section")?,
        ))
    }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Record {
    name: U32,
    info: U32,
    size_or_id: U32,
}

/// One type, taken apart.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub(super) kind: Kind,
    pub(super) name: u32,
    /// Signed, for enums; members carry bitfield sizes, for structs and unions.
    pub(super) flag: bool,
    /// Members, enumerators or arguments; linkage, for functions.
    pub(super) count: u32,
    /// Which of the two depends on the kind.
    pub(super) size_or_id: u32,
    pub(super) tail: &'a [u8],
}

impl<'a> Type<'a> {
    pub(super) fn read(id: u32, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BtfError> {
        let end = BtfError::Type { id };
        let (record, rest) = Record::ref_from_prefix(bytes).map_err(|_| end)?;
        // Bits that are unused today (16-23, 29-30) must be 0, and are where count and kind would
        // grow: read along, they make newer BTF an unknown kind at worst, never a wrong walk.
        let [low, middle, high, top] = record.info.get().to_le_bytes();
        let count = u32::from_le_bytes([low, middle, high, 0]);
        let kind = top & 0x7f;
        let kind = Kind::from_number(kind).ok_or(BtfError::Kind { id, kind })?;
        let (tail, rest) = rest.split_at_checked(kind.tail_len(count)).ok_or(end)?;
        let ty = Self {
            kind,
            name: record.name.get(),
            flag: top & 0x80 != 0,
            count,
            size_or_id: record.size_or_id.get(),
            tail,
        };
        Ok((ty, rest))
    }

    /// What follows the record, in rows of `N` words; nothing if that is not this kind's width.
    pub(super) fn rows<const N: usize>(self) -> &'a [[U32; N]] {
        <[[U32; N]]>::ref_from_bytes(self.tail).unwrap_or_default()
    }

    /// Where a member of this struct or union at `position` starts; `None` for a bitfield.
    pub(super) fn byte_offset(self, position: u32) -> Option<u32> {
        let (bits, width) = if self.flag {
            (position & 0x00ff_ffff, position >> 24)
        } else {
            (position, 0)
        };
        (width == 0 && bits.is_multiple_of(8)).then_some(bits / 8)
    }

    /// Older BTF gives a bitfield an integer type of its own that has fewer bits than its size.
    pub(super) fn is_bitfield(self) -> bool {
        let [[encoding]] = self.rows() else {
            return true;
        };
        encoding.get() & 0x00ff_00ff != self.size_or_id.saturating_mul(8)
    }
}

/// `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Int = 1,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Forward,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Function,
    FunctionProto,
    Variable,
    DataSection,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

/// What a word after a type's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Name,
    Type,
    Number,
}

impl Kind {
    /// In the order of their numbers, from 1.
    pub(super) const ALL: [Self; 19] = [
        Self::Int,
        Self::Pointer,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Forward,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Function,
        Self::FunctionProto,
        Self::Variable,
        Self::DataSection,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The words that follow a record, and whether once per count or just once.
    pub(super) fn tail(self) -> (&'static [Word], bool) {
        use Word::{Name, Number, Type};
        match self {
            Self::Int | Self::Variable | Self::DeclTag => (&[Number], false),
            Self::Array => (&[Type, Type, Number], false),
            Self::Struct | Self::Union => (&[Name, Type, Number], true),
            Self::Enum => (&[Name, Number], true),
            Self::Enum64 => (&[Name, Number, Number], true),
            Self::FunctionProto => (&[Name, Type], true),
            Self::DataSection => (&[Type, Number, Number], true),
            Self::Pointer
            | Self::Forward
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Function
            | Self::Float
            | Self::TypeTag => (&[], false),
        }
    }

    fn tail_len(self, count: u32) -> usize {
        let (row, repeated) = self.tail();
        row.len() * size_of::<U32>() * if repeated { count as usize } else { 1 }
    }

    pub(super) fn is_aggregate(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Whether a record's last word is a type rather than a size.
    #[cfg(test)]
    pub(super) fn refers(self) -> bool {
        !self.is_aggregate()
            && !matches!(
                self,
                Self::Int
                    | Self::Array
                    | Self::Enum
                    | Self::Enum64
                    | Self::Float
                    | Self::DataSection
            )
    }

    pub(super) fn is_looked_up(self) -> bool {
        self.is_aggregate()
            || matches!(
                self,
                Self::Enum | Self::Enum64 | Self::Typedef | Self::Function
            )
    }
}
