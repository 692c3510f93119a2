//! The `serde` side of [`super`]: which value becomes which piece of a line.
//!
//! Must not know: which fields a line has. What no record holds (maps, floats, signed numbers, tuples) it does not write.

#![expect(
    clippy::inline_always,
    reason = "inlined into the derived code, every key is a constant"
)]

use std::mem;

use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};

use super::{Result, Room, Unwritten, integer, put, put_some, string, word};
use crate::record::digits::SMALL;

/// Writes one value to the front of the free room, and returns the room behind it.
///
/// The room travels in two registers; a vector's length would be stored and loaded again for each piece.
pub(super) struct Encoder<'a>(pub(super) &'a mut [u8]);

/// An object, which its first key opens.
pub(super) struct Object<'a> {
    room: &'a mut [u8],
    empty: bool,
}

/// A list, or one text in parts: values with something between them, opened by the first.
pub(super) struct Row<'a> {
    room: &'a mut [u8],
    open: &'static str,
    between: &'static str,
    close: &'static str,
    empty: bool,
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let before = if self.empty { self.open } else { self.between };
        let room = put(mem::take(&mut self.room), before.as_bytes())?;
        self.empty = false;
        self.room = value.serialize(Encoder(room))?;
        Ok(())
    }

    #[inline(always)]
    fn close(self) -> Room<'a> {
        let room = if self.empty {
            put(self.room, self.open.as_bytes())?
        } else {
            self.room
        };
        put(room, self.close.as_bytes())
    }
}

macro_rules! unsupported {
    ($($method:ident($($value:ty)?))*) => {
        $(fn $method(self, $(_: $value)?) -> Result<Self::Ok> {
            Err(Unwritten)
        })*
    };
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = &'a mut [u8];
    type Error = Unwritten;
    type SerializeSeq = Row<'a>;
    type SerializeTuple = Impossible<&'a mut [u8], Unwritten>;
    type SerializeTupleStruct = Row<'a>;
    type SerializeTupleVariant = Impossible<&'a mut [u8], Unwritten>;
    type SerializeMap = Impossible<&'a mut [u8], Unwritten>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Impossible<&'a mut [u8], Unwritten>;

    #[inline]
    fn serialize_bool(self, value: bool) -> Room<'a> {
        if value {
            put(self.0, b"true")
        } else {
            put(self.0, b"false")
        }
    }

    #[inline(always)]
    fn serialize_u8(self, value: u8) -> Room<'a> {
        let (digits, len) = SMALL[usize::from(value)];
        put_some(self.0, digits, len.into())
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Room<'a> {
        integer(self.0, value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Room<'a> {
        integer(self.0, value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Room<'a> {
        integer(self.0, value)
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Room<'a> {
        string(self.0, value)
    }

    /// What spells itself as JSON comes as bytes ([`Self::serialize_bytes`]).
    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    /// JSON as it is: a time, an IPv6 address, or a process that was spelled before.
    #[inline(always)]
    fn serialize_bytes(self, value: &[u8]) -> Room<'a> {
        put(self.0, value)
    }

    #[inline]
    fn serialize_none(self) -> Room<'a> {
        put(self.0, b"null")
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Room<'a> {
        value.serialize(self)
    }

    /// A word of a closed set: written by us, so without a look for escapes.
    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, _: u32, text: &'static str) -> Room<'a> {
        word(self.0, "\"", text, "\"")
    }

    #[inline(always)]
    fn serialize_seq(self, _: Option<usize>) -> Result<Row<'a>> {
        Ok(Row {
            room: self.0,
            open: "[",
            between: ",",
            close: "]",
            empty: true,
        })
    }

    #[inline(always)]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'a>> {
        Ok(Object {
            room: self.0,
            empty: true,
        })
    }

    unsupported! {
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_f32(f32) serialize_f64(f64) serialize_char(char)
        serialize_unit() serialize_unit_struct(&'static str)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Room<'a> {
        Err(Unwritten)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Room<'a> {
        Err(Unwritten)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        Err(Unwritten)
    }

    /// One text, such as an id or an IPv4 address: its parts, numbers or bytes as they are, with the name between them.
    #[inline(always)]
    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Row<'a>> {
        Ok(Row {
            room: self.0,
            open: "\"",
            between: name,
            close: "\"",
            empty: true,
        })
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(Unwritten)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        Err(Unwritten)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(Unwritten)
    }
}

impl<'a> ser::SerializeStruct for Object<'a> {
    type Ok = &'a mut [u8];
    type Error = Unwritten;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<()> {
        let room = mem::take(&mut self.room);
        let before = if self.empty { "{\"" } else { ",\"" };
        self.empty = false;
        self.room = value.serialize(Encoder(word(room, before, key, "\":")?))?;
        Ok(())
    }

    #[inline(always)]
    fn end(self) -> Room<'a> {
        put(self.room, if self.empty { b"{}" as &[u8] } else { b"}" })
    }
}

impl<'a> ser::SerializeTupleStruct for Row<'a> {
    type Ok = &'a mut [u8];
    type Error = Unwritten;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.add(value)
    }

    #[inline(always)]
    fn end(self) -> Room<'a> {
        self.close()
    }
}

impl<'a> ser::SerializeSeq for Row<'a> {
    type Ok = &'a mut [u8];
    type Error = Unwritten;

    #[inline(always)]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.add(value)
    }

    #[inline(always)]
    fn end(self) -> Room<'a> {
        self.close()
    }
}
