//! What the manager asks of a certificate authority, and what may come of it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::certs::acme::wanted::Proof;
use crate::config::limits;

/// Somebody who issues certificates. What stands for it in tests follows a script.
pub(crate) trait Authority: Send + Sync + 'static {
    /// Orders a certificate for one name: from the order to the chain.
    fn order(&self, job: Job) -> impl Future<Output = Result<Issued, OrderError>> + Send;
}

/// One order.
pub(crate) struct Job {
    pub(crate) name: Box<str>,
    /// The first that the server offers is given.
    pub(crate) proofs: Vec<Proof>,
    pub(crate) steps: Steps,
}

/// How an order and the manager hear of each other.
pub(crate) struct Steps {
    pub(crate) stopped: CancellationToken,
    pub(crate) verified: mpsc::Sender<Box<str>>,
}

/// A certificate in PEM, leaf first, and its key.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Why there is no certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OrderError {
    /// Nobody wants it any more.
    Stopped,
    /// It did not come to one.
    Failed(Failure),
}

/// What an order failed of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For people; one line, and no longer than they read.
    pub(crate) reason: String,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl Steps {
    /// Between two steps: whether to take the next one.
    pub(crate) fn go_on(&self) -> Result<(), OrderError> {
        match self.stopped.is_cancelled() {
            true => Err(OrderError::Stopped),
            false => Ok(()),
        }
    }

    /// Does what may take long and can be broken off at any time, for it changes nothing.
    pub(crate) async fn wait_for<T>(
        &self,
        thing: impl Future<Output = T>,
    ) -> Result<T, OrderError> {
        tokio::select! {
            biased;
            () = self.stopped.cancelled() => Err(OrderError::Stopped),
            output = thing => Ok(output),
        }
    }

    /// The server has seen that the name is ours.
    pub(crate) async fn verified(&self, name: &str) -> Result<(), OrderError> {
        // Only a manager that has ended does not listen, and it takes its orders with it.
        let _ = self.verified.send(name.into()).await;
        self.go_on()
    }
}

impl Failure {
    /// Of this reason, which may be in a stranger's words: they get one line, of a bounded length.
    pub(crate) fn new(reason: impl std::fmt::Display) -> Self {
        let reason = reason.to_string().replace(|it: char| it.is_control(), " ");
        let mut end = reason.len().min(limits::ACME_REASON_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let more = if end < reason.len() { "…" } else { "" };
        Self { reason: format!("{}{more}", &reason[..end]), retry_after: None }
    }
}

impl From<Failure> for OrderError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_stay_in_their_line() {
        let check = |words: &str, expected: &str| assert_eq!(Failure::new(words).reason, expected);
        check("no\r\nsuch\tname", "no  such name");
        let max = limits::ACME_REASON_MAX;
        check(&"a".repeat(max), &"a".repeat(max));
        check(&"a".repeat(max + 1), &("a".repeat(max) + "…"));
        check(&"é".repeat(max), &("é".repeat(max / 2) + "…"));
        check(
            &("a".to_owned() + &"é".repeat(max)),
            &("a".to_owned() + &"é".repeat(max / 2 - 1) + "…"),
        );
    }
}
