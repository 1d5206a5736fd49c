//! When a job is due.

use std::fmt;

use crate::model::Cron;
use crate::model::calendar::DAY;

/// When a job is due, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So often.
    Every(Period),
    /// By a cron expression.
    Cron(Cron),
}

/// So often, counted from midnight; a whole number of periods is a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    seconds: u64,
    /// Seconds after the beginning of each period.
    at: u64,
}

impl Period {
    /// A period of so many seconds, and how many after each one's beginning it is due. The error says what is
    /// wrong with them.
    pub fn new(seconds: u64, at: u64) -> Result<Self, &'static str> {
        if seconds < 60 || !DAY.is_multiple_of(seconds) || !seconds.is_multiple_of(60) {
            return Err("expected whole minutes of which a day is a multiple: 10m, 1h, 6h, 1d");
        }
        if at >= seconds {
            return Err("expected a time within the period, counted from its beginning");
        }
        Ok(Self { seconds, at })
    }
}

impl Schedule {
    /// The first Unix second after this one at which the job is due. `None`: never again.
    pub fn next_after(&self, unix: u64) -> Option<u64> {
        match self {
            Self::Every(Period { seconds, at }) => {
                let periods = (unix + seconds - at) / seconds;
                Some(periods * seconds + at)
            }
            Self::Cron(cron) => cron.next_after(unix),
        }
    }
}

/// `every 10m`, `every 1d at 03:30`, `cron */5 * * * *`
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::Every(Period { seconds, at }) => {
                match seconds / 60 {
                    1440 => f.write_str("every 1d")?,
                    minutes if minutes.is_multiple_of(60) => write!(f, "every {}h", minutes / 60)?,
                    minutes => write!(f, "every {minutes}m")?,
                }
                match at / 60 {
                    0 => Ok(()),
                    minutes => write!(f, " at {:02}:{:02}", minutes / 60, minutes % 60),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every(minutes: u64, at: u64) -> Schedule {
        Schedule::Every(Period::new(minutes * 60, at * 60).unwrap())
    }

    #[test]
    fn periods_are_counted_from_midnight() {
        let day = 20_000 * DAY;
        let check = |schedule: Schedule, seconds: u64, text: &str| {
            assert_eq!(schedule.next_after(day), Some(day + seconds), "{text}");
            assert_eq!(schedule.to_string(), text);
        };
        check(every(10, 0), 600, "every 10m");
        check(every(60, 30), 1_800, "every 1h at 00:30");
        check(every(1440, 210), 12_600, "every 1d at 03:30");
        check(Schedule::Cron(Cron::parse("5 * * * *").unwrap()), 300, "cron 5 * * * *");
    }

    #[test]
    fn periods_that_a_day_has_no_whole_number_of_are_refused() {
        for (seconds, at) in [(0, 0), (30, 0), (90, 0), (7 * 60, 0), (2 * DAY, 0), (600, 600)] {
            assert!(Period::new(seconds, at).is_err(), "{seconds} {at}");
        }
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_first_of_the_law(
            (minutes, at) in prop::sample::select(vec![1, 10, 15, 60, 360, 1440])
                .prop_flat_map(|minutes| (Just(minutes), 0..minutes)),
            now in 0_u64..4_000_000_000,
        ) {
            let next = every(minutes, at).next_after(now).unwrap();
            prop_assert!(now < next && next <= now + minutes * 60);
            prop_assert_eq!(next % (minutes * 60), at * 60);
        }
    }
}
