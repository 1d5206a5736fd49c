//! What became of the requests: latencies of the answered ones, kinds of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::Loss;

/// Counts outcomes and keeps every latency, so that percentiles are exact.
#[derive(Default)]
pub struct Tally {
    /// Microseconds, of answers with status 200.
    latencies: Vec<u32>,
    failures: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds one request. Beyond 71 minutes a latency counts as 71 minutes.
    pub fn add(&mut self, latency: Duration, outcome: Result<u16, Loss>) {
        let failure = match outcome {
            Ok(200) => {
                self.latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                return;
            }
            Ok(status) => format!("status-{status}"),
            Err(loss) => format!("lost-{}", loss.name()),
        };
        *self.failures.entry(failure).or_default() += 1;
    }

    /// Requests with status 200.
    pub fn answers(&self) -> usize {
        self.latencies.len()
    }

    /// Prints `answers`, `failures`, each kind of failure, and `p50` to `max` in microseconds, one a line.
    pub fn print(mut self) {
        println!("answers {}", self.answers());
        println!("failures {}", self.failures.values().sum::<u64>());
        for (kind, count) in &self.failures {
            println!("{kind} {count}");
        }
        self.latencies.sort_unstable();
        for (name, per_mille) in [("p50", 500), ("p99", 990), ("p99.9", 999), ("max", 1000)] {
            println!("{name} {}", percentile(&self.latencies, per_mille));
        }
    }
}

/// The smallest sample that `per_mille` of all samples do not exceed; 0 where there is none.
fn percentile(sorted: &[u32], per_mille: usize) -> u32 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let sorted: Vec<u32> = (1..=2000).collect();
        assert_eq!(
            [500, 990, 999, 1000].map(|it| percentile(&sorted, it)),
            [1000, 1980, 1998, 2000]
        );
        assert_eq!(percentile(&[7], 990), 7);
        assert_eq!(percentile(&[], 990), 0);
    }

    #[test]
    fn only_status_200_is_an_answer() {
        let mut tally = Tally::default();
        for outcome in [Ok(200), Ok(503), Err(Loss::Cut), Err(Loss::Cut)] {
            tally.add(Duration::from_millis(1), outcome);
        }
        assert_eq!(tally.answers(), 1);
        assert_eq!(tally.failures, [("lost-cut".into(), 2), ("status-503".into(), 1)].into());
    }
}
