//! The hours that all eco dynos have together in a month.

use crate::model::Usage;

/// How much of the month's hours eco dynos have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EcoHours {
    /// There are some.
    #[default]
    Left,
    /// Most are used.
    Low,
    /// None is left.
    UsedUp,
}

impl EcoHours {
    /// How they stand after this usage of one month, with so many hours of which that share (in hundredths) is most.
    pub fn of(usage: &Usage, hours: u64, low: u64) -> Self {
        let whole = hours * 3_600_000;
        match Self::used(usage) {
            used if used >= whole => Self::UsedUp,
            used if used >= whole / 100 * low => Self::Low,
            _ => Self::Left,
        }
    }

    /// Milliseconds that eco dynos used.
    pub fn used(usage: &Usage) -> u64 {
        usage.iter().filter(|((_, payer), _)| payer.size.is_eco()).map(|(_, millis)| millis).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AppName, Month, Payer, ProcessType, SizeName};

    #[test]
    fn only_eco_dynos_of_all_apps_count() {
        let payer = |app: &str, size: &str| Payer {
            app: AppName::parse(app).unwrap(),
            process_type: ProcessType::web(),
            size: SizeName::parse(size).unwrap(),
        };
        let month = Month::of(0);
        let check = |seconds: [u64; 3], expected| {
            let payers = [payer("shop", "eco"), payer("blog", "eco"), payer("shop", "basic")];
            let used = payers.into_iter().zip(seconds);
            let usage = used.map(|(payer, seconds)| ((month, payer), seconds * 1000)).collect();
            assert_eq!(EcoHours::of(&usage, 10, 80), expected, "{seconds:?}");
        };
        check([0, 0, 1_000_000], EcoHours::Left);
        check([14_400, 14_399, 0], EcoHours::Left);
        check([14_400, 14_400, 0], EcoHours::Low);
        check([18_000, 17_999, 0], EcoHours::Low);
        check([18_000, 18_000, 0], EcoHours::UsedUp);
    }
}
