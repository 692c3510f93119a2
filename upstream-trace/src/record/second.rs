//! A second of the calendar, spelled; the last one is kept, as nearly all lines of a batch are of the same.
//!
//! Must not know: what happened then.

use std::cell::Cell;

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
    let time = i64::try_from(second).ok().map(jiff::Timestamp::from_second);
    let mut text = *b"\"1970-01-01T00:00:00.000000000Z\"";
    // `2026-11-21T11:34:03Z`, every time of 64 bits in nanoseconds.
    let spelled = time.and_then(Result::ok).unwrap_or_default().to_string();
    if let (Some(place), Some(spelled)) = (text.get_mut(1..20), spelled.as_bytes().get(..19)) {
        place.copy_from_slice(spelled);
    }
    LAST.set((second, text));
    text
}
