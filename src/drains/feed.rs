//! The life of one drain: lines out of the book, in batches, until the other side has them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::back_off;
use crate::config::limits;
use crate::drains::format::{put, put_own, token};
use crate::drains::outlet::{Batch, Outlet, SendError};
use crate::model::{AppName, DrainUrl};
use crate::random;
use crate::shutdown::Shutdown;
use crate::telemetry::{Follower, Lost, Stamp};
use crate::wall_clock;

const LINES: &str = "dynomesh_drain_lines_total";

/// Says what is counted.
pub(super) fn describe() {
    metrics::describe_counter!(LINES, "Log lines for drains: sent, lost");
}

pub(super) struct Feed {
    app: AppName,
    url: DrainUrl,
    token: String,
    follower: Follower,
    ca_file: Arc<Mutex<Option<PathBuf>>>,
    open: Option<Outlet>,
    failures: u32,
    /// Lines that the other side refused and was not told of.
    refused: Option<Lost>,
}

impl Feed {
    pub(super) fn new(
        app: AppName,
        url: DrainUrl,
        follower: Follower,
        ca_file: Arc<Mutex<Option<PathBuf>>>,
    ) -> Self {
        let token = token(&app, &url);
        Self { app, url, token, follower, ca_file, open: None, failures: 0, refused: None }
    }

    /// Until it is removed, its app is no more, or the daemon ends.
    pub(super) async fn run(mut self, removed: CancellationToken, ending: Shutdown) {
        let last = async {
            ending.begun().await;
            sleep(limits::DRAIN_LAST).await;
        };
        let ended = tokio::select! {
            () = self.live(&ending) => true,
            () = removed.cancelled() => true,
            () = last => false,
        };
        if !ended {
            let left = self.follower.take(usize::MAX, usize::MAX).lines.len() as u64;
            self.count("lost", left);
            tracing::warn!(
                "drain {} of {}: {left} lines and a batch were not sent",
                self.url,
                self.app
            );
        }
    }

    async fn live(&mut self, ending: &Shutdown) {
        while let Some(batch) = self.gather(ending).await {
            while let Err(error) = self.send(&batch).await {
                let again = !matches!(error, SendError::Refused(_));
                self.failed(&error, again);
                if !again {
                    self.lose(batch.lines);
                }
                sleep(self.pause()).await;
                if !again {
                    break;
                }
            }
        }
    }

    /// How long to wait after as many failures in a row as there were.
    fn pause(&self) -> Duration {
        let (first, max) = (limits::DRAIN_BACK_OFF_FIRST, limits::DRAIN_BACK_OFF_MAX);
        back_off::wait(first, max, self.failures.saturating_sub(1), random::fraction())
    }

    /// The next batch; `None`: there will be none.
    async fn gather(&mut self, ending: &Shutdown) -> Option<Batch> {
        loop {
            let taken = self.follower.take(limits::DRAIN_LINES, limits::DRAIN_BYTES);
            if !taken.lines.is_empty() {
                let form = Outlet::form(&self.url);
                let (mut bytes, mut lines) = (Vec::new(), 0);
                let own = [
                    taken
                        .lost
                        .map(|lost| format!("Error L10 (output buffer overflow): {}.", lost.say())),
                    self.refused.take().map(|lost| format!("Error L13: {}.", lost.say())),
                ];
                self.count("lost", taken.lost.and_then(|lost| lost.lines).unwrap_or_default());
                for message in own.into_iter().flatten() {
                    let mut stamp = Vec::new();
                    Stamp::default().write_now(&mut stamp);
                    put_own(&mut bytes, form, &self.app, &stamp, &message);
                    lines += 1;
                }
                for line in &taken.lines {
                    put(&mut bytes, form, &self.app, line);
                    lines += 1;
                }
                let id = format!("{:016x}{:016x}", random::number(), random::number());
                return Some(Batch { bytes: bytes.into(), lines, id });
            }
            if self.follower.is_over() || ending.is_begun() {
                return None;
            }
            tokio::select! {
                () = self.follower.grown() => {}
                () = ending.begun() => {}
            }
        }
    }

    async fn send(&mut self, batch: &Batch) -> Result<(), SendError> {
        let ca_file = self.ca_file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let batch_of = (self.token.as_str(), batch);
        Outlet::send(&mut self.open, &self.url, ca_file.as_deref(), batch_of).await?;
        self.count("sent", batch.lines);
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("drain {} of {}: takes lines again", self.url, self.app);
        }
        Ok(())
    }

    /// One line for the first failure in a row.
    fn failed(&mut self, error: &SendError, again: bool) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            let what = if again { "tried again until it takes them" } else { "lines are lost" };
            tracing::warn!("drain {} of {}: {error}: {what}", self.url, self.app);
        }
    }

    fn lose(&mut self, lines: u64) {
        self.count("lost", lines);
        let before = self.refused.and_then(|it| it.lines).unwrap_or_default();
        let since = self.refused.map_or_else(wall_clock::since_epoch, |it| it.since);
        self.refused = Some(Lost { lines: Some(before + lines), since });
    }

    fn count(&self, result: &'static str, lines: u64) {
        counter!(LINES, "app" => self.app.to_string(), "result" => result).increment(lines);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::drains::Drains;
    use crate::telemetry::{AppLog, Lines, LogBook, Target};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The next connection with the head and the body of what is posted over it.
    async fn posted(listener: &TcpListener) -> (TcpStream, String) {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (mut stream, _) = accepted.unwrap().unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4096];
        // The lines of these tests end their body.
        while !text.ends_with(".\n") {
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the drain has left");
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        (stream, text)
    }

    /// A server that hangs up is given the same lines again, and what came meanwhile after them.
    #[tokio::test]
    async fn lines_wait_for_the_other_side() {
        let book = LogBook::start().unwrap();
        let lines = Lines::start(Target::file("/dev/null".as_ref()).unwrap()).unwrap();
        let log = AppLog::new(lines.entered_into(&book));
        let shop = AppName::parse("shop").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let drains = Drains::new(&book);
        let wanted = [(shop.clone(), vec![DrainUrl::parse(&url).unwrap()])].into();
        drains.apply(&wanted);
        // Nothing changes by that.
        drains.apply(&wanted);
        log.output(&shop, &"web.1", b"before.");
        let (stream, first) = posted(&listener).await;
        drop(stream);
        log.output(&shop, &"web.1", b"after.");
        let (mut stream, second) = posted(&listener).await;
        let body = |post: &str| post.split_once("\r\n\r\n").unwrap().1.to_owned();
        assert!(body(&first).ends_with(" host app web.1 - before.\n"), "{first}");
        assert_eq!(body(&first), body(&second));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let rest = async {
            let mut text = String::new();
            while !text.contains(" host app web.1 - after.\n") {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).await.unwrap();
                assert!(length > 0, "the drain has left: {text}");
                text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            text
        };
        let rest = tokio::time::timeout(PATIENCE, rest).await.unwrap();
        assert!(!rest.contains("before."), "{rest}");
        drains.finish().await;
    }
}
