//! A bounded queue of blocks of lines, and the thread that writes them.
//!
//! Whoever logs never waits for a disk or a reader: what does not fit is dropped, counted and said.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::config::limits;

/// Where lines go, opened and ready.
pub enum Target {
    /// Standard output, shared with every other writer, whole blocks at a time.
    Stdout,
    /// A file, appended to.
    File(PathBuf, File),
    /// Nowhere.
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
}

#[derive(Default)]
struct Shared {
    /// Emptied blocks, to be filled again.
    spare: Mutex<Vec<Vec<u8>>>,
    dropped: AtomicU64,
}

enum Message {
    Block { bytes: Vec<u8>, lines: u64 },
    Retarget(Target),
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the writer thread.
    pub fn start(target: Target) -> io::Result<Self> {
        let (queue, messages) = sync_channel(limits::LOG_QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = Writer { target, shared: shared.clone(), failing: false };
        thread::Builder::new().name("log".into()).spawn(move || writer.run(&messages))?;
        Ok(Self { queue, shared })
    }

    /// Hands over a block of whole lines. Never blocks; `false` if it was dropped (and counted).
    pub fn send(&self, bytes: Vec<u8>, lines: u64) -> bool {
        if bytes.is_empty() {
            return true;
        }
        match self.queue.try_send(Message::Block { bytes, lines }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
                false
            }
        }
    }

    /// An empty block, with the capacity of one that was written before where there is one.
    pub fn empty_block(&self) -> Vec<u8> {
        lock(&self.shared.spare).pop().unwrap_or_default()
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes later lines to another target. Blocks while the queue is full.
    pub fn retarget(&self, target: Target) {
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
                Message::Block { bytes, lines } => self.write(bytes, lines),
                Message::Retarget(target) => self.target = target,
                Message::Flush(done) => drop(done),
            }
        }
    }

    fn write(&mut self, mut bytes: Vec<u8>, lines: u64) {
        let written = match &mut self.target {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes).and_then(|()| stdout.flush())
            }
            Target::File(_, file) => file.write_all(&bytes),
            Target::Off => Ok(()),
        };
        if let Err(error) = &written {
            self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
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
        bytes.clear();
        let mut spare = lock(&self.shared.spare);
        if spare.len() < limits::LOG_QUEUE && bytes.capacity() > limits::LOG_BLOCK / 4 {
            spare.push(bytes);
        }
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
        assert!(lines.send(b"a\n".to_vec(), 1));
        assert!(lines.send(b"b\n".to_vec(), 1));
        lines.retarget(Target::file(&second).unwrap());
        assert!(lines.send(b"c\n".to_vec(), 1));
        lines.flush();
        assert_eq!(std::fs::read_to_string(first).unwrap(), "a\nb\n");
        assert_eq!(std::fs::read_to_string(second).unwrap(), "c\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let full = Path::new("/dev/full");
        let lines = Lines::start(Target::file(full).unwrap()).unwrap();
        lines.send(b"a\nb\n".to_vec(), 2);
        lines.flush();
        assert_eq!(lines.dropped(), 2);
    }
}
