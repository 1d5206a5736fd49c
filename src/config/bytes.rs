//! Numbers of bytes as people write them: `512MB`, `1GB`, `2.5GB`. A megabyte has 1024 × 1024 of them, as with
//! Heroku.

/// What is said to somebody who wrote it otherwise.
pub(crate) const EXPECTED: &str = r#"an amount like "512MB" or "2.5GB""#;

const MB: u64 = 1 << 20;
const UNITS: [(&str, u64); 2] = [("MB", MB), ("GB", 1024 * MB)];

/// Parses a number with its unit; what it says has to be whole megabytes. `None` for all else.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 10 {
        return None;
    }
    // Exact: ten digits and the factor of a unit fit together.
    let parts = fraction.parse::<u64>().ok()?.checked_mul(unit / MB)?;
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    if !parts.is_multiple_of(scale) {
        return None;
    }
    let megabytes = whole.parse::<u64>().ok()?.checked_mul(unit / MB)?;
    megabytes.checked_add(parts / scale)?.checked_mul(MB)
}

/// The shortest text that [`parse`] reads as the same number of megabytes.
pub(crate) fn print(bytes: u64) -> String {
    match bytes / MB {
        megabytes if megabytes.is_multiple_of(1024) => format!("{}GB", megabytes / 1024),
        megabytes if megabytes.is_multiple_of(512) && megabytes > 1024 => {
            format!("{}.5GB", megabytes / 1024)
        }
        megabytes => format!("{megabytes}MB"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_have_a_unit_and_whole_megabytes() {
        for (text, expected) in [
            ("512MB", Some(512)),
            ("1GB", Some(1024)),
            ("2.5GB", Some(2560)),
            ("2.50GB", Some(2560)),
            ("14GB", Some(14_336)),
            ("0MB", Some(0)),
            ("0.3GB", None),
            ("0.5MB", None),
            ("512", None),
            ("MB", None),
            (".5GB", None),
            ("1.GB", None),
            ("1 GB", None),
            ("-1GB", None),
            ("1gb", None),
            ("99999999999999999999MB", None),
            ("18446744073709551615GB", None),
        ] {
            assert_eq!(parse(text), expected.map(|it: u64| it * MB), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(megabytes in 0u64..1 << 30) {
            prop_assert_eq!(parse(&print(megabytes * MB)), Some(megabytes * MB));
        }
    }
}
