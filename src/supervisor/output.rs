//! What a dyno prints, line by line into the log.
//!
//! The pipe is always read, so that a dyno never waits for a reader of the log. What is too much is dropped:
//! the dyno's own lines, counted and said (L10), never its neighbours'. The end of a burst is kept and printed
//! when there is room again: the last words tell the most.

mod lines; // bytes into lines that are safe to print
mod tail; // the last of them

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::task;
use tokio::time::{self, Instant};

use crate::config::limits;
use crate::init::Lost;
use crate::model::{AppName, DynoName};
use crate::shutdown::Shutdown;
use crate::supervisor::metrics;
use crate::telemetry::{AppLog, Stamp};

use lines::Lines;
use tail::Tail;

/// The output of one process. Once dropped, it is read for [`limits::OUTPUT_AFTER_EXIT`] at most.
pub(crate) struct Output {
    ended: watch::Receiver<()>,
    tail: Tail,
    _process: oneshot::Sender<()>,
}

impl Output {
    /// Returns once everything was handed to the log, or after [`limits::OUTPUT_SETTLE`].
    pub(crate) async fn settled(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: the reader's end drops the sender.
        let _ = time::timeout(limits::OUTPUT_SETTLE, ended.changed()).await;
    }

    /// The last lines that were printed, unless they are to be forgotten.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    /// Nobody will ask for the last lines.
    pub(crate) fn forget_lines(&self) {
        self.tail.forget();
    }
}

/// What a dyno printed before this daemon was there.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    /// What came before these bytes and could not be kept.
    pub(crate) lost: Lost,
}

/// Starts to carry what was kept, and then what comes out of `pipe`, into the log.
pub(crate) fn carry(
    pipe: OwnedFd,
    kept: Kept,
    (app, dyno): (&AppName, &DynoName),
    log: &AppLog,
    shutdown: &Shutdown,
) -> io::Result<Output> {
    let pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let (process, process_gone) = oneshot::channel();
    let (running, ended) = watch::channel(());
    let tail = Tail::default();
    let mut carrier = Carrier {
        tail: tail.clone(),
        app: app.clone(),
        dyno: dyno.clone(),
        log: log.clone(),
        lines: Lines::default(),
        window: Window::default(),
        held: Vec::new(),
        dropped: Dropped::default(),
    };
    carrier.begin_with(&kept);
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
    Ok(Output { ended, tail, _process: process })
}

struct Carrier {
    tail: Tail,
    app: AppName,
    dyno: DynoName,
    log: AppLog,
    lines: Lines,
    window: Window,
    /// The newest of what the window did not admit. Nothing that came later is printed before it.
    held: Vec<u8>,
    dropped: Dropped,
}

impl Carrier {
    fn begin_with(&mut self, Kept { bytes, lost }: &Kept) {
        if lost.lines > 0 {
            let Lost { lines, since } = lost;
            let mut stamp = Vec::new();
            Stamp::default().write(&mut stamp, Duration::from_millis(*since));
            let since = String::from_utf8_lossy(&stamp);
            let line = format!("Error L12: {lines} messages dropped since {since}.");
            self.log.platform(&self.app, &self.dyno, &line);
            metrics::lines_dropped(&self.app, *lines);
        }
        if !bytes.is_empty() {
            self.take(bytes);
        }
    }

    async fn carry(mut self, mut pipe: pipe::Receiver, bound: impl Future<Output = ()>) {
        let mut buffer = vec![0; limits::OUTPUT_READ];
        let mut bound = std::pin::pin!(bound);
        loop {
            // A read that did not finish has read nothing. The bound is asked first: there may always be more.
            let read = tokio::select! {
                biased;
                () = &mut bound => 0,
                () = self.window.over(), if self.owes() => {
                    self.settle();
                    continue;
                }
                read = pipe.read(&mut buffer) => read.unwrap_or(0),
            };
            if read == 0 {
                break;
            }
            self.take(&buffer[..read]);
            // One read, one turn: the ends of other dynos are heard on the same thread.
            task::yield_now().await;
        }
        self.release();
        let rest = self.lines.rest();
        self.print(rest.as_slice());
        self.say_lost_at_last().await;
    }

    /// The log may be full of the very lines that this is about: it gets time to write them.
    async fn say_lost_at_last(&mut self) {
        for _ in 0..limits::OUTPUT_LAST_TRIES {
            self.say_lost();
            if self.dropped.lines == 0 {
                return;
            }
            time::sleep(limits::OUTPUT_WINDOW).await;
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.window.admits(bytes.len(), Instant::now()) {
            self.release();
            let lines = self.lines.split(bytes);
            self.print(&lines);
        } else {
            self.hold(bytes);
        }
    }

    /// Whether something waits for the window's end.
    fn owes(&self) -> bool {
        !self.held.is_empty() || self.dropped.lines > 0
    }

    /// At a window's end: says and prints what waited for it, even where the dyno is silent from now on.
    fn settle(&mut self) {
        // What the log does not take now is tried again a window later.
        self.window = Window::beginning(Instant::now());
        self.say_lost();
        self.release();
    }

    /// Keeps these bytes until the window's end, at the cost of older ones.
    fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        if self.held.len() > limits::OUTPUT_HELD {
            let older = lines::older(&self.held, limits::OUTPUT_HELD);
            let skipped = self.lines.skip(&self.held[..older]);
            self.held.drain(..older);
            self.lose(skipped);
        }
    }

    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        let lines = self.lines.split(&held);
        self.print(&lines);
    }

    fn print(&mut self, lines: &[Vec<u8>]) {
        if lines.is_empty() {
            return;
        }
        self.tail.keep(lines);
        if self.log.outputs(&self.app, &self.dyno, lines.iter().map(Vec::as_slice)) {
            self.say_lost();
        } else {
            // The log has counted them.
            self.dropped.count(lines.len() as u64);
        }
    }

    fn lose(&mut self, lines: u64) {
        if lines > 0 {
            self.dropped.count(lines);
            metrics::lines_dropped(&self.app, lines);
        }
    }

    fn say_lost(&mut self) {
        if self.dropped.lines > 0 {
            let Dropped { lines, since } = &self.dropped;
            let since = String::from_utf8_lossy(since);
            let line = format!(
                "Error L10 (output buffer overflow): {lines} messages dropped since {since}."
            );
            if self.log.try_platform(&self.app, &self.dyno, &line) {
                self.dropped.lines = 0;
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
    fn beginning(now: Instant) -> Self {
        Self { began: Some(now), bytes: 0 }
    }

    /// Returns once it has ended; at once where none has begun.
    async fn over(&self) {
        if let Some(began) = self.began {
            time::sleep_until(began + limits::OUTPUT_WINDOW).await;
        }
    }

    /// Whether so many bytes more may be printed.
    fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        if self.began.is_none_or(|began| now - began >= limits::OUTPUT_WINDOW) {
            *self = Self::beginning(now);
        }
        self.bytes += bytes;
        self.bytes <= limits::OUTPUT_WINDOW_BYTES
    }
}

/// Lines that were dropped and not spoken of yet.
#[derive(Default)]
struct Dropped {
    lines: u64,
    since: Vec<u8>,
}

impl Dropped {
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
    use crate::model::ProcessType;
    use crate::telemetry::{Lines as LogLines, Target};

    /// What is printed of these reads, which come all at once; then the dyno is silent.
    async fn printed(reads: &[Vec<u8>]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let log = AppLog::new(LogLines::start(Target::file(&file).unwrap()).unwrap());
        let mut carrier = Carrier {
            tail: Tail::default(),
            app: AppName::parse("shop").unwrap(),
            dyno: DynoName { process_type: ProcessType::web(), number: 1 },
            log: log.clone(),
            lines: Lines::default(),
            window: Window::default(),
            held: Vec::new(),
            dropped: Dropped::default(),
        };
        for read in reads {
            carrier.take(read);
            // The log's own bound is not what this is about.
            log.flush();
        }
        while carrier.owes() {
            carrier.window.over().await;
            carrier.settle();
            log.flush();
        }
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().map(|line| line.split_once(" shop ").unwrap().1.to_owned()).collect()
    }

    fn in_reads(text: &str) -> Vec<Vec<u8>> {
        text.as_bytes().chunks(limits::OUTPUT_READ).map(<[u8]>::to_vec).collect()
    }

    fn dropped(printed: &[String]) -> usize {
        let number = |line: &String| {
            let line = line.strip_prefix("heroku[web.1]: Error L10 (output buffer overflow): ")?;
            line.split(' ').next()?.parse::<usize>().ok()
        };
        printed.iter().filter_map(number).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_lines_of_a_burst_are_printed_and_the_others_counted() {
        let lines = 300_000;
        let text = (0..lines).map(|number| format!("line {number}\n")).collect::<String>();
        let printed = printed(&in_reads(&text)).await;
        assert_eq!(printed.last().unwrap(), &format!("app[web.1]: line {}", lines - 1));
        assert!(dropped(&printed) > 0);
        let whole = printed.iter().filter_map(|line| line.strip_prefix("app[web.1]: line "));
        let whole = whole.map(|number| number.parse::<usize>().unwrap()).collect::<Vec<_>>();
        assert!(whole.is_sorted());
        assert_eq!(whole.len() + dropped(&printed), lines);
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_an_endless_line_is_printed() {
        let printed = printed(&in_reads(&("x".repeat(10_000_000) + "\nnext\n"))).await;
        assert_eq!(printed.last().unwrap(), "app[web.1]: next");
        assert!(dropped(&printed) > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn later_output_stays_behind_what_was_held() {
        let mut reads = in_reads(&"x\n".repeat(limits::OUTPUT_WINDOW_BYTES / 2));
        reads.extend([b"he".to_vec(), b"ld\nla".to_vec(), b"ter\n".to_vec()]);
        let printed = printed(&reads).await;
        assert_eq!(printed[printed.len() - 2..], ["app[web.1]: held", "app[web.1]: later"]);
        assert_eq!(dropped(&printed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_admits_so_much_and_the_next_one_again() {
        let mut window = Window::default();
        assert!(window.admits(limits::OUTPUT_WINDOW_BYTES, Instant::now()));
        assert!(!window.admits(1, Instant::now()));
        time::advance(limits::OUTPUT_WINDOW).await;
        assert!(window.admits(1, Instant::now()));
    }
}
