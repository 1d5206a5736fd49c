//! Dyno sizes: what a dyno may take, whether it sleeps, and what it costs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a dyno may take of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// `standard-1x`
    pub name: SizeName,
    /// What it is held to.
    pub limits: SizeLimits,
    /// How long without web requests until it sleeps; absent: it never does.
    pub sleep_after: Option<Duration>,
    /// What a whole month of it costs, in hundredths of a dollar.
    pub price: u32,
}

impl Size {
    /// Whether a dyno of this size may go on as one of the other: what it costs and when it sleeps is not its
    /// process's business.
    pub fn runs_as(&self, other: &Self) -> bool {
        (&self.name, self.limits) == (&other.name, other.limits)
    }
}

/// What the kernel holds a dyno to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimits {
    /// The memory quota in bytes: beyond it R14, at twice of it R15.
    pub memory: u64,
    /// What it gets of the CPU where others want it too.
    pub cpu: CpuShare,
    /// What it gets of the CPU at most, in thousandths of one; absent: all that is there.
    pub cpus: Option<u32>,
    /// Processes and threads at one time.
    pub processes: u32,
}

/// What a dyno gets of the CPU where others want it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuShare {
    /// So many times what `standard-1x` gets; from 1 to [`CpuShare::MAX`].
    Shared(u32),
    /// As good as all that it wants, before any that share.
    Dedicated,
}

impl CpuShare {
    /// The largest share: cgroup v2 knows weights from 1 to 10,000, and 100 of them are one share.
    pub const MAX: u32 = 100;

    /// How many times what `standard-1x` gets. Heroku's largest dedicated dyno was sold as "50x".
    pub fn shares(self) -> u32 {
        match self {
            Self::Shared(shares) => shares,
            Self::Dedicated => 50,
        }
    }
}

/// The name of a size: lower-case letters, digits and dashes, beginning with a letter, at most 63 bytes. Cheap
/// to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SizeName(Arc<str>);

impl SizeName {
    /// Parses a name; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let well_formed = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !well_formed || !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.len() > 63 {
            return Err(
                "a size's name has lower-case letters, digits and dashes, begins with a letter, and has at most 63 characters",
            );
        }
        Ok(Self(text.into()))
    }

    /// Whether dynos of this size share a number of hours a month (Dev Center: Eco Dyno Hours).
    pub fn is_eco(&self) -> bool {
        &*self.0 == "eco"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SizeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All sizes that there are: Heroku's, and those of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes(BTreeMap<SizeName, Arc<Size>>);

impl Sizes {
    /// The size of a dyno where nothing says another: Heroku's cheapest that never sleeps.
    pub const DEFAULT: &str = "basic";

    /// Heroku's own (Dev Center: Dyno Types, Limits, Eco dynos sleeping; prices as its CLI lists them).
    pub fn heroku() -> Self {
        const MB: u64 = 1 << 20;
        let half_hour = Some(Duration::from_secs(30 * 60));
        let shared = CpuShare::Shared;
        let dedicated = CpuShare::Dedicated;
        let sizes = [
            ("eco", 512 * MB, shared(1), 256, half_hour, 5),
            ("basic", 512 * MB, shared(1), 256, None, 7),
            ("standard-1x", 512 * MB, shared(1), 256, None, 25),
            ("standard-2x", 1024 * MB, shared(2), 512, None, 50),
            ("performance-m", 2560 * MB, dedicated, 16_384, None, 250),
            ("performance-l", 14_336 * MB, dedicated, 32_768, None, 500),
            ("private-s", 512 * MB, dedicated, 256, None, 250),
            ("private-m", 2560 * MB, dedicated, 16_384, None, 500),
            ("private-l", 14_336 * MB, dedicated, 32_768, None, 1500),
        ];
        let size =
            |(name, memory, cpu, processes, sleep_after, dollars): (&str, _, _, _, _, u32)| {
                let name = SizeName(name.into());
                let limits = SizeLimits { memory, cpu, cpus: None, processes };
                (name.clone(), Arc::new(Size { name, limits, sleep_after, price: dollars * 100 }))
            };
        Self(sizes.map(size).into())
    }

    /// Adds one, unless there is one of its name.
    pub fn add(&mut self, size: Size) -> bool {
        let free = !self.0.contains_key(&size.name);
        if free {
            self.0.insert(size.name.clone(), Arc::new(size));
        }
        free
    }

    /// The size of a name, written in any case: `Standard-1X` is what Heroku prints.
    pub fn find(&self, name: &str) -> Option<&Arc<Size>> {
        self.0.get(&SizeName(name.to_ascii_lowercase().into()))
    }

    /// Every size, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Size>> {
        self.0.values()
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self::heroku()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_in_any_case() {
        let sizes = Sizes::heroku();
        for (written, found) in [
            ("Standard-1X", Some("standard-1x")),
            ("ECO", Some("eco")),
            ("private-l", Some("private-l")),
            ("standard", None),
            ("", None),
        ] {
            assert_eq!(sizes.find(written).map(|it| it.name.as_str()), found, "{written}");
        }
        assert!(sizes.find(Sizes::DEFAULT).is_some_and(|it| it.sleep_after.is_none()));
        assert_eq!(sizes.iter().count(), 9);
    }

    #[test]
    fn a_name_is_given_once() {
        let mut sizes = Sizes::heroku();
        let basic = Size::clone(sizes.find("basic").unwrap());
        assert!(!sizes.add(basic.clone()));
        let name = SizeName::parse("nap").unwrap();
        assert!(sizes.add(Size { name, price: 500, ..basic }));
        assert_eq!(sizes.find("nap").unwrap().price, 500);
    }

    #[test]
    fn names_are_short_words() {
        for good in ["nap", "standard-1x", "x"] {
            assert_eq!(SizeName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Nap", "1x", "a b", "-a", &"a".repeat(64)] {
            assert!(SizeName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_share_is_one_that_the_kernel_knows() {
        for size in Sizes::heroku().iter() {
            assert!((1..=CpuShare::MAX).contains(&size.limits.cpu.shares()), "{}", size.name);
        }
    }
}
