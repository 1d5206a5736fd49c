//! A body on its way out on a stream, a request's or an answer's.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::router::http2::head::read_trailers;

/// What is left to be sent on a stream.
pub(super) struct Outgoing {
    /// None once its last frame, or a reset, has been given to the connection.
    stream: Option<SendStream<Bytes>>,
    /// What is written next is the last, and these go behind it.
    last: Option<Vec<u8>>,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream: Some(stream), last: None }
    }

    /// The bytes that are written next, all of them, are the last; `trailers` go behind.
    pub(super) fn ends(&mut self, trailers: &[u8]) {
        self.last = Some(trailers.to_vec());
    }

    /// Whether everything but the last frame has been written.
    pub(super) fn is_ending(&self) -> bool {
        self.last.is_some()
    }

    /// What is taken is copied into frames, as much as the peer's windows and our own bound on what waits in
    /// the connection allow.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
        stream.reserve_capacity(bytes.len());
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(granted) => drop(granted.map_err(io::Error::other)?),
                None => return Poll::Ready(Err(gone())),
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

    /// Sends the last frame, with this in it. Later calls do nothing.
    pub(super) fn end(&mut self, data: Bytes) {
        let Some(mut stream) = self.stream.take() else { return };
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

    /// Ends the stream with an error, both ways.
    pub(super) fn reset(&mut self, reason: Reason) {
        if let Some(mut stream) = self.stream.take() {
            stream.send_reset(reason);
        }
    }

    /// Ready when the peer has reset the stream, or the connection has gone.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }
}
