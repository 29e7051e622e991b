//! Sizes as people write them.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Read from `20GiB`, `500MB` or a plain number of bytes.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(try_from = "Written")]
pub struct ByteSize(u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Bytes(u64),
    Text(String),
}

const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

impl ByteSize {
    pub const fn new(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{0:?} is no size: write it as in 20GiB, 500MB or 1048576")]
pub struct NoByteSize(String);

impl FromStr for ByteSize {
    type Err = NoByteSize;
    fn from_str(text: &str) -> Result<ByteSize, NoByteSize> {
        let trimmed = text.trim();
        let unit = UNITS.iter().find_map(|(unit, bytes)| {
            let ends = trimmed
                .len()
                .checked_sub(unit.len())
                .filter(|at| trimmed.is_char_boundary(*at));
            let (number, end) = trimmed.split_at(ends?);
            end.eq_ignore_ascii_case(unit).then_some((number, *bytes))
        });
        let (number, unit) = unit.unwrap_or((trimmed, 1));
        let number: f64 = number
            .trim_end()
            .parse()
            .map_err(|_| NoByteSize(text.to_owned()))?;
        let bytes = number * unit as f64;
        match bytes.is_finite() && (0.0..u64::MAX as f64).contains(&bytes) {
            true => Ok(ByteSize(bytes as u64)),
            false => Err(NoByteSize(text.to_owned())),
        }
    }
}

impl TryFrom<Written> for ByteSize {
    type Error = NoByteSize;
    fn try_from(written: Written) -> Result<ByteSize, NoByteSize> {
        match written {
            Written::Bytes(bytes) => Ok(ByteSize(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

/// In the largest binary unit of which there is at least one.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS[..4].iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("20GiB", 20 << 30),
            ("20 gib", 20 << 30),
            ("1.5 MB", 1_500_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize::new(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "ten", "1e300", "5 apples", "é", "NaN"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_told_in_units_of_their_own() {
        assert_eq!(ByteSize::new(12).to_string(), "12 bytes");
        assert_eq!(ByteSize::new(3 << 29).to_string(), "1.5 GiB");
    }
}
