//! Counts frames that cost the router something and carry no request: a client may send any number of them,
//! and the protocol alone does not stop it.
//!
//! Walks the frame headers of what is read (RFC 9113 §4.1) before the h2 crate sees it. Two buckets: resets of
//! streams (CVE-2023-44487), and everything else that is neither HEADERS nor a DATA frame with data.

use std::time::Duration;

use crate::config::limits;
use crate::router::clock::{Moment, Tick};

/// Bytes of the client's preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// The most of a DATA frame that can be padding, its length included (RFC 9113 §6.1).
const PADDING_MAX: usize = 256;

/// What is known of a connection's frames so far.
pub(super) struct Frames {
    /// The frame header that is being read.
    header: [u8; HEADER],
    have: usize,
    /// Bytes until the next frame header.
    skip: usize,
    /// When the header list began that is not at its end.
    head_since: Option<Moment>,
    /// Its first frame has come.
    greeted: bool,
    /// It was no SETTINGS (RFC 9113 §3.4); the h2 crate takes any.
    is_rude: bool,
    resets: Bucket,
    idle: Bucket,
}

impl Frames {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            skip: PREFACE,
            head_since: None,
            greeted: false,
            is_rude: false,
            resets: Bucket::new(limits::RESETS_BURST, limits::RESETS_PER_SECOND, now),
            idle: Bucket::new(limits::IDLE_FRAMES_BURST, limits::IDLE_FRAMES_PER_SECOND, now),
        }
    }

    /// Takes note of bytes that have been read.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: Moment) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                self.skip -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have == HEADER {
                self.have = 0;
                self.frame(now);
            }
        }
    }

    fn frame(&mut self, now: Moment) {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.skip = length;
        self.is_rude |= !self.greeted && kind != SETTINGS;
        self.greeted = true;
        let ends_head = flags & END_HEADERS != 0;
        match kind {
            HEADERS => {
                self.idle.give(limits::IDLE_FRAMES_PER_REQUEST as usize * 1000);
                if !ends_head {
                    self.head_since = Some(now);
                }
            }
            CONTINUATION => {
                if ends_head {
                    self.head_since = None;
                }
                self.idle.take(now);
            }
            // How much of it is padding stands behind the frame header.
            DATA if length > if flags & PADDED != 0 { PADDING_MAX } else { 0 } => {
                self.idle.give(length);
            }
            RST_STREAM => self.resets.take(now),
            _ => self.idle.take(now),
        }
    }

    /// Takes note of bytes that have been written: whoever receives much may send many window updates.
    pub(super) fn wrote(&mut self, count: usize) {
        self.idle.give(count);
    }

    /// Takes note of a piece of an answer, however small: the stream's window may be opened for it, and the
    /// connection's.
    pub(super) fn sent_piece(&mut self) {
        self.idle.give(2 * 1000);
    }

    /// Whether there were too many.
    pub(super) fn is_flood(&self) -> bool {
        self.resets.has_run_dry() || self.idle.has_run_dry()
    }

    /// Whether they did not begin as they must.
    pub(super) fn is_rude(&self) -> bool {
        self.is_rude
    }

    /// When a header list that is on its way has taken too long.
    pub(super) fn head_deadline(&self, head: Duration) -> Option<Tick> {
        self.head_since.map(|since| since.deadline(head))
    }
}

/// A bucket of frames: filled over time, emptied by one each.
struct Bucket {
    /// In thousandths of a frame, so that refilling loses nothing.
    level: u64,
    burst: u64,
    per_second: u64,
    filled: Moment,
    /// It has been empty once. What is put in afterwards, by time or by our own acknowledgements, undoes nothing:
    /// nobody looks between two frames of the same read.
    ran_dry: bool,
}

impl Bucket {
    fn new(burst: u64, per_second: u64, now: Moment) -> Self {
        Self { level: burst * 1000, burst: burst * 1000, per_second, filled: now, ran_dry: false }
    }

    fn take(&mut self, now: Moment) {
        let millis = now.since(self.filled).as_millis() as u64;
        if millis > 0 {
            let filled = (self.level + millis * self.per_second).min(self.burst);
            self.level = self.level.max(filled);
            self.filled = now;
        }
        self.level = self.level.saturating_sub(1000);
        self.ran_dry |= self.level == 0;
    }

    /// Bytes that were worth something: a frame for each KiB. They are kept beyond what time fills, for what is
    /// written today is acknowledged all at once by a client that was slow to read.
    fn give(&mut self, bytes: usize) {
        self.level = (self.level + bytes as u64).min(limits::IDLE_FRAMES_EARNED * 1000);
    }

    fn has_run_dry(&self) -> bool {
        self.ran_dry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + length, 0);
        bytes
    }

    fn start() -> (Frames, Moment) {
        let now = Moment::now();
        let mut frames = Frames::new(now);
        frames.read(&[0; PREFACE], now);
        frames.read(&frame(SETTINGS, 0, 0), now);
        frames.idle = Bucket::new(limits::IDLE_FRAMES_BURST, limits::IDLE_FRAMES_PER_SECOND, now);
        (frames, now)
    }

    #[test]
    fn resets_are_counted_wherever_the_bytes_are_split() {
        for split in [1, 7, 13, 1000] {
            let (mut frames, now) = start();
            let reset = [frame(HEADERS, END_HEADERS, 20), frame(RST_STREAM, 0, 4)].concat();
            let bytes = reset.repeat(limits::RESETS_BURST as usize - 1);
            bytes.chunks(split).for_each(|bytes| frames.read(bytes, now));
            assert!(!frames.is_flood(), "split by {split}");
            frames.read(&reset, now);
            assert!(frames.is_flood(), "split by {split}");
        }
    }

    #[test]
    fn requests_and_data_are_no_flood() {
        let (mut frames, now) = start();
        for _ in 0..10_000 {
            frames.read(&frame(HEADERS, END_HEADERS, 30), now);
            frames.read(&frame(DATA, 0, 1), now);
        }
        assert!(!frames.is_flood());
    }

    #[test]
    fn pings_settings_and_empty_data_are_a_flood_when_there_are_too_many() {
        for kind in [DATA, 2, 4, 6, 8, CONTINUATION, 0xfe] {
            let (mut frames, now) = start();
            for _ in 0..limits::IDLE_FRAMES_BURST {
                assert!(!frames.is_flood());
                frames.read(&frame(kind, 0, 0), now);
            }
            assert!(frames.is_flood(), "frame type {kind}");
        }
    }

    #[test]
    fn padding_is_no_data() {
        let (mut frames, now) = start();
        for _ in 0..limits::IDLE_FRAMES_BURST {
            frames.read(&frame(DATA, PADDED, PADDING_MAX), now);
        }
        assert!(frames.is_flood());
    }

    #[test]
    fn acknowledgements_do_not_make_a_flood_less_of_one() {
        let (mut frames, now) = start();
        let pings = frame(6, 0, 8).repeat(limits::IDLE_FRAMES_BURST as usize);
        frames.read(&pings, now);
        frames.wrote(pings.len());
        assert!(frames.is_flood());
    }

    #[test]
    fn whoever_receives_may_open_windows() {
        let (mut frames, now) = start();
        for _ in 0..10 * limits::IDLE_FRAMES_BURST {
            frames.wrote(16 * 1024);
            frames.read(&frame(8, 0, 4), now);
        }
        assert!(!frames.is_flood());
    }

    #[test]
    fn window_updates_may_come_all_at_once() {
        let (mut frames, now) = start();
        frames.wrote(10_000_000);
        for _ in 0..5000 {
            frames.read(&frame(8, 0, 4), now);
        }
        assert!(!frames.is_flood());
    }

    #[test]
    fn whoever_asks_may_be_eager() {
        let (mut frames, now) = start();
        for _ in 0..10 * limits::IDLE_FRAMES_BURST {
            frames.read(&frame(HEADERS, END_HEADERS, 30), now);
            frames.read(&frame(6, 0, 8), now);
            frames.read(&frame(8, 0, 4).repeat(4), now);
        }
        assert!(!frames.is_flood());
    }

    #[test]
    fn settings_come_first() {
        let now = Moment::now();
        for (kind, rude) in [(SETTINGS, false), (HEADERS, true), (6, true)] {
            let mut frames = Frames::new(now);
            frames.read(&[&[0; PREFACE][..], &frame(kind, END_HEADERS, 0)].concat(), now);
            frames.read(&frame(HEADERS, END_HEADERS, 0), now);
            assert_eq!(frames.is_rude(), rude, "frame type {kind}");
        }
    }

    #[test]
    fn a_header_list_has_its_time_from_its_beginning_on() {
        let (mut frames, now) = start();
        let head = Duration::from_secs(60);
        assert_eq!(frames.head_deadline(head), None);
        frames.read(&frame(HEADERS, 0, 10), now);
        let later = now.plus(Duration::from_secs(30));
        frames.read(&frame(CONTINUATION, 0, 10), later);
        assert_eq!(frames.head_deadline(head), Some(now.deadline(head)));
        frames.read(&frame(CONTINUATION, END_HEADERS, 10), later);
        assert_eq!(frames.head_deadline(head), None);
    }
}
