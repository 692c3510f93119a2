//! A second of the calendar, spelled; the last one is kept, as nearly all lines of a batch are of the same.
//!
//! Must not know: what happened then.

use std::cell::Cell;

use super::digits::eight;

/// RFC 3339 with its quotes and room for nine fractional digits.
pub(super) type Text = [u8; 32];

thread_local! {
    static LAST: Cell<(u64, Text)> = const { Cell::new((0, *b"\"1970-01-01T00:00:00.000000000Z\"")) };
}

/// The second of a time in nanoseconds since the Unix epoch.
#[inline]
pub(super) fn spell(nanos: u64) -> Text {
    let (last, text) = LAST.get();
    if last == nanos / 1_000_000_000 {
        return text;
    }
    remember(nanos)
}

#[cold]
fn remember(nanos: u64) -> Text {
    let second = nanos / 1_000_000_000;
    let of_day = (second % 86_400) as u32;
    let (year, month, day) = civil((second / 86_400) as u32);
    let mut text = *b"\"0000-00-00T00:00:00.000000000Z\"";
    let mut put = |at: usize, number: u32| {
        let [.., tens, ones] = eight(number.into());
        text[at..at + 2].copy_from_slice(&[tens, ones]);
    };
    put(1, year / 100);
    put(3, year);
    put(6, month);
    put(9, day);
    put(12, of_day / 3_600);
    put(15, of_day / 60 % 60);
    put(18, of_day % 60);
    LAST.set((second, text));
    text
}

/// Year, month and day of a count of days since 1970-01-01.
///
/// Howard Hinnant's `civil_from_days`, for days that are not negative: years begin in March, so that the leap day is the last.
const fn civil(days: u32) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, carry) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (shifted / 146_097 * 400 + year_of_era + carry, month, day)
}
