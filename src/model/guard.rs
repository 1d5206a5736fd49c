//! By what a release is judged once it has requests.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// How much worse than the one before it a release may be, and for how long that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// How much more of its requests its dynos may fail.
    pub errors: Hundredths,
    /// How many times as long one request in twenty may take at least; absent: as long as it likes.
    pub p95: Option<Hundredths>,
    /// How long after its last dyno has come up.
    pub within: Duration,
    /// It is not judged by fewer requests.
    pub requests: NonZeroU32,
}

/// How much of an app's requests goes to a release at first, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// In percent.
    pub share: Hundredths,
    /// Since it is up.
    pub time: Duration,
}

/// A number with two digits behind the point: 150 is 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hundredths(pub u32);

impl Hundredths {
    /// All percent that there are.
    pub const ALL: Self = Self(100_00);

    /// Parses `5`, `0.5`, `1.25`. `None` for all else, and beyond what fits.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(rest) || rest.len() > 2 {
            return None;
        }
        let rest: u32 = format!("{rest:0<2}").parse().ok()?;
        Some(Self(whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(rest)?))
    }

    /// The number itself.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// The shortest text that is read as the same.
impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value())
    }
}

/// `errors 5%, p95 3x`: how much worse it may be, as the file has it.
impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errors {}%", self.errors)?;
        self.p95.map_or(Ok(()), |p95| write!(f, ", p95 {p95}x"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_are_read_and_printed() {
        for (text, expected) in [("5", 500), ("0.5", 50), ("1.25", 125), ("0", 0), ("300", 30_000)]
        {
            assert_eq!(Hundredths::parse(text), Some(Hundredths(expected)), "{text}");
            assert_eq!(Hundredths(expected).to_string(), text);
        }
        assert_eq!(Hundredths::parse("1.50"), Some(Hundredths(150)));
        for bad in ["", ".5", "5.", "1.234", "-1", "+1", "1e3", "99999999999", "42949673"] {
            assert_eq!(Hundredths::parse(bad), None, "{bad:?}");
        }
    }
}
