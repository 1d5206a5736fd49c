//! Time as the first field of a line: `2026-11-21T01:44:50.123456+00:00`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        self.write(out, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    }
}

/// `2026-11-21T01:44:50` for a Unix time (proleptic Gregorian, leap seconds as POSIX has them).
fn date_and_time(second: u64) -> [u8; 19] {
    let (year, month, day) = civil(second / 86_400);
    let clock = second % 86_400;
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
    put(11, 2, clock / 3600);
    put(14, 2, clock / 60 % 60);
    put(17, 2, clock % 60);
    text
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap day ends
/// a year, in eras of 400 years = 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
