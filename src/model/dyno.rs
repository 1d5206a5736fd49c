//! Dynos as they are spoken of: names, states, ends.

use std::fmt;
use std::ops::RangeInclusive;

use crate::model::ProcessType;

/// `web.1`: one place of a formation. It outlives its processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DynoName {
    /// The process type, before the dot.
    pub process_type: ProcessType,
    /// The place within its type, from 1.
    pub number: u32,
}

impl DynoName {
    /// Reads what is printed: `web.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (process_type, number) = text.split_once('.')?;
        let process_type = ProcessType::parse(process_type).ok()?;
        Some(Self { process_type, number: number.parse().ok()? })
    }

    /// The numbers of one-off dynos: four digits, as on Heroku, and none that a formation could have.
    pub const ONE_OFFS: RangeInclusive<u32> = 1001..=9999;

    /// Whether it is for one command, and in no formation.
    pub fn is_one_off(&self) -> bool {
        Self::ONE_OFFS.contains(&self.number)
    }
}

impl fmt::Display for DynoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process_type, self.number)
    }
}

/// What people are told of a dyno (`ps`, `State changed from starting to up`), in the order of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynoState {
    /// Its process was started and is not ready yet.
    Starting,
    /// Ready: a web dyno accepts connections.
    Up,
    /// Asleep, until a request wakes it.
    Idle,
    /// Its process ended without being asked.
    Crashed,
    /// Asked to end, or never started.
    Down,
}

impl fmt::Display for DynoState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Crashed => "crashed",
            Self::Down => "down",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The status a shell would report: 128 + signal for a signal, as Heroku's lines do (143, 137).
    pub fn shell_status(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dynos() {
        let name = DynoName::parse("worker.12").unwrap();
        assert_eq!((name.process_type.to_string().as_str(), name.number), ("worker", 12));
        for bad in ["", "web", "web.", "web.x", ".1"] {
            assert_eq!(DynoName::parse(bad), None, "{bad}");
        }
    }
}
