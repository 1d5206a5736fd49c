//! The calendar: days, months and clock times of Unix seconds, in UTC.
//!
//! Proleptic Gregorian, leap seconds as POSIX has them.

use std::fmt;

/// Seconds of a day.
pub(in crate::model) const DAY: u64 = 86_400;

/// A moment as a calendar and a clock show it in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    /// 1970 and later.
    pub year: u64,
    /// From 1.
    pub month: u64,
    /// From 1.
    pub day: u64,
    /// From 0.
    pub hour: u64,
    /// From 0.
    pub minute: u64,
    /// From 0.
    pub second: u64,
}

impl Civil {
    /// What the calendar and the clock show at this Unix second.
    pub fn of(unix: u64) -> Self {
        let (year, month, day) = date(unix / DAY);
        let clock = unix % DAY;
        Self { year, month, day, hour: clock / 3600, minute: clock / 60 % 60, second: clock % 60 }
    }
}

impl Civil {
    /// `2025-09-16T12:00:00Z`, as APIs have it (RFC 3339).
    pub fn rfc3339(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// The Unix second of what [`rfc3339`](Self::rfc3339) prints; `None` for all else.
    pub fn parse_rfc3339(text: &str) -> Option<u64> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
        let days =
            day_number(number(0, 4)?.max(1970), number(5, 7)?.clamp(1, 12), number(8, 10)?.max(1));
        let unix = days * DAY + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
        (Self::of(unix).rfc3339() == text).then_some(unix)
    }
}

/// `2025/09/16 12:00:00 +0000`, as `ps` has it.
impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02} +0000")
    }
}

/// A month of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: u64,
    /// From 1.
    month: u64,
}

impl Month {
    /// The month of this Unix second.
    pub fn of(unix: u64) -> Self {
        let (year, month, _) = date(unix / DAY);
        Self { year, month }
    }

    /// The Unix second with which it begins.
    pub fn begin(self) -> u64 {
        day_number(self.year, self.month, 1) * DAY
    }

    /// The Unix second with which the next one begins.
    pub fn end(self) -> u64 {
        self.next().begin()
    }

    /// How many days it has.
    pub fn days(self) -> u64 {
        (self.end() - self.begin()) / DAY
    }

    fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            month => Self { year: self.year, month: month + 1 },
        }
    }
}

/// `2026-11`
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap day ends
/// a year, in eras of 400 years = 146,097 days.
pub(in crate::model) fn date(days: u64) -> (u64, u64, u64) {
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

/// The days since 1970-01-01 of a date, which is not before it.
pub(in crate::model) fn day_number(year: u64, month: u64, day: u64) -> u64 {
    let march_year = year - u64::from(month <= 2);
    let (era, year_of_era) = (march_year / 400, march_year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The day of the week of a day since 1970-01-01, a Thursday: 0 is Sunday.
pub(in crate::model) fn weekday(days: u64) -> u64 {
    (days + 4) % 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days() {
        let check = |unix, text: &str| assert_eq!(Civil::of(unix).to_string(), text);
        check(0, "1970/01/01 00:00:00 +0000");
        check(951_782_399, "2000/02/28 23:59:59 +0000");
        check(951_782_400, "2000/02/29 00:00:00 +0000");
        check(4_107_542_400, "2100/03/01 00:00:00 +0000");
        // 2026-11-21 is a Saturday.
        assert_eq!(weekday(day_number(2026, 11, 21)), 6);
    }

    #[test]
    fn months_have_their_days() {
        let days = |year, month| Month::of(day_number(year, month, 1) * DAY).days();
        assert_eq!((1..=12).map(|month| days(2026, month)).sum::<u64>(), 365);
        assert_eq!([days(2000, 2), days(2024, 2), days(2026, 2), days(2100, 2)], [29, 29, 28, 28]);
        assert_eq!(Month::of(1_795_225_490).to_string(), "2026-11");
    }

    proptest! {
        #[test]
        fn a_date_is_the_date_of_its_number(days in 0_u64..200_000) {
            let (year, month, day) = date(days);
            prop_assert_eq!(day_number(year, month, day), days);
        }

        #[test]
        fn what_is_printed_is_read_back(unix in 0_u64..200_000_000_000) {
            prop_assert_eq!(Civil::parse_rfc3339(&Civil::of(unix).rfc3339()), Some(unix));
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            Civil::parse_rfc3339(&text);
        }

        #[test]
        fn months_follow_each_other(unix in 0_u64..20_000_000_000) {
            let month = Month::of(unix);
            prop_assert!((month.begin()..month.end()).contains(&unix));
            prop_assert_eq!(Month::of(month.end()).begin(), month.end());
            prop_assert_eq!(Month::of(month.end() - 1), month);
        }
    }
}
