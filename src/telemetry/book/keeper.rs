//! The thread of the book: takes blocks, holds their lines back until their place is final, and gives it to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::limits;
use crate::telemetry::book::files::Files;
use crate::telemetry::book::sorter::Sorter;
use crate::telemetry::book::{Message, Pages, lock, micros};
use crate::telemetry::lost::as_block;

/// Bytes of lines after which it is looked whether all apps together have too many.
const BOUND_EVERY: usize = limits::BOOK_BYTES_ALL / 16;

pub(super) struct Keeper {
    pages: Arc<Pages>,
    sorter: Sorter,
    files: Option<Files>,
    /// Who wants to be told when lines up to a microsecond have their place.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    /// The microsecond of the last look at the clock at which lines got their place.
    last: u64,
    /// Bytes of lines since all were bounded.
    since_bound: usize,
}

impl Keeper {
    pub(super) fn new(pages: Arc<Pages>) -> Self {
        let (sorter, waiting) = (Sorter::default(), Vec::new());
        Self { pages, sorter, files: None, waiting, last: 0, since_bound: 0 }
    }

    /// Runs until nobody can send any more.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let idle = self.sorter.is_empty() && self.waiting.is_empty();
            let message = match idle {
                true => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => messages.recv_timeout(self.until_tick()),
            };
            match message {
                Ok(Message::Block(block)) => {
                    let bytes = block.bytes().len();
                    self.sorter.take(block.bytes());
                    self.pages.queued.fetch_sub(bytes, Ordering::Relaxed);
                }
                Ok(Message::Settled(until, settled)) => self.waiting.push((until, settled)),
                Ok(Message::Files(wanted)) => {
                    self.files = wanted.and_then(|it| Files::start(it, self.files.take()));
                }
                Ok(Message::Flush(done)) => {
                    self.release(u64::MAX);
                    if let Some(files) = &self.files {
                        files.flush(done);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.release(u64::MAX),
            }
            let now = micros();
            // A clock that was set back makes lines of the future: they wait for nothing. Nor do lines that come
            // faster than there is room to sort them.
            let crowded = self.sorter.bytes() > limits::BOOK_SETTLE_BYTES;
            if now < self.last || crowded {
                self.release(u64::MAX);
                self.last = now;
            } else if now - self.last >= limits::BOOK_TICK.as_micros() as u64 {
                self.release(now.saturating_sub(limits::BOOK_SETTLE.as_micros() as u64));
                self.last = now;
            }
        }
    }

    fn until_tick(&self) -> Duration {
        let passed = micros().saturating_sub(self.last);
        limits::BOOK_TICK.saturating_sub(Duration::from_micros(passed))
    }

    fn release(&mut self, until: u64) {
        let lost = lock(&self.pages.lost).say("L12");
        self.sorter.take(&as_block(&lost));
        let Self { pages, sorter, files, since_bound, .. } = self;
        sorter.release(until, |app, lines| {
            let ring = pages.ring(app);
            let mut ring = lock(&ring);
            let mut placed = Vec::new();
            for (micros, text) in lines {
                *since_bound += text.len() + limits::BOOK_LINE_COST;
                if files.is_some() {
                    placed.push(text.clone());
                }
                ring.push(micros, text);
            }
            ring.announce();
            drop(ring);
            if let Some(files) = files {
                files.add(app, placed);
            }
        });
        if let Some(files) = files {
            files.hand_over();
        }
        if *since_bound > BOUND_EVERY {
            *since_bound = 0;
            pages.bound();
        }
        // Who has left is not told.
        for (_, settled) in self.waiting.extract_if(.., |(wanted, _)| *wanted <= until) {
            let _ = settled.send(());
        }
    }
}
