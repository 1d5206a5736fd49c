//! How often the API may be asked: per token, and all together by those who have none that is good.
//!
//! Invariant: what is kept grows with the tokens there are, and not with those that clients make up.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use crate::config::limits;

/// The buckets of all tokens that were seen lately, and one of those that are no tokens.
pub(in crate::control) struct Rates(Mutex<Buckets>);

struct Buckets {
    /// By the hash of a good token.
    good: HashMap<Vec<u8>, Bucket>,
    bad: Bucket,
}

/// What may be asked at once, and how it comes back.
#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Nothing is left for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct Exhausted;

impl Bucket {
    fn full(max: u32) -> Self {
        Self { left: f64::from(max), at: Instant::now() }
    }

    fn refill(&mut self, max: u32, per_second: f64) {
        let now = Instant::now();
        let come = now.duration_since(self.at).as_secs_f64() * per_second;
        *self = Self { left: (self.left + come).min(f64::from(max)), at: now };
    }

    /// Takes one, and returns how many are left.
    fn take(&mut self) -> Result<u64, Exhausted> {
        if self.left < 1.0 {
            return Err(Exhausted);
        }
        self.left -= 1.0;
        Ok(self.left as u64)
    }
}

impl Default for Rates {
    fn default() -> Self {
        let bad = Bucket::full(limits::API_BAD_TOKENS);
        Self(Mutex::new(Buckets { good: HashMap::new(), bad }))
    }
}

impl Rates {
    /// Whether to look for this token at all. Where too many were none, only those that were good before are looked
    /// for, so that guessing costs neither the database nor those who need not guess.
    pub(in crate::control) fn may_try(&self, token: &str) -> Result<(), Exhausted> {
        let mut buckets = self.lock();
        buckets.bad.refill(limits::API_BAD_TOKENS, limits::API_BAD_TOKENS_PER_SECOND);
        match buckets.bad.left >= 1.0 || buckets.good.contains_key(&hash(token)) {
            true => Ok(()),
            false => Err(Exhausted),
        }
    }

    /// It was none.
    pub(in crate::control) fn note_bad(&self) {
        // Several may have been tried at once; then nothing is left, and that is all.
        let _ = self.lock().bad.take();
    }

    /// One request of a good token; how many are left to it.
    pub(in crate::control) fn take(&self, token: &str) -> Result<u64, Exhausted> {
        const MAX: u32 = limits::API_REQUESTS;
        let mut buckets = self.lock();
        let key = hash(token);
        if !buckets.good.contains_key(&key) {
            // Who has all of his requests is as good as new.
            buckets
                .good
                .values_mut()
                .for_each(|it| it.refill(MAX, limits::API_REQUESTS_PER_SECOND));
            buckets.good.retain(|_, bucket| bucket.left < f64::from(MAX));
        }
        let bucket = buckets.good.entry(key).or_insert_with(|| Bucket::full(MAX));
        bucket.refill(MAX, limits::API_REQUESTS_PER_SECOND);
        bucket.take()
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_token_has_its_own_and_they_come_back() {
        let rates = Rates::default();
        let max = u64::from(limits::API_REQUESTS);
        assert_eq!(rates.take("one"), Ok(max - 1));
        for left in (0..max - 1).rev() {
            assert_eq!(rates.take("one"), Ok(left));
        }
        assert_eq!(rates.take("one"), Err(Exhausted));
        assert_eq!(rates.take("two"), Ok(max - 1));
        advance(Duration::from_secs(1)).await;
        assert_eq!(rates.take("one"), Ok(limits::API_REQUESTS_PER_SECOND as u64 - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_locks_out_nobody_who_was_here_before() {
        let rates = Rates::default();
        rates.take("good").unwrap();
        for _ in 0..limits::API_BAD_TOKENS {
            assert_eq!(rates.may_try("bad"), Ok(()));
            rates.note_bad();
        }
        assert_eq!(rates.may_try("bad"), Err(Exhausted));
        assert_eq!(rates.may_try("good"), Ok(()));
        advance(Duration::from_secs(2)).await;
        assert_eq!(rates.may_try("bad"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_full_again_is_forgotten() {
        let rates = Rates::default();
        rates.take("one").unwrap();
        rates.take("two").unwrap();
        advance(Duration::from_secs(1)).await;
        rates.take("three").unwrap();
        assert_eq!(rates.lock().good.len(), 1);
    }
}
