//! Decimal digits without a loop: most numbers of a line are small and come from a table, of others eight digits are made at once, side by
//! side in one word.
//!
//! Must not know: what is counted.

/// Numbers of eight digits are below this.
pub(crate) const EIGHT: u64 = 100_000_000;

/// Makes ASCII digits of the numbers 0 to 9.
const ZEROS: u64 = u64::from_ne_bytes(*b"00000000");

/// The numbers of at most three digits: these, then a dot, and how many they are.
pub(crate) static SMALL: [([u8; 4], u8); 1000] = {
    let mut small = [([0; 4], 0); 1000];
    let mut number = 0;
    while number < small.len() {
        let ([a, b, c, ..], len) = leading(number as u64);
        small[number] = match len {
            1 => ([a, b'.', 0, 0], 1),
            2 => ([a, b, b'.', 0], 2),
            _ => ([a, b, c, b'.'], 3),
        };
        number += 1;
    }
    small
};

/// The decimal digits of a number below [`EIGHT`], leading zeros included.
#[inline]
pub(crate) const fn eight(number: u64) -> [u8; 8] {
    (digits(number) | ZEROS).to_le_bytes()
}

/// The same from the first that is not zero, or the last, and how many these are.
#[inline]
pub(crate) const fn leading(number: u64) -> ([u8; 8], usize) {
    let digits = digits(number);
    // A bit of the last digit's byte: even of 0 one digit stays.
    let zeros = (digits | 1 << 56).trailing_zeros() / 8;
    let text = (digits | ZEROS) >> (8 * zeros);
    (text.to_le_bytes(), 8 - zeros as usize)
}

/// The first digit is the lowest byte.
///
/// Halved three times: each step divides every part of the word by a reciprocal that is exact for its size.
#[inline]
const fn digits(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 5_243) >> 19) & 0x7f_0000_007f;
    let pairs = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((pairs - 10 * tens) << 8)
}

/// The hexadecimal digits of a number, leading zeros included.
#[inline]
pub(super) const fn hexadecimal(number: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let bytes = number.swap_bytes() as u64;
    let bytes = (bytes | bytes << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (bytes | bytes << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes >> 4 | bytes << 8) & (0x0f * EACH);
    let letters = (nibbles + 6 * EACH) >> 4 & EACH;
    (nibbles + ZEROS + letters * (b'a' - b'0' - 10) as u64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_standard_librarys() {
        let few = (0..20_000).chain(99_990_000..EIGHT);
        for number in few.chain((0..EIGHT).step_by(9_973)) {
            assert_eq!(eight(number), *format!("{number:08}").as_bytes());
            let (text, len) = leading(number);
            assert_eq!(text[..len], *number.to_string().as_bytes());
        }
        for (number, (text, len)) in SMALL.iter().enumerate() {
            let len = usize::from(*len);
            assert_eq!(text[..=len], *format!("{number}.").as_bytes());
        }
        for number in (0..u32::MAX).step_by(99_991) {
            assert_eq!(hexadecimal(number), *format!("{number:08x}").as_bytes());
        }
    }
}
