//! The log book: the newest lines of each app, in one order, for those who read them back or follow them.
//!
//! Readers pull and have a position each; nobody waits for a reader, and a reader that is too slow is told how
//! much it has lost.

mod ring; // the lines of one app
mod sorter; // lines that wait for their place
mod keeper; // the thread that gives it to them
mod follower; // a reader and its position
mod files; // the same on disk

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::config::{LogFiles, limits};
use crate::model::AppName;
use crate::telemetry::block::Block;
use crate::telemetry::lost::{LostLines, count_dropped};
use crate::wall_clock;

use keeper::Keeper;
use ring::Ring;

pub use follower::{Follower, From, Lost, Taken};
pub use ring::Line;

/// The book, to write in and to read from. Cheap to clone; its thread ends with the last one.
#[derive(Clone)]
pub struct LogBook {
    messages: SyncSender<Message>,
    pages: Arc<Pages>,
}

/// What writers, readers and the thread share.
#[derive(Default)]
struct Pages {
    /// Bytes of the blocks that wait for the thread.
    queued: AtomicUsize,
    /// What there was no room for.
    lost: Mutex<LostLines>,
    rings: Mutex<HashMap<Box<str>, Arc<Mutex<Ring>>>>,
}

enum Message {
    Block(Arc<Block>),
    /// To be told when every line up to this microsecond has its place.
    Settled(u64, oneshot::Sender<()>),
    Files(Option<LogFiles>),
    /// Its end: every line gets its place, and is written.
    Flush(SyncSender<()>),
}

impl LogBook {
    /// An empty book and its thread.
    pub fn start() -> io::Result<Self> {
        let (messages, received) = sync_channel(limits::BOOK_QUEUE);
        let pages = Arc::new(Pages::default());
        let keeper = Keeper::new(pages.clone());
        thread::Builder::new().name("log-book".into()).spawn(move || keeper.run(&received))?;
        Ok(Self { messages, pages })
    }

    /// Enters the lines of a block. Never blocks; `false`: there was no room, and the book says so (L12).
    pub(crate) fn enter(&self, block: Arc<Block>) -> bool {
        let bytes = block.bytes().len();
        let queued = self.pages.queued.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let refused = match queued > limits::BOOK_QUEUE_BYTES {
            true => Some(block),
            false => match self.messages.try_send(Message::Block(block)) {
                Ok(()) => None,
                Err(TrySendError::Full(Message::Block(block))) => Some(block),
                // The thread has ended: so does the process.
                Err(_) => return false,
            },
        };
        let Some(refused) = refused else { return true };
        self.pages.queued.fetch_sub(bytes, Ordering::Relaxed);
        count_dropped(refused.bytes());
        lock(&self.pages.lost).add(refused.bytes());
        false
    }

    /// Returns once all that was logged before this call can be read.
    pub async fn settled(&self) {
        let now = micros();
        loop {
            let (settled, done) = oneshot::channel();
            match self.messages.try_send(Message::Settled(now, settled)) {
                Ok(()) => {
                    let _ = done.await;
                    return;
                }
                Err(TrySendError::Full(_)) => sleep(limits::BOOK_TICK).await,
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    /// A reader of one app's lines.
    pub fn follow(&self, app: &AppName, from: From) -> Follower {
        Follower::new(self.pages.ring(app.as_str()), from)
    }

    /// Forgets the lines of apps that are no more; who follows them comes to an end.
    pub fn keep_only(&self, is_app: impl Fn(&str) -> bool) {
        lock(&self.pages.rings).retain(|app, ring| {
            let keep = is_app(app);
            if !keep {
                lock(ring).close();
            }
            keep
        });
    }

    /// Blocks until everything entered before is written to the files. For the end of the process.
    pub fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.messages.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv();
        }
    }

    /// Writes later lines to these files, too, or to none. Blocks while the queue is full.
    pub fn write_to(&self, files: Option<LogFiles>) {
        // The thread lives as long as this sender does.
        let _ = self.messages.send(Message::Files(files));
    }
}

impl Pages {
    /// The ring of an app; an empty one where there is none.
    fn ring(&self, app: &str) -> Arc<Mutex<Ring>> {
        let mut rings = lock(&self.rings);
        match rings.get(app) {
            Some(ring) => ring.clone(),
            None => {
                rings.entry(app.into()).or_insert_with(|| Arc::new(Mutex::new(Ring::new()))).clone()
            }
        }
    }

    /// Has each app give up half of its lines where all together are too many.
    fn bound(&self) {
        let rings = lock(&self.rings);
        let bytes: usize = rings.values().map(|ring| lock(ring).bytes()).sum();
        if bytes > limits::BOOK_BYTES_ALL {
            rings.values().for_each(|ring| lock(ring).halve());
        }
    }
}

/// The present, as lines have it.
fn micros() -> u64 {
    wall_clock::since_epoch().as_micros().try_into().unwrap_or(u64::MAX)
}

/// Nothing panics while one of these locks is held, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::block::Spare;
    use crate::telemetry::{AppLog, Lines, Target};

    fn shop() -> AppName {
        AppName::parse("shop").unwrap()
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(&line.text[33..]).into_owned()).collect()
    }

    fn all(follower: &mut Follower) -> Vec<String> {
        texts(&follower.take(usize::MAX, usize::MAX).lines)
    }

    /// A line of shop whose time stamp is so old.
    fn aged(age: Duration, message: &str) -> Arc<Block> {
        let mut bytes = Vec::new();
        crate::telemetry::Stamp::default().write(&mut bytes, wall_clock::since_epoch() - age);
        bytes.extend_from_slice(format!(" shop app[web.1]: {message}\n").as_bytes());
        Arc::new(Block::new(bytes, &Arc::new(Spare::default())))
    }

    #[tokio::test]
    async fn what_was_logged_can_be_read_back_in_order() {
        let book = LogBook::start().unwrap();
        let lines = Lines::start(Target::file("/dev/null".as_ref()).unwrap()).unwrap();
        let log = AppLog::new(lines.entered_into(&book));
        log.platform(&shop(), &"web.1", &"State changed from starting to up");
        log.daemon(&"daemon", &"not an app's");
        log.output(&shop(), &"web.1", b"hello");
        book.enter(aged(Duration::from_millis(100), "late"));
        book.settled().await;
        let mut follower = book.follow(&shop(), From::Begin);
        assert_eq!(
            all(&mut follower),
            [
                "app[web.1]: late",
                "heroku[web.1]: State changed from starting to up",
                "app[web.1]: hello"
            ]
        );
        assert_eq!(all(&mut follower), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_follower_hears_of_new_lines_and_of_the_end() {
        let book = LogBook::start().unwrap();
        book.enter(aged(Duration::ZERO, "before"));
        book.settled().await;
        let mut follower = book.follow(&shop(), From::End);
        book.enter(aged(Duration::ZERO, "after"));
        follower.grown().await;
        let taken = follower.take(10, usize::MAX);
        assert_eq!(texts(&taken.lines), ["app[web.1]: after"]);
        let mut again = book.follow(&shop(), From::After(taken.lines[0].number - 1));
        assert_eq!(all(&mut again), ["app[web.1]: after"]);
        assert!(!follower.is_over());
        book.keep_only(|_| false);
        follower.grown().await;
        assert!(follower.is_over());
    }

    #[tokio::test]
    async fn who_reads_slowly_loses_lines_and_hears_how_many() {
        let book = LogBook::start().unwrap();
        let mut slow = book.follow(&shop(), From::End);
        let lines = limits::BOOK_LINES_FOLLOWED + 100;
        for number in 0..lines {
            while !book.enter(aged(Duration::ZERO, &number.to_string())) {
                sleep(Duration::from_millis(10)).await;
            }
        }
        book.settled().await;
        let taken = slow.take(1, usize::MAX);
        // Beside them what the book itself had no room for, and said so.
        assert!(taken.lost.unwrap().lines.unwrap() >= 100);
        assert_eq!(taken.lines.len(), 1);
        assert!(slow.take(1, usize::MAX).lost.is_none());
        let last = slow.take(usize::MAX, usize::MAX).lines;
        assert!(texts(&last).contains(&format!("app[web.1]: {}", lines - 1)));
    }
}
