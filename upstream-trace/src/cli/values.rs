//! How one value of an option is read, and what is said of one that cannot be.
//!
//! Must not know: which options there are, what is done with a value.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use crate::{container, record::Verdict, settings::Network};

/// `first-last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortRange(pub(super) u16, pub(super) u16);

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a port is a number from 1 to 65535, a range is FIRST-LAST";
        let port = |text: &str| text.parse().ok().filter(|&port: &u16| port != 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            _ => Err(WRONG),
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a network is ADDRESS or ADDRESS/PREFIX";
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| WRONG))?;
        if prefix > longest {
            return Err("the prefix is longer than the address");
        }
        let mapped = match address {
            // Such a socket is IPv4's to the kernel side.
            IpAddr::V6(address) if prefix >= 96 => address.to_ipv4_mapped(),
            _ => None,
        };
        Ok(mapped.map_or(Self { address, prefix }, |address| Self {
            address: address.into(),
            prefix: prefix - 96,
        }))
    }
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().find(|verdict| verdict.as_str() == text);
        known.copied().ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|verdict| verdict.as_str()).collect();
            format!("the verdicts are {}", all.join(", "))
        })
    }
}

/// The kernel gives no higher one, `PID_MAX_LIMIT`.
pub(super) fn pid(text: &str) -> Result<u32, &'static str> {
    number(text, 4_194_304).ok_or("a pid is a number from 1 to 4194304")
}

pub(super) fn max_connections(text: &str) -> Result<u32, &'static str> {
    number(text, 16_777_216).ok_or("it is a number from 1 to 16777216")
}

fn number(text: &str, most: u32) -> Option<u32> {
    let number = text.parse().ok()?;
    (1..=most).contains(&number).then_some(number)
}

/// `3f4e5d6c7b8a`, or more of it, or with the runtime before it as Kubernetes writes it.
pub(super) fn container(text: &str) -> Result<String, &'static str> {
    let id = text.split_once("://").map_or(text, |(_, id)| id);
    if (12..=container::LENGTH).contains(&id.len()) && container::is_hex(id) {
        Ok(id.to_owned())
    } else {
        Err("a container's id is 12 to 64 hexadecimal digits, in small letters")
    }
}

/// `10` (seconds), `250ms`, `10s`, `5m`, `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "a time is a whole number of seconds, or one with ms, s, m or h behind it";
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(WRONG);
    }
    // Digits that are no number are too many.
    let number: Option<u64> = number.parse().ok();
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(WRONG),
    };
    let duration = number.and_then(|number| number.checked_mul(milliseconds));
    duration
        .map(Duration::from_millis)
        .ok_or("the time is too long")
}

/// `65536`, `64KiB`, `4MiB`: a power of two, as the kernel demands.
pub(super) fn ring_size(text: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "a size is a power of two from 64KiB to 1GiB";
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| WRONG)?;
    let shift = match unit {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(WRONG),
    };
    let bytes = number.checked_mul(1 << shift).ok_or(WRONG)?;
    let allowed = (64 << 10)..=(1 << 30);
    if bytes.is_power_of_two() && allowed.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(WRONG)
    }
}

/// `NAME=ADDRESS:PORT`
pub(super) fn server(text: &str) -> Result<(String, SocketAddr), &'static str> {
    const WRONG: &str = "a server is NAME=ADDRESS:PORT";
    let (name, address) = text.rsplit_once('=').ok_or(WRONG)?;
    let address: SocketAddr = address.parse().map_err(|_| WRONG)?;
    let is_whole = !name.is_empty() && address.port() != 0;
    is_whole.then(|| (name.to_owned(), address)).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert!(
            duration("1d").is_err()
                && duration("").is_err()
                && duration("99999999999999999999d").is_err()
        );
        for long in ["99999999999999999h", "99999999999999999999s"] {
            assert_eq!(duration(long), Err("the time is too long"));
        }
        assert_eq!(ring_size("64KiB"), Ok(65_536));
        assert_eq!(ring_size("4MiB"), Ok(4 << 20));
        assert!(
            ring_size("65537").is_err()
                && ring_size("32KiB").is_err()
                && ring_size("8GiB").is_err()
        );
    }

    #[test]
    fn servers() {
        let expected = ("b/s".to_owned(), "[::1]:80".parse().unwrap());
        assert_eq!(server("b/s=[::1]:80"), Ok(expected));
        for wrong in ["b/s", "b=1", "=1.2.3.4:5", "b=1.2.3.4:0"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }
}
