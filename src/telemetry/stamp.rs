//! Time as the first field of a line: `2026-11-21T01:44:50.123456+00:00`.

use std::time::Duration;

use crate::model::Civil;
use crate::wall_clock;

/// Writes timestamps, and remembers the text of the current second.
#[derive(Default)]
pub struct Stamp {
    second: u64,
    text: [u8; 19],
}

impl Stamp {
    /// Appends `since_epoch` (wall clock, UTC) with microseconds.
    pub fn write(&mut self, out: &mut Vec<u8>, since_epoch: Duration) {
        let second = since_epoch.as_secs();
        if second != self.second || self.text[0] == 0 {
            self.second = second;
            self.text = date_and_time(second);
        }
        out.extend_from_slice(&self.text);
        let mut fraction = *b".000000+00:00";
        let mut micros = since_epoch.subsec_micros();
        for digit in fraction[1..7].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        out.extend_from_slice(&fraction);
    }

    /// Appends the present.
    pub fn write_now(&mut self, out: &mut Vec<u8>) {
        self.write(out, wall_clock::since_epoch());
    }
}

/// `2026-11-21T01:44:50` for a Unix time.
fn date_and_time(unix: u64) -> [u8; 19] {
    let Civil { year, month, day, hour, minute, second } = Civil::of(unix);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, digits: usize, mut value: u64| {
        for place in text[at..at + digits].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, hour);
    put(14, 2, minute);
    put(17, 2, second);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let mut stamp = Stamp::default();
        let mut check = |secs, micros: u32, expected: &str| {
            let mut out = Vec::new();
            stamp.write(&mut out, Duration::new(secs, micros * 1000));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(0, 0, "1970-01-01T00:00:00.000000+00:00");
        check(951_782_399, 999_999, "2000-02-28T23:59:59.999999+00:00");
        check(951_782_400, 1, "2000-02-29T00:00:00.000001+00:00");
        check(1_795_225_490, 123_456, "2026-11-21T01:44:50.123456+00:00");
        check(1_795_225_490, 123_457, "2026-11-21T01:44:50.123457+00:00");
        check(4_107_542_400, 0, "2100-03-01T00:00:00.000000+00:00");
    }
}
