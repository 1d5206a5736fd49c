//! Each app's lines in a file of its own, which is put aside when it is large.
//!
//! A thread of its own writes; while it waits for the disk, what does not fit is dropped, counted and said (L12).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use metrics::counter;

use crate::config::{LogFiles, limits};
use crate::telemetry::lost::{LINES_DROPPED, LostLines};

/// Files that are open at one time; beyond it all are closed.
const OPEN_MAX: usize = 64;

type Texts = Vec<Arc<[u8]>>;
type Batch = Vec<(Box<str>, Texts)>;

enum Work {
    Batch(Batch),
    /// To be told when all before it is written.
    Flush(SyncSender<()>),
}

/// The sending end. The thread ends with it, once all is written.
pub(super) struct Files {
    batches: SyncSender<Work>,
    gathered: Batch,
    lost: LostLines,
}

impl Files {
    /// Starts the thread, in place of another one. `None`, said in the log: the system has no thread for it.
    pub(super) fn start(wanted: LogFiles, _before: Option<Self>) -> Option<Self> {
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(&wanted.dir) {
            tracing::error!("make {}: {error} ([logs] dir)", wanted.dir.display());
        }
        let (batches, received) = sync_channel(limits::LOG_QUEUE);
        let writer = Writer { wanted, open: HashMap::new(), failing: false };
        let started =
            thread::Builder::new().name("log-files".into()).spawn(move || writer.run(&received));
        if let Err(error) = started {
            tracing::error!("[logs] dir: start a thread: {error}");
            return None;
        }
        Some(Self { batches, gathered: Vec::new(), lost: LostLines::default() })
    }

    /// Gathers lines of an app, in order.
    pub(super) fn add(&mut self, app: &str, texts: Texts) {
        self.gathered.push((app.into(), texts));
    }

    /// Has the thread let go of this when it has written all. Blocks while the queue is full.
    pub(super) fn flush(&self, done: SyncSender<()>) {
        let _ = self.batches.send(Work::Flush(done));
    }

    /// Gives the thread what was gathered. Never blocks.
    pub(super) fn hand_over(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let said = self.lost.clone().say("L12");
        let said_of = said.len();
        let said = said.into_iter().map(|said| {
            let line = [&said.stamp[..], b" ", said.rest.as_bytes()].concat();
            (said.app.into_boxed_str(), vec![line.into()])
        });
        let batch: Vec<_> = said.chain(self.gathered.drain(..)).collect();
        let refused = match self.batches.try_send(Work::Batch(batch)) {
            Ok(()) => {
                self.lost = LostLines::default();
                return;
            }
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => work,
        };
        let Work::Batch(refused) = refused else { return };
        for (app, texts) in refused.into_iter().skip(said_of) {
            self.lost.note(&app, texts.len() as u64);
            counter!(LINES_DROPPED, "app" => app.into_string()).increment(texts.len() as u64);
        }
    }
}

struct Writer {
    wanted: LogFiles,
    open: HashMap<Box<str>, Open>,
    /// Whether the last write failed: a full disk is said once.
    failing: bool,
}

struct Open {
    file: File,
    size: u64,
}

impl Writer {
    fn run(mut self, work: &Receiver<Work>) {
        while let Ok(work) = work.recv() {
            let batch = match work {
                Work::Batch(batch) => batch,
                Work::Flush(done) => {
                    drop(done);
                    continue;
                }
            };
            for (app, texts) in batch {
                let written = self.write(&app, &texts);
                if let Err(error) = &written {
                    counter!(LINES_DROPPED, "app" => app.to_string()).increment(texts.len() as u64);
                    if !self.failing {
                        tracing::error!(
                            "write {}: {error} ([logs] dir)",
                            self.path(&app, 0).display()
                        );
                    }
                    self.open.remove(&app);
                }
                self.failing = written.is_err();
            }
        }
    }

    fn write(&mut self, app: &str, texts: &Texts) -> io::Result<()> {
        let mut bytes = Vec::new();
        for text in texts {
            bytes.extend_from_slice(text);
            bytes.push(b'\n');
        }
        let max_size = self.wanted.max_size;
        let open = self.opened(app)?;
        open.file.write_all(&bytes)?;
        open.size += bytes.len() as u64;
        if open.size >= max_size {
            self.put_aside(app)?;
        }
        Ok(())
    }

    fn opened(&mut self, app: &str) -> io::Result<&mut Open> {
        if !self.open.contains_key(app) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let path = self.path(app, 0);
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            let size = file.metadata()?.len();
            self.open.insert(app.into(), Open { file, size });
        }
        Ok(self.open.get_mut(app).expect("it was just put there"))
    }

    /// `APP.log` becomes `APP.log.1`, and so on; the oldest goes.
    fn put_aside(&mut self, app: &str) -> io::Result<()> {
        self.open.remove(app);
        let keep = self.wanted.keep;
        for number in (0..keep).rev() {
            match fs::rename(self.path(app, number), self.path(app, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if keep == 0 {
            fs::remove_file(self.path(app, 0))?;
        }
        Ok(())
    }

    fn path(&self, app: &str, number: u32) -> PathBuf {
        let name = match number {
            0 => format!("{app}.log"),
            number => format!("{app}.log.{number}"),
        };
        self.wanted.dir.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_aside_when_they_are_large() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = LogFiles { dir: dir.path().into(), max_size: 10, keep: 2 };
        let mut writer = Writer { wanted, open: HashMap::new(), failing: false };
        let mut write = |text: &str| writer.write("shop", &vec![text.as_bytes().into()]).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        write("one");
        assert_eq!(read("shop.log"), "one\n");
        write("two two");
        write("three");
        assert_eq!(
            (read("shop.log").as_str(), read("shop.log.1").as_str()),
            ("three\n", "one\ntwo two\n")
        );
        write("four four");
        write("five five");
        write("six");
        assert_eq!(
            [read("shop.log"), read("shop.log.1"), read("shop.log.2"), read("shop.log.3")],
            ["six\n", "five five\n", "three\nfour four\n", ""]
        );
    }

    #[test]
    fn what_the_disk_cannot_take_is_said_when_it_can() {
        let (batches, received) = sync_channel(1);
        let mut files = Files { batches, gathered: Vec::new(), lost: LostLines::default() };
        let mut log = |text: &str| {
            files.add("shop", vec![text.as_bytes().into()]);
            files.hand_over();
        };
        log("taken");
        log("lost");
        log("lost");
        let batch = || match received.recv().unwrap() {
            Work::Batch(batch) => batch,
            Work::Flush(_) => panic!("nobody flushes"),
        };
        assert_eq!(batch()[0].1[0].as_ref(), b"taken");
        log("later");
        let batch = batch();
        let said = String::from_utf8_lossy(&batch[0].1[0]).into_owned();
        assert!(said.contains(" heroku[logplex]: Error L12: 2 messages dropped since 2"), "{said}");
        assert_eq!(batch[1].1[0].as_ref(), b"later");
    }
}
