//! Counts frames that cost the router something and carry no request: a client may send any number of them,
//! and the protocol alone does not stop it.
//!
//! Two buckets: resets of streams (CVE-2023-44487), and everything else that is neither HEADERS nor a DATA frame
//! with data.

use std::time::Duration;

use crate::config::limits;
use crate::router::clock::{Moment, Tick};
use crate::wire::FrameHeader;

/// The most of a DATA frame that can be padding, its length included (RFC 9113 §6.1).
const PADDING_MAX: usize = 256;

/// What a connection's frames have cost so far.
pub(super) struct Flood {
    /// When the header list began that is not at its end.
    head_since: Option<Moment>,
    resets: Bucket,
    idle: Bucket,
}

impl Flood {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            head_since: None,
            resets: Bucket::new(limits::RESETS_BURST, limits::RESETS_PER_SECOND, now),
            idle: Bucket::new(limits::IDLE_FRAMES_BURST, limits::IDLE_FRAMES_PER_SECOND, now),
        }
    }

    /// Takes note of a frame that has begun.
    pub(super) fn frame(&mut self, header: FrameHeader, now: Moment) {
        let ends_head = header.has(FrameHeader::END_HEADERS);
        let padding = if header.has(FrameHeader::PADDED) { PADDING_MAX } else { 0 };
        match header.kind {
            FrameHeader::HEADERS => {
                self.idle.give(limits::IDLE_FRAMES_PER_REQUEST as usize * 1000);
                if !ends_head {
                    self.head_since = Some(now);
                }
            }
            FrameHeader::CONTINUATION => {
                if ends_head {
                    self.head_since = None;
                }
                self.idle.take(now);
            }
            // How much of it is padding stands behind the frame header.
            FrameHeader::DATA if header.length > padding => self.idle.give(header.length),
            FrameHeader::RST_STREAM => self.resets.take(now),
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
    pub(super) fn is_too_much(&self) -> bool {
        self.resets.has_run_dry() || self.idle.has_run_dry()
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

    const REQUEST: FrameHeader = FrameHeader {
        length: 30,
        kind: FrameHeader::HEADERS,
        flags: FrameHeader::END_HEADERS,
        stream: 1,
    };

    fn frame(kind: u8, flags: u8, length: usize) -> FrameHeader {
        FrameHeader { length, kind, flags, stream: 1 }
    }

    fn start() -> (Flood, Moment) {
        let now = Moment::now();
        (Flood::new(now), now)
    }

    #[test]
    fn resets_are_counted() {
        let (mut flood, now) = start();
        for _ in 0..limits::RESETS_BURST {
            assert!(!flood.is_too_much());
            flood.frame(REQUEST, now);
            flood.frame(frame(FrameHeader::RST_STREAM, 0, 4), now);
        }
        assert!(flood.is_too_much());
    }

    #[test]
    fn requests_and_data_are_no_flood() {
        let (mut flood, now) = start();
        for _ in 0..10_000 {
            flood.frame(REQUEST, now);
            flood.frame(frame(FrameHeader::DATA, 0, 1), now);
        }
        assert!(!flood.is_too_much());
    }

    #[test]
    fn pings_settings_and_empty_data_are_a_flood_when_there_are_too_many() {
        for kind in [FrameHeader::DATA, 2, 4, 6, 8, FrameHeader::CONTINUATION, 0xfe] {
            let (mut flood, now) = start();
            for _ in 0..limits::IDLE_FRAMES_BURST {
                assert!(!flood.is_too_much());
                flood.frame(frame(kind, 0, 0), now);
            }
            assert!(flood.is_too_much(), "frame type {kind}");
        }
    }

    #[test]
    fn padding_is_no_data() {
        let (mut flood, now) = start();
        for _ in 0..limits::IDLE_FRAMES_BURST {
            flood.frame(frame(FrameHeader::DATA, FrameHeader::PADDED, PADDING_MAX), now);
        }
        assert!(flood.is_too_much());
    }

    #[test]
    fn acknowledgements_do_not_make_a_flood_less_of_one() {
        let (mut flood, now) = start();
        for _ in 0..limits::IDLE_FRAMES_BURST {
            flood.frame(frame(FrameHeader::PING, 0, 8), now);
        }
        flood.wrote(17 * limits::IDLE_FRAMES_BURST as usize);
        assert!(flood.is_too_much());
    }

    #[test]
    fn whoever_receives_may_open_windows() {
        let (mut flood, now) = start();
        for _ in 0..10 * limits::IDLE_FRAMES_BURST {
            flood.wrote(16 * 1024);
            flood.frame(frame(FrameHeader::WINDOW_UPDATE, 0, 4), now);
        }
        assert!(!flood.is_too_much());
    }

    #[test]
    fn window_updates_may_come_all_at_once() {
        let (mut flood, now) = start();
        flood.wrote(10_000_000);
        for _ in 0..5000 {
            flood.frame(frame(FrameHeader::WINDOW_UPDATE, 0, 4), now);
        }
        assert!(!flood.is_too_much());
    }

    #[test]
    fn whoever_asks_may_be_eager() {
        let (mut flood, now) = start();
        for _ in 0..10 * limits::IDLE_FRAMES_BURST {
            flood.frame(REQUEST, now);
            flood.frame(frame(FrameHeader::PING, 0, 8), now);
            for _ in 0..4 {
                flood.frame(frame(FrameHeader::WINDOW_UPDATE, 0, 4), now);
            }
        }
        assert!(!flood.is_too_much());
    }

    #[test]
    fn a_header_list_has_its_time_from_its_beginning_on() {
        let (mut flood, now) = start();
        let head = Duration::from_secs(60);
        assert_eq!(flood.head_deadline(head), None);
        flood.frame(frame(FrameHeader::HEADERS, 0, 10), now);
        let later = now.plus(Duration::from_secs(30));
        flood.frame(frame(FrameHeader::CONTINUATION, 0, 10), later);
        assert_eq!(flood.head_deadline(head), Some(now.deadline(head)));
        flood.frame(frame(FrameHeader::CONTINUATION, FrameHeader::END_HEADERS, 10), later);
        assert_eq!(flood.head_deadline(head), None);
    }
}
