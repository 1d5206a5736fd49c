//! When a certificate is renewed. Pure: its validity in, a time out.

use std::time::{Duration, SystemTime};

use crate::config::limits;

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// It holds from then on.
    pub(crate) not_before: SystemTime,
    /// It holds until then.
    pub(crate) not_after: SystemTime,
}

impl Validity {
    /// When to order the successor: `renew_before` the end, or a third of the lifetime before it where that
    /// is later, as for certificates of a few days. `random`, from 0 to 1, spreads what was issued together:
    /// by up to a tenth of that earlier, or, for what is overdue, over the next hour.
    pub(crate) fn renewal(
        &self,
        renew_before: Duration,
        now: SystemTime,
        random: f64,
    ) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let lead = renew_before.min(lifetime / 3);
        let due = self.not_after.checked_sub(lead.mul_f64(1.0 + 0.1 * random)).unwrap_or(now);
        if due > now {
            return due;
        }
        let left = self.not_after.duration_since(now).unwrap_or_default();
        now + limits::ACME_SPREAD.min(left / 10).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// A certificate issued on day 100, asked about on a day after that: the day of its renewal.
    fn check(lifetime: Duration, age: Duration, random: f64, expected: Duration) {
        let issued = UNIX_EPOCH + 100 * DAY;
        let validity = Validity { not_before: issued, not_after: issued + lifetime };
        let renewal = validity.renewal(30 * DAY, issued + age, random);
        assert_eq!(renewal.duration_since(issued).unwrap(), expected);
    }

    #[test]
    fn a_certificate_is_renewed_a_month_before_its_end() {
        check(90 * DAY, DAY, 0.0, 60 * DAY);
        check(365 * DAY, DAY, 0.0, 335 * DAY);
    }

    #[test]
    fn a_short_one_is_renewed_when_a_third_is_left() {
        check(6 * DAY, HOUR, 0.0, 4 * DAY);
        check(45 * DAY, HOUR, 0.0, 30 * DAY);
    }

    #[test]
    fn renewals_are_spread() {
        check(90 * DAY, DAY, 1.0, 57 * DAY);
        check(90 * DAY, 70 * DAY, 0.0, 70 * DAY);
        check(90 * DAY, 70 * DAY, 1.0, 70 * DAY + HOUR);
        // What ends soon is not put off for the sake of others.
        check(90 * DAY, 90 * DAY - HOUR, 1.0, 90 * DAY - HOUR + HOUR / 10);
        check(90 * DAY, 91 * DAY, 1.0, 91 * DAY);
    }
}
