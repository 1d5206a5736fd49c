//! The silence of the store. Whoever waited for it too long was told that it failed; whether it did, only the store can say.

use std::future::pending;
use std::pin::Pin;

use tokio::time::sleep;

use crate::config::limits;
use crate::model::Stated;
use crate::store::Store;

/// What the store says once it speaks again.
type Word = Pin<Box<dyn Future<Output = Stated> + Send + Sync>>;

/// Whether the store is silent.
#[derive(Default)]
pub(in crate::daemon) struct Silence(Option<Word>);

impl Silence {
    /// The store has not answered in time.
    pub(in crate::daemon) fn begin(&mut self, store: &Store) {
        let store = store.clone();
        self.0 = Some(Box::pin(async move {
            loop {
                match store.stated().await {
                    Ok(stated) => return stated,
                    Err(error) => tracing::error!("what commands said cannot be read: {error}"),
                }
                sleep(limits::STORE_WAIT).await;
            }
        }));
    }

    /// Whether it has not spoken since.
    pub(in crate::daemon) fn lasts(&self) -> bool {
        self.0.is_some()
    }

    /// Ends with what commands said, as the store has it: after whatever was under way. Never, where there is no silence.
    /// It may be dropped, and awaited anew.
    pub(in crate::daemon) async fn end(&mut self) -> Stated {
        let Some(word) = &mut self.0 else { return pending().await };
        let stated = word.await;
        self.0 = None;
        stated
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_silence_ends_once_with_what_the_store_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut silence = Silence::default();
        silence.begin(&store);
        assert!(silence.lasts());
        assert_eq!(silence.end().await, Stated::default());
        assert!(!silence.lasts());
        assert!(timeout(Duration::ZERO, silence.end()).await.is_err());
    }
}
