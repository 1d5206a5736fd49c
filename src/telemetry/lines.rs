//! A bounded queue of blocks of lines, and the thread that writes them.
//!
//! Whoever logs never waits for a disk or a reader: what does not fit is dropped, counted and said. The same
//! blocks go to the log book, which neither waits for the writer nor makes it wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::config::limits;
use crate::telemetry::LogBook;
use crate::telemetry::block::{Block, Spare};
use crate::telemetry::lost::{LostLines, as_block, count_dropped};

/// Where lines go, opened and ready.
pub enum Target {
    /// Standard output, shared with every other writer, whole blocks at a time.
    Stdout,
    /// A file, appended to.
    File(PathBuf, File),
    /// Nowhere, the log book included.
    Off,
}

impl Target {
    /// Opens a file for appending. Called again on reload, so that log rotation works.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::File(path.to_owned(), file))
    }
}

/// The sending end; cheap to clone. The writer thread ends when the last one is dropped.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    book: Option<LogBook>,
}

#[derive(Default)]
struct Shared {
    spare: Arc<Spare>,
    /// Whether lines go nowhere.
    off: AtomicBool,
    /// Lines that the target has lost and a book has, until the target is told.
    lost: Mutex<LostLines>,
}

enum Message {
    Block(Arc<Block>),
    Retarget(Target),
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the writer thread.
    pub fn start(target: Target) -> io::Result<Self> {
        let (queue, messages) = sync_channel(limits::LOG_QUEUE);
        let off = AtomicBool::new(matches!(target, Target::Off));
        let shared = Arc::new(Shared { off, ..Shared::default() });
        let writer = Writer { target, shared: shared.clone(), failing: false };
        thread::Builder::new().name("log".into()).spawn(move || writer.run(&messages))?;
        Ok(Self { queue, shared, book: None })
    }

    /// What is sent from now on is entered into this book, too.
    pub fn entered_into(self, book: &LogBook) -> Self {
        Self { book: Some(book.clone()), ..self }
    }

    /// Hands over a block of whole lines. Never blocks; `false` if nobody took it: neither the target's writer
    /// nor a book. What the writer did not take is counted.
    pub fn send(&self, bytes: Vec<u8>) -> bool {
        self.offer(bytes, true)
    }

    /// As [`send`](Self::send), for lines that are offered again until somebody takes them: they are not counted.
    pub(crate) fn try_send(&self, bytes: Vec<u8>) -> bool {
        self.offer(bytes, false)
    }

    fn offer(&self, bytes: Vec<u8>, counted: bool) -> bool {
        if bytes.is_empty() || self.shared.off.load(Ordering::Relaxed) {
            return true;
        }
        let block = Arc::new(Block::new(bytes, &self.shared.spare));
        let written = self.queue.try_send(Message::Block(block.clone())).is_ok();
        let entered = self.book.as_ref().is_some_and(|book| book.enter(block.clone()));
        if !written && (counted || entered) {
            count_dropped(block.bytes());
            if entered {
                // Otherwise it is for the sender to say.
                lock(&self.shared.lost).add(block.bytes());
            }
        }
        written || entered
    }

    /// An empty block, with the capacity of one that was written before where there is one.
    pub fn empty_block(&self) -> Vec<u8> {
        self.shared.spare.take()
    }

    /// Writes later lines to another target. Blocks while the queue is full.
    pub fn retarget(&self, target: Target) {
        self.shared.off.store(matches!(target, Target::Off), Ordering::Relaxed);
        // The thread lives as long as this sender does.
        let _ = self.queue.send(Message::Retarget(target));
    }

    /// Blocks until everything sent before is written. For the end of the process.
    pub fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv();
        }
    }
}

struct Writer {
    target: Target,
    shared: Arc<Shared>,
    /// Whether the last write failed: a full disk is said once, not per block.
    failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Block(block) => {
                    let lost = lock(&self.shared.lost).say("L10 (output buffer overflow)");
                    let lost = as_block(&lost);
                    if !lost.is_empty() {
                        self.write(&lost);
                    }
                    self.write(block.bytes());
                }
                Message::Retarget(target) => self.target = target,
                Message::Flush(done) => drop(done),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let written = match &mut self.target {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Target::File(_, file) => file.write_all(bytes),
            Target::Off => Ok(()),
        };
        if let Err(error) = &written {
            count_dropped(bytes);
            if !self.failing {
                let path = if let Target::File(path, _) = &self.target {
                    path
                } else {
                    Path::new("stdout")
                };
                // Standard error, since standard output may be what fails.
                let _ = writeln!(
                    io::stderr(),
                    "failed to write the log to {}: {error}",
                    path.display()
                );
            }
        }
        self.failing = written.is_err();
    }
}

/// Nothing panics while this lock is held, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_arrive_in_order_and_follow_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let lines = Lines::start(Target::file(&first).unwrap()).unwrap();
        assert!(lines.send(b"a\n".to_vec()));
        assert!(lines.send(b"b\n".to_vec()));
        lines.retarget(Target::file(&second).unwrap());
        assert!(lines.send(b"c\n".to_vec()));
        lines.flush();
        assert_eq!(std::fs::read_to_string(first).unwrap(), "a\nb\n");
        assert_eq!(std::fs::read_to_string(second).unwrap(), "c\n");
    }

    #[test]
    fn blocks_are_filled_again_once_nobody_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::start(Target::file(&dir.path().join("log")).unwrap()).unwrap();
        let mut block = Vec::with_capacity(limits::LOG_BLOCK);
        block.extend_from_slice(b"a\n");
        assert!(lines.send(block));
        lines.flush();
        let again = lines.empty_block();
        assert!(again.is_empty() && again.capacity() >= limits::LOG_BLOCK);
    }
}
