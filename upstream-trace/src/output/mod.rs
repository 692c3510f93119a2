//! From a record to the bytes on standard output or in a file.
//!
//! [`select`] says whether a record is printed, [`json`] and [`text`] spell it, [`writer`] is the only place that writes.
//! Must not know: how a record came about.

pub mod json;
pub mod schema;
pub mod select;

/// `\u009b` and the like: harmless in a terminal, and JSON.
fn escape_control(out: &mut Vec<u8>, character: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let [low, ..] = u32::from(character).to_le_bytes();
    out.extend_from_slice(b"\\u00");
    out.push(HEX[usize::from(low >> 4)]);
    out.push(HEX[usize::from(low & 0xf)]);
}
