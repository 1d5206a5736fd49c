//! The name of an app.

use std::fmt;
use std::sync::Arc;

/// The name of an app: one DNS label, since the app answers at `NAME.domain`.
///
/// Cheap to clone. Lower-case letters, digits and dashes, beginning with a letter, at most 63 bytes
/// (RFC 1035 §2.3.4; Heroku's own bound is 30).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppName(Arc<str>);

impl AppName {
    /// Parses a name; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let well_formed = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !well_formed || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(
                "an app's name has lower-case letters, digits and dashes, and begins with a letter",
            );
        }
        if text.len() > 63 || text.ends_with('-') {
            return Err("an app's name has at most 63 characters and does not end with a dash");
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "shop", "shop-2", "x1"] {
            assert_eq!(AppName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Shop", "2shop", "-x", "x-", "a.b", "a_b", "é", &"a".repeat(64)] {
            assert!(AppName::parse(bad).is_err(), "{bad}");
        }
    }
}
