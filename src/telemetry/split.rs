//! A block of lines, taken apart: `TIMESTAMP APP SOURCE[PROCESS]: MESSAGE`, one per line. Pure.

use std::collections::BTreeMap;

use crate::model::Civil;

/// Bytes of a time stamp: `2026-11-21T01:44:50.123456+00:00`.
pub(crate) const STAMP: usize = 32;
/// Bytes of its date and its time, in whole seconds.
const SECOND: usize = 19;

/// One line of a block, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// As it is written; [`STAMP`] bytes.
    pub(crate) stamp: &'a [u8],
    /// Whose line it is.
    pub(crate) app: &'a str,
    /// `heroku[router]: at=info …`
    pub(crate) rest: &'a [u8],
}

/// The lines of a block that are some app's; those of the daemon itself are passed over.
pub(crate) fn split(block: &[u8]) -> impl Iterator<Item = Parts<'_>> {
    lines(block).filter_map(parts)
}

/// How many lines each app has in a block; those of nobody count for `-`.
pub(crate) fn tally(block: &[u8]) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for line in lines(block) {
        let app = parts(line).map_or("-", |parts| parts.app);
        match tally.get_mut(app) {
            Some(count) => *count += 1,
            None => {
                tally.insert(app.to_owned(), 1);
            }
        }
    }
    tally
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begin = 0;
    memchr::memchr_iter(b'\n', block).map(move |end| {
        let line = &block[begin..end];
        begin = end + 1;
        line
    })
}

fn parts(line: &[u8]) -> Option<Parts<'_>> {
    let (stamp, rest) = line.split_at_checked(STAMP)?;
    let rest = rest.strip_prefix(b" ")?;
    let end = memchr::memchr(b' ', rest)?;
    let app = std::str::from_utf8(&rest[..end]).ok().filter(|app| *app != "-")?;
    Some(Parts { stamp, app, rest: &rest[end + 1..] })
}

/// Reads time stamps, and remembers the current second.
#[derive(Default)]
pub(crate) struct Stamps {
    text: Vec<u8>,
    second: u64,
}

impl Stamps {
    /// Microseconds since 1970; what is no time stamp is of the second before it.
    pub(crate) fn micros(&mut self, stamp: &[u8]) -> u64 {
        if self.text != stamp[..SECOND] {
            let text = String::from_utf8_lossy(&stamp[..SECOND]) + "Z";
            if let Some(second) = Civil::parse_rfc3339(&text) {
                self.second = second;
                self.text = stamp[..SECOND].to_vec();
            }
        }
        let digit = |value: u64, digit: &u8| value * 10 + u64::from(digit.wrapping_sub(b'0') % 10);
        self.second * 1_000_000 + stamp[SECOND + 1..SECOND + 7].iter().fold(0, digit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Stamp;

    const NOW: &str = "2026-11-21T01:44:50.123456+00:00";

    fn found(block: &str) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        split(block.as_bytes()).map(|it| (it.app, text(it.rest))).collect()
    }

    #[test]
    fn lines_are_taken_apart() {
        let block = format!(
            "{NOW} shop heroku[router]: at=info\n{NOW} - dynomesh[daemon]: hm\n{NOW} blog app[web.1]: \n"
        );
        assert_eq!(found(&block), [("shop", "heroku[router]: at=info"), ("blog", "app[web.1]: ")]);
        let tally = tally(block.as_bytes());
        assert_eq!(
            tally.into_iter().collect::<Vec<_>>(),
            [("-".into(), 1), ("blog".into(), 1), ("shop".into(), 1)]
        );
    }

    #[test]
    fn what_is_no_line_of_ours_is_nobodys() {
        assert_eq!(found("\n\nshort\n"), []);
        assert_eq!(found(&format!("{NOW}\n{NOW} \n{NOW} shop\n{NOW} shop app[web.1]: cut")), []);
        assert_eq!(split(&[NOW.as_bytes(), b" \xff app[web.1]: x\n"].concat()).count(), 0);
    }

    proptest! {
        #[test]
        fn stamps_are_read_as_they_are_written(times in prop::collection::vec(0..4_102_444_800_000_000u64, 1..20)) {
            let (mut stamp, mut stamps) = (Stamp::default(), Stamps::default());
            for micros in times {
                let mut text = Vec::new();
                stamp.write(&mut text, Duration::from_micros(micros));
                prop_assert_eq!(text.len(), STAMP);
                prop_assert_eq!(stamps.micros(&text), micros);
            }
        }

        #[test]
        fn no_line_is_lost(apps in prop::collection::vec("[a-z]{1,5}", 0..20)) {
            let block: String = apps.iter().map(|app| format!("{NOW} {app} app[web.1]: {app}\n")).collect();
            let found = found(&block);
            prop_assert_eq!(found.len(), apps.len());
            for ((app, rest), expected) in found.iter().zip(&apps) {
                prop_assert_eq!(*app, expected.as_str());
                prop_assert_eq!(*rest, format!("app[web.1]: {expected}"));
            }
        }
    }
}
