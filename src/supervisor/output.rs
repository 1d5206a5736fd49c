//! What a dyno prints, line by line into the log.
//!
//! The pipe is always read, so that a dyno never waits for a reader of the log. What is too much is dropped:
//! the dyno's own lines, counted and said (L10), never its neighbours'.

mod lines; // bytes into lines that are safe to print

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::task;
use tokio::time::{self, Instant};

use crate::config::limits;
use crate::model::{AppName, DynoName};
use crate::shutdown::Shutdown;
use crate::supervisor::metrics;
use crate::telemetry::{AppLog, Stamp};

use lines::Lines;

/// The output of one process. Once dropped, it is read for [`limits::OUTPUT_AFTER_EXIT`] at most.
pub(crate) struct Output {
    ended: watch::Receiver<()>,
    _process: oneshot::Sender<()>,
}

impl Output {
    /// Returns once everything was handed to the log, or after [`limits::OUTPUT_SETTLE`].
    pub(crate) async fn settled(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: the reader's end drops the sender.
        let _ = time::timeout(limits::OUTPUT_SETTLE, ended.changed()).await;
    }
}

/// Starts to carry what comes out of `pipe` into the log.
pub(crate) fn carry(
    pipe: OwnedFd,
    app: &AppName,
    dyno: &DynoName,
    log: &AppLog,
    shutdown: &Shutdown,
) -> io::Result<Output> {
    let pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let (process, process_gone) = oneshot::channel();
    let (running, ended) = watch::channel(());
    let carrier = Carrier {
        app: app.clone(),
        dyno: dyno.clone(),
        log: log.clone(),
        lines: Lines::default(),
        window: Window::default(),
        lost: Lost::default(),
    };
    let forced = shutdown.clone();
    shutdown.spawn(async move {
        let bound = async {
            let _ = process_gone.await;
            tokio::select! {
                () = time::sleep(limits::OUTPUT_AFTER_EXIT) => {}
                () = forced.forced() => {}
            }
        };
        carrier.carry(pipe, bound).await;
        drop(running);
    });
    Ok(Output { ended, _process: process })
}

struct Carrier {
    app: AppName,
    dyno: DynoName,
    log: AppLog,
    lines: Lines,
    window: Window,
    lost: Lost,
}

impl Carrier {
    async fn carry(mut self, mut pipe: pipe::Receiver, bound: impl Future<Output = ()>) {
        let mut buffer = vec![0; limits::OUTPUT_READ];
        let mut bound = std::pin::pin!(bound);
        loop {
            // A read that did not finish has read nothing. The bound is asked first: there may always be more.
            let read = tokio::select! {
                biased;
                () = &mut bound => 0,
                read = pipe.read(&mut buffer) => read.unwrap_or(0),
            };
            if read == 0 {
                break;
            }
            self.take(&buffer[..read]);
            // One read, one turn: the ends of other dynos are heard on the same thread.
            task::yield_now().await;
        }
        let rest = self.lines.rest();
        self.print(rest.as_slice());
        self.say_lost_at_last().await;
    }

    /// The log may be full of the very lines that this is about: it gets time to write them.
    async fn say_lost_at_last(&mut self) {
        for _ in 0..limits::OUTPUT_LAST_TRIES {
            self.say_lost();
            if self.lost.lines == 0 {
                return;
            }
            time::sleep(limits::OUTPUT_WINDOW).await;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.window.admits(bytes.len(), Instant::now()) {
            let lines = self.lines.split(bytes);
            self.print(&lines);
        } else {
            let skipped = self.lines.skip(bytes);
            self.lose(skipped);
        }
    }

    fn print(&mut self, lines: &[Vec<u8>]) {
        if lines.is_empty() {
            return;
        }
        if self.log.outputs(&self.app, &self.dyno, lines.iter().map(Vec::as_slice)) {
            self.say_lost();
        } else {
            self.lose(lines.len() as u64);
        }
    }

    fn lose(&mut self, lines: u64) {
        if lines > 0 {
            self.lost.count(lines);
            metrics::lines_dropped(&self.app, lines);
        }
    }

    fn say_lost(&mut self) {
        if self.lost.lines > 0 {
            let Lost { lines, since } = &self.lost;
            let since = String::from_utf8_lossy(since);
            let line = format!(
                "Error L10 (output buffer overflow): {lines} messages dropped since {since}."
            );
            if self.log.platform(&self.app, &self.dyno, &line) {
                self.lost.lines = 0;
            }
        }
    }
}

/// How much was printed in the current window of time.
#[derive(Default)]
struct Window {
    began: Option<Instant>,
    bytes: usize,
}

impl Window {
    /// Whether so many bytes more may be printed.
    fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        if self.began.is_none_or(|began| now - began >= limits::OUTPUT_WINDOW) {
            *self = Self { began: Some(now), bytes: 0 };
        }
        self.bytes += bytes;
        self.bytes <= limits::OUTPUT_WINDOW_BYTES
    }
}

/// Lines that were dropped and not spoken of yet.
#[derive(Default)]
struct Lost {
    lines: u64,
    since: Vec<u8>,
}

impl Lost {
    fn count(&mut self, lines: u64) {
        if self.lines == 0 {
            self.since.clear();
            Stamp::default().write_now(&mut self.since);
        }
        self.lines += lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_admits_so_much_and_the_next_one_again() {
        let mut window = Window::default();
        assert!(window.admits(limits::OUTPUT_WINDOW_BYTES, Instant::now()));
        assert!(!window.admits(1, Instant::now()));
        time::advance(limits::OUTPUT_WINDOW).await;
        assert!(window.admits(1, Instant::now()));
    }
}
