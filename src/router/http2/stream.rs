//! The client's side of an exchange on one stream.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};

use crate::router::duplex::{Sink, Source};
use crate::router::http2::head::{AnswerHead, print_trailers};
use crate::router::http2::outgoing::Outgoing;
use crate::router::http2::shared::Shared;
use crate::router::security::Security;
use crate::router::stream::Peek;
use crate::router::transport::{AnswerKind, FieldSink, Transport};
use crate::wire::{BadChunk, RequestBody};

/// One stream: a request that comes, an answer that goes.
pub(crate) struct Stream {
    connection: Rc<Shared>,
    body: RecvStream,
    /// Of a DATA frame, what has not been taken.
    input: Bytes,
    answer: Answer,
}

/// How far the answer is.
enum Answer {
    /// No final head yet.
    Head(SendResponse<Bytes>),
    Body(Outgoing),
    /// None will come, or its head was all of it.
    Ended,
}

impl Stream {
    pub(super) fn new(
        connection: Rc<Shared>,
        body: RecvStream,
        answer: SendResponse<Bytes>,
    ) -> Self {
        connection.stream_began();
        Self { connection, body, input: Bytes::new(), answer: Answer::Head(answer) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.stream_ended(self.body.stream_id());
    }
}

impl Source for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.input.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => self.input = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(0)),
            }
        }
        let count = self.input.len().min(buffer.len());
        self.input.copy_to_slice(&mut buffer[..count]);
        // The client may send as much again; of a stream that has gone there is no window to open.
        let _ = self.body.flow_control().release_capacity(count);
        Poll::Ready(Ok(count))
    }
}

impl Sink for Stream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Answer::Body(body) = &mut self.answer else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let count = ready!(body.poll_write(cx, bytes))?;
        self.connection.flood.borrow_mut().sent_piece();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is in the connection's hands, and bounded.
        Poll::Ready(Ok(()))
    }

    fn shut_write(&mut self) {
        self.finish();
    }
}

impl Transport for Stream {
    const FRAMED: bool = false;
    const IS_CONNECTION: bool = false;
    const PROTOCOL: &'static str = "http2.0";
    // RFC 8441 §5.
    const SWITCHED: u16 = 200;

    fn security(&self) -> Option<Security<'_>> {
        self.connection.security()
    }

    fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    fn unread(&mut self, rest: &[u8]) {
        // A body is as long as it said, or the h2 crate has reset its stream.
        debug_assert!(rest.is_empty(), "a stream has one request");
    }

    fn connection(&self) -> Option<u32> {
        Some(self.connection.number)
    }

    fn is_followed(&self, _: RequestBody) -> bool {
        false
    }

    fn take_body(&mut self, _: RequestBody) -> bool {
        self.body.is_end_stream()
    }

    fn trailers(&mut self) -> Result<Vec<u8>, BadChunk> {
        // They are here: the body's end has been read, and they came with it.
        match self.body.poll_trailers(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(trailers))) => print_trailers(&trailers),
            Poll::Ready(Ok(None) | Err(_)) | Poll::Pending => Ok(Vec::new()),
        }
    }

    fn poll_peek(&mut self, cx: &mut Context<'_>, _: &mut [u8]) -> Poll<Peek> {
        let reset = match &mut self.answer {
            Answer::Head(answer) => answer.poll_reset(cx).map(drop),
            Answer::Body(body) => body.poll_reset(cx),
            Answer::Ended => Poll::Pending,
        };
        reset.map(|()| Peek::Reset)
    }

    fn answer(
        &mut self,
        _: &mut Vec<u8>,
        kind: AnswerKind,
        compose: impl FnOnce(&mut dyn FieldSink),
    ) {
        let Answer::Head(answer) = &mut self.answer else { return };
        let mut head = AnswerHead::new();
        compose(&mut head);
        // Of a stream that has been reset the exchange hears when it polls.
        let (response, whole) = match kind {
            AnswerKind::Interim => {
                let _ = answer.send_informational(head.into_response());
                return;
            }
            AnswerKind::Final { whole } => (head.into_response(), whole),
            AnswerKind::Switching => (head.into_switching(), false),
        };
        self.answer = match answer.send_response(response, whole) {
            Ok(stream) if !whole => Answer::Body(Outgoing::new(stream)),
            Ok(_) | Err(_) => Answer::Ended,
        };
    }

    fn ends(&mut self, trailers: &[u8]) {
        if let Answer::Body(body) = &mut self.answer {
            body.ends(trailers);
        }
    }

    fn finish(&mut self) {
        if let Answer::Body(body) = &mut self.answer {
            body.end(Bytes::new());
        }
    }

    fn break_off(&mut self, _: bool) {
        match &mut self.answer {
            Answer::Head(answer) => answer.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(body) => body.reset(Reason::INTERNAL_ERROR),
            Answer::Ended => return,
        }
        self.answer = Answer::Ended;
    }
}
