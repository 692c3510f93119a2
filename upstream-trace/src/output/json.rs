//! One record, one JSON line: what `serde_json` would write for the derived types, several times faster.
//!
//! Names and order come from [`crate::record`] and from nowhere else; this is only a way to spell them. It is faster because
//! keys are copied without a look for escapes, a comma follows every value (the last becomes the closing bracket), and nothing can fail.
//! No control character leaves it unescaped: neither C0, as JSON demands, nor any other that a terminal or an editor would obey.
//!
//! Must not know: which fields a line has beside its processes, where it is written to.

#![expect(
    clippy::inline_always,
    reason = "with its length known, a copy is a store or two; measured at a third of the time"
)]

mod encoder;

use std::fmt::{self, Display};

use serde::{Serialize, ser};

use self::encoder::Encoder;
use crate::record::{
    Connection, Event, Process, Spelled, Stats, StrayReset,
    digits::{EIGHT, SMALL, eight, leading},
};

/// Appends the line of a finished connection.
pub fn connection(record: &Connection<'_>, room: &mut [u8]) -> Option<usize> {
    let both = [&record.process, &record.peer];
    both.into_iter().flatten().for_each(keep);
    line(record, room)
}

/// Spells a process that has a place for it, unless that was done.
#[inline]
fn keep(process: &Process<'_>) {
    if let Some(spelled) = process.spelled
        && spelled.get().is_none()
    {
        spell(process, spelled);
    }
}

#[cold]
fn spell(process: &Process<'_>, spelled: &Spelled) {
    // Six bytes are the most that one of text comes to.
    let text = [
        process.comm,
        process.exe,
        process.container_id,
        process.pod_uid,
    ];
    let text: usize = text.into_iter().flatten().map(str::len).sum();
    let mut room = vec![0; 512 + 6 * text];
    if let Ok(rest) = process.serialize(Encoder(&mut room)) {
        let free = rest.len();
        room.truncate(room.len() - free);
        // Set already only if it is the same.
        let _same = spelled.set(room.into());
    }
}

/// Appends the line of a reset without a socket.
pub fn reset(record: &StrayReset<'_>, room: &mut [u8]) -> Option<usize> {
    line(record, room)
}

/// Appends the line of a kernel event.
pub fn event(record: &Event<'_>, room: &mut [u8]) -> Option<usize> {
    line(record, room)
}

/// Appends the line of the tracer's own account.
pub fn stats(record: &Stats, room: &mut [u8]) -> Option<usize> {
    line(record, room)
}

/// The line's length, or `None` where `room` is too small.
pub(crate) fn line<T: Serialize>(record: &T, room: &mut [u8]) -> Option<usize> {
    let size = room.len();
    let rest = record.serialize(Encoder(room)).ok()?;
    let rest = put(rest, b"\n").ok()?;
    Some(size - rest.len())
}

/// The line was not written: the room is too small, or a field has a type that no record has.
#[derive(Debug)]
struct Unwritten;

impl Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for the line")
    }
}

impl std::error::Error for Unwritten {}

impl ser::Error for Unwritten {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

type Result<T, E = Unwritten> = std::result::Result<T, E>;
type Room<'a> = Result<&'a mut [u8]>;

#[inline(always)]
fn put<'a>(room: &'a mut [u8], bytes: &[u8]) -> Room<'a> {
    let (place, rest) = room.split_at_mut_checked(bytes.len()).ok_or(Unwritten)?;
    place.copy_from_slice(bytes);
    Ok(rest)
}

/// Copies all of `bytes`, of which only `len` count: faster than a copy of a length the compiler does not know.
#[inline(always)]
fn put_some<const N: usize>(room: &mut [u8], bytes: [u8; N], len: usize) -> Room<'_> {
    *room.first_chunk_mut().ok_or(Unwritten)? = bytes;
    room.get_mut(len..).ok_or(Unwritten)
}

#[inline]
fn integer(room: &mut [u8], number: u64) -> Room<'_> {
    if let Some(&(digits, len)) = usize::try_from(number)
        .ok()
        .and_then(|number| SMALL.get(number))
    {
        put_some(room, digits, len.into())
    } else if number < EIGHT {
        let (digits, len) = leading(number);
        put_some(room, digits, len)
    } else {
        put(integer(room, number / EIGHT)?, &eight(number % EIGHT))
    }
}

/// A word of our own between what surrounds it. Inlined, all three are constants and this becomes a few stores.
#[inline(always)]
fn word<'a>(room: &'a mut [u8], before: &str, word: &str, after: &str) -> Room<'a> {
    let len = before.len() + word.len() + after.len();
    let (place, rest) = room.split_at_mut_checked(len).ok_or(Unwritten)?;
    let (front, back) = place.split_at_mut(before.len());
    let (middle, back) = back.split_at_mut(word.len());
    front.copy_from_slice(before.as_bytes());
    middle.copy_from_slice(word.as_bytes());
    back.copy_from_slice(after.as_bytes());
    Ok(rest)
}

/// Whether any byte may begin something that has to be escaped; 0xC2 is the first byte of every C1 character, 0xD8 and 0xE2 are those of
/// what turns the order of text or breaks a line.
///
/// Without a branch, so that the compiler looks at all bytes of an array at once.
#[inline]
fn suspicious<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.iter().fold(0, |found, &byte| {
        let special =
            [b'"', b'\\', 0x7f, 0xc2, 0xd8, 0xe2].map(|special| u8::from(byte == special));
        special
            .into_iter()
            .fold(found | u8::from(byte < 0x20), |found, hit| found | hit)
    }) != 0
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
fn string<'a>(room: &'a mut [u8], text: &str) -> Room<'a> {
    if needs_escape(text.as_bytes()) {
        escaped(room, text)
    } else {
        word(room, "\"", text, "\"")
    }
}

#[cold]
fn escaped<'a>(room: &'a mut [u8], text: &str) -> Room<'a> {
    let mut room = put(room, b"\"")?;
    for character in text.chars() {
        room = match character {
            '"' => put(room, b"\\\""),
            '\\' => put(room, b"\\\\"),
            '\u{8}' => put(room, b"\\b"),
            '\t' => put(room, b"\\t"),
            '\n' => put(room, b"\\n"),
            '\u{c}' => put(room, b"\\f"),
            '\r' => put(room, b"\\r"),
            control if super::is_control(control) => put(room, &super::escape_control(control)),
            other => put(room, other.encode_utf8(&mut [0; 4]).as_bytes()),
        }?;
    }
    put(room, b"\"")
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;
    use serde_json::ser::Formatter;

    use super::*;
    use crate::output::{self, samples};

    /// `serde_json`, with the control characters escaped that JSON itself does not mind.
    struct NoControls;

    impl Formatter for NoControls {
        fn write_string_fragment<W: io::Write + ?Sized>(
            &mut self,
            writer: &mut W,
            fragment: &str,
        ) -> io::Result<()> {
            fragment.chars().try_for_each(|character| {
                if output::is_control(character) {
                    write!(writer, "\\u{:04x}", u32::from(character))
                } else {
                    write!(writer, "{character}")
                }
            })
        }
    }

    fn same<T: Serialize>(
        record: &T,
        encode: fn(&T, &mut [u8]) -> Option<usize>,
    ) -> std::result::Result<(), TestCaseError> {
        let mut expected = Vec::new();
        let mut oracle = serde_json::Serializer::with_formatter(&mut expected, NoControls);
        record.serialize(&mut oracle).unwrap();
        expected.push(b'\n');

        let mut room = vec![0; expected.len() + 8];
        let len = encode(record, &mut room).unwrap();
        let line = std::str::from_utf8(&room[..len]).unwrap();
        prop_assert_eq!(line, std::str::from_utf8(&expected).unwrap());
        prop_assert!(!line.trim_end_matches('\n').contains(output::is_control));

        for short in [0, len / 3, len / 2, len - 1] {
            prop_assert_eq!(encode(record, &mut room[..short]), None);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn connections_are_what_serde_says(record in samples::connections()) {
            same(&record, connection)?;
        }

        #[test]
        fn resets_are_what_serde_says(record in samples::resets()) {
            same(&record, reset)?;
        }

        #[test]
        fn events_are_what_serde_says(record in samples::events()) {
            same(&record, event)?;
        }

        #[test]
        fn stats_are_what_serde_says(record in samples::stats()) {
            same(&record, stats)?;
        }

        #[test]
        fn any_text_is(text in any::<String>()) {
            same(&text, line)?;
        }
    }

    #[test]
    fn every_number_of_every_width() {
        for power in 0..20 {
            let number = 10_u64.pow(power);
            for number in [number - 1, number, number + 1, number / 5 * 9, u64::MAX] {
                same(&number, line).unwrap();
            }
        }
        for number in 0..20_000_u64 {
            same(&number, line).unwrap();
        }
    }

    #[test]
    fn every_control_character_at_every_place() {
        let wide = ('\u{600}'..='\u{63f}').chain('\u{2000}'..='\u{20ff}');
        for character in (0..=0xff_u8).map(char::from).chain(wide) {
            for before in 0..20 {
                let text =
                    " ".repeat(before) + &format!("{character:.<width$}", width = 20 - before);
                same(&text, line).unwrap();
            }
        }
    }
}
