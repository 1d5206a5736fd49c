//! A reader of one app's lines, and its position.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::telemetry::Stamp;
use crate::telemetry::book::ring::{Line, Ring};
use crate::telemetry::book::{lock, micros};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the oldest line that is kept for everybody.
    Begin,
    /// With the line after this number; of an earlier daemon, too.
    After(u64),
    /// With what comes.
    End,
}

/// A reader. For as long as it is there, its app's lines are kept in greater number.
pub struct Follower {
    ring: Arc<Mutex<Ring>>,
    grown: watch::Receiver<()>,
    place: u64,
    /// When the last line was that it has read.
    last: u64,
    /// Whether lines before its beginning are gone that it asked for.
    missed: bool,
}

/// What a reader was given at once.
#[derive(Debug)]
pub struct Taken {
    /// What came before these lines and is gone.
    pub lost: Option<Lost>,
    /// In order.
    pub lines: Vec<Line>,
}

/// Lines that a reader has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many; absent where nobody has counted them.
    pub lines: Option<u64>,
    /// Since when, as the time since 1970.
    pub since: Duration,
}

impl Follower {
    pub(crate) fn new(ring: Arc<Mutex<Ring>>, from: From) -> Self {
        let mut held = lock(&ring);
        let grown = held.follow();
        let (place, last, missed) = match from {
            From::Begin => (held.begin(), micros(), false),
            From::After(number) => {
                let (place, missed) = held.after(number);
                (place, number, missed)
            }
            From::End => (held.end(), micros(), false),
        };
        drop(held);
        Self { ring, grown, place, last, missed }
    }

    /// The next lines that are there, so many lines and about so many bytes at most.
    pub fn take(&mut self, lines_max: usize, bytes_max: usize) -> Taken {
        let ring = lock(&self.ring);
        // What is pushed after this look makes `grown` return.
        self.grown.mark_unchanged();
        let (lost, kept) = ring.from(self.place);
        let (mut lines, mut bytes) = (Vec::new(), 0);
        for line in kept.take(lines_max) {
            if bytes >= bytes_max {
                break;
            }
            bytes += line.text.len();
            lines.push(line.clone());
        }
        drop(ring);
        self.place += lost + lines.len() as u64;
        let since = Duration::from_micros(self.last);
        let counted = (lost > 0).then_some(Lost { lines: Some(lost), since });
        let missed = std::mem::take(&mut self.missed).then_some(Lost { lines: None, since });
        if let Some(last) = lines.last() {
            self.last = last.number;
        }
        Taken { lost: missed.or(counted), lines }
    }

    /// Returns once there may be more than was taken, or nothing will come any more.
    pub async fn grown(&mut self) {
        // It fails where the ring is gone, whose end was announced before.
        let _ = self.grown.changed().await;
    }

    /// Whether the app is no more, and all was taken.
    pub fn is_over(&self) -> bool {
        let ring = lock(&self.ring);
        ring.is_closed() && self.place >= ring.end()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        lock(&self.ring).unfollow();
    }
}

impl Lost {
    /// `7 messages dropped since 2026-…`
    pub fn say(&self) -> String {
        let (lines, since) = self.words();
        format!("{lines} messages dropped since {since}")
    }

    /// How many, and since when, in words.
    pub fn words(&self) -> (String, String) {
        let mut since = Vec::new();
        Stamp::default().write(&mut since, self.since);
        let since = String::from_utf8_lossy(&since).into_owned();
        let lines = self.lines.map_or("an unknown number of".to_owned(), |lines| lines.to_string());
        (lines, since)
    }
}

impl Line {
    /// `heroku` and `router` of a line `TIMESTAMP heroku[router]: …`.
    pub fn origin(&self) -> (&str, &str) {
        let head = self.text.get(crate::telemetry::split::STAMP + 1..).unwrap_or_default();
        let head = &head[..memchr::memchr(b':', head).unwrap_or(head.len())];
        let head = std::str::from_utf8(head).unwrap_or_default();
        let (source, process) = head.split_once('[').unwrap_or((head, ""));
        (source, process.strip_suffix(']').unwrap_or(process))
    }

    /// Its time stamp, and what was said, without its origin.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let (stamp, rest) = self.text.split_at(crate::telemetry::split::STAMP.min(self.text.len()));
        let message = memchr::memmem::find(rest, b"]: ").map_or(rest, |at| &rest[at + 3..]);
        (stamp, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_knows_where_it_comes_from() {
        let check = |text: &str, origin: (&str, &str), message: &str| {
            let text = format!("2026-11-21T01:44:50.123456+00:00 {text}").into_bytes().into();
            let line = Line { number: 1, text };
            assert_eq!(line.origin(), origin);
            assert_eq!(line.parts().1, message.as_bytes());
        };
        check("heroku[router]: at=info", ("heroku", "router"), "at=info");
        check("app[web.1]: a[b]: c", ("app", "web.1"), "a[b]: c");
        check("app[web.1]: ", ("app", "web.1"), "");
    }
}
