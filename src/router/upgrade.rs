//! After 101: the two sockets are one pipe, whatever they speak (WebSocket mostly).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::config::limits;
use crate::model::AppTimeouts;
use crate::router::client::Client;
use crate::router::clock::{Moment, Tick};
use crate::router::duplex::{Sink, Source};
use crate::router::pending::Pending;
use crate::router::relay::Switched;
use crate::router::reply::Refusal;
use crate::router::transport::Transport;
use crate::router::worker::Worker;
use crate::table::Dyno;
use crate::wire::{Frames, close_frame};

/// The status code of a close frame that says: come back, somebody else will be there (RFC 6455 §7.4.1, IANA).
const SERVICE_RESTART: u16 = 1012;

/// How a pipe ended.
pub(crate) struct Piped {
    /// Bytes that the client was sent.
    pub(crate) to_client: u64,
    /// Silence on both sides (H15), or cut by the daemon (H24); `None` where one of them hung up.
    pub(crate) refusal: Option<Refusal>,
}

/// Carries bytes both ways until one side ends, both are silent for `rolling`, or the `leased` dyno is given up.
/// Of a dyno that drains, or where the daemon stops, a WebSocket is closed at some moment within `ws_drain`, and of a
/// daemon while there is time for goodbyes; anything else goes on until the dyno's or the daemon's time is over. What
/// the dyno sent behind its 101 goes first.
pub(crate) async fn pipe(
    client: &mut Client<impl Transport>,
    leased: &Dyno,
    mut dyno: impl Source + Sink,
    switched: Switched,
    timeouts: &AppTimeouts,
) -> Piped {
    let worker = client.worker.clone();
    let ticket = worker.pipes.enter(&client.deadline, leased.id());
    let Switched { to_client, head, is_websocket } = switched;
    // The head of the 101 itself is no part of what is counted, nor a frame.
    let mut down = Direction::new(is_websocket, &to_client[head..]);
    down.pending = to_client.into();
    let mut up = Direction::new(is_websocket, b"");
    let mut farewell = Farewell::None;
    let mut silent_at = worker.read_clock().deadline(timeouts.rolling);
    client.deadline.set(silent_at);
    let refusal = poll_fn(|cx| {
        if worker.is_stopping() || leased.is_given_up() {
            if is_websocket && !down.is_mute {
                down.say_last(&mut client.transport, cx, || close_frame(SERVICE_RESTART, None));
                up.say_last(&mut dyno, cx, || masked_close(&worker));
            }
            return Poll::Ready(Some(Refusal::ForcedClose));
        }
        let before = down.moved + up.moved;
        loop {
            let upward = up.poll(&worker, &mut client.transport, &mut dyno, cx);
            let downward = down.poll(&worker, &mut dyno, &mut client.transport, cx);
            // The dyno's end ends the pipe once its last bytes are with the client; the client's end is passed
            // on, and the dyno may still answer.
            if upward.is_err() || downward.is_err() || (down.ended && down.pending.is_empty()) {
                return Poll::Ready(None);
            }
            let now = worker.now();
            if ticket.is_over() || farewell.is_over(now) {
                up.say_last(&mut dyno, cx, || masked_close(&worker));
                client.transport.shut_write();
                return Poll::Ready(None);
            }
            let must_close = is_websocket && (leased.is_closed() || worker.is_draining());
            if !(must_close && farewell.advance(&worker, timeouts.ws_drain)) {
                break;
            }
            down.end_with(close_frame(SERVICE_RESTART, None));
        }
        let moved = down.moved + up.moved - before;
        if moved > 0 {
            silent_at = worker.read_clock().deadline(timeouts.rolling);
        }
        if worker.now().tick() >= silent_at {
            return Poll::Ready(Some(Refusal::IdleConnection));
        }
        client.deadline.set(farewell.next().map_or(silent_at, |tick| tick.min(silent_at)));
        if moved > limits::FAIR_SHARE {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    Piped { to_client: down.bytes, refusal }
}

fn masked_close(worker: &Worker) -> Vec<u8> {
    let [a, b, c, d, ..] = worker.random.number().to_le_bytes();
    close_frame(SERVICE_RESTART, Some([a, b, c, d]))
}

/// How far the end of a WebSocket is whose dyno drains, or whose daemon stops.
enum Farewell {
    None,
    /// It is told at this tick: not all clients come back at once.
    At(Tick),
    /// It was told, and both sides have until this tick to say goodbye.
    Said(Tick),
}

impl Farewell {
    /// Goes on as far as the clock says. `true`: it is to be told now.
    fn advance(&mut self, worker: &Worker, within: Duration) -> bool {
        let now = worker.read_clock();
        let latest = now.deadline(within).min(worker.last_farewell());
        // One that has been given longer has less time once the daemon stops.
        if matches!(self, Self::None) || matches!(self, Self::At(tick) if *tick > latest) {
            let part = worker.random.number() as f64 / u64::MAX as f64;
            let ticks = f64::from(latest.saturating_sub(now.tick())) * part;
            *self = Self::At(now.tick() + ticks.ceil() as Tick);
        }
        let is_due = matches!(self, Self::At(tick) if *tick <= now.tick());
        if is_due {
            *self = Self::Said(now.deadline(limits::WEBSOCKET_CLOSE));
        }
        is_due
    }

    fn is_over(&self, now: Moment) -> bool {
        matches!(self, Self::Said(tick) if *tick <= now.tick())
    }

    /// When it goes on.
    fn next(&self) -> Option<Tick> {
        match self {
            Self::None => None,
            Self::At(tick) | Self::Said(tick) => Some(*tick),
        }
    }
}

/// One of the two ways of a pipe.
struct Direction {
    pending: Pending,
    /// The reading side has ended.
    ended: bool,
    /// Bytes that were passed on.
    bytes: u64,
    /// Bytes that moved on either socket.
    moved: usize,
    /// Where frames end, where there are any.
    frames: Option<Frames>,
    /// Ours, as soon as it can stand between two of theirs; nothing is passed on behind it.
    last_frame: Option<Vec<u8>>,
    /// That has been said.
    is_mute: bool,
}

impl Direction {
    /// `first`: what is on its way already.
    fn new(is_websocket: bool, first: &[u8]) -> Self {
        let frames = is_websocket.then(|| {
            let mut frames = Frames::default();
            frames.pass(first);
            frames
        });
        Self {
            pending: Pending::default(),
            ended: false,
            bytes: first.len() as u64,
            moved: 0,
            frames,
            last_frame: None,
            is_mute: false,
        }
    }

    /// Says this at the end of the frame that is under way, in place of all that comes later. Who has said such a
    /// thing by itself says nothing more.
    fn end_with(&mut self, frame: Vec<u8>) {
        match &self.frames {
            Some(frames) if frames.has_closed() => {}
            Some(frames) if frames.is_between() => {
                self.pending.push(&frame);
                self.is_mute = true;
            }
            _ => self.last_frame = Some(frame),
        }
    }

    /// Says this now, where it can stand, and no more than the socket takes.
    fn say_last(
        &mut self,
        to: &mut impl Sink,
        cx: &mut Context<'_>,
        frame: impl FnOnce() -> Vec<u8>,
    ) {
        if self.frames.as_ref().is_some_and(|it| it.is_between() && !it.has_closed()) {
            // Whoever does not take it reads the end of the connection instead.
            let _ = self.pending.send(to, cx, &frame(), &mut self.moved);
        }
        to.shut_write();
    }

    fn poll(
        &mut self,
        worker: &Worker,
        from: &mut impl Source,
        to: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let start = self.moved;
        loop {
            if !self.pending.is_empty() {
                match self.pending.poll_flush(to, cx, &mut self.moved) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return Ok(()),
                }
                if self.ended {
                    to.shut_write();
                }
            }
            // A long transfer leaves room for others; the caller has the task woken again.
            if self.ended || self.moved - start > limits::FAIR_SHARE {
                return Ok(());
            }
            let scratch = &mut worker.scratch.borrow_mut()[..limits::READ_FIRST];
            match from.poll_read(cx, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    to.shut_write();
                    return Ok(());
                }
                Poll::Ready(Ok(count)) => {
                    self.moved += count;
                    self.pass_on(&scratch[..count], to, cx)?;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }

    fn pass_on(
        &mut self,
        bytes: &[u8],
        to: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if self.is_mute {
            return Ok(());
        }
        let mut passed = bytes;
        match (&mut self.frames, &mut self.last_frame) {
            (None, _) => {}
            (Some(frames), None) => frames.pass(bytes),
            (Some(frames), Some(last)) => {
                if let Some(end) = frames.pass_frame(bytes) {
                    passed = &bytes[..end];
                    self.bytes += passed.len() as u64;
                    let mut ending = passed.to_vec();
                    // The peer may have said it by itself, with this very frame.
                    if !frames.has_closed() {
                        ending.append(last);
                    }
                    self.is_mute = true;
                    return self.pending.send(to, cx, &ending, &mut self.moved);
                }
            }
        }
        self.bytes += passed.len() as u64;
        self.pending.send(to, cx, passed, &mut self.moved)
    }
}
