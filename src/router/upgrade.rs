//! After 101: the two sockets are one pipe, whatever they speak (WebSocket mostly).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::config::limits;
use crate::router::client::Client;
use crate::router::duplex::{Sink, Source};
use crate::router::pending::Pending;
use crate::router::reply::Refusal;
use crate::router::transport::Transport;
use crate::router::worker::Worker;
use crate::table::Dyno;

/// How a pipe ended.
pub(crate) struct Piped {
    /// Bytes that the client was sent.
    pub(crate) to_client: u64,
    /// Silence on both sides (H15), or cut by the daemon (H24); `None` where one of them hung up.
    pub(crate) refusal: Option<Refusal>,
}

/// Carries bytes both ways until one side ends, both are silent for `rolling`, or the `leased` dyno is given up.
/// What the dyno sent behind its 101 goes first.
pub(crate) async fn pipe(
    client: &mut Client<impl Transport>,
    leased: &Dyno,
    mut dyno: impl Source + Sink,
    to_client: Vec<u8>,
    rolling: Duration,
) -> Piped {
    // `to_client` begins with the head of the 101 itself, which is no part of what is counted.
    let mut down = Direction::new(to_client);
    let mut up = Direction::new(Vec::new());
    client.deadline.set(client.worker.read_clock().deadline(rolling));
    let refusal = poll_fn(|cx| {
        if client.worker.is_stopping() || leased.is_given_up() {
            return Poll::Ready(Some(Refusal::ForcedClose));
        }
        let before = down.moved + up.moved;
        let upward = up.poll(&client.worker, &mut client.transport, &mut dyno, cx);
        let downward = down.poll(&client.worker, &mut dyno, &mut client.transport, cx);
        let moved = down.moved + up.moved - before;
        if moved > 0 {
            client.deadline.set(client.worker.read_clock().deadline(rolling));
        }
        // The dyno's end ends the pipe once its last bytes are with the client; the client's end is passed
        // on, and the dyno may still answer.
        if upward.is_err() || downward.is_err() || (down.ended && down.pending.is_empty()) {
            return Poll::Ready(None);
        }
        if client.deadline.is_due() {
            return Poll::Ready(Some(Refusal::IdleConnection));
        }
        if moved > limits::FAIR_SHARE {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    Piped { to_client: down.bytes, refusal }
}

/// One of the two ways of a pipe.
struct Direction {
    pending: Pending,
    /// The reading side has ended.
    ended: bool,
    /// Bytes that were read.
    bytes: u64,
    /// Bytes that moved on either socket.
    moved: usize,
}

impl Direction {
    fn new(first: Vec<u8>) -> Self {
        Self { pending: first.into(), ended: false, bytes: 0, moved: 0 }
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
                    self.bytes += count as u64;
                    self.moved += count;
                    self.pending.send(to, cx, &scratch[..count], &mut self.moved)?;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }
}
