//! Cron expressions: `*/10 8-18 * * mon-fri`. Five fields, UTC.

use std::fmt;

use crate::model::calendar::{DAY, date, weekday};

/// Days that are looked through for the next match: a 29 February is at most eight years off, a date that never
/// comes (30 February) is none.
const DAYS_AHEAD: u64 = 9 * 366;

/// When something is due, as crontab(5) says it: minute, hour, day of the month, month, day of the week; each a
/// `*`, a number, a range `a-b`, a list `a,b`, any of these with a step `/n`. Months and weekdays have names,
/// Sunday is 0 and 7. Where both kinds of day are restricted, either will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: Box<str>,
    /// Each field as a set of bits.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the field began with `*`: then the other kind of day decides.
    any_day: bool,
    any_weekday: bool,
}

/// One of the five: its name, its bounds, and names for its numbers from the lower bound on.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, names: &[] };
const DAY_OF_MONTH: Field = Field { name: "day of the month", min: 1, max: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAY_OF_WEEK: Field = Field {
    name: "day of the week",
    min: 0,
    max: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Cron {
    /// Parses an expression; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, day_of_week] = fields[..] else {
            return Err(format!(
                "expected five fields (minute, hour, day of the month, month, day of the week), not {}",
                fields.len()
            ));
        };
        let weekdays = DAY_OF_WEEK.parse(day_of_week)?;
        let cron = Self {
            text: fields.join(" ").into(),
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY_OF_MONTH.parse(day)?,
            months: MONTH.parse(month)?,
            // 7 is Sunday, as 0 is.
            weekdays: weekdays & 0x7f | weekdays >> 7,
            any_day: day.starts_with('*'),
            any_weekday: day_of_week.starts_with('*'),
        };
        match cron.next_after(0) {
            Some(_) => Ok(cron),
            None => Err("no year has such a day".into()),
        }
    }

    /// The first Unix second after this one at which it is due: the beginning of a minute.
    pub fn next_after(&self, unix: u64) -> Option<u64> {
        let earliest = unix / 60 * 60 + 60;
        (earliest / DAY..=earliest / DAY + DAYS_AHEAD).filter(|day| self.has_day(*day)).find_map(
            |day| {
                let from = earliest.saturating_sub(day * DAY) / 60;
                let minute = (from..24 * 60).find(|minute| self.has_minute(*minute))?;
                Some(day * DAY + minute * 60)
            },
        )
    }

    fn has_day(&self, day: u64) -> bool {
        let (_, month, day_of_month) = date(day);
        let by_month = has(self.days, day_of_month);
        let by_week = has(self.weekdays, weekday(day));
        let by_day = match (self.any_day, self.any_weekday) {
            (false, false) => by_month || by_week,
            // A `*/2` is a star and a restriction.
            _ => by_month && by_week,
        };
        has(self.months, month) && by_day
    }

    fn has_minute(&self, minute: u64) -> bool {
        has(self.hours, minute / 60) && has(self.minutes, minute % 60)
    }
}

fn has(set: u64, number: u64) -> bool {
    set >> number & 1 == 1
}

/// As it was written, with single blanks.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |set, item| Ok(set | self.item(item)?))
    }

    fn item(&self, item: &str) -> Result<u64, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let step = step.map_or(Ok(1), |step| match step.parse::<u32>() {
            Ok(step @ 1..) => Ok(step),
            _ => Err(format!("expected a step of 1 or more in the {}, not {item:?}", self.name)),
        })?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            // `5/10` is from 5 on.
            None if item.contains('/') => (self.number(range)?, self.max),
            None => (self.number(range)?, self.number(range)?),
        };
        if first > last {
            return Err(format!(
                "expected a range that goes up in the {}, not {item:?}",
                self.name
            ));
        }
        Ok((first..=last).step_by(step as usize).fold(0, |set, number| set | 1 << number))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(place) => u32::try_from(place).ok().map(|place| place + self.min),
            // The parser of the standard library would take a sign.
            None if !text.bytes().all(|byte| byte.is_ascii_digit()) => None,
            None => text.parse().ok(),
        };
        number.filter(|number| (self.min..=self.max).contains(number)).ok_or_else(|| {
            let Self { name, min, max, .. } = self;
            format!("expected {min} to {max} in the {name}, not {text:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::calendar::{Civil, day_number};

    /// 2026-11-21, a Saturday, 01:44:50.
    const NOW: u64 = 1_795_225_490;

    #[track_caller]
    fn check(expression: &str, expected: &str) {
        let next = Cron::parse(expression).unwrap().next_after(NOW).unwrap();
        assert_eq!(Civil::of(next).rfc3339(), expected, "{expression}");
    }

    #[test]
    fn the_next_time_is_the_first_that_fits() {
        check("* * * * *", "2026-11-21T01:45:00Z");
        check("*/10 * * * *", "2026-11-21T01:50:00Z");
        check("44 1 * * *", "2026-11-22T01:44:00Z");
        check("0 0 1 * *", "2026-12-01T00:00:00Z");
        check("30 4 1,15 * *", "2026-12-01T04:30:00Z");
        check("0 9 * * mon-fri", "2026-11-23T09:00:00Z");
        check("0 9 * * 7", "2026-11-22T09:00:00Z");
        check("0 9 * * SUN", "2026-11-22T09:00:00Z");
        check("0 0 29 2 *", "2028-02-29T00:00:00Z");
        check("5/20 2 * * *", "2026-11-21T02:05:00Z");
        check("0 8-18/5 * * *", "2026-11-21T08:00:00Z");
        check("59 23 31 dec *", "2026-12-31T23:59:00Z");
        // Either kind of day, where both are restricted.
        check("0 0 13 * fri", "2026-11-27T00:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Cron::parse(text).unwrap_err(), expected, "{text}");
        };
        check(
            "* * * *",
            "expected five fields (minute, hour, day of the month, month, day of the week), not 4",
        );
        check("60 * * * *", "expected 0 to 59 in the minute, not \"60\"");
        check("* +1 * * *", "expected 0 to 23 in the hour, not \"+1\"");
        check("* * 0 * *", "expected 1 to 31 in the day of the month, not \"0\"");
        check("* * * foo *", "expected 1 to 12 in the month, not \"foo\"");
        check("* * * * 5-1", "expected a range that goes up in the day of the week, not \"5-1\"");
        check("*/0 * * * *", "expected a step of 1 or more in the minute, not \"*/0\"");
        check(", * * * *", "expected 0 to 59 in the minute, not \"\"");
        check("0 0 30 2 *", "no year has such a day");
    }

    fn field(field: &Field) -> impl Strategy<Value = String> + use<> {
        let (min, max) = (field.min, field.max);
        prop_oneof![
            3 => Just("*".to_owned()),
            1 => (min..=max).prop_map(|number| number.to_string()),
            1 => (min..=max, 0..10_u32).prop_map(move |(first, more)| {
                format!("{first}-{}", (first + more).min(max))
            }),
            1 => (1..20_u32).prop_map(|step| format!("*/{step}")),
            1 => (min..=max, min..=max).prop_map(|(one, other)| format!("{one},{other}")),
        ]
    }

    fn expression() -> impl Strategy<Value = String> {
        let fields = (field(&MINUTE), field(&HOUR), field(&DAY_OF_MONTH), field(&DAY_OF_WEEK));
        fields.prop_map(|(minute, hour, day, weekday)| format!("{minute} {hour} {day} * {weekday}"))
    }

    /// Whether a number fits one field, by reading its text anew.
    fn fits(text: &str, min: u64, number: u64) -> bool {
        text.split(',').any(|item| {
            let (range, step) = item.split_once('/').unwrap_or((item, "1"));
            let (first, last) = match range.split_once('-') {
                None if range == "*" => (min, 99),
                None => (range.parse().unwrap(), range.parse().unwrap()),
                Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
            };
            let step = step.parse::<u64>().unwrap();
            (first..=last).contains(&number) && (number - first).is_multiple_of(step)
        })
    }

    fn is_due(fields: &[&str], unix: u64) -> bool {
        let Civil { day, hour, minute, .. } = Civil::of(unix);
        let weekday = weekday(unix / DAY);
        let by_month = fits(fields[2], 1, day);
        let by_week = fits(fields[4], 0, weekday) || weekday == 0 && fits(fields[4], 0, 7);
        let any = fields[2].starts_with('*') || fields[4].starts_with('*');
        let by_day = if any { by_month && by_week } else { by_month || by_week };
        by_day && fits(fields[1], 0, hour) && fits(fields[0], 0, minute)
    }

    proptest! {
        #[test]
        fn the_next_time_is_due_and_none_before_it(text in expression(), now in NOW..NOW + 40_000_000) {
            let cron = Cron::parse(&text).unwrap();
            let next = cron.next_after(now).unwrap();
            let fields: Vec<&str> = text.split(' ').collect();
            prop_assert!(next > now && next.is_multiple_of(60) && is_due(&fields, next));
            let between = (now / 60 + 1..next / 60).rev().take(3_000);
            for minute in between {
                prop_assert!(!is_due(&fields, minute * 60), "{} is due, too", Civil::of(minute * 60));
            }
        }

        #[test]
        fn an_expression_of_clock_times_is_due_each_day(minute in 0..60_u32, hour in 0..24_u32, days in 0..2_000_u64) {
            let cron = Cron::parse(&format!("{minute} {hour} * * *")).unwrap();
            let midnight = day_number(2026, 1, 1) * DAY + days * DAY;
            let due = midnight + u64::from(hour) * 3600 + u64::from(minute) * 60;
            prop_assert_eq!(cron.next_after(midnight - 1), Some(due));
            prop_assert_eq!(cron.next_after(due), Some(due + DAY));
        }

        #[test]
        fn nothing_makes_it_panic(text in "[*0-9a-z/, -]{0,30}") {
            let _ = Cron::parse(&text);
        }
    }
}
