//! How a time, an id and an address are spelled in a line; each on the stack, without allocating.
//!
//! Must not know: which format the line has, where it is written to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer, ser::SerializeTupleStruct as _};

use super::{
    Id, Timestamp,
    digits::{EIGHT, SMALL, eight, hexadecimal, leading},
    second,
};

/// Room for the longest spelling, an IPv6 address of 39 bytes, its quotes, and for what [`Spelling::add`] copies too much.
const ROOM: usize = 48;

/// A short ASCII text.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// Begins with a quote.
    bytes: [u8; ROOM],
    len: usize,
}

impl Spelling {
    const EMPTY: Self = Self {
        bytes: [b'"'; ROOM],
        len: 1,
    };

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever added, so the fallback is never taken.
        str::from_utf8(&self.bytes[1..self.len]).unwrap_or_default()
    }

    /// As text or, to a writer that takes JSON as it is, with its quotes.
    fn serialize<S: Serializer>(mut self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.as_str())
        } else {
            self.bytes[self.len] = b'"';
            serializer.serialize_bytes(&self.bytes[..=self.len])
        }
    }

    fn append(&mut self, text: &str) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
    }

    /// Adds the first `len` of these bytes; copying all of them is faster than looking at `len`.
    fn add<const N: usize>(&mut self, bytes: [u8; N], len: usize) {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += len;
    }

    fn number(&mut self, number: u64) {
        if number < EIGHT {
            let (digits, len) = leading(number);
            self.add(digits, len);
        } else {
            self.number(number / EIGHT);
            self.add(eight(number % EIGHT), 8);
        }
    }

    fn v4(&mut self, address: Ipv4Addr) {
        for octet in address.octets() {
            let (digits, len) = SMALL[usize::from(octet)];
            // The dot after them as well.
            self.add(digits, usize::from(len) + 1);
        }
        self.len -= 1;
    }

    /// RFC 5952: the first longest run of two or more zero groups becomes `::`.
    fn v6(&mut self, address: Ipv6Addr) {
        let groups = address.segments();
        let mut gap = 0..0;
        let mut start = 0;
        for (index, group) in groups.iter().enumerate() {
            if *group != 0 {
                start = index + 1;
            } else if index + 1 - start > gap.len().max(1) {
                gap = start..index + 1;
            }
        }
        for (index, group) in groups.into_iter().enumerate() {
            if gap.contains(&index) {
                if index == gap.start {
                    self.add(*b"::\0\0", 2);
                }
                continue;
            }
            if index > 0 && index != gap.end {
                self.add(*b":\0\0\0", 1);
            }
            let [.., a, b, c, d] = hexadecimal(group.into());
            let digits = u32::from_be_bytes([a, b, c, d]);
            let zeros = group.leading_zeros().min(15) / 4;
            self.add((digits << (8 * zeros)).to_be_bytes(), 4 - zeros as usize);
        }
    }
}

impl Timestamp {
    /// RFC 3339, UTC, always nine fractional digits: `2026-11-21T11:34:03.123456789Z`.
    pub fn spell(self) -> Spelling {
        let text = self.quoted();
        let mut spelling = Spelling::EMPTY;
        spelling.bytes[..text.len()].copy_from_slice(&text);
        spelling.len = text.len() - 1;
        spelling
    }

    /// The same as JSON, of a length that the compiler knows.
    #[inline]
    fn quoted(self) -> second::Text {
        let mut text = second::spell(self.0);
        let nanos = self.0 % 1_000_000_000;
        text[21..29].copy_from_slice(&eight(nanos / 10));
        text[29] = b'0' + (nanos % 10) as u8;
        text
    }
}

impl Id {
    /// `<run, 16 hexadecimal digits>-<serial>`.
    pub fn spell(self) -> Spelling {
        let mut spelling = Spelling::EMPTY;
        spelling.add(sixteen(self.run), 16);
        spelling.add(*b"-", 1);
        spelling.number(self.serial);
        spelling
    }
}

/// An address as the standard library spells it, a few times faster.
pub fn spell_address(address: IpAddr) -> Spelling {
    let mut spelling = Spelling::EMPTY;
    match address {
        IpAddr::V4(address) => spelling.v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => {
                spelling.append("::ffff:");
                spelling.v4(address);
            }
            None => spelling.v6(address),
        },
    }
    spelling
}

#[inline]
pub(super) fn serialize_address<S: Serializer>(
    address: &IpAddr,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        IpAddr::V4(address) if !serializer.is_human_readable() => {
            let mut parts = serializer.serialize_tuple_struct(".", 4)?;
            for octet in address.octets() {
                parts.serialize_field(&octet)?;
            }
            parts.end()
        }
        _ => spell_address(*address).serialize(serializer),
    }
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
pub(super) fn serialize_known_address<S: Serializer>(
    address: &Option<IpAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serialize_address(address, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.spell().as_str())
        } else {
            serializer.serialize_bytes(&self.quoted())
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(self.spell().as_str());
        }
        let mut parts = serializer.serialize_tuple_struct("-", 2)?;
        parts.serialize_field(&Verbatim(&sixteen(self.run)))?;
        parts.serialize_field(&self.serial)?;
        parts.end()
    }
}

/// For a writer that takes JSON, or part of a text, as it is.
pub(super) struct Verbatim<'a>(pub(super) &'a [u8]);

impl Serialize for Verbatim<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// The hexadecimal digits of a number, leading zeros included.
#[inline]
fn sixteen(number: u64) -> [u8; 16] {
    let [a, b, c, d, low @ ..] = number.to_be_bytes();
    let mut digits = [0; 16];
    for (half, place) in [[a, b, c, d], low]
        .into_iter()
        .zip(digits.as_chunks_mut().0)
    {
        *place = hexadecimal(u32::from_be_bytes(half));
    }
    digits
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "RFC 3339, UTC, nanoseconds.",
            "type": "string",
            "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z$",
        })
    }
}

impl JsonSchema for Id {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Unique across runs and nodes: the run's random prefix and a counter.",
            "type": "string",
            "pattern": "^[0-9a-f]{16}-[0-9]+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Addresses with runs of zero groups, which random ones never have.
    fn v6() -> impl Strategy<Value = Ipv6Addr> {
        let group = prop_oneof![Just(0_u16), Just(0xffff), any::<u16>()];
        prop::array::uniform8(group).prop_map(Ipv6Addr::from)
    }

    proptest! {
        #[test]
        fn time_is_rfc_3339_with_nine_digits(nanos in any::<u64>()) {
            let oracle = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap();
            let time = Timestamp(nanos);
            let spelling = time.spell();
            prop_assert_eq!(spelling.as_str(), format!("{oracle:.9}"));
        }

        #[test]
        fn ids_are_as_printed(run in any::<u64>(), serial in any::<u64>(), shift in 0_u32..64) {
            let serial = serial >> shift;
            let id = Id { run, serial };
            let spelling = id.spell();
            prop_assert_eq!(spelling.as_str(), format!("{run:016x}-{serial}"));
        }

        #[test]
        fn v4_is_the_standard_librarys(address in any::<Ipv4Addr>()) {
            let spelling = spell_address(address.into());
            prop_assert_eq!(spelling.as_str(), address.to_string());
        }

        #[test]
        fn v6_is_the_standard_librarys(address in v6()) {
            let spelling = spell_address(address.into());
            prop_assert_eq!(spelling.as_str(), address.to_string());
        }
    }

    #[test]
    fn leap_days_and_ends_of_years() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(Timestamp(seconds * 1_000_000_000).spell().as_str(), text);
        }
    }

    #[test]
    fn widest_id_and_mapped_address_fit() {
        let id = Id {
            run: u64::MAX,
            serial: u64::MAX,
        };
        assert_eq!(id.spell().as_str(), "ffffffffffffffff-18446744073709551615");
        for text in ["::ffff:192.0.2.1", "::", "::1", "1::", "1:0:2::3"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(spell_address(address).as_str(), address.to_string());
        }
    }
}
