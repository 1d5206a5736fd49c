//! Config vars: which names they may have, and how they are shown without their values.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The names that the dyno manager gives itself.
const RESERVED: [&str; 2] = ["PORT", "DYNO"];

/// Checks a name and its value; the error says what is wrong without showing the value.
pub fn check_config_var(name: &str, value: &str) -> Result<(), &'static str> {
    check_name(name).and_then(|()| check_value(value))
}

/// Checks a name; the error says what is wrong with it.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(
            "a config var's name has letters, digits and underscores, and does not begin with a digit",
        );
    }
    if RESERVED.contains(&name) {
        return Err("dynomesh gives each dyno its own PORT and DYNO; they cannot be set");
    }
    Ok(())
}

/// Checks a value; the error says what is wrong without showing it.
pub(crate) fn check_value(value: &str) -> Result<(), &'static str> {
    match value.contains('\0') {
        true => Err("the value has a NUL character, which no environment can carry"),
        false => Ok(()),
    }
}

/// A number that differs when the value does, so that two daemons' worths of config vars can be compared
/// without either being shown. The same in every process; not meant to withstand guessing.
pub(crate) fn fingerprint(value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Shows the names of config vars, and `‹redacted›` in place of each value.
pub(crate) struct Redacted<'a>(pub(crate) &'a BTreeMap<String, String>);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, format_args!("‹redacted›")))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["A", "_", "rack_env", "A1"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "A.B", "É", "PORT", "DYNO", "A="] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        let vars = BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
        assert_eq!(format!("{:?}", Redacted(&vars)), r#"{"TOKEN": ‹redacted›}"#);
    }
}
