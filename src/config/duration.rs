//! Durations as people write them: `30s`, `500ms`, `5m`, `1h30m`, `30d`.

use std::time::Duration;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What is said to somebody who wrote it otherwise.
pub(crate) const EXPECTED: &str = r#"a duration like "30s", "500ms", "1h30m" or "30d""#;

/// Parses whole numbers with units, the larger unit first, each at most once. `None` for all else, and
/// beyond what fits in milliseconds.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let name = &after[..after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len())];
        let (_, unit) = units.find(|(unit, _)| *unit == name)?;
        millis = millis.checked_add(number.checked_mul(*unit)?)?;
        rest = &after[name.len()..];
    }
    (!text.is_empty()).then_some(Duration::from_millis(millis))
}

/// The shortest text that [`parse`] reads as the same number of milliseconds.
pub(crate) fn print(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    let mut text = String::new();
    for (name, unit) in UNITS {
        let number = millis / u128::from(unit);
        millis %= u128::from(unit);
        if number > 0 {
            text.push_str(&format!("{number}{name}"));
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text), expected.map(Duration::from_millis), "{text:?}");
    }

    #[test]
    fn durations_have_units_in_order() {
        check("30s", Some(30_000));
        check("500ms", Some(500));
        check("1h30m", Some(5_400_000));
        check("1m1s1ms", Some(61_001));
        check("0s", Some(0));
        check("90m", Some(5_400_000));
        check("30d", Some(2_592_000_000));
        check("1d12h", Some(129_600_000));
        for bad in [
            "", "30", "s", "30 s", "-1s", "1.5s", "30m1h", "1s1s", "1h1d", "30S", "١s", "1sx", "ms",
        ] {
            check(bad, None);
        }
        check("99999999999999999999s", None);
        check("9999999999999999999h", None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis in any::<u64>()) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&print(duration)), Some(duration));
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            parse(&text);
        }
    }
}
