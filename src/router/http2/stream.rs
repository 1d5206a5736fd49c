//! The client's side of an exchange on one stream.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use crate::router::duplex::{Sink, Source};
use crate::router::http2::head::{AnswerHead, print_trailers, read_trailers};
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
    /// What is written next is the last, and these go behind it.
    last: Option<Vec<u8>>,
}

/// How far the answer is.
enum Answer {
    /// No final head yet.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    /// Its last frame, or a reset, has been given to the connection.
    Ended,
}

impl Stream {
    pub(super) fn new(
        connection: Rc<Shared>,
        body: RecvStream,
        answer: SendResponse<Bytes>,
    ) -> Self {
        connection.stream_began();
        Self { connection, body, input: Bytes::new(), answer: Answer::Head(answer), last: None }
    }

    /// Sends the last of the answer.
    fn end(&mut self, data: Bytes) {
        let Answer::Body(mut stream) = std::mem::replace(&mut self.answer, Answer::Ended) else {
            return;
        };
        let trailers = self.last.take().unwrap_or_default();
        // A stream or connection that has gone takes nothing more, and whoever polls hears of it.
        if trailers.is_empty() {
            let _ = stream.send_data(data, true);
        } else {
            if !data.is_empty() {
                let _ = stream.send_data(data, false);
            }
            let _ = stream.send_trailers(read_trailers(&trailers));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.stream_ended();
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
    /// What is taken is copied into frames, as much as the client's windows and our own bound on what
    /// waits in the connection allow.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Answer::Body(stream) = &mut self.answer else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        stream.reserve_capacity(bytes.len());
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = stream.capacity().min(bytes.len());
        let data = Bytes::copy_from_slice(&bytes[..count]);
        if count == bytes.len() && self.last.is_some() {
            self.end(data);
        } else {
            stream.send_data(data, false).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is in the connection's hands, and bounded.
        Poll::Ready(Ok(()))
    }

    fn shut_write(&mut self) {
        self.end(Bytes::new());
    }
}

impl Transport for Stream {
    const FRAMED: bool = false;
    const IS_CONNECTION: bool = false;
    const PROTOCOL: &'static str = "http2.0";

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
            Answer::Head(answer) => answer.poll_reset(cx),
            Answer::Body(stream) => stream.poll_reset(cx),
            Answer::Ended => return Poll::Pending,
        };
        reset.map(|_| Peek::Reset)
    }

    fn answer(
        &mut self,
        _: &mut Vec<u8>,
        kind: AnswerKind,
        compose: impl FnOnce(&mut dyn FieldSink),
    ) {
        let Answer::Head(answer) = &mut self.answer else { return };
        let mut head = AnswerHead::default();
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
            Ok(stream) if !whole => Answer::Body(stream),
            Ok(_) | Err(_) => Answer::Ended,
        };
    }

    fn ends(&mut self, trailers: &[u8]) {
        self.last = Some(trailers.to_vec());
    }

    fn finish(&mut self) {
        self.end(Bytes::new());
    }

    fn break_off(&mut self, _: bool) {
        match std::mem::replace(&mut self.answer, Answer::Ended) {
            Answer::Head(mut answer) => answer.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(mut stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            Answer::Ended => {}
        }
    }
}
