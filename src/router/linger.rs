//! A dyno's half of an exchange whose client was answered 503, or left.
//!
//! The app works on; its answer is read to the end and thrown away, and its slot is kept until then, so that
//! the count of requests in flight tells the truth about a busy dyno.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::config::limits;
use crate::router::access_log::{Late, LateEnd};
use crate::router::clock::Moment;
use crate::router::deadlines::Deadline;
use crate::router::duplex::Source;
use crate::router::dyno_stream::DynoStream;
use crate::router::headers::RequestId;
use crate::router::lingers::Ticket;
use crate::router::worker::Worker;
use crate::table::{App, Lease, Slot};
use crate::wire::{BadResponse, ChunkedDecoder, Piece, ResponseBody, ResponseHead, ResponseHeads};

/// What is left of an exchange without its client.
pub(crate) struct Linger {
    pub(crate) app: Arc<App>,
    pub(crate) request_id: RequestId,
    pub(crate) is_head: bool,
    /// When the dyno was given the request.
    pub(crate) since: Moment,
    pub(crate) lease: Lease,
    /// What the request counts against, while the dyno works on it.
    pub(crate) slot: Option<Slot>,
    pub(crate) stream: DynoStream,
}

/// Leaves a dyno's half to a task of its own, for at most the app's `linger`.
pub(crate) fn spawn(worker: &Rc<Worker>, linger: Linger) {
    let dyno = linger.lease.dyno().clone();
    let ticket = worker.lingers.enter(dyno.id());
    if dyno.lingering().fetch_add(1, Ordering::Relaxed) >= limits::LINGERS_MAX {
        worker.lingers.close_oldest(dyno.id());
    }
    if worker.is_stopping() {
        ticket.end("stop");
    }
    let deadline = worker.deadlines.slot();
    deadline.set(worker.now().deadline(linger.app.policy.timeouts.linger));
    let Linger { lease, slot, .. } = linger;
    let guard = Guard { worker: worker.clone(), ticket, lease, slot };
    let answer = Reading {
        stream: linger.stream,
        is_head: linger.is_head,
        status: None,
        bytes: 0,
        state: State::default(),
    };
    let task = live(guard, answer, deadline, linger.app, linger.request_id, linger.since);
    // Not awaited: it ends by its deadline, by its ticket, or with its worker.
    drop(tokio::task::spawn_local(task));
}

/// Holds the slot, and what counts the linger; undone on drop, also when a panic unwinds.
struct Guard {
    worker: Rc<Worker>,
    ticket: Rc<Ticket>,
    lease: Lease,
    #[expect(dead_code, reason = "its drop is what counts")]
    slot: Option<Slot>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.lease.dyno().lingering().fetch_sub(1, Ordering::Relaxed);
        self.worker.lingers.leave(&self.ticket);
    }
}

async fn live(
    guard: Guard,
    mut answer: Reading,
    deadline: Deadline,
    app: Arc<App>,
    request_id: RequestId,
    since: Moment,
) {
    let worker = guard.worker.clone();
    let closed = poll_fn(|cx| {
        deadline.attach(cx.waker());
        let closed =
            guard.ticket.ended(cx.waker()).or_else(|| deadline.is_due().then_some("timeout"));
        match (answer.poll(&worker, cx), closed) {
            (Poll::Ready(()), _) => Poll::Ready(None),
            (Poll::Pending, Some(why)) => Poll::Ready(Some(why)),
            (Poll::Pending, None) => Poll::Pending,
        }
    })
    .await;
    let now = worker.read_clock();
    let end = closed.map_or(LateEnd::Ended { after: now.since(since) }, LateEnd::Closed);
    worker.counters(Some(&app)).late();
    if let (Some(load), None) = (&app.load, closed) {
        load.late(worker.index);
    }
    let Reading { status, bytes, .. } = answer;
    let dyno = guard.lease.dyno().clone();
    // The slot is given back before the line says so.
    drop(guard);
    let late =
        Late { app: app.name.as_str(), end, status, bytes, request_id: &request_id, dyno: &dyno };
    worker.access_log.borrow_mut().late(&late, now);
}

/// An answer that is read and thrown away.
struct Reading {
    stream: DynoStream,
    is_head: bool,
    status: Option<u16>,
    bytes: u64,
    state: State,
}

enum State {
    Head(ResponseHeads),
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(ResponseHeads::default())
    }
}

impl Reading {
    /// Ready when the answer is whole, or will never be.
    fn poll(&mut self, worker: &Worker, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..limits::FAIR_SHARE / limits::READ_FIRST {
            let scratch = &mut worker.scratch.borrow_mut()[..limits::READ_FIRST];
            match self.stream.poll_read(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) if self.take(&scratch[..count]) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes bytes; `true` when the answer is whole, or cannot be read.
    fn take(&mut self, bytes: &[u8]) -> bool {
        match &mut self.state {
            State::Head(heads) => {
                let mut end = None;
                let each = |head: &ResponseHead<'_, '_>| {
                    end = Some((head.status, head.body));
                    Ok::<_, BadResponse>(())
                };
                match (heads.take(bytes, self.is_head, each), end) {
                    (Ok(Some(rest)), Some((status, body))) => self.begin_body(status, body, rest),
                    (Ok(_), _) => false,
                    (Err(_), _) => true,
                }
            }
            State::Length(left) => {
                let count = (bytes.len() as u64).min(*left);
                self.bytes += count;
                *left -= count;
                *left == 0
            }
            State::Chunked(decoder) => {
                let mut rest = bytes;
                loop {
                    match decoder.next(&mut rest) {
                        Ok(Piece::Data(data)) => self.bytes += data.len() as u64,
                        Ok(Piece::More) => return false,
                        Ok(Piece::End) | Err(_) => return true,
                    }
                }
            }
            State::UntilClose => {
                self.bytes += bytes.len() as u64;
                false
            }
        }
    }

    /// The final head has come, and the first bytes behind it.
    fn begin_body(&mut self, status: u16, body: ResponseBody, bytes: &[u8]) -> bool {
        self.status = Some(status);
        self.state = match body {
            ResponseBody::None | ResponseBody::Length(0) => return true,
            ResponseBody::Length(length) => State::Length(length),
            ResponseBody::Chunked => State::Chunked(ChunkedDecoder::new()),
            ResponseBody::UntilClose => State::UntilClose,
        };
        self.take(bytes)
    }
}
