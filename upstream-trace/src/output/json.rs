//! One record, one JSON line: what `serde_json` would write for the derived types, several times faster.
//!
//! Names and order come from the derives in [`crate::record`] and from nowhere else; this is only a way to spell them. It is faster because
//! keys are copied without a look for escapes, a comma follows every value (the last becomes the closing bracket), and nothing can fail.
//! No control character leaves it unescaped: neither C0, as JSON demands, nor DEL and C1, which a terminal would obey.
//!
//! Must not know: which fields a line has, where it is written to.

use std::fmt::{self, Display};

use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};

use crate::record::{Connection, Event, Stats, StrayReset, pair};

/// Appends the line of a finished connection.
pub fn connection(out: &mut Vec<u8>, record: &Connection<'_>) {
    line(out, record);
}

/// Appends the line of a reset without a socket.
pub fn reset(out: &mut Vec<u8>, record: &StrayReset<'_>) {
    line(out, record);
}

/// Appends the line of a kernel event.
pub fn event(out: &mut Vec<u8>, record: &Event<'_>) {
    line(out, record);
}

/// Appends the line of the tracer's own account.
pub fn stats(out: &mut Vec<u8>, record: &Stats) {
    line(out, record);
}

fn line<T: Serialize>(out: &mut Vec<u8>, record: &T) {
    let start = out.len();
    if record.serialize(Encoder(out)).is_err() {
        // Only for a type that no record has; the tests write every one of them.
        debug_assert!(false, "a field of a type that this encoder does not write");
        out.truncate(start);
        return;
    }
    // The comma after the outermost value.
    out.pop();
    out.push(b'\n');
}

/// Writes a value and a comma.
struct Encoder<'a>(&'a mut Vec<u8>);

/// An object or a list that has been opened.
struct Open<'a> {
    out: &'a mut Vec<u8>,
    /// The closing bracket and the comma after it.
    close: &'static [u8; 2],
}

/// A value that no record holds: a map, a float, raw bytes.
#[derive(Debug)]
struct Unsupported;

impl Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that no record holds")
    }
}

impl std::error::Error for Unsupported {}

impl ser::Error for Unsupported {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

type Result<T = (), E = Unsupported> = std::result::Result<T, E>;

impl<'a> Encoder<'a> {
    #[inline]
    fn integer(self, number: u64) {
        if number < 10_000 {
            let [a, b] = pair(number / 100);
            let [c, d] = pair(number % 100);
            let zeros =
                usize::from(number < 10) + usize::from(number < 100) + usize::from(number < 1_000);
            let digits = u32::from_be_bytes([a, b, c, d]) << (8 * zeros);
            self.0.extend_from_slice(&digits.to_be_bytes());
            self.0.truncate(self.0.len() - zeros);
        } else {
            let mut digits = itoa::Buffer::new();
            self.0.extend_from_slice(digits.format(number).as_bytes());
        }
        self.0.push(b',');
    }

    #[inline]
    fn open(self, open: u8, close: &'static [u8; 2]) -> Open<'a> {
        self.0.push(open);
        Open { out: self.0, close }
    }
}

impl Open<'_> {
    #[inline]
    fn close(self) {
        if self.out.last() == Some(&b',') {
            self.out.pop();
        }
        self.out.extend_from_slice(self.close);
    }
}

/// A quoted word of our own and what follows it. Inlined, the word is a constant and this becomes a few stores.
#[inline(always)]
fn piece(out: &mut Vec<u8>, word: &'static str, after: [u8; 2]) {
    let mut piece = [b'"'; 32];
    let end = word.len() + 1;
    if let Some(place) = piece.get_mut(1..end + 2) {
        let (place, rest) = place.split_at_mut(word.len());
        place.copy_from_slice(word.as_bytes());
        rest.copy_from_slice(&after);
        out.extend_from_slice(&piece[..end + 2]);
    } else {
        out.push(b'"');
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(&after);
    }
}

/// Whether any byte may begin something that has to be escaped; 0xC2 is the first byte of every C1 character.
///
/// Without an early exit, so that the compiler looks at all bytes of an array at once.
#[inline]
fn suspicious<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.iter().fold(false, |found, &byte| {
        found | (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f) | (byte == 0xc2)
    })
}

/// Sixteen bytes at a time; the last sixteen may overlap those before.
#[inline]
fn needs_escape(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk::<16>() {
        text.as_chunks().0.iter().any(suspicious::<16>) || suspicious(last)
    } else if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        suspicious(first) || suspicious(last)
    } else {
        text.as_chunks().0.iter().any(suspicious::<1>)
    }
}

#[inline]
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if needs_escape(text.as_bytes()) {
        escaped(out, text);
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"\",");
}

#[cold]
fn escaped(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        let short = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\u{c}' => "\\f",
            '\r' => "\\r",
            _ => "",
        };
        if !short.is_empty() {
            out.extend_from_slice(short.as_bytes());
        } else if character.is_control() {
            super::escape_control(out, character);
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

macro_rules! unsupported {
    ($($method:ident($($value:ty)?))*) => {
        $(fn $method(self, $(_: $value)?) -> Result {
            Err(Unsupported)
        })*
    };
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = Unsupported;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Impossible<(), Unsupported>;
    type SerializeTupleStruct = Impossible<(), Unsupported>;
    type SerializeTupleVariant = Impossible<(), Unsupported>;
    type SerializeMap = Impossible<(), Unsupported>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Impossible<(), Unsupported>;

    #[inline]
    fn serialize_bool(self, value: bool) -> Result {
        self.0
            .extend_from_slice(if value { b"true," } else { b"false," });
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result {
        self.integer(value.into());
        Ok(())
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result {
        self.integer(value.into());
        Ok(())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result {
        self.integer(value.into());
        Ok(())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result {
        self.integer(value);
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result {
        string(self.0, value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result {
        self.0.extend_from_slice(b"null,");
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }

    /// A word of a closed set: written by us, so without a look for escapes.
    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, _: u32, word: &'static str) -> Result {
        piece(self.0, word, *b"\",");
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>> {
        Ok(self.open(b'[', b"],"))
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>> {
        Ok(self.open(b'{', b"},"))
    }

    unsupported! {
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_f32(f32) serialize_f64(f64) serialize_char(char) serialize_bytes(&[u8])
        serialize_unit() serialize_unit_struct(&'static str)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result {
        Err(Unsupported)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result {
        Err(Unsupported)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        Err(Unsupported)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct> {
        Err(Unsupported)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(Unsupported)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        Err(Unsupported)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(Unsupported)
    }
}

impl ser::SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = Unsupported;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result {
        piece(self.out, key, *b"\":");
        value.serialize(Encoder(self.out))
    }

    #[inline]
    fn end(self) -> Result {
        self.close();
        Ok(())
    }
}

impl ser::SerializeSeq for Open<'_> {
    type Ok = ();
    type Error = Unsupported;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(Encoder(self.out))
    }

    #[inline]
    fn end(self) -> Result {
        self.close();
        Ok(())
    }
}
