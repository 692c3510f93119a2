//! Times as logs spell them, to nanoseconds since the Unix epoch.
//!
//! Must not know: which log a time stands in. The time zone of times without one is handed in.

#![expect(
    clippy::many_single_char_names,
    reason = "the digits of a date, a letter each"
)]

use std::fmt;

use jiff::{civil::DateTime, tz::TimeZone};

const SECOND: u64 = 1_000_000_000;
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A date and a time of day that do not say where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Seconds into the day.
    second: i64,
    nanos: u64,
}

/// The zone of times that name none, which is that of the host where the log was written.
pub struct Zone {
    rules: TimeZone,
    /// The last hour that was asked for, and how far it is ahead of UTC.
    hour: i64,
    ahead: i64,
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone").finish_non_exhaustive()
    }
}

impl Zone {
    /// A zone by its rules.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            rules: zone,
            hour: i64::MIN,
            ahead: 0,
        }
    }

    fn ahead(&mut self, civil: &Civil) -> i64 {
        let hour = civil.utc().div_euclid(3_600);
        if hour != self.hour {
            self.ahead = self.look_up(civil).unwrap_or(0);
            self.hour = hour;
        }
        self.ahead
    }

    fn look_up(&self, civil: &Civil) -> Option<i64> {
        let narrow = |number: i64| i8::try_from(number).ok();
        let time = DateTime::new(
            i16::try_from(civil.year).ok()?,
            narrow(civil.month)?,
            narrow(civil.day)?,
            narrow(civil.second / 3_600)?,
            narrow(civil.second / 60 % 60)?,
            narrow(civil.second % 60)?,
            0,
        );
        let there = self.rules.to_ambiguous_timestamp(time.ok()?).compatible();
        Some(civil.utc() - there.ok()?.as_second())
    }
}

impl Civil {
    /// Seconds since the epoch, were it UTC. Howard Hinnant's `days_from_civil`.
    const fn utc(&self) -> i64 {
        let year = if self.month <= 2 {
            self.year - 1
        } else {
            self.year
        };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era - 719_468) * 86_400 + self.second
    }

    fn checked(year: i64, month: i64, day: i64, clock: [i64; 3], nanos: u64) -> Option<Self> {
        let [hour, minute, second] = clock;
        let valid = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        valid.then_some(Self {
            year,
            month,
            day,
            second: hour * 3_600 + minute * 60 + second,
            nanos,
        })
    }

    /// Nanoseconds since the epoch, `ahead` seconds ahead of UTC.
    fn at(&self, ahead: i64) -> Option<u64> {
        let seconds = u64::try_from(self.utc() - ahead).ok()?;
        seconds.checked_mul(SECOND)?.checked_add(self.nanos)
    }

    /// Nanoseconds since the epoch.
    pub fn in_zone(&self, zone: &mut Zone) -> Option<u64> {
        self.at(zone.ahead(self))
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// `15:08:06`
fn clock(bytes: &[u8]) -> Option<[i64; 3]> {
    let &[h, i, b':', m, n, b':', s, t] = bytes else {
        return None;
    };
    Some([digits(&[h, i])?, digits(&[m, n])?, digits(&[s, t])?])
}

/// `.123` or `,123` to nanoseconds; nothing is 0. Returns what follows as well.
fn fraction(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let [b'.' | b',', rest @ ..] = bytes else {
        return Some((0, bytes));
    };
    let (mut nanos, mut unit, mut rest) = (0, SECOND, rest);
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        unit /= 10;
        if unit == 0 {
            return None;
        }
        nanos += u64::from(digit - b'0') * unit;
        rest = behind;
    }
    Some((nanos, rest))
}

/// `Z`, `+0100`, `+01:00`: seconds ahead of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match *bytes {
        [b'Z'] => return Some(0),
        [sign, h, i, b':', m, n] | [sign, h, i, m, n] => (sign, [h, i], [m, n]),
        _ => return None,
    };
    let seconds = digits(&hours)? * 3_600 + digits(&minutes)? * 60;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// `2026-11-21T15:08:06.123Z`, as Envoy and the tracer write it.
pub fn rfc3339(text: &str) -> Option<u64> {
    let (head, rest) = text.as_bytes().split_at_checked(19)?;
    let (&[a, b, c, d, b'-', m, n, b'-', e, f, b'T'], time) = head.split_first_chunk()? else {
        return None;
    };
    let (nanos, zone) = fraction(rest)?;
    let year = digits(&[a, b, c, d])?;
    let (month, day) = (digits(&[m, n])?, digits(&[e, f])?);
    Civil::checked(year, month, day, clock(time)?, nanos)?.at(offset(zone)?)
}

/// `2026/11/21 15:08:06`, as the NGINX error log begins.
pub fn slashed(text: &str) -> Option<Civil> {
    let (head, time) = text.as_bytes().split_first_chunk()?;
    let &[a, b, c, d, b'/', m, n, b'/', e, f, b' '] = head else {
        return None;
    };
    let year = digits(&[a, b, c, d])?;
    let (month, day) = (digits(&[m, n])?, digits(&[e, f])?);
    Civil::checked(year, month, day, clock(time)?, 0)
}

/// The time that a line of a program's own log begins with, how exact it is, and the rest of the line: `2026-11-21T15:08:06.123Z`,
/// `2026-11-21 15:08:06,123`, `2026/11/21 15:08:06.123456`.
pub fn leading<'a>(line: &'a str, zone: &mut Zone) -> Option<(u64, u64, &'a str)> {
    let (head, rest) = line.split_at_checked(19)?;
    let (&[a, b, c, d, first, m, n, second, e, f, b'T' | b' '], time) =
        head.as_bytes().split_first_chunk()?
    else {
        return None;
    };
    if first != second || !matches!(first, b'-' | b'/') {
        return None;
    }
    let (word, rest) = rest.split_once(' ')?;
    let (nanos, named) = fraction(word.as_bytes())?;
    let digits_there = word.len().checked_sub(named.len())?.saturating_sub(1);
    let precision = SECOND / 10_u64.pow(u32::try_from(digits_there).ok()?);
    let year = digits(&[a, b, c, d])?;
    let (month, day) = (digits(&[m, n])?, digits(&[e, f])?);
    let civil = Civil::checked(year, month, day, clock(time)?, nanos)?;
    let at = match named {
        [] => civil.in_zone(zone),
        _ => civil.at(offset(named)?),
    };
    Some((at?, precision, rest))
}

/// `21/Nov/2026:15:08:06`, with `.123` behind it in HAProxy's log, ` +0000` in web servers' logs.
fn named_month(text: &str) -> Option<(Civil, &[u8])> {
    let (head, rest) = text.as_bytes().split_at_checked(20)?;
    let (&[d, e, b'/', m, n, o, b'/', a, b, c, f, b':'], time) = head.split_first_chunk()? else {
        return None;
    };
    let month = MONTHS.iter().position(|name| **name == [m, n, o])?;
    let month = i64::try_from(month).ok()? + 1;
    let (nanos, rest) = fraction(rest)?;
    let (year, day) = (digits(&[a, b, c, f])?, digits(&[d, e])?);
    Some((Civil::checked(year, month, day, clock(time)?, nanos)?, rest))
}

/// `06/Feb/2009:12:14:14.655`
pub fn haproxy(text: &str) -> Option<Civil> {
    let (civil, rest) = named_month(text)?;
    rest.is_empty().then_some(civil)
}

/// `06/Feb/2009:12:14:14 +0100`
pub fn common_log(text: &str) -> Option<u64> {
    let (civil, rest) = named_month(text)?;
    civil.at(offset(rest.strip_prefix(b" ")?)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_the_librarys(nanos in 0..4_000_000_000_000_000_000_u64) {
            let time = jiff::Timestamp::from_nanosecond(nanos.into()).unwrap();
            prop_assert_eq!(rfc3339(&format!("{time:.9}")), Some(nanos));
            let (seconds, milliseconds) = (nanos / SECOND * SECOND, nanos / 1_000_000 * 1_000_000);
            let mut utc = Zone::new(TimeZone::UTC);
            let slash = time.strftime("%Y/%m/%d %H:%M:%S").to_string();
            prop_assert_eq!(slashed(&slash).unwrap().in_zone(&mut utc), Some(seconds));
            let named = time.strftime("%d/%b/%Y:%H:%M:%S.%3f").to_string();
            prop_assert_eq!(haproxy(&named).unwrap().in_zone(&mut utc), Some(milliseconds));
            let common = time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            prop_assert_eq!(common_log(&common), Some(seconds));
            for (format, unit) in [
                ("%Y-%m-%d %H:%M:%S,%3f x", 1_000_000),
                ("%Y-%m-%dT%H:%M:%S.%6fZ x", 1_000),
                ("%Y/%m/%d %H:%M:%S x", SECOND),
            ] {
                let line = time.strftime(format).to_string();
                prop_assert_eq!(leading(&line, &mut utc), Some((nanos / unit * unit, unit, "x")));
            }
        }

        #[test]
        fn nonsense_is_no_time(text in ".{0,40}") {
            let _ = (rfc3339(&text), slashed(&text), haproxy(&text), common_log(&text));
            let _ = leading(&text, &mut Zone::new(TimeZone::UTC));
        }
    }

    #[test]
    fn zones() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let mut east = Zone::new(east);
        let utc = rfc3339("2026-11-21T13:00:00Z");
        let there = slashed("2026/11/21 15:00:00").unwrap();
        assert_eq!(there.in_zone(&mut east), utc);
        assert_eq!(common_log("21/Nov/2026:15:00:00 +0200"), utc);
        assert_eq!(rfc3339("2026-11-21T10:30:00-02:30"), utc);
        assert_eq!(rfc3339("2026-11-21T13:00:00"), None);
        assert_eq!(rfc3339("2026-13-21T13:00:00Z"), None);
    }
}
