//! One-off dynos by the request that began them: a client whose connection broke before the answer asks again, by the
//! same `Request-Id`, and must not get two.
//!
//! In memory alone: what a change of the store has brought, the store remembers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::limits;
use crate::control::DynoObject;

/// What was begun by whom.
#[derive(Default)]
pub struct Repeats {
    begun: Mutex<HashMap<String, (Instant, Begun)>>,
}

/// What came of one request; empty until something has.
pub(in crate::control) type Begun = Arc<OnceCell<DynoObject>>;

impl Repeats {
    /// What came of this request, or is to.
    pub(in crate::control) fn of(&self, request: String) -> Begun {
        let now = Instant::now();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|_, (at, _)| now.duration_since(*at) < limits::REQUESTS_REMEMBERED);
        begun.entry(request).or_insert_with(|| (now, Begun::default())).1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_known_for_a_while() {
        let repeats = Repeats::default();
        let first = repeats.of("one".into());
        assert!(Arc::ptr_eq(&first, &repeats.of("one".into())));
        assert!(!Arc::ptr_eq(&first, &repeats.of("other".into())));
        advance(limits::REQUESTS_REMEMBERED + Duration::from_secs(1)).await;
        assert!(!Arc::ptr_eq(&first, &repeats.of("one".into())));
        assert_eq!(repeats.begun.lock().unwrap().len(), 1);
    }
}
